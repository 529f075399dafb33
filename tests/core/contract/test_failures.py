"""Point 6: what the network does is a completion's error; what the caller gets wrong raises at the call."""

import errno
import socket
from collections.abc import Callable

import pytest

from core.support.sockets import NewPair, fill, listen, receive, reset
from core.support.waiting import LIMIT_S, assert_quiet, collect, collect_one, collect_rest
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, UnsupportedConn, UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

OPERATIONS: dict[str, Callable[[Conn], object]] = {
    "read": lambda conn: conn.read(),
    "read_into": lambda conn: conn.read(bytearray(1)),
    "read_full": lambda conn: conn.read_full(bytearray(1)),
    "write": lambda conn: conn.write(b"a"),
}
READS = ["read", "read_into", "read_full"]


@pytest.mark.parametrize("way", READS)
@pytest.mark.parametrize("early", [False, True], ids=["closed_after_submit", "closed_before"])
def test_end_of_stream_is_an_eof_error(watcher: Watcher, stream_pair: NewPair, way: str, early: bool) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    if early:
        far.close()
    OPERATIONS[way](conn)
    assert watcher.wait_io(0) == [] or early
    far.close()
    if not early:
        result = collect_one(watcher)
        assert (type(result.error), result.size) == (EOFError, 0)
    OPERATIONS[way](conn)
    assert isinstance(collect_one(watcher).error, EOFError), "and again, as often as it is asked"


def test_end_of_stream_comes_after_the_last_bytes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    far.sendall(b"last words")
    far.close()
    conn = watcher.delegate(near).read()
    assert bytes(collect_one(watcher).buffer) == b"last words"
    conn.read()
    assert isinstance(collect_one(watcher).error, EOFError)


def test_all_reads_that_wait_get_the_end_of_the_stream(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    for _ in range(50):
        conn.read()
    assert_quiet(watcher, 0)
    far.close()
    assert {type(result.error) for result in collect(watcher, 50)} == {EOFError}


def test_half_closed_peer_can_still_be_written_to(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near).read()
    far.shutdown(socket.SHUT_WR)
    assert isinstance(collect_one(watcher).error, EOFError)
    conn.write(b"still here")
    assert collect_one(watcher).error is None
    assert receive(far, 10) == b"still here"


@pytest.mark.parametrize("way", READS)
def test_reset_is_a_completion_with_its_errno(watcher: Watcher, tcp_pair: NewPair, way: str) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    OPERATIONS[way](conn)
    assert_quiet(watcher, 0)
    reset(far)
    error = collect_one(watcher).error
    assert isinstance(error, ConnectionResetError)
    assert error.errno == errno.ECONNRESET


def test_write_after_a_reset_fails_with_its_errno(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    reset(far)
    conn.write(b"a")
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno in (errno.ECONNRESET, errno.EPIPE)
    conn.write(b"a")
    error = collect_one(watcher).error
    assert isinstance(error, BrokenPipeError)


def test_write_to_a_peer_that_is_gone_fails_and_raises_no_signal(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    far.close()
    conn = watcher.delegate(near).write(b"a")
    assert isinstance(collect_one(watcher).error, BrokenPipeError)
    assert not conn.closed, "the connection is its owner's to close"


def test_queued_writes_fail_once_each_when_the_peer_resets(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    for _ in range(50):
        conn.write(bytes(1000))
    assert_quiet(watcher, 0)
    reset(far)
    done = collect(watcher, 50)
    assert all(isinstance(result.error, OSError) for result in done)
    assert conn.pending_write_bytes == 0


# -- misuse -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", OPERATIONS)
def test_operation_on_a_closed_connection_raises(watcher: Watcher, stream_pair: NewPair, way: str) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.abort()
    with pytest.raises(ConnClosed, match="is closed"):
        OPERATIONS[way](conn)
    assert_quiet(watcher, 0)


def test_operation_on_the_socket_of_a_closed_connection_raises(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    watcher.write(near, b"a")
    collect_one(watcher)
    watcher.free(near)
    with pytest.raises(ConnClosed):
        watcher.read(near)


WATCHER_CALLS: dict[str, Callable[[Watcher, Conn, socket.socket], object]] = {
    "read": lambda watcher, conn, sock: watcher.read(conn),
    "read_full": lambda watcher, conn, sock: watcher.read_full(conn, bytearray(1)),
    "write": lambda watcher, conn, sock: watcher.write(conn, b"a"),
    "read_of_a_socket": lambda watcher, conn, sock: watcher.read(sock),
    "delegate": lambda watcher, conn, sock: watcher.delegate(sock),
    "accept": lambda watcher, conn, sock: watcher.accept(sock),
    "connect": lambda watcher, conn, sock: watcher.connect(("127.0.0.1", 1)),
    "timer": lambda watcher, conn, sock: watcher.timer(1.0),
    "post": lambda watcher, conn, sock: watcher.post("a"),
    "wait_io": lambda watcher, conn, sock: watcher.wait_io(0),
    "affinity": lambda watcher, conn, sock: watcher.set_loop_affinity(0),
}


@pytest.mark.parametrize("call", WATCHER_CALLS)
def test_call_on_a_closed_watcher_raises_and_leaves_the_socket_alone(
    watcher: Watcher, stream_pair: NewPair, call: str
) -> None:
    conn = watcher.delegate(stream_pair()[0])
    near, far = stream_pair()
    watcher.close()
    with pytest.raises(WatcherClosed):
        WATCHER_CALLS[call](watcher, conn, near)
    near.sendall(b"still mine")
    assert receive(far, 10) == b"still mine"


def test_close_and_free_and_cancel_of_a_closed_watcher_are_no_ops(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    timer = watcher.timer(1e9)
    assert [result.operation for result in collect_rest(watcher)] == [OpType.TIMER]
    watcher.close()
    watcher.free(conn)
    watcher.cancel(conn)
    watcher.cancel(timer)
    conn.close()
    conn.shutdown_write()
    assert watcher.closed


def test_connection_of_another_watcher_is_refused(watcher: Watcher, stream_pair: NewPair) -> None:
    with Watcher() as other:
        conn = other.delegate(stream_pair()[0])
        submits: list[Callable[[], object]] = [
            lambda: watcher.read(conn),
            lambda: watcher.read_full(conn, bytearray(1)),
            lambda: watcher.write(conn, b"a"),
            lambda: watcher.accept(conn),
        ]
        for submit in submits:
            with pytest.raises(UsageError, match="another watcher"):
                submit()
        watcher.free(conn)
        watcher.cancel(conn)
        assert not conn.closed


@pytest.mark.parametrize("call", ["free", "cancel", "shutdown_write"])
@pytest.mark.parametrize("target", [None, 5], ids=["none", "number"])
def test_request_for_what_is_no_connection_says_so(watcher: Watcher, call: str, target: object) -> None:
    with pytest.raises(UnsupportedConn, match="is neither a Conn nor a socket"):
        getattr(watcher, call)(target)


def test_accept_twice_on_one_listener_is_refused(watcher: Watcher) -> None:
    listener = watcher.accept(listen())
    with pytest.raises(UsageError, match="pending"):
        watcher.accept(listener)


def test_accept_on_a_closing_listener_is_refused(watcher: Watcher) -> None:
    listener = watcher.accept(listen())
    listener.close()
    with pytest.raises(ConnClosed):
        watcher.accept(listener)


def test_counters_that_are_too_small_or_read_only_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="cells"):
        Watcher(counters=bytearray(16))
    with pytest.raises((ValueError, TypeError, BufferError)):
        Watcher(counters=bytes(8 * 1024))


def test_wait_io_returns_what_the_network_did_and_raises_nothing(watcher: Watcher, tcp_pair: NewPair) -> None:
    """All at once: an end, a reset, a refusal, a closed listener."""
    ended, reset_one = tcp_pair(), tcp_pair()
    watcher.delegate(ended[0]).read(context="end")
    watcher.delegate(reset_one[0]).read(context="reset")
    with listen() as listener:
        address = listener.getsockname()
    watcher.connect(address, context="refused")
    ended[1].close()
    reset(reset_one[1])
    done = {str(result.context): result.error for result in collect(watcher, 3, LIMIT_S)}
    assert {name: type(error) for name, error in done.items()} == {
        "end": EOFError,
        "reset": ConnectionResetError,
        "refused": ConnectionRefusedError,
    }
