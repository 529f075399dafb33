"""Questions to what a watcher is given: sockets, addresses, deadlines."""

import os
import select
import socket
import struct
import sys
from fcntl import ioctl
from functools import lru_cache
from math import isfinite
from termios import FIONREAD
from typing import Any

from gaiod.core.errors import UnsupportedConn

UNIX_PATH_MAX_BYTES = 107
"""sun_path of struct sockaddr_un has 108 on Linux, the last of them 0 (man 7 unix)."""


MAPPED = "::ffff:"
MAPPED_BYTES = bytes(10) + b"\xff\xff"
"""How a socket of both families shows what is IPv4: an IPv6 address with this before it (RFC 4291, 2.5.5.2)."""


def plain(address: Any) -> Any:
    """Return a socket's address; one that is IPv4 as that, though an IPv6 socket shows it."""
    if type(address) is tuple and address[0].startswith(MAPPED) and "." in address[0]:
        return address[0][len(MAPPED) :], address[1]
    return address


def address_of(fd: int, *, peer: bool) -> Any:
    """Return the `plain` address of one end of an open socket; None if it has none (reset, or not connected)."""
    sock = socket.socket(fileno=fd)
    try:
        return plain(sock.getpeername() if peer else sock.getsockname())
    except OSError:
        return None
    finally:
        sock.detach()


def peer_of_name(name: bytes) -> Any:
    """Return an address as `address_of` has it, from what the kernel calls it (`struct sockaddr`); None: it is none."""
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET and len(name) >= 8:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET6 and len(name) >= 24:
        if name[8:20] == MAPPED_BYTES:
            return socket.inet_ntop(socket.AF_INET, name[20:24]), int.from_bytes(name[2:4], "big")
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), int.from_bytes(name[2:4], "big")
    return "" if family == socket.AF_UNIX and name else None


def name_of_peer(address: Any) -> bytes:
    """Return what `peer_of_name` makes this of again; scopes and names of unix sockets are lost."""
    if isinstance(address, tuple):
        host, port = address[:2]
        if ":" not in host:
            return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s", port, socket.inet_pton(socket.AF_INET, host))
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16s", port, 0, packed)
    return b"" if address is None else struct.pack("=H", socket.AF_UNIX)


def peer_text(address: Any) -> str:
    """Write the address of a peer as `Conn.peer_address` returns it: `127.0.0.1:80`, `[::1]:80`, `unix`, or `-`."""
    if address is None:
        return "-"
    if isinstance(address, str | bytes):
        return "unix"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def linger_none(fd: int) -> None:
    """See to it that closing a socket sends a RST and forgets what was not sent: SO_LINGER of 0 s (man 7 socket)."""
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # reset by its peer already
    finally:
        sock.detach()


def find_hangup(fd: int) -> tuple[int, int] | None:
    """Return what is left of a connection whose peer is gone: the error (0: it ended in order), and bytes to be read.

    None if it is not gone: nothing happened, or it has only ended its sending side. The error is taken: the kernel
    does not tell it again.
    """
    poll = select.poll()
    poll.register(fd, 0)  # hang-ups and errors are always told
    if not poll.poll(0):
        return None
    sock = socket.socket(fileno=fd)
    try:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()
    return error, int.from_bytes(ioctl(fd, FIONREAD, bytes(4)), sys.byteorder)


def resolve_numeric(address: Any) -> tuple[int, Any]:
    """Return the family and the socket address of what `connect` takes. It never asks a name server.

    Raises:
        ValueError: it takes no such thing.
        OSError: the system cannot tell now, for lack of memory or descriptors.
    """
    if isinstance(address, (str, bytes)):
        if not 0 < len(os.fsencode(address)) <= UNIX_PATH_MAX_BYTES:
            raise ValueError(f"{address!r}: the path of a unix socket has 1 to {UNIX_PATH_MAX_BYTES} bytes")
        return socket.AF_UNIX, address
    if not (isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str) and address[0]):
        raise ValueError(f"{address!r}: not a (numeric host, port) or the path of a unix socket")
    host, port, *rest = address
    if not (isinstance(port, int) and 0 <= port <= 65535):
        raise ValueError(f"{address!r}: a port is a number from 0 to 65535")
    try:
        family, resolved = _numeric(host, port)
    except (socket.gaierror, UnicodeError):  # any other OSError is for lack of descriptors, say
        raise ValueError(f"{address!r}: the host must be a numeric address; resolve names first") from None
    if not rest:
        return family, resolved
    if not (family == socket.AF_INET6 and len(rest) <= 2 and all(map(_is_number, rest))):
        raise ValueError(f"{address!r}: only an IPv6 address has a flow label and a scope, both numbers")
    return family, (*resolved[:2], *rest, *resolved[2 + len(rest) :])


def _is_number(part: Any) -> bool:
    return isinstance(part, int)


@lru_cache(maxsize=1024)  # a proxy connects to the same few servers again and again
def _numeric(host: str, port: int) -> tuple[int, Any]:
    # As bytes: for text, the first look-up of a process imports a codec, which takes a descriptor.
    number = host.encode("ascii")
    family, _, _, _, resolved = socket.getaddrinfo(number, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[
        0
    ]
    return family, resolved


def check_socket(sock: Any, listening: bool) -> None:
    """Raise UnsupportedConn, saying why, if the watcher cannot take `sock` over."""
    ssl: Any = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise UnsupportedConn("an ssl.SSLSocket keeps bytes of its own, which the watcher cannot see")
    if not isinstance(sock, socket.socket):
        raise UnsupportedConn(f"a {type(sock).__name__} is neither a Conn nor a socket.socket")
    if sock.fileno() < 0:
        raise UnsupportedConn("the socket is closed, or was delegated before: use the Conn")
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
        raise UnsupportedConn(f"a {sock.family.name} {sock.type.name} socket: only TCP and unix streams are supported")
    if bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) != listening:
        raise UnsupportedConn(
            "the socket is not listening" if listening else "the socket is listening: accept() its connections"
        )


def check_deadline(deadline: Any) -> float:
    """Return a deadline as a float.

    Raises:
        ValueError, TypeError: it is not a finite number.
    """
    if not isfinite(deadline):
        raise ValueError(f"deadline={deadline}: must be finite time.monotonic() seconds, or None for none")
    return float(deadline)
