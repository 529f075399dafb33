"""Links to workers: who may connect, who is waited for, and who is cut off."""

import logging
import os
from collections.abc import Iterator

import pytest

from feeder.support.feeding import INSTANCE, Feeding, Played
from gaiod.feeder import worker_links as module
from gaiod.feeder.worker_links import BEHIND_BYTES
from gaiod.log import rate_limit

MESSAGE = bytes(32 * 1024)


@pytest.fixture
def feeding() -> Iterator[Feeding]:
    """Router of one listener, `ticks`, whose source `one` runs."""
    feeding = Feeding()
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    yield feeding
    feeding.close()


def _publish_until_behind(feeding: Feeding) -> int:
    """Publish until a link is behind; return how many messages that took."""
    count = 0
    while not feeding.feeds.is_behind:
        Played.made["one"].publish(MESSAGE)
        count += 1
        assert count * len(MESSAGE) < 8 * BEHIND_BYTES
        feeding.step()
    return count


# -- hello -------------------------------------------------------------------------------------------------


def test_worker_is_told_its_feeds_and_gets_nothing_from_before(feeding: Feeding) -> None:
    Played.made["one"].publish(b"before")
    worker = feeding.worker()
    worker.say(ticks="key")
    answer, instance = feeding.answer(worker)
    assert set(answer) == {"ticks"}
    assert instance == INSTANCE
    assert feeding.records(worker) == [(1, b"")]
    Played.made["one"].publish(b"after")
    assert feeding.messages(worker, 1) == [(2, b"after")]


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", b'{"gaiod_feed": 1, "instance": 0, "feeds": {}}\n', b'{"gaiod_feed": 9}\n'],
)
def test_who_speaks_something_else_is_closed_and_the_others_are_not(
    feeding: Feeding, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    good, bad = feeding.worker(ticks="key"), feeding.worker()
    bad.sock.sendall(said)
    feeding.step_until(lambda: bad.is_closed, "the end of the other")
    assert "a worker is not understood, and cut off" in caplog.text
    Played.made["one"].publish(b"on")
    assert feeding.messages(good, 1) == [(1, b"on")]


def test_worker_that_says_more_than_hello_is_cut_off(feeding: Feeding) -> None:
    worker = feeding.worker(ticks="key")
    worker.sock.sendall(b"more")
    feeding.step_until(lambda: worker.is_closed, "the end of the link")


def test_who_says_nothing_is_closed(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELLO_TIMEOUT_S", 0.02)
    worker = feeding.worker()
    feeding.step_until(lambda: worker.is_closed, "the end of the link")


def test_another_user_is_closed_unheard(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "peer_uid", lambda fd: os.geteuid() + 1)
    worker = feeding.worker()
    feeding.step_until(lambda: worker.is_closed, "the end of the link")
    assert f"user {os.geteuid() + 1} connected as if it were a worker" in caplog.text
    assert feeding.feeds.links.feeds == set()


def test_other_users_cannot_fill_the_log(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "peer_uid", lambda fd: os.geteuid() + 1)
    monkeypatch.setattr(rate_limit, "LIMITED_INTERVAL_S", 1e9)
    for _ in range(20):
        stranger = feeding.worker()
        feeding.step_until(lambda: stranger.is_closed, "the end of the link")  # noqa: B023 - called in this round
    assert len(caplog.records) == 1


# -- who is behind -------------------------------------------------------------------------------------------


def test_nobody_is_behind_where_there_are_no_workers(feeding: Feeding) -> None:
    for _ in range(1000):
        Played.made["one"].publish(MESSAGE)
    assert not feeding.feeds.is_behind


def test_worker_that_is_slow_is_waited_for_until_it_has_taken_most(feeding: Feeding) -> None:
    worker = feeding.worker(ticks="key")
    count = _publish_until_behind(feeding)
    assert len(feeding.messages(worker, count)) == count
    assert not feeding.feeds.is_behind


def test_worker_that_takes_nothing_is_not_waited_for_and_gets_everything_later(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hung, other = feeding.worker(ticks="key"), feeding.worker(ticks="key")
    count = _publish_until_behind(feeding)
    monkeypatch.setattr(module, "STALLED_S", 0.05)
    feeding.messages(other, count)
    feeding.step_until(lambda: not feeding.feeds.is_behind, "nobody being waited for")
    assert "1 of 2 workers take nothing" in caplog.text
    Played.made["one"].publish(b"to all")
    assert feeding.messages(other, 1) == [(count + 1, b"to all")]
    assert [sequence for sequence, _ in feeding.messages(hung, count + 1)] == list(range(1, count + 2))


def test_worker_for_which_too_much_waits_is_cut_off_and_the_others_are_not(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LINK_MAX_BYTES", 4 * BEHIND_BYTES)
    hung, other = feeding.worker(ticks="key"), feeding.worker(ticks="key")
    sent = taken = 0
    while "is cut off" not in caplog.text:
        Played.made["one"].publish(MESSAGE)
        sent += 1
        taken += len(feeding.messages(other, 1))
        assert sent * len(MESSAGE) < 16 * BEHIND_BYTES
    taken += len(feeding.messages(other, sent - taken)) if taken < sent else 0
    assert taken == sent
    assert not feeding.feeds.is_behind
    while hung.look():
        pass
    feeding.step_until(lambda: hung.is_closed, "the end of its link")


def test_link_is_forgotten_when_its_worker_ends_or_is_killed(
    feeding: Feeding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        worker = feeding.worker(ticks="key")
        _publish_until_behind(feeding)
        worker.sock.close()
        feeding.step_until(lambda: not feeding.feeds.links.feeds, "the end of its link")
        assert not feeding.feeds.is_behind
    assert caplog.text == ""
