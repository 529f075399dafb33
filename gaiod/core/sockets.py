"""Questions to what a watcher is given: sockets, addresses, deadlines."""

import os
import socket
import sys
from math import isfinite
from typing import Any

from gaiod.core.errors import UnsupportedConn

UNIX_PATH_MAX_BYTES = 107
"""sun_path of struct sockaddr_un has 108 on Linux, the last of them 0 (man 7 unix)."""


def address_of(fd: int, *, peer: bool) -> Any:
    """Return the address of one end of an open socket; None if it has none (reset, or not connected)."""
    sock = socket.socket(fileno=fd)
    try:
        return sock.getpeername() if peer else sock.getsockname()
    except OSError:
        return None
    finally:
        sock.detach()


def family_of(address: Any) -> int:
    """Return the address family of what `connect` takes.

    Raises:
        ValueError: it takes no such thing.
    """
    if isinstance(address, (str, bytes)):
        if not 0 < len(os.fsencode(address)) <= UNIX_PATH_MAX_BYTES:
            raise ValueError(f"{address!r}: the path of a unix socket has 1 to {UNIX_PATH_MAX_BYTES} bytes")
        return socket.AF_UNIX
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        if not (isinstance(address[1], int) and 0 <= address[1] <= 65535):
            raise ValueError(f"{address!r}: a port is a number from 0 to 65535")
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, address[0].partition("%")[0])
            except OSError:
                continue
            return family
    raise ValueError(f"{address!r}: not a (numeric host, port) or the path of a unix socket; resolve names first")


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
