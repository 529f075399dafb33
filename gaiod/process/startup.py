"""What the processes that a supervisor starts do first."""

import json
import mmap
import os
import socket
from typing import Any


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


def map_cells(fd: int) -> Any:
    """Map the cells to count in: 64-bit integers."""
    return memoryview(map_file(fd)).cast("q")


def map_file(fd: int) -> mmap.mmap:
    """Map all of a file, to read and write; its descriptor is closed."""
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    return memory


def receive_fd(later_fds: socket.socket) -> int | None:
    """Receive the descriptor that the supervisor has passed; None: this process has no room for another."""
    _, fds, _, _ = socket.recv_fds(later_fds, 1, 1)
    return fds[0] if fds else None
