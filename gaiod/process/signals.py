"""Signals as bytes on a watcher: what arrives while it sleeps wakes it, and none is lost in between.

A Python signal handler runs between bytecodes only, so one that arrives just before epoll_wait would
wait for the next event. The interpreter's own C handler, though, writes the signal's number to the
wake-up descriptor at once (man 7 signal-safety: write is allowed there).
"""

import signal
import socket
from collections.abc import Callable

from gaiod.core.connection import Conn
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.dispatch import Target


class Signals(Target):
    """Calls `take` with each of `wanted` that arrives, in the loop, until `close`. Main thread only."""

    def __init__(self, watcher: Watcher, wanted: list[signal.Signals], take: Callable[[signal.Signals], None]) -> None:
        super().__init__(self._read, None)
        self._take_signal = take
        self._wanted = wanted
        receiving, self._sending = socket.socketpair()
        self._sending.setblocking(False)
        signal.set_wakeup_fd(self._sending.fileno(), warn_on_full_buffer=False)
        for number in wanted:
            signal.signal(number, _noted)
        self._conn = watcher.delegate(receiving, context=self)
        self._conn.read()

    def close(self, *, ignore: bool = False) -> None:
        """Give the signals their default meaning back.

        Args:
            ignore: ignore them instead: in a process that ends in order now, and must not look killed by one that
                comes a moment late, because it was sent to all processes.
        """
        for number in self._wanted:
            signal.signal(number, signal.SIG_IGN if ignore else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._sending.close()
        self._conn.abort()

    def _read(self, conn: Conn, result: OpResult) -> None:
        """Take the numbers that arrived."""
        # Of what is pending together the kernel delivers the last first, so the order of the bytes tells nothing.
        # That a child has ended may be what another signal did to it: look at that last.
        numbers = sorted(bytes(result.buffer), key=lambda number: number == signal.SIGCHLD)
        conn.read()
        for number in numbers:
            if number in self._wanted:
                self._take_signal(signal.Signals(number))

    def on_completion(self, result: OpResult) -> None:
        """The pair was closed."""


def _noted(number: int, frame: object) -> None:
    """Stand for a Python handler, without which the C one would not write."""
