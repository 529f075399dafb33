"""Signals as bytes on a watcher: what arrives while it sleeps wakes it, and none is lost in between.

A Python signal handler runs between bytecodes only, so one that arrives just before epoll_wait would
wait for the next event. The interpreter's own C handler, though, writes the signal's number to the
wake-up descriptor at once (man 7 signal-safety: write is allowed there).
"""

import signal
import socket
from collections.abc import Callable
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.watcher import Watcher


class Signals:
    """Calls `take` with each of `wanted` that arrives, in the loop, until `close`. Main thread only."""

    def __init__(self, watcher: Watcher, wanted: list[signal.Signals], take: Callable[[signal.Signals], None]) -> None:
        self._take = take
        self._wanted = wanted
        receiving, self._sending = socket.socketpair()
        self._sending.setblocking(False)
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        for number in wanted:
            signal.signal(number, _noted)
        self._conn = watcher.delegate(receiving, context=self)
        self._conn.read()

    def close(self) -> None:
        """Give the signals their default meaning back."""
        for number in self._wanted:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._sending.close()
        self._conn.abort()

    def on_read(self, conn: Conn, result: Any) -> None:
        """Take the numbers that arrived."""
        numbers = bytes(result.buffer)
        conn.read()
        for number in numbers:
            if number in self._wanted:
                self._take(signal.Signals(number))

    def on_write(self, conn: Conn, result: Any) -> None:
        """Never: nothing is written to it."""

    def take(self, result: Any) -> None:
        """The pair was closed."""


def _noted(number: int, frame: object) -> None:
    """Stand for a Python handler, without which the C one would not write."""
