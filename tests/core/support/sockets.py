"""Sockets for tests: connected pairs, listeners, and peers that misbehave on purpose."""

import fcntl
import socket
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

Pair = tuple[socket.socket, socket.socket]
NewPair = Callable[[], Pair]


def listen(family: int = socket.AF_INET, backlog: int = 128) -> socket.socket:
    """Return a listener on the loopback, on a port of the kernel's choice."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    return socket.create_server((host, 0), family=socket.AddressFamily(family), backlog=backlog)


def connected_pair(family: int) -> Pair:
    """Return both ends of a new connection; the caller closes them."""
    if family == socket.AF_UNIX:
        return socket.socketpair()
    with listen(family) as listener:
        near = socket.create_connection(listener.getsockname()[:2], timeout=LIMIT_S)
        far, _ = listener.accept()
    for end in (near, far):
        end.settimeout(LIMIT_S)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


@contextmanager
def pairs_of(family: int) -> Iterator[NewPair]:
    """Give a maker of pairs, which are closed at the end."""
    made: list[socket.socket] = []

    def new_pair() -> Pair:
        near, far = connected_pair(family)
        far.settimeout(LIMIT_S)
        made.extend((near, far))
        return near, far

    try:
        yield new_pair
    finally:
        for end in made:
            end.close()


def has_ipv6() -> bool:
    """Tell whether the loopback speaks IPv6."""
    try:
        listen(socket.AF_INET6).close()
    except OSError:
        return False
    return True


@contextmanager
def unix_listener() -> Iterator[socket.socket]:
    """Give a listener on a unix socket of a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "listener")
        with socket.create_server(path, family=socket.AF_UNIX) as listener:
            yield listener


class Clients:
    """Blocking sockets that connect to one listener."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.family = (
            socket.AF_UNIX if isinstance(address, str) else (socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        )
        self.sockets: list[socket.socket] = []

    def connect(self, n: int = 1) -> list[socket.socket]:
        """Connect `n` more, and return them."""
        new = [socket.socket(self.family) for _ in range(n)]
        self.sockets += new
        for client in new:
            client.settimeout(LIMIT_S)
            client.connect(self.address)
        return new

    def close(self) -> None:
        """Close them all."""
        for client in self.sockets:
            client.close()
        self.sockets.clear()


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer gets a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fill(near: socket.socket, far: socket.socket) -> int:
    """Send zeros from `near` until the kernel takes no more, for as long as `far` does not read.

    A window that is not quite full would be filled by TCP's probe timer 200 ms later, and there would
    be room again. So it is filled to its last byte first, and only then what is behind it: a send
    buffer of a fixed size, for one of its own choice grows with every answer to a probe.

    Returns:
        How many bytes it took.
    """
    if hasattr(near, "fill"):  # a `TlsSocket`
        filled: int = near.fill()
        return filled
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sent = 0
    until_s = time.monotonic() + LIMIT_S
    while near.family != socket.AF_UNIX:
        assert time.monotonic() < until_s, f"the window is not full after {sent} bytes"
        unacknowledged, window = _unacknowledged(near), _window(near)  # in this order: never too much
        if unacknowledged == window == 0:
            break
        if window > unacknowledged:
            sent += near.send(bytes(min(window - unacknowledged, 4096)))
    for size in (65536, 1):
        try:
            while True:
                sent += near.send(bytes(size))
        except BlockingIOError:
            continue
    return sent


TCPI_SND_WND = 228
"""Place of the peer's window in Linux's `struct tcp_info`."""


def _window(sock: socket.socket) -> int:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_SND_WND + 4)
    return int.from_bytes(info[TCPI_SND_WND:], sys.byteorder)


def _unacknowledged(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def receive(sock: socket.socket, n: int) -> bytes:
    """Receive exactly `n` bytes which are on their way, or fewer at the end of the stream."""
    received = bytearray()
    while len(received) < n and (part := sock.recv(n - len(received))):
        received += part
    return bytes(received)


def pump(watcher: Watcher, sock: socket.socket, n: int) -> tuple[bytes, list[OpResult]]:
    """Receive `n` bytes, or to the end of the stream, while the loop runs; return them and the completions."""
    sock.setblocking(False)
    received = bytearray()
    done: list[OpResult] = []
    until_s = time.monotonic() + LIMIT_S
    while len(received) < n:
        assert time.monotonic() < until_s, f"{len(received)} of {n} bytes came in {LIMIT_S} s"
        done += watcher.wait_io(0)
        try:
            part = sock.recv(min(n - len(received), 1 << 20))
        except BlockingIOError:
            continue
        if not part:
            break
        received += part
    return bytes(received), done


@cache
def _block(seed: int) -> bytes:
    return bytes((seed * 31 + i * 7 + (i >> 8)) & 0xFF for i in range(65521))


def pattern(n: int, seed: int = 0) -> bytes:
    """Return `n` bytes that differ from place to place and from seed to seed."""
    block = _block(seed & 0xFF)
    return (block * (n // len(block) + 1))[:n]
