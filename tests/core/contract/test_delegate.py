"""Point 1: delegating takes a stream socket over, as it is, and refuses everything else at once."""

import errno
import os
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from core.support.descriptors import descriptors_limited_to, open_descriptors
from core.support.sockets import NewPair, listen
from core.support.waiting import collect_one
from gaiod.core.connection import Conn
from gaiod.core.errors import UnsupportedConn
from gaiod.core.watcher import Watcher

OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, 40_000),
]


def option_of(fd: int, level: int, name: int, size: int = 4) -> bytes:
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockopt(level, name, size)
    finally:
        sock.detach()


@pytest.mark.parametrize(("level", "name", "value"), OPTIONS, ids=["nodelay", "keepalive", "rcvbuf", "sndbuf"])
def test_delegate_keeps_an_option_set_before(
    watcher: Watcher, tcp_pair: NewPair, level: int, name: int, value: int
) -> None:
    near, _ = tcp_pair()
    near.setsockopt(level, name, value)
    before = near.getsockopt(level, name, 4)
    conn = watcher.delegate(near)
    assert option_of(conn.fileno(), level, name) == before


def test_delegate_keeps_linger(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, _ = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7))
    conn = watcher.delegate(near)
    assert struct.unpack("ii", option_of(conn.fileno(), socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 7)


def test_delegate_makes_the_descriptor_close_on_exec_even_if_the_original_was_not(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, _ = stream_pair()
    near.set_inheritable(True)
    assert not os.get_inheritable(watcher.delegate(near).fileno())


def test_delegate_makes_the_descriptor_non_blocking(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    assert not os.get_blocking(watcher.delegate(near).fileno())


def test_delegate_closes_the_original_and_holds_one_descriptor_for_it(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    before = len(open_descriptors())
    conn = watcher.delegate(near)
    assert near.fileno() == -1
    assert conn.fileno() >= 0
    assert len(open_descriptors()) == before


def test_delegate_leaves_a_connection_that_moves_bytes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"ping")
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"ping"
    conn.write(b"pong")
    assert collect_one(watcher).size == 4
    assert far.recv(10) == b"pong"


def test_delegate_keeps_bytes_that_arrived_before(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    far.sendall(b"early")
    conn = watcher.delegate(near).read()
    assert collect_one(watcher).buffer == b"early"
    assert conn.bytes_received == 5


def test_delegate_gives_its_context_to_operations_without_one(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0], context="the connection's")
    conn.write(b"a")
    assert collect_one(watcher).context == "the connection's"
    conn.write(b"a", context="its own")
    assert collect_one(watcher).context == "its own"


FIRST_USES: dict[str, Callable[[Watcher, socket.socket], Conn]] = {
    "read": lambda watcher, sock: watcher.read(sock),
    "read_full": lambda watcher, sock: watcher.read_full(sock, bytearray(1)),
    "write": lambda watcher, sock: watcher.write(sock, b"a"),
}


@pytest.mark.parametrize("use", FIRST_USES)
def test_an_operation_delegates_a_socket_on_first_use_and_finds_it_on_the_next(
    watcher: Watcher, stream_pair: NewPair, use: str
) -> None:
    near, far = stream_pair()
    far.sendall(b"hello")
    conn = FIRST_USES[use](watcher, near)
    assert near.fileno() == -1
    result = collect_one(watcher)
    assert result.error is None
    assert result.conn is conn
    assert watcher.write(near, b"again") is conn
    assert collect_one(watcher).conn is conn


def test_an_unconnected_socket_is_taken_and_its_read_fails_with_the_errno(watcher: Watcher) -> None:
    watcher.delegate(socket.socket()).read()
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOTCONN


# -- what is refused ------------------------------------------------------------------------------


def a_datagram_socket(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def a_unix_datagram_socket(stack: ExitStack) -> socket.socket:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(far)
    return stack.enter_context(near)


def a_listener(stack: ExitStack) -> socket.socket:
    return stack.enter_context(listen())


def a_tls_socket(stack: ExitStack) -> socket.socket:
    near, far = socket.socketpair()
    stack.enter_context(far)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return stack.enter_context(context.wrap_socket(near, do_handshake_on_connect=False))


def a_file(stack: ExitStack) -> object:
    return stack.enter_context(open(os.devnull, "rb"))


def a_closed_socket(stack: ExitStack) -> socket.socket:
    sock = socket.socket()
    sock.close()
    return sock


REFUSED: dict[str, tuple[Callable[[ExitStack], Any], str]] = {
    "udp": (a_datagram_socket, "AF_INET SOCK_DGRAM socket: only TCP and unix streams"),
    "unix_datagrams": (a_unix_datagram_socket, "AF_UNIX SOCK_DGRAM socket: only TCP and unix streams"),
    "listening": (a_listener, "the socket is listening"),
    "tls": (a_tls_socket, "SSLSocket keeps bytes of its own"),
    "closed": (a_closed_socket, "the socket is closed"),
    "a_file": (a_file, "BufferedReader is neither a Conn nor a socket"),
    "a_number": (lambda _: 3, "int is neither a Conn nor a socket"),
    "none": (lambda _: None, "NoneType is neither a Conn nor a socket"),
}

WAYS: dict[str, Callable[[Watcher, socket.socket], object]] = {
    "delegate": lambda watcher, sock: watcher.delegate(sock),
    **FIRST_USES,
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here is left at the end of the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_connection_is_refused_saying_why_and_left_as_it_was(
    watcher: Watcher, stack: ExitStack, kind: str, way: str
) -> None:
    make, reason = REFUSED[kind]
    target = make(stack)
    before = open_descriptors()
    with pytest.raises(UnsupportedConn, match=reason):
        WAYS[way](watcher, target)
    assert open_descriptors() == before


def test_delegate_refuses_a_socket_that_it_took_before(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    watcher.delegate(near)
    with pytest.raises(UnsupportedConn, match="delegated before: use the Conn"):
        watcher.delegate(near)


def test_accept_refuses_a_connection(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    with pytest.raises(UnsupportedConn, match="the socket is not listening"):
        watcher.accept(near)
    assert near.fileno() >= 0
    with pytest.raises(UnsupportedConn, match="is not a listener"):
        watcher.accept(watcher.delegate(near))


def test_a_listener_refuses_to_be_read_from_and_written_to(watcher: Watcher) -> None:
    listener = watcher.accept(listen())
    with pytest.raises(UnsupportedConn, match="neither read nor written"):
        listener.read()
    with pytest.raises(UnsupportedConn, match="neither read nor written"):
        listener.write(b"a")


def test_delegate_raises_and_leaves_the_socket_as_it_was_when_no_descriptor_is_left(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    with descriptors_limited_to(0), pytest.raises(OSError) as caught:
        watcher.delegate(near)
    assert caught.value.errno == errno.EMFILE
    near.sendall(b"still mine")
    assert far.recv(20) == b"still mine"
