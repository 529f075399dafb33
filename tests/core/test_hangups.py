"""Hang-ups: a watcher that reports them tells once of a peer that is gone, where no read would."""

import errno
import socket
from collections.abc import Iterator

import pytest

from core.support.sockets import NewPair, receive, reset
from core.support.waiting import assert_quiet, collect_one, collect_until
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    with Watcher(report_hangups=True) as watcher:
        yield watcher


def told(result: OpResult) -> tuple[OpType, int, object]:
    error = result.error
    return result.operation, result.size, error.errno if isinstance(error, OSError) else type(error)


def test_reset_of_a_connection_that_is_not_read_is_reported_once(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near, context="subscriber")
    assert_quiet(watcher)
    reset(far)
    result = collect_one(watcher)
    assert told(result) == (OpType.HANGUP, 0, errno.ECONNRESET)
    assert (result.conn, result.context, conn.closed) == (conn, "subscriber", False)
    assert_quiet(watcher)


def test_unix_peer_that_closes_is_reported(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    far.close()
    assert told(collect_one(watcher)) == (OpType.HANGUP, 0, EOFError)
    conn.read()
    assert isinstance(collect_one(watcher).error, EOFError), "a read still finds it, and nothing is said twice"


def test_bytes_that_can_still_be_read_are_told(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    far.sendall(b"last words")
    assert_quiet(watcher)
    reset(far)
    assert told(collect_one(watcher)) == (OpType.HANGUP, 10, errno.ECONNRESET)
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"last words"
    conn.read()
    assert told(collect_one(watcher)) == (OpType.READ, 0, errno.ECONNRESET), "not an end in order"


def test_fin_alone_is_no_hang_up(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.shutdown(socket.SHUT_WR)
    assert_quiet(watcher)
    conn.write(b"answer")
    assert collect_one(watcher).operation is OpType.WRITE
    assert receive(far, 6) == b"answer"


def test_peer_that_goes_after_its_fin_was_read_is_reported(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    conn.read()
    far.shutdown(socket.SHUT_WR)
    assert isinstance(collect_one(watcher).error, EOFError)
    reset(far)
    result = collect_one(watcher)
    assert told(result) == (OpType.HANGUP, 0, errno.EPIPE), "a reset: what it did not take is lost"


def test_read_that_finds_the_end_of_a_peer_that_is_gone_is_followed_by_the_report(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    """It would wait for ever otherwise: the end of the stream alone does not say whether the peer still receives."""
    near, far = unix_pair()
    conn = watcher.delegate(near)
    conn.read()
    far.close()
    done = collect_until(watcher, lambda done: len(done) >= 2)
    assert [told(result) for result in done] == [(OpType.READ, 0, EOFError), (OpType.HANGUP, 0, EOFError)]


def test_nothing_is_reported_of_a_connection_that_is_closed_once_its_end_was_read(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    """As most are: nobody has to ask the kernel about them, nor to be told."""
    near, far = unix_pair()
    conn = watcher.delegate(near)
    conn.read()
    far.close()
    assert told(collect_one(watcher)) == (OpType.READ, 0, EOFError)
    conn.close()
    assert_quiet(watcher)


def test_nothing_is_reported_of_a_pending_read_that_fails(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    watcher.delegate(near).read()
    reset(far)
    assert told(collect_one(watcher)) == (OpType.READ, 0, errno.ECONNRESET)
    assert_quiet(watcher)


def test_connect_that_fails_is_no_hang_up(watcher: Watcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    watcher.connect(address)
    assert told(collect_one(watcher)) == (OpType.CONNECT, 0, errno.ECONNREFUSED)
    assert_quiet(watcher)


def test_nothing_is_reported_unless_asked_for(tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    with Watcher() as watcher:
        conn = watcher.delegate(near)
        reset(far)
        assert_quiet(watcher)
        assert not conn.closed


# -- what the kernel tells once ------------------------------------------------------------------------------


def test_stream_that_broke_does_not_end_in_order_for_those_who_ask_later(watcher: Watcher, tcp_pair: NewPair) -> None:
    """The kernel tells the write of the reset; it would tell the read that the stream has ended."""
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    far.sendall(b"half an answ")
    assert_quiet(watcher)
    near_copy = socket.socket(fileno=conn.fileno())
    try:
        reset(far)
        conn.write(b"more of the question", context="write")
        done = collect_until(watcher, lambda done: any(result.operation is OpType.WRITE for result in done))
    finally:
        near_copy.detach()
    assert any(result.operation is OpType.WRITE and isinstance(result.error, OSError) for result in done)
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"half an answ"
    conn.read()
    assert told(collect_one(watcher)) == (OpType.READ, 0, errno.ECONNRESET)


def test_relay_of_a_stream_that_broke_passes_no_end_on(watcher: Watcher, tcp_pair: NewPair) -> None:
    (server, far_server), (client, far_client) = tcp_pair(), tcp_pair()
    server_conn, client_conn = watcher.delegate(server), watcher.delegate(client)
    far_server.sendall(b"half an answ")
    reset(far_server)
    server_conn.write(b"more of the question")
    done = collect_until(watcher, lambda done: any(result.operation is OpType.WRITE for result in done))
    assert done
    server_conn.relay_to(client_conn)
    result = collect_one(watcher)
    assert told(result) == (OpType.RELAY, 12, errno.ECONNRESET)
    assert receive(far_client, 12) == b"half an answ"
    far_client.setblocking(False)
    with pytest.raises(BlockingIOError):
        far_client.recv(1)
