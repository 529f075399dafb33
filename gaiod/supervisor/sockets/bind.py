"""Listening sockets: made by the supervisor, served by the workers."""

import errno
import os
import socket
import sys
from dataclasses import dataclass

from gaiod.addresses import Address
from gaiod.core.errors import GaiodError
from gaiod.process.socket_files import MODE, UnixListener

ALLOWED_CONGESTION = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
CONGESTION_BYTES = 16
"""TCP_CA_NAME_MAX, with its final NUL."""


KEEPALIVE_PROBES = 6
"""Probes that a peer has to leave unanswered, within as long again as it was idle before the first. Linux by itself
sends one in 75 s: within a TCP_USER_TIMEOUT of two minutes one lost packet would end an idle connection."""


class BindError(GaiodError):
    """A listener cannot be opened; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What is set on a listening socket; its connections inherit it."""

    backlog: int = 128
    nodelay: bool = True
    keepalive_s: float | None = None
    user_timeout_s: float | None = None
    congestion: str | None = None
    notsent_lowat_bytes: int | None = None
    mode: int = MODE
    """Of a socket file, from the moment it is there."""


def open_listener(name: str, address: Address, options: SocketOptions, *, first: bool = True) -> socket.socket:
    """Open a listening socket, close-on-exec.

    More can be opened at the same TCP address, with `first` False. Those do not listen yet: the kernel would send
    them clients at once. `retune` lets them.

    Args:
        name: what messages call it.
        address: where; a socket file left behind is replaced.
        options: what its connections inherit.
        first: refuse an address where somebody listens.

    Raises:
        BindError: it cannot be opened.
    """
    try:
        if address.kind == "unix":
            return UnixListener.at(address.path, mode=options.mode, backlog=options.backlog)
        sock = _tcp(address, options, first)
        try:
            if first:
                sock.listen(options.backlog)  # may fail where bind() did not: two that set SO_REUSEADDR can both bind
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise BindError(
            f"{name}: cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}; "
            f"{_advice(error, address)}"
        ) from error
    return sock


def check_congestion(name: str, congestion: str) -> None:
    """Look whether connections may have an algorithm of congestion control; `name` is what messages call the listener.

    Raises:
        BindError: the kernel has no such algorithm, or does not let this process use it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        except OSError as error:
            if error.errno == errno.EPERM:
                what, remedy = "is not for everybody", f"add it to {ALLOWED_CONGESTION}"
            else:
                what, remedy = "is no algorithm of this kernel", f"load its module (modprobe tcp_{congestion})"
            raise BindError(
                f"{name}: congestion: {congestion} {what} ({os.strerror(error.errno or 0)}); {remedy}, or choose one "
                f"that is there (cat {ALLOWED_CONGESTION})"
            ) from error


def bound_address(sock: socket.socket) -> Address:
    """Return where a socket listens: with the port the kernel chose."""
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()  # bytes if it is an abstract one, which only systemd can have opened
        return Address("unix", path=name if isinstance(name, str) else "@" + os.fsdecode(name[1:]))
    host, port = sock.getsockname()[:2]
    return Address("ipv6" if sock.family == socket.AF_INET6 else "ipv4", host, port)


def close_listener(sock: socket.socket) -> None:
    """Close it, and take its socket file away, unless that is another's by now."""
    if isinstance(sock, UnixListener):
        sock.remove_file()
    sock.close()


def retune(sock: socket.socket, options: SocketOptions) -> None:
    """Set what connections inherit on a socket that listens already; those that exist keep what they have."""
    if isinstance(sock, UnixListener):
        sock.change_mode(options.mode)
    elif sock.family != socket.AF_UNIX:
        _tune(sock, options)
    sock.listen(options.backlog)


def _tcp(address: Address, options: SocketOptions, first: bool) -> socket.socket:
    family = socket.AF_INET6 if address.kind == "ipv6" else socket.AF_INET
    if first:
        # With SO_REUSEPORT the kernel would let us share the address of another gaiod of the same user.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            _claim(probe, address)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _tune(sock, options)
        _claim(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _claim(sock: socket.socket, address: Address) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # [::] means IPv6; 0.0.0.0 is for IPv4
    sock.bind(address.target)


def _tune(sock: socket.socket, options: SocketOptions) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(options.nodelay))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.keepalive_s is not None))
    if options.keepalive_s is not None and hasattr(socket, "TCP_KEEPIDLE"):
        idle_s = max(1, round(options.keepalive_s))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle_s // KEEPALIVE_PROBES))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    if sys.platform == "linux":
        # 0 stands for the system's own in both; of congestion there is only a name, and a socket may have another.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * (options.user_timeout_s or 0)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, options.notsent_lowat_bytes or 0)
        wanted = _system_congestion() if options.congestion is None else options.congestion
        if _congestion_of(sock) != wanted:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, wanted.encode())


def _congestion_of(sock: socket.socket) -> str:
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION_BYTES)
    return name.partition(b"\0")[0].decode()


def _system_congestion() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh:
        return _congestion_of(fresh)


def _advice(error: OSError, address: Address) -> str:
    match error.errno:
        case errno.EADDRINUSE if address.kind == "unix":
            return "another process listens there: stop it (ss -lxp shows it), or choose another path"
        case errno.EADDRINUSE:
            return "another process listens there: stop it (ss -ltnp shows it), or choose another port"
        case errno.EEXIST:
            return "what is there is no socket, and stays: move it away, or choose another path"
        case errno.EACCES | errno.EPERM:
            return (
                "ports below 1024 and foreign folders need a privilege: grant CAP_NET_BIND_SERVICE, choose another, or "
                "restart a gaiod that root started: it binds before it becomes another user"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address: ip address shows which it has"
        case errno.ENOENT | errno.ENOTDIR:
            return "make the folder first"
        case _:
            return "choose another address"
