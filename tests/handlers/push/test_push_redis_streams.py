"""Streams of a real Redis: where reading begins, goes on after whatever happened, and what counts as a gap."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e.support.redis import RedisServer
from e2e.support.waiting import wait_until
from feeder.support.outlets import FakeOutlet
from gaiod.handlers.push import Push
from gaiod.handlers.push.sources import source_of
from gaiod.handlers.push.sources.redis import streams
from gaiod.handlers.push.sources.redis.streams import EntryId, Position, StreamState

from gaiod.plugins import build_options

Serve = Callable[..., RedisServer]
Start = Callable[..., None]
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
"""Makes a Redis that is killed lose nothing."""


@pytest.fixture
def start(outlet: FakeOutlet) -> Iterator[Start]:
    """A starter of sources of a listener where clients choose topics; it waits until the source is up."""

    def start(server: RedisServer, *names: str, **values: Any) -> None:
        options = build_options(Push, {"source": {"redis": server.url, "streams": names, **values}, "subscribe": {}})
        outlet.start(source_of(options.feeds[0], options, Push.encode_message))
        wait_until(lambda: outlet.up, "the source being up")

    yield start


def restart(outlet: FakeOutlet, server: RedisServer, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Kill a server, start it again, and wait until it is read again; what is done meanwhile comes before that."""
    before = outlet.reconnects
    with outlet.held_up(streams.Streams, "read"):
        server.kill()
        wait_until(lambda: not outlet.up, "the source being down")
        server.start()
        meanwhile()
    wait_until(lambda: outlet.reconnects > before, "the next connection")


def test_entries_that_are_added_are_published_under_the_streams_names(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    server.add("a", "before")
    start(server, "a", "b")
    server.add("a", "1")
    outlet.expect(("a", b"1"))
    server.add("b", "2", "3")
    outlet.expect(("b", b"2"), ("b", b"3"))
    assert outlet.gaps == 0


def test_field_that_is_the_message_has_a_name(outlet: FakeOutlet, start: Start, serve_redis: Serve) -> None:
    server = serve_redis()
    start(server, "a", field="body")
    server.add("a", "no message")
    server.add("a", "1", field="body")
    outlet.expect(("a", b"1"))
    (reason,) = outlet.gap_reasons
    assert re.fullmatch(r"stream a: entry [0-9]+-0 has no field body", reason)


def test_source_has_a_topic_of_its_own(outlet: FakeOutlet, start: Start, serve_redis: Serve) -> None:
    server = serve_redis()
    start(server, "a", topic="t")
    server.add("a", "1")
    outlet.expect(("t", b"1"))


def test_reading_goes_on_where_it_was_after_the_server_was_killed(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis(*KEPT)
    start(server, "a")
    server.add("a", "1", "2")
    outlet.expect_lines("a", b"1", b"2")
    restart(outlet, server, lambda: server.add("a", *map(str, range(3, 1000))))
    outlet.expect_lines("a", *(b"%d" % number for number in range(3, 1000)))
    assert (outlet.gaps, outlet.reconnects) == (0, 1)


def test_entries_that_were_trimmed_before_they_were_read_are_a_gap(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis(*KEPT)
    start(server, "a")
    server.add("a", "1")
    outlet.expect_lines("a", b"1")

    def add_and_trim() -> None:
        server.add("a", *map(str, range(2, 10)))
        server.do("XTRIM", "a", "MAXLEN", 3)

    restart(outlet, server, add_and_trim)
    outlet.expect_lines("a", b"7", b"8", b"9")
    assert outlet.gaps == 1
    restart(outlet, server)
    assert outlet.gaps == 1, "counted once"


def test_trimming_what_was_read_is_no_gap(outlet: FakeOutlet, start: Start, serve_redis: Serve) -> None:
    server = serve_redis(*KEPT)
    start(server, "a")
    server.add("a", "1", "2", "3")
    outlet.expect_lines("a", b"1", b"2", b"3")
    server.do("XTRIM", "a", "MAXLEN", 0)
    restart(outlet, server)
    server.add("a", "4")
    outlet.expect_lines("a", b"4")
    assert outlet.gaps == 0


def test_stream_that_a_server_without_memory_has_lost_is_a_gap_and_read_from_its_start(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server, "a")
    server.do("XADD", "a", "9999999999999-5", "message", "1")  # a clock that was put right since
    outlet.expect_lines("a", b"1")
    restart(outlet, server, lambda: server.add("a", "2", "3"))
    outlet.expect_lines("a", b"2", b"3")
    assert (outlet.gaps, outlet.resets) == (1, ["anew"])


def test_another_source_goes_on_where_the_one_before_was(outlet: FakeOutlet, start: Start, serve_redis: Serve) -> None:
    server = serve_redis()
    server.add("a", "before")
    start(server, "a")
    for number in b"1", b"2":
        outlet.restart()
        server.add("a", number.decode())
        start(server, "a", "b", topic="t")
        outlet.expect_lines("t", number)
    assert outlet.gaps == 0


def test_redis_that_was_restored_doubles_nothing_and_its_next_entries_are_read(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server, "a")
    server.add("a", "1", "2")
    server.do("SAVE")
    server.add("a", "3", "4")
    outlet.expect_lines("a", b"1", b"2", b"3", b"4")
    restart(outlet, server)
    assert (outlet.gaps, outlet.resets) == (1, ["restored"])
    server.add("a", "5")
    outlet.expect_lines("a", b"5")
    assert "stream a is as it was earlier" in outlet.gap_reasons[0]


def test_stream_that_was_flushed_is_read_from_its_first_entry_on(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server, "a")
    server.do("XADD", "a", "9-1", "message", "1")
    outlet.expect_lines("a", b"1")
    outlet.restart()
    server.do("FLUSHALL")
    server.do("XADD", "a", "8-1", "message", "2")
    start(server, "a")
    outlet.expect_lines("a", b"2")
    assert (outlet.gaps, outlet.resets) == (1, ["anew"])


def test_stream_that_does_not_exist_yet_is_read_from_its_start(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server, "a")
    server.do("XADD", "a", "0-1", "message", "1")
    outlet.expect_lines("a", b"1")
    assert outlet.gaps == 0


@pytest.mark.parametrize(("limit", "value"), [("BATCH", 2), ("BEHIND_S", 0.0)])
def test_reader_that_is_overtaken_while_workers_are_behind_counts_a_gap(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(streams, limit, value)
    server = serve_redis()
    start(server, "a")
    outlet.be_behind(True)
    server.add("a", "1", "2")
    outlet.step_until(lambda: outlet.threads, "the reader waiting with the first")
    server.add("a", "3", "4", "5")
    server.do("XTRIM", "a", "MAXLEN", 1)
    outlet.be_behind(False)
    outlet.expect_lines("a", b"1", b"2", b"5")
    assert outlet.gaps == 1


def test_key_that_is_no_stream_is_told_and_tried_again(
    outlet: FakeOutlet, serve_redis: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_redis()
    server.do("SET", "a", "text")
    options = build_options(Push, {"source": {"redis": server.url, "streams": ["a"]}})
    outlet.start(source_of(options.feeds[0], options, Push.encode_message))
    wait_until(lambda: "WRONGTYPE" in caplog.text, "the complaint")
    server.do("DEL", "a")
    wait_until(lambda: outlet.up, "the source being up")


# -- positions -----------------------------------------------------------------------------------------------


def state(last: int, first: int | None, length: int, added: int | None) -> StreamState:
    """Return a stream whose entries have whole numbers as ids."""
    return StreamState(EntryId(last, 0), None if first is None else EntryId(first, 0), length, added)


def position(last: int, added: int | None, first: int | None = None) -> Position:
    """Return the position of a reader that has read up to an entry, and seen so many added, the first one perhaps."""
    return Position(EntryId(last, 0), added, None if first is None else EntryId(first, 0), "run")


@pytest.mark.parametrize(
    ("read", "now", "found"),
    [
        ((5, 5), state(5, 1, 5, 5), None),  # nothing new
        ((5, 5), state(9, 1, 9, 9), None),
        ((5, 5), state(9, 5, 5, 9), None),  # trimmed, not yet the last that was read
        ((5, 5), state(9, 6, 4, 9), None),  # trimmed exactly to it
        ((5, 5), state(9, 8, 2, 9), "gap"),
        ((5, None), state(9, 6, 4, None), "gap"),  # an old Redis: nobody knows
        ((5, None), state(9, 5, 5, None), None),
        ((5, 5), state(5, None, 0, 5), None),  # all was read, and deleted
        ((5, 5), state(9, None, 0, 9), "gap"),  # deleted unread
        ((5, 5), state(3, 1, 3, 3), "anew"),  # another stream
        ((5, 5), state(9, 6, 1, 1), "anew"),  # another stream, with later ids
        ((5, 5), state(0, None, 0, 0), "anew"),  # deleted
        ((5, 5, 1), state(9, 2, 8, 8), "anew"),  # another stream, which has more entries by now
    ],
)
def test_gap_is_what_was_added_and_is_not_there(
    read: tuple[int, int | None], now: StreamState, found: str | None
) -> None:
    place = position(*read)
    assert place.follow(now, "run") == found
    if found == "anew":
        assert place.id == EntryId(0, 0)
    assert place.follow(now, "run") is None or now.added is None, "a gap is told once"


@pytest.mark.parametrize(
    ("read", "now", "found"),
    [
        ((5, 5), state(5, 1, 5, 5), None),  # it has lost nothing
        ((5, 5), state(3, 1, 3, 3), "restored"),
        ((5, None), state(3, 1, 3, None), "restored"),
        ((5, 5, 1), state(3, 1, 3, 3), "restored"),
        ((5, 5, 1), state(3, 2, 2, 3), "restored"),  # it had been trimmed
        ((5, 5), state(8, 1, 4, 4), "restored"),  # and something was added since
        ((5, 5, 1), state(3, 2, 2, 2), "anew"),  # not what was read first
        ((5, 5), state(0, None, 0, 0), "anew"),
        ((5, 5), state(9, 8, 2, 2), "anew"),
        ((5, 5, 1), state(9, 8, 7, 7), "anew"),
    ],
)
def test_restarted_redis_is_as_it_was_earlier_or_another_one(
    read: tuple[int, int | None], now: StreamState, found: str | None
) -> None:
    place = position(*read)
    assert place.follow(now, "run 2") == found
    if found == "restored":
        assert place.id == min(now.last, EntryId(5, 0))
    elif found == "anew":
        assert place.id == EntryId(0, 0)
    assert place.follow(now, "run 2") is None, "told once"


@pytest.mark.parametrize("place", [position(5, 7, 3), position(5, None), Position.behind(state(0, None, 0, 0), "")])
def test_position_outlives_the_process_as_a_text(place: Position) -> None:
    assert str(Position.parse(str(place))) == str(place)


def test_first_entry_that_was_ever_added_is_remembered() -> None:
    place = Position.behind(state(0, None, 0, 0), "run")
    place.read(EntryId(7, 0))
    place.read(EntryId(8, 0))
    assert str(place) == "8-0 2 7-0 run"


def test_ids_are_compared_as_numbers() -> None:
    assert EntryId.parse(b"9-10") > EntryId.parse(b"9-9")
    assert str(EntryId.parse(b"1700000000000-3")) == "1700000000000-3"
