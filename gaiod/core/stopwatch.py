"""What of a pass took too long, with one look at the clock for each completion. Its twin is `_stopwatch.pyx`."""

import time
from collections.abc import Callable
from typing import Any


def _nobody() -> None:
    """Wake nobody."""


class Stopwatch:
    """Times what one thread does, lap after lap. Any thread may look.

    Attributes:
        limit_ns: longer laps are too long; 0: it stands still.
        since_ns: when the present lap began, in `time.monotonic_ns()`, at most a tick of the kernel (10 ms) early.
        took_ns: what the last lap that was too long took.
        results: what is being worked through; None: nothing.
        index: how far.
        target, hook, conn: who calls which hook, and for which connection, if `note` was told; None: nobody.
        is_watched: False: call `wake` when a pass begins.
        wake: for whoever sleeps while nothing runs.
    """

    def __init__(self, limit_ns: int) -> None:
        self.limit_ns = limit_ns
        self.since_ns = 0
        self.took_ns = 0
        self.results: list[Any] | None = None
        self.index = 0
        self.target: Any = None
        self.hook: str | None = None
        self.conn: Any = None
        self.is_watched = True
        self.wake: Callable[[], None] = _nobody

    def begin(self, results: list[Any]) -> None:
        """Start with the first of these."""
        if self.limit_ns:
            self.index = 0
            self.since_ns = time.monotonic_ns()
            self.results = results
            if not self.is_watched:
                self.is_watched = True
                self.wake()

    def note(self, target: Any, hook: str, conn: Any) -> None:
        """Say whom the present lap is for: a target calls a hook, for a connection or for none."""
        self.target = target
        self.hook = hook
        self.conn = conn

    def lap(self) -> bool:
        """Begin another lap; tell whether the one before was too long. Outside of a pass none is."""
        self.target = self.conn = None
        if self.results is None:
            return False
        now_ns = time.monotonic_ns()
        took_ns = now_ns - self.since_ns
        self.since_ns = now_ns
        if took_ns < self.limit_ns:
            return False
        self.took_ns = took_ns
        return True

    def step(self) -> None:
        """Go on to the next."""
        self.index += 1

    def end(self) -> None:
        """Stop, and hold nothing."""
        self.results = None
