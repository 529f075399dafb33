"""What is said to the kernel about sockets, and asked: their options, and what it has not sent yet."""

import fcntl
import socket
import sys
import termios

from .options import TcpOptions

SocketOption = tuple[int, int, int | bytes]

KEEPALIVE_PROBES = 6
"""Probes that a server has to leave unanswered, within as long again as it was idle before the first."""

TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
"""Linux's number: the module lacks the name before Python 3.12."""


def socket_options(tcp: TcpOptions) -> tuple[SocketOption, ...]:
    """Return what to set on a TCP socket before it connects.

    Raises:
        ValueError: this machine does not have the congestion control.
    """
    options: list[SocketOption] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(tcp.nodelay))]
    if tcp.keepalive is not False:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        if hasattr(socket, "TCP_KEEPIDLE"):
            idle_s = int(tcp.keepalive)
            options.append((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s))
            options.append((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, idle_s // KEEPALIVE_PROBES)))
            options.append((socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES))
    if tcp.user_timeout is not False and hasattr(socket, "TCP_USER_TIMEOUT"):
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(tcp.user_timeout * 1000)))
    if tcp.congestion is not False:
        options.append(_congestion(tcp.congestion))
    if tcp.notsent_lowat is not False:
        options.append((socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, tcp.notsent_lowat))
    return tuple(options)


def _congestion(name: str) -> SocketOption:
    if not hasattr(socket, "TCP_CONGESTION"):
        raise ValueError("tcp.congestion: this system has no choice of congestion controls; remove it")
    option = (socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    with socket.socket() as probe:
        try:
            probe.setsockopt(*option)
        except OSError as error:
            raise ValueError(
                f"tcp.congestion: {name} cannot be used here, {error.strerror}; "
                "write one of net.ipv4.tcp_allowed_congestion_control (sysctl)"
            ) from None
    return option


def unsent_bytes(fd: int) -> int:
    """Return how many bytes a TCP socket's peer has not acknowledged (man 7 tcp: SIOCOUTQ); 0 where nobody knows."""
    try:
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)
