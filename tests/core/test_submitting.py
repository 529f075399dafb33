"""Submitting: what is checked at the door, and which way in a call takes."""

import socket
import threading

import pytest

from core.support.sockets import NewPair
from core.support.waiting import collect_one, collect_until, contexts
from gaiod.core.errors import ConnClosed, EmptyBuffer, UnsupportedConn, WatcherClosed
from gaiod.core.watcher import Watcher


def test_socket_is_delegated_on_first_use_and_found_again(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.read(near, bytearray(5), context="read")
    assert watcher.write(near, b"hello") is conn
    assert near.fileno() == -1
    far.sendall(b"hello")
    done = collect_until(watcher, lambda done: len(done) == 2)
    assert "read" in contexts(done)
    assert far.recv(5) == b"hello"


def test_socket_that_was_closed_by_its_owner_is_refused(watcher: Watcher) -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(UnsupportedConn, match="closed"):
        watcher.read(sock)


def test_operation_has_the_context_of_its_connection_when_given_none(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0], context="connection")
    conn.write(b"a")
    assert collect_one(watcher).context == "connection"
    conn.write(b"a", context="operation")
    assert collect_one(watcher).context == "operation"


def test_nothing_is_submitted_when_the_call_raises(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    with pytest.raises(EmptyBuffer):
        conn.write(b"")
    with pytest.raises(EmptyBuffer):
        conn.read(bytearray())
    with pytest.raises(EmptyBuffer):
        conn.read_full(None)
    with pytest.raises(TypeError, match="read-only"):
        conn.read(b"read-only")
    with pytest.raises(ValueError, match="finite"):
        conn.write(b"a", deadline=float("inf"))
    far.sendall(b"x")
    assert watcher.wait_io(0) == []
    assert conn.pending_write_bytes == 0


def test_submission_from_another_thread_wakes_the_loop(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    watcher.wait_io(0)
    thread = threading.Thread(target=lambda: conn.write(b"from afar", context="written"))
    thread.start()
    assert collect_one(watcher).context == "written"
    thread.join()
    assert far.recv(20) == b"from afar"


def test_closed_and_closing_connections_take_nothing(watcher: Watcher, unix_pair: NewPair) -> None:
    closing = watcher.delegate(unix_pair()[0])
    closing.close()
    closed = watcher.delegate(unix_pair()[0])
    closed.abort()
    for conn in (closing, closed):
        with pytest.raises(ConnClosed):
            conn.read()
        with pytest.raises(ConnClosed):
            conn.write(b"a")


def test_closed_watcher_takes_nothing(unix_pair: NewPair) -> None:
    watcher = Watcher()
    conn = watcher.delegate(unix_pair()[0])
    watcher.close()
    for submit in (
        conn.read,
        lambda: watcher.post("late"),
        lambda: watcher.timer(0.0),
        lambda: watcher.delegate(unix_pair()[0]),
        lambda: watcher.connect(("127.0.0.1", 1)),
    ):
        with pytest.raises(WatcherClosed):
            submit()
