"""Relays: every byte arrives, in order, once; the end is passed on; what waits has a bound."""

import errno
import os
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from core.support.relaying import STREAM, fill
from core.support.sockets import NewPair, pattern, receive, reset
from core.support.waiting import (
    LIMIT_S,
    assert_quiet,
    collect,
    collect_one,
    compiled_only,
    interpreted_only,
    later,
    soon,
)
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, RelaySinkError, UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

Ends = tuple[Conn, socket.socket, Conn, socket.socket]

KIB = 1024


@pytest.fixture
def ends(watcher: Watcher, stream_pair: NewPair) -> Ends:
    """A source with its far end, and a sink with its own: far_source -> source ~> sink -> far_sink."""
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    return watcher.delegate(source), far_source, watcher.delegate(sink), far_sink


def test_relay_completes_with_its_size_and_passes_the_end_on(watcher: Watcher, ends: Ends) -> None:
    source, far_source, sink, far_sink = ends
    assert source.relay_to(sink, context="relay") is source
    far_source.sendall(b"hello")
    far_source.shutdown(socket.SHUT_WR)
    result = collect_one(watcher)
    assert (result.operation, result.conn, result.context) == (OpType.RELAY, source, "relay")
    assert (result.size, result.error) == (5, None)
    assert receive(far_sink, 5) == b"hello"
    assert far_sink.recv(1) == b""
    assert source.at_eof
    assert (source.bytes_received, sink.bytes_sent, sink.pending_write_bytes) == (5, 5, 0)
    assert not source.closed
    assert not sink.closed


def test_side_that_has_spoken_last_is_unanswered(watcher: Watcher, ends: Ends) -> None:
    """It waits for an answer, however long that takes."""
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    sink.relay_to(source)
    assert (source.unanswered, sink.unanswered) == (False, False)
    for far, other, outcome in [(far_source, far_sink, (True, False)), (far_sink, far_source, (False, True))] * 2:
        far.sendall(b"word")
        while not select.select([other], [], [], 0)[0]:
            watcher.wait_io(0.01)
        assert receive(other, 4) == b"word"
        assert (source.unanswered, sink.unanswered) == outcome


@pytest.mark.parametrize(("forth", "back"), [(10 << 20, 3), (3, 10 << 20), (3 << 20, 2 << 20)])
def test_relays_of_both_directions_lose_nothing(watcher: Watcher, ends: Ends, forth: int, back: int) -> None:
    """A half-closed connection still carries the other direction."""
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    sink.relay_to(source)
    received: dict[socket.socket, bytes] = {}

    def talk(sock: socket.socket, data: bytes) -> None:
        reader = threading.Thread(target=lambda: received.update({sock: b"".join(iter(lambda: sock.recv(65536), b""))}))
        reader.start()
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        reader.join(LIMIT_S)

    talkers = [
        threading.Thread(target=talk, args=(sock, pattern(size)))
        for sock, size in ((far_source, forth), (far_sink, back))
    ]
    for talker in talkers:
        talker.start()
    done = collect(watcher, 2)
    for talker in talkers:
        talker.join(LIMIT_S)
    assert {result.conn: result.size for result in done} == {source: forth, sink: back}
    assert received == {far_sink: pattern(forth), far_source: pattern(back)}


def test_bytes_that_come_one_by_one_are_relayed_as_they_come(watcher: Watcher, ends: Ends) -> None:
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    for byte in b"one by one":
        far_source.sendall(bytes([byte]))
        assert watcher.wait_io(LIMIT_S / 1000) == []
        assert receive(far_sink, 1) == bytes([byte])


@pytest.mark.parametrize("limit", [4 * KIB, 256 * KIB])
def test_sink_that_does_not_take_bytes_pauses_the_source(watcher: Watcher, ends: Ends, limit: int) -> None:
    source, far_source, sink, far_sink = ends
    source.relay_to(sink, limit=limit)
    sent = fill(watcher, far_source)
    assert 0 < sink.pending_write_bytes <= limit
    assert sink.bytes_sent < sent
    assert sink.stalled_s(time.monotonic()) > 0
    far_source.shutdown(socket.SHUT_WR)
    taken = bytearray()
    while len(taken) < sent:
        taken += far_sink.recv(1 << 20)
        watcher.wait_io(0)
    assert bytes(taken) == STREAM[:sent]
    assert far_sink.recv(1) == b""
    assert sink.pending_write_bytes == 0


def test_pauses_and_their_time_are_counted_for_the_slow_side(stream_pair: NewPair) -> None:
    cells = memoryview(bytearray(8 * (counters.SIZE + 6))).cast("q")
    with Watcher(counters=cells) as watcher:
        source, far_source = stream_pair()
        sink, far_sink = stream_pair()
        source_conn, sink_conn = watcher.delegate(source), watcher.delegate(sink)
        sink_conn.traffic = counters.SIZE
        source_conn.relay_to(sink_conn)
        sent = fill(watcher, far_source)
        pauses, resumes = cells[counters.SIZE + counters.PAUSES], cells[counters.SIZE + counters.RESUMES]
        assert pauses == resumes + 1
        taken = 0
        while taken < sent:
            taken += len(far_sink.recv(1 << 20))
            watcher.wait_io(0)
        assert cells[counters.SIZE + counters.PAUSES] == cells[counters.SIZE + counters.RESUMES]
        assert cells[counters.SIZE + counters.PAUSED_NS] > 0
        assert cells[counters.SIZE + counters.SENT] == sent


def test_what_was_asked_for_before_is_done_first(watcher: Watcher, ends: Ends) -> None:
    """A handler looks at the first bytes, writes some of its own, and relays the rest."""
    source, far_source, sink, far_sink = ends
    source.read_full(bytearray(6))
    sink.write(b"PROXY ")
    source.relay_to(sink)
    far_source.sendall(b"headerpayload")
    done = collect(watcher, 2)
    assert {result.operation for result in done} == {OpType.READ, OpType.WRITE}
    watcher.wait_io(LIMIT_S / 1000)
    assert receive(far_sink, 13) == b"PROXY payload"


def test_relay_fails_when_the_source_is_reset(watcher: Watcher, tcp_pair: NewPair) -> None:
    source, far_source = tcp_pair()
    sink, _ = tcp_pair()
    conn = watcher.delegate(source)
    conn.relay_to(watcher.delegate(sink))
    reset(far_source)
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ECONNRESET


def test_relay_fails_when_the_sink_is_gone(watcher: Watcher, ends: Ends) -> None:
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    far_sink.close()
    until_s = time.monotonic() + LIMIT_S
    done: list[OpResult] = []
    while not done and time.monotonic() < until_s:
        far_source.sendall(b"more")
        done = watcher.wait_io(0.01)
    (result,) = done
    assert isinstance(result.error, RelaySinkError)
    assert result.error.errno in (errno.EPIPE, errno.ECONNRESET)
    assert not source.closed


@pytest.mark.parametrize("which", ["source", "sink"])
def test_relay_ends_once_when_one_end_is_closed(watcher: Watcher, ends: Ends, which: str) -> None:
    source, _, sink, _ = ends
    source.relay_to(sink)
    (source if which == "source" else sink).abort()
    result = collect_one(watcher)
    assert isinstance(result.error, ConnClosed)
    assert_quiet(watcher)


def test_relay_can_be_cancelled_or_have_a_deadline_and_be_followed_by_another(watcher: Watcher, ends: Ends) -> None:
    source, far_source, sink, far_sink = ends
    source.relay_to(sink, deadline=soon())
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    source.relay_to(sink, deadline=later())
    source.cancel(OpType.RELAY)
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED
    source.relay_to(sink)
    far_source.sendall(b"third")
    assert_quiet(watcher)
    assert receive(far_sink, 5) == b"third"


def test_relay_ends_with_its_watcher(watcher: Watcher, ends: Ends) -> None:
    source, _, sink, _ = ends
    source.relay_to(sink)
    sink.relay_to(source)
    watcher.close()
    assert [type(result.error) for result in collect(watcher, 2)] == [WatcherClosed, WatcherClosed]


def test_relay_that_makes_no_sense_is_refused_at_the_call(watcher: Watcher, ends: Ends, stream_pair: NewPair) -> None:
    source, _, sink, _ = ends
    other = watcher.delegate(stream_pair()[0])
    with pytest.raises(UsageError, match="itself"):
        source.relay_to(source)
    with pytest.raises(ValueError, match="limit=0"):
        source.relay_to(sink, limit=0)
    source.relay_to(sink)
    with pytest.raises(UsageError, match="is the sink of a relay already"):
        other.relay_to(sink)
    other.abort()
    with pytest.raises(ConnClosed):
        sink.relay_to(other)
    with Watcher() as another, pytest.raises(UsageError, match="belongs to another watcher"):
        another.relay(source, sink)


def test_connections_of_a_relay_are_not_forgotten_while_it_lasts(watcher: Watcher, stream_pair: NewPair) -> None:
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    watcher.delegate(source).relay_to(watcher.delegate(sink))
    far_source.sendall(b"still")
    assert_quiet(watcher)
    assert receive(far_sink, 5) == b"still"
    far_source.close()
    collect_one(watcher)
    assert_quiet(watcher)
    assert watcher.get_gc() == (2, 2)


@compiled_only
def test_watcher_gives_back_the_memory_that_its_relays_shared(stream_pair: NewPair) -> None:
    def relay_once() -> None:
        with Watcher() as watcher:
            source, far_source = stream_pair()
            watcher.delegate(source).relay_to(watcher.delegate(stream_pair()[0]))
            far_source.close()
            collect_one(watcher)

    def address_space() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    relay_once()
    before = address_space()
    for _ in range(50):
        relay_once()
    assert address_space() - before < 50 * 256 * KIB / 2


@interpreted_only
def test_many_relays_have_their_turn_in_one_pass(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing is read in a pass says nothing of how many may have their turn in the next one."""
    far_sources = []
    for _ in range(40):
        (source, far_source), (sink, _) = unix_pair(), unix_pair()
        watcher.delegate(source).relay_to(watcher.delegate(sink))
        far_sources.append(far_source)
    turns: list[int] = []
    take_turns = watcher.plumbing.turn

    def turn() -> None:
        turns.append(len(watcher.plumbing._turns))
        take_turns()

    monkeypatch.setattr(watcher.plumbing, "turn", turn)
    for _ in range(3):
        turns.clear()
        for far_source in far_sources:
            far_source.send(b"x")
        watcher.wait_io(0)
        assert turns == [40]
