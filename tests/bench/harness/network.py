"""A network of the benchmark's own, so that it can choose for sockets whose programs cannot."""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def enter_own_network() -> None:
    """Move this process and its future children into a new network namespace, where reno is the default.

    The default is a namespace's own (tcp(7)), and what a proxy without an option for it uses for its
    connections to servers. Only loopback is there. It takes CAP_SYS_ADMIN.

    Raises:
        OSError: it is not allowed; nothing or only a part of it was done.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    CONGESTION_CONTROL.write_text("reno")


def congestion_control() -> str:
    """Return what a new socket uses that nobody has chosen for."""
    return CONGESTION_CONTROL.read_text().strip()
