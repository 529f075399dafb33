"""How many lines of a kind there may be: what others can cause at will must not fill a disk."""

import logging
import time
from collections.abc import Hashable

LIMITED_INTERVAL_S = 1.0
"""At most one line of a kind in this time: what somebody can cause at will must not fill a disk."""

KINDS_MAX = 256
"""Kinds that are told apart: each line of a handler's code that raises is one."""


class RateLimit:
    """Says yes once per interval, and how often it said no in between."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = 0.0
        self._refused = 0

    def allows(self, now_s: float) -> bool:
        """Tell whether it is time; `now_s` by any clock that goes on."""
        if now_s < self._next_s:
            self._refused += 1
            return False
        self._next_s = now_s + self._interval_s
        return True

    def take_refused(self) -> int:
        """Return how often it said no since this was asked last."""
        refused, self._refused = self._refused, 0
        return refused


class LimitedLog:
    """Logs what others can cause as often as they like: of each kind a line now and then, and how many more there were.

    Whatever a client, a server or another user of the machine can bring about goes through one of these.
    """

    def __init__(self, log: logging.Logger, about: str = "") -> None:
        """Make it.

        Args:
            log: where lines go.
            about: what they are about, before each of them.
        """
        self._log = log
        self._before = f"{about}: " if about else ""
        self._limits: dict[Hashable, RateLimit] = {}

    def tell(self, level: int, kind: Hashable, text: str, *arguments: object, traceback: bool = False) -> None:
        """Log a message, unless there was one of its kind a moment ago.

        Args:
            level: as `logging` has it.
            kind: of these there are few, known when the program is written. Beyond `KINDS_MAX` all others are one.
            text: with a place for each of `arguments`.
            arguments: put into it.
            traceback: add that of the exception that is being handled.
        """
        if kind not in self._limits and len(self._limits) >= KINDS_MAX:
            kind = None
        limit = self._limits.setdefault(kind, RateLimit(LIMITED_INTERVAL_S))
        if limit.allows(time.monotonic()):
            more = limit.take_refused()
            suffix = f" ({more} more like this before)" if more else ""
            self._log.log(level, f"%s{text}%s", self._before, *arguments, suffix, exc_info=traceback)
