"""What the kernel knows about a stream socket: TCP_INFO where Linux has it, and what its queues hold."""

import fcntl
import socket
import struct
import sys
import termios
from typing import Any

INFO = struct.Struct("=BBBBBBBB24I4Q4I")
"""struct tcp_info (linux/tcp.h) as far as `tcpi_min_rtt`, which Linux 4.6 has."""

STATES = {
    1: "established", 2: "syn_sent", 3: "syn_received", 4: "fin_wait1", 5: "fin_wait2", 6: "time_wait", 7: "closed",
    8: "close_wait", 9: "last_ack", 10: "listen", 11: "closing",
}  # fmt: skip
"""tcpi_state, as linux/tcp_states.h numbers them."""


def tcp_info(fd: int) -> dict[str, Any] | None:
    """Return what TCP says of an open socket; None where it says nothing, as of a unix socket."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(fileno=fd)
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)
        user_timeout_ms = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    except OSError:
        return None  # no TCP
    finally:
        sock.detach()
    if len(raw) < INFO.size:
        return None  # an older kernel
    state, _, retransmits, probes, _, _, _, _, *numbers = INFO.unpack(raw)
    return {
        "state": STATES.get(state, str(state)),
        "rtt_s": numbers[15] / 1e6,
        "rttvar_s": numbers[16] / 1e6,
        "unacked_segments": numbers[4],
        "retransmits": retransmits,
        "retransmits_total": numbers[23],
        "window_probes": probes,
        "last_sent_s": numbers[9] / 1e3,
        "last_received_s": numbers[11] / 1e3,
        "unsent_bytes": numbers[30],
        "user_timeout_s": user_timeout_ms / 1e3 or None,
    }


def kernel_of(fd: int) -> dict[str, Any]:
    """Return what the kernel knows of an open socket: its queues, and as `tcp` what TCP says."""
    return {**queues(fd), "tcp": tcp_info(fd)}


def queues(fd: int) -> dict[str, int | None]:
    """Return how many bytes wait in the kernel: sent and not acknowledged or taken, and received and not read."""
    return {"send_queue_bytes": _ask(fd, termios.TIOCOUTQ), "receive_queue_bytes": _ask(fd, termios.FIONREAD)}


def _ask(fd: int, request: int) -> int | None:
    try:
        return int.from_bytes(fcntl.ioctl(fd, request, bytes(4)), sys.byteorder)
    except OSError:
        return None
