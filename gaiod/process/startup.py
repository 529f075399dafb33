"""What the processes that a supervisor starts do first."""

import fcntl
import json
import mmap
import os
import resource
import socket
from contextlib import suppress
from typing import Any

FDS_MAX = 200
"""Descriptors in a message. The kernel passes 253 (SCM_MAX_FD)."""


def receive_settings(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Receive the first message, before there is a watcher to do it; and what came behind it."""
    data = bytearray()
    while b"\n" not in data:
        part = channel.recv(65536)
        if not part:
            raise SystemExit(os.EX_OSERR)  # the supervisor went before it said anything
        data += part
    line, _, rest = bytes(data).partition(b"\n")
    message: dict[str, Any] = json.loads(line)
    return message, rest


DESCRIPTORS_TABLE = 16_384
"""Descriptors that the kernel's table has room for from the start: 128 KiB of its memory."""


def make_room_for_descriptors(fd: int) -> None:
    """Have the kernel's table of this process's descriptors be large at once; `fd` is any that is open.

    The kernel doubles the table when it is full. If there is more than one thread by then, it waits for all CPUs to
    have left the old one: some 15 ms, for which a loop stands still while it accepts.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_TABLE if soft == resource.RLIM_INFINITY else min(soft, DESCRIPTORS_TABLE)
    with suppress(OSError):  # the last one is taken: then the table is that large
        os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, most - 1))


def map_cells(fd: int) -> Any:
    """Map the cells to count in: 64-bit integers."""
    return memoryview(map_file(fd)).cast("q")


def map_file(fd: int) -> mmap.mmap:
    """Map all of a file, to read and write; its descriptor is closed."""
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    return memory


def parts_of(count: int) -> list[slice]:
    """Return what of so many descriptors goes with each message of a socket pair."""
    return [slice(at, at + FDS_MAX) for at in range(0, count, FDS_MAX)]


def receive_fds(later_fds: socket.socket, count: int = 1) -> list[int] | None:
    """Receive the descriptors that the supervisor has passed; None: this process has no room for all of them."""
    found: list[int] = []
    for _ in parts_of(count):
        found += socket.recv_fds(later_fds, 1, FDS_MAX)[1]
    if len(found) == count:
        return found
    for fd in found:
        os.close(fd)
    return None
