"""Point 2: exactly one completion for every accepted operation, in order, each direction on its own."""

import errno
import socket
import time
from collections.abc import Callable

import pytest

from core.support.sockets import NewPair, fill, listen, pump, receive, reset
from core.support.tls import server
from core.support.waiting import (
    assert_quiet,
    collect,
    collect_one,
    collect_rest,
    collect_until,
    contexts,
    later,
    soon,
)
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

PENDING = ["read", "read into", "read_full", "write", "second write"]


def submit_one_of_each(conn: Conn, deadline: float | None = None) -> None:
    """Submit what stays pending on a connection whose peer neither sends nor receives."""
    conn.read(context="read", deadline=deadline)
    conn.read(bytearray(10), context="read into", deadline=deadline)
    conn.read_full(bytearray(10), context="read_full", deadline=deadline)
    conn.write(bytes(100_000), context="write", deadline=deadline)
    conn.write(b"more", context="second write", deadline=deadline)


ENDS: dict[str, tuple[Callable[[Watcher, Conn], object], type[Exception]]] = {
    "free": (lambda watcher, conn: watcher.free(conn), ConnClosed),
    "abort": (lambda watcher, conn: conn.abort(), ConnClosed),
    "cancel": (lambda watcher, conn: watcher.cancel(conn), OSError),
    "close_of_the_watcher": (lambda watcher, conn: watcher.close(), WatcherClosed),
}


@pytest.mark.parametrize("has_run", [False, True], ids=["at_once", "after_a_pass"])
@pytest.mark.parametrize("end", ENDS)
def test_every_pending_operation_completes_once_at_the_end(
    watcher: Watcher, stream_pair: NewPair, end: str, has_run: bool
) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    submit_one_of_each(conn)
    if has_run:
        assert_quiet(watcher)
    act, error = ENDS[end]
    act(watcher, conn)
    done = collect(watcher, len(PENDING))
    assert sorted(map(str, contexts(done))) == sorted(PENDING)
    assert {type(result.error) for result in done} == {error}
    assert collect_rest(watcher) == []


def test_every_pending_operation_completes_once_at_its_deadline(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    submit_one_of_each(watcher.delegate(near), soon())
    done = collect(watcher, len(PENDING))
    assert sorted(map(str, contexts(done))) == sorted(PENDING)
    assert {type(result.error) for result in done} == {DeadlineExceeded}
    assert collect_rest(watcher) == []


def test_every_pending_operation_completes_once_when_the_peer_resets(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    fill(near, far)
    submit_one_of_each(watcher.delegate(near))
    assert_quiet(watcher, 0)
    reset(far)
    done = collect(watcher, len(PENDING))
    assert sorted(map(str, contexts(done))) == sorted(PENDING)
    assert all(isinstance(result.error, (OSError, EOFError)) for result in done)
    assert collect_rest(watcher) == []


def test_close_completes_operations_of_every_kind_once(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read(context=OpType.READ)
    conn.write(b"a", context=OpType.WRITE)
    watcher.delegate(stream_pair()[0]).relay_to(conn, context=OpType.RELAY)
    watcher.delegate(stream_pair()[0]).start_tls(server(), context=OpType.HANDSHAKE)
    listener = listen(backlog=0)
    with socket.create_connection(listener.getsockname()):  # takes the one place: the next one waits
        watcher.connect(listener.getsockname(), context=OpType.CONNECT)
        accepting = watcher.accept(listen(), context=OpType.ACCEPT)
        watcher.timer(later(), context=OpType.TIMER)
        watcher.post(OpType.POST)
        watcher.close()
        done = collect(watcher, len(counters.OPERATIONS))
    kinds = [OpType(kind) for kind in range(len(counters.OPERATIONS))]
    assert sorted(str(result.context) for result in done) == sorted(map(str, kinds))
    assert all(result.operation is result.context for result in done)
    assert {type(result.error) for result in done} == {WatcherClosed}
    assert accepting.closed
    listener.close()
    with pytest.raises(WatcherClosed):
        watcher.wait_io(0)


def test_close_keeps_the_completions_that_were_not_yet_returned(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.read(context="cancelled before")
    conn.cancel()
    watcher.close()
    done = watcher.wait_io(0)
    assert contexts(done) == ["cancelled before"]
    assert isinstance(done[0].error, OSError)


def test_reads_complete_in_the_order_they_were_submitted(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    buffers = [bytearray(n) for n in (1, 4, 2, 3)]
    for number, buffer in enumerate(buffers):
        conn.read_full(buffer, context=number)
    far.sendall(b"abbbbccddd")
    assert contexts(collect(watcher, 4)) == [0, 1, 2, 3]
    assert buffers == [b"a", b"bbbb", b"cc", b"ddd"]


def test_reads_with_and_without_buffers_share_the_stream_in_order(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(bytearray(2), context="first")
    conn.read(context="second")
    far.sendall(b"abcde")
    first = collect_until(watcher, lambda done: len(done) >= 1)
    assert contexts(first)[0] == "first"
    assert bytes(first[0].buffer) == b"ab"
    rest = first[1:] or collect(watcher, 1)
    assert (rest[0].context, bytes(rest[0].buffer)) == ("second", b"cde")


def test_writes_complete_in_the_order_they_were_submitted(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    parts = [bytes([65 + number]) * size for number, size in enumerate((1, 300_000, 10, 700_000, 1))]
    for number, part in enumerate(parts):
        conn.write(part, context=number)
    received, done = pump(watcher, far, sum(map(len, parts)))
    while len(done) < len(parts):
        done += watcher.wait_io(1)
    assert contexts(done) == list(range(len(parts)))
    assert received == b"".join(parts)


def test_a_write_that_is_stuck_does_not_hold_up_a_read(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"stuck", context="write")
    conn.read(context="read")
    far.sendall(b"through")
    result = collect_one(watcher)
    assert (result.context, bytes(result.buffer)) == ("read", b"through")


def test_a_read_that_waits_does_not_hold_up_a_write(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(context="read")
    conn.write(b"through", context="write")
    assert collect_one(watcher).context == "write"
    assert receive(far, 7) == b"through"


def test_one_connection_that_is_stuck_does_not_hold_up_another(watcher: Watcher, stream_pair: NewPair) -> None:
    stuck, deaf = stream_pair()
    near, far = stream_pair()
    fill(stuck, deaf)
    watcher.delegate(stuck).write(b"stuck")
    watcher.delegate(near).write(b"through", context="through")
    assert collect_one(watcher).context == "through"
    assert receive(far, 7) == b"through"


def test_a_busy_connection_leaves_room_for_a_quiet_one(watcher: Watcher, stream_pair: NewPair) -> None:
    """8 MiB for one connection are many passes: the other's bytes come after the first few."""
    busy, _ = stream_pair()
    near, far = stream_pair()
    conn = watcher.delegate(busy)
    sink = watcher.delegate(near)
    for _ in range(100):
        conn.write(bytes(1 << 20), context="busy")
    sink.read(context="quiet")
    far.sendall(b"a")
    assert "quiet" in contexts(collect_until(watcher, lambda done: "quiet" in contexts(done)))


def test_wait_io_returns_nothing_when_time_is_up_and_nothing_completed(watcher: Watcher) -> None:
    before_s = time.monotonic()
    assert watcher.wait_io(0) == []
    assert watcher.wait_io(-1) == []
    until_s = soon()
    assert watcher.wait_io(until_s - time.monotonic()) == []
    assert time.monotonic() >= until_s > before_s


def test_a_completed_operation_has_the_errno_of_a_cancel(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0]).read()
    conn.cancel()
    result: OpResult = collect_one(watcher)
    assert isinstance(result.error, OSError)
    assert result.error.errno == errno.ECANCELED
