"""What runs on a watcher, stepped by the test in its own thread."""

import time
from collections.abc import Callable

from core.support.waiting import LIMIT_S, seen

from gaiod import Watcher
from gaiod.process.dispatch import dispatch

STEP_S = 0.002


class Stepped:
    """Something on a watcher that nobody else runs."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def step(self, timeout_s: float = STEP_S) -> None:
        """Do one pass."""
        dispatch(self.watcher.wait_io(timeout_s))

    def step_until(self, look: Callable[[], object], what: str) -> None:
        """Pass until `look()` is true."""
        until_s = time.monotonic() + LIMIT_S
        while not seen(look):
            assert time.monotonic() < until_s, f"{what}: not within {LIMIT_S:g} s"
            self.step()

    def clients(self) -> int:
        """Return how many connections are open."""
        return len(self.watcher.connections())
