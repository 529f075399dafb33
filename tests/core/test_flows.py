"""What relays do when there is much: they splice, they copy where they cannot, and what they took is not lost."""

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.support.sockets import NewPair, pattern, receive
from core.support.waiting import LIMIT_S, assert_quiet, collect, collect_one
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.flows import PIPES_MAX
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

Ends = tuple[Conn, socket.socket, Conn, socket.socket]

MIB = 1 << 20
STREAM = pattern(32 * MIB)
FILLED_S = 1.0
"""By then nothing moves any more."""

SMALL = 512 * 1024
"""Bytes of the kernel's queues where many connections are to be filled: enough for turns that are a sign of bulk."""

CELLS = counters.SIZE
"""The first of the cells that a connection counts in, in these tests."""

linux_only = pytest.mark.skipif(not hasattr(os, "splice"), reason="splice(2) is Linux's")


@pytest.fixture
def cells() -> memoryview:
    return memoryview(bytearray(8 * (counters.SIZE + 6))).cast("q")


@pytest.fixture
def watcher(cells: memoryview) -> Iterator[Watcher]:
    with Watcher(counters=cells) as watcher:
        yield watcher


def ends_of(watcher: Watcher, stream_pair: NewPair, *, queue_bytes: int | None = None) -> Ends:
    """Return far_source -> source ~> sink -> far_sink, without the relay.

    The kernel's queues are of that size before the relay, and a quarter of it behind.
    """
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    if queue_bytes is not None:
        for sock, size in ((far_source, queue_bytes), (source, queue_bytes), (sink, queue_bytes // 4)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        far_sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, queue_bytes // 4)
    conn = watcher.delegate(sink)
    conn.traffic = CELLS
    return watcher.delegate(source), far_source, conn, far_sink


@pytest.fixture
def ends(watcher: Watcher, stream_pair: NewPair) -> Ends:
    return ends_of(watcher, stream_pair)


def pipes() -> int:
    """Return how many ends of pipes this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith("pipe:")
        except FileNotFoundError:
            pass
    return count


def fill(watcher: Watcher, ends: Ends, data: bytes = STREAM) -> int:
    """Send until nothing moves any more; return the bytes that were taken."""
    far_source = ends[1]
    far_source.setblocking(False)
    sent = quiet = 0
    while quiet < 10 and sent < len(data):
        try:
            sent += far_source.send(memoryview(data)[sent:])
            quiet = 0
        except BlockingIOError:
            quiet += 1
        watcher.wait_io(0.002)
    far_source.settimeout(LIMIT_S)
    return sent


def flow_freely(watcher: Watcher, ends: Ends, size: int) -> None:
    """Send bytes that are taken at once."""
    _, far_source, _, far_sink = ends
    far_source.setblocking(False)
    far_sink.setblocking(False)
    sent = taken = 0
    while taken < size:
        try:
            sent += far_source.send(memoryview(STREAM)[sent:size])
        except BlockingIOError:
            pass
        watcher.wait_io(0)
        try:
            taken += len(far_sink.recv(1 << 20))
        except BlockingIOError:
            pass


def carry(watcher: Watcher, ends: Ends, data: bytes) -> bytes:
    """Send it all and the end of the stream; return what arrives at the other side."""
    _, far_source, _, far_sink = ends
    arrived: list[bytes] = []

    def send() -> None:
        far_source.sendall(data)
        far_source.shutdown(socket.SHUT_WR)

    def take() -> None:
        arrived.extend(iter(lambda: far_sink.recv(1 << 18), b""))

    threads = [threading.Thread(target=send), threading.Thread(target=take)]
    for thread in threads:
        thread.start()
    assert collect_one(watcher).error is None
    for thread in threads:
        thread.join(LIMIT_S)
    return b"".join(arrived)


@linux_only
def test_bulk_goes_through_pipes_and_small_messages_do_not(watcher: Watcher, ends: Ends) -> None:
    before = pipes()
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    for _ in range(50):
        far_source.sendall(b"x" * 1000)
        watcher.wait_io(0.001)
    assert receive(far_sink, 50_000) == b"x" * 50_000
    assert pipes() == before
    assert carry(watcher, ends, STREAM) == STREAM
    assert pipes() > before
    watcher.close()
    assert pipes() == before


def test_small_messages_after_bulk_arrive_as_they_are_sent(watcher: Watcher, ends: Ends) -> None:
    source, far_source, sink, far_sink = ends
    source.relay_to(sink)
    for size in (4 * MIB, 100, 4 * MIB, 1):
        data = pattern(size)
        thread = threading.Thread(target=far_source.sendall, args=(data,))
        thread.start()
        taken = bytearray()
        far_sink.setblocking(False)
        while len(taken) < size:
            watcher.wait_io(0.001)
            try:
                taken += far_sink.recv(size - len(taken))
            except BlockingIOError:
                pass
        thread.join(LIMIT_S)
        assert taken == data


@linux_only
def test_relays_copy_when_no_pipe_can_be_had(watcher: Watcher, ends: Ends) -> None:
    before = pipes()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    source, _, sink, _ = ends
    source.relay_to(sink)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert fill(watcher, ends) > 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pipes() == before


@linux_only
def test_more_stalled_relays_than_there_are_pipes_lose_nothing(watcher: Watcher, tcp_pair: NewPair) -> None:
    before = pipes()
    several = [ends_of(watcher, tcp_pair, queue_bytes=SMALL) for _ in range(PIPES_MAX + 8)]
    for source, _, sink, _ in several:
        source.relay_to(sink)
    for ends in several:
        flow_freely(watcher, ends, 2 * MIB)
    sent = [fill(watcher, ends) for ends in several]
    assert pipes() == before + 2 * PIPES_MAX
    for ends, size in zip(several, sent, strict=True):
        far_sink = ends[3]
        taken = bytearray()
        far_sink.setblocking(False)
        while len(taken) < size:
            watcher.wait_io(0.001)
            try:
                taken += far_sink.recv(1 << 20)
            except BlockingIOError:
                pass
        assert taken == memoryview(STREAM)[:size]


@pytest.mark.parametrize("limit", [1, 4096, 65536, 262_144])
def test_what_is_buffered_is_told_and_never_more_than_the_limit(
    watcher: Watcher, ends: Ends, cells: memoryview, limit: int
) -> None:
    source, _far_source, sink, far_sink = ends
    source.relay_to(sink, limit=limit)
    data = STREAM[: 64 * 1024] if limit == 1 else STREAM
    sent = fill(watcher, ends, data)
    assert cells[CELLS + counters.BUFFERED] == sink.pending_write_bytes <= limit
    far_sink.setblocking(False)
    taken = bytearray()
    while len(taken) < sent:
        try:
            taken += far_sink.recv(100_000)
        except BlockingIOError:
            pass
        watcher.wait_io(0)
        assert 0 <= cells[CELLS + counters.BUFFERED] <= limit
    assert taken == memoryview(STREAM)[:sent]
    assert cells[CELLS + counters.BUFFERED] == 0


@pytest.mark.parametrize("how", ["cancel", "deadline", "close"])
@pytest.mark.parametrize("rush", [False, True], ids=["copied", "spliced"])
def test_what_a_relay_has_taken_is_still_sent_when_it_ends(
    watcher: Watcher, ends: Ends, cells: memoryview, how: str, rush: bool
) -> None:
    source, _far_source, sink, far_sink = ends
    # A deadline that is far enough away for filling, and for both other ways of ending it.
    source.relay_to(sink, limit=262_144 if rush else 4096, deadline=time.monotonic() + FILLED_S)
    fill(watcher, ends)
    held = sink.pending_write_bytes
    received = source.bytes_received
    assert held
    if how == "cancel":
        source.cancel(OpType.RELAY)
    elif how == "close":
        source.close()
    result = collect_one(watcher)
    assert isinstance(result.error, {"cancel": OSError, "deadline": DeadlineExceeded, "close": ConnClosed}[how])
    received = source.bytes_received if how == "deadline" else received
    assert cells[CELLS + counters.BUFFERED] == 0
    assert cells[CELLS + counters.PAUSES] == cells[CELLS + counters.RESUMES]
    assert sink.pending_write_bytes == received - sink.bytes_sent
    sink.close()
    arrived = bytearray()
    far_sink.setblocking(False)
    while True:
        assert watcher.wait_io(0) == []
        try:
            part = far_sink.recv(1 << 20)
        except BlockingIOError:
            continue
        if not part:
            break
        arrived += part
    assert arrived == memoryview(STREAM)[:received]


def test_sink_that_closes_still_sends_what_its_relay_had_taken(watcher: Watcher, ends: Ends) -> None:
    source, _far_source, sink, far_sink = ends
    source.relay_to(sink)
    fill(watcher, ends)
    received = source.bytes_received
    sink.close()
    assert isinstance(collect_one(watcher).error, ConnClosed)
    thread = threading.Thread(target=lambda: [watcher.wait_io(0.01) for _ in range(100)])
    thread.start()
    arrived = b"".join(iter(lambda: far_sink.recv(1 << 20), b""))
    thread.join(LIMIT_S)
    assert arrived == STREAM[:received]


def test_sink_that_aborts_or_resets_sends_nothing_more(watcher: Watcher, ends: Ends, cells: memoryview) -> None:
    source, _far_source, sink, _far_sink = ends
    source.relay_to(sink)
    fill(watcher, ends)
    sink.abort()
    assert isinstance(collect_one(watcher).error, ConnClosed)
    assert cells[CELLS + counters.BUFFERED] == 0
    assert_quiet(watcher)


def test_reset_tells_the_peer_that_it_failed(watcher: Watcher, tcp_pair: NewPair) -> None:
    sock, far = tcp_pair()
    other, far_other = tcp_pair()
    conn, aborted = watcher.delegate(sock), watcher.delegate(other)
    conn.write(b"last words")
    conn.reset()
    aborted.abort()
    (result,) = collect(watcher, 1)
    assert isinstance(result.error, ConnClosed)
    with pytest.raises(ConnectionResetError):
        far.recv(100)
    assert far_other.recv(100) == b""


@linux_only
def test_reset_of_a_source_is_told_apart_from_that_of_a_sink_while_splicing(
    watcher: Watcher, tcp_pair: NewPair
) -> None:
    ends = ends_of(watcher, tcp_pair)
    source, _far_source, sink, far_sink = ends
    source.relay_to(sink)
    fill(watcher, ends)
    far_sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far_sink.close()
    error = collect_one(watcher).error
    assert type(error).__name__ == "RelaySinkError"
    assert isinstance(error, OSError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
