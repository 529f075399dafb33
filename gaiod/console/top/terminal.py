"""The terminal that is drawn on: its keys, its size, and how it was before."""

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

RESIZED = "resized"
"""What `Terminal.wait` returns when the window has another size: no key is called so."""


class Terminal:
    """Standard input as a source of single keys, while it is entered.

    It is left as it was found, whatever happens: also when the process is told to end. A process that is stopped by
    Ctrl-Z would leave a picture behind, so that does nothing meanwhile.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> "Terminal":
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._handle(signal.SIGWINCH, _note)
        self._handle(signal.SIGTSTP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handle(number, _end)
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._fd is not None and self._before is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
            except termios.error:
                pass  # the terminal is gone, and its state with it
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._woken.close()
        self._waker.close()

    def wait(self, timeout_s: float) -> str:
        """Return the next key, RESIZED, or "" when time is up."""
        watched = [self._woken.fileno()] if self._fd is None else [self._woken.fileno(), self._fd]
        ready, _, _ = select.select(watched, [], [], max(0.0, timeout_s))
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
            return RESIZED
        if self._fd is not None and self._fd in ready:
            typed = os.read(self._fd, 64)
            if not typed:
                self._fd_ended()
            return typed[:1].decode("ascii", "replace") if len(typed) == 1 else ""  # more: an arrow key, or a paste
        return ""

    def size(self) -> tuple[int, int]:
        """Return its columns and lines."""
        return os.get_terminal_size(sys.stdout.fileno())

    def _fd_ended(self) -> NoReturn:
        sys.exit(128 + signal.SIGHUP)  # the terminal is gone

    def _handle(
        self, number: signal.Signals, handler: Callable[[int, FrameType | None], Any] | signal.Handlers
    ) -> None:
        self._handlers[number] = signal.signal(number, handler)


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: that there was a signal is written to the socket."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as a shell expects of a process that a signal ended, but not before everything is as it was."""
    sys.exit(128 + number)
