"""A message now and then, made here: for a heartbeat, a clock, or to try things."""

import math
import time

from gaiod import Outlet

from ..options import EveryOptions
from .alike import AlikeSource


class EverySource(AlikeSource):
    """Publishes a message at every multiple of its interval after its start.

    It does not drift: what is late is on time again with the next one. What a pause or workers that are behind
    made it miss is not made up for, and has no number in the sequence. That goes on when it is started anew.
    """

    def __init__(self, options: EveryOptions, topic: str) -> None:
        super().__init__(options, topic)
        self.name = options.label
        self._options = options
        self._topic = topic
        self._origin = f"every {self.name}"
        self._sequence = 0
        self._started_s = 0.0
        self._multiple = 0  # of the interval: the next message is due then

    def start(self, outlet: Outlet) -> None:
        self._sequence = int(outlet.position(self._origin) or 0)
        self._started_s = time.monotonic()
        self._multiple = 0
        self._await_next(outlet)

    def _await_next(self, outlet: Outlet) -> None:
        """Ring at the first multiple of the interval that is not over."""
        interval_s = self._options.every
        passed_s = time.monotonic() - self._started_s
        # The next one in any case: a timer may ring a rounding error too early.
        self._multiple = max(self._multiple, math.floor(passed_s / interval_s)) + 1
        outlet.timer(self._multiple * interval_s - passed_s, lambda: self._ring(outlet))

    def _ring(self, outlet: Outlet) -> None:
        self._await_next(outlet)
        if not outlet.is_behind:
            self._sequence += 1
            message = self._options.render(time.time(), self._sequence)
            outlet.publish(message, self._topic, (self._origin, str(self._sequence)))
