"""Relays at their limits: a source that sends until nothing moves any more."""

import socket

from core.support.sockets import pattern
from core.support.waiting import LIMIT_S
from gaiod.core.watcher import Watcher

STREAM = pattern(32 << 20)
"""More than the kernel queues between two sockets."""


def fill(watcher: Watcher, far_source: socket.socket, data: bytes = STREAM) -> int:
    """Send until nothing moves any more; return the bytes that were taken."""
    far_source.setblocking(False)
    sent = quiet = 0
    while quiet < 10 and sent < len(data):
        try:
            sent += far_source.send(memoryview(data)[sent:])
            quiet = 0
        except BlockingIOError:
            quiet += 1
        watcher.wait_io(0.002)
    far_source.settimeout(LIMIT_S)
    return sent
