"""Timers of a listener: they ring for as long as there is somebody to ring for."""

import time
from collections.abc import Callable

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


class Timers:
    """Calls things later.

    Args:
        watcher: the worker's.
        is_wanted: tells when a time has come whether anything is to be done.
    """

    def __init__(self, watcher: Watcher, is_wanted: Callable[[], bool]) -> None:
        self._watcher = watcher
        self._is_wanted = is_wanted

    def every(self, interval_s: float, action: Callable[[], None]) -> None:
        """Call `action` now and then, until that is not wanted."""

        def ring() -> None:
            action()
            self.after(interval_s, ring)

        self.after(interval_s, ring)

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` once, if that is wanted then."""

        def ring(result: OpResult) -> None:
            if self._is_wanted():
                action()

        self._watcher.timer(time.monotonic() + delay_s, context=ring)
