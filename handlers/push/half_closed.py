"""Subscribers that have ended their side of the connection, each until its time is over."""

from bisect import bisect_left, insort
from math import inf

from gaiod import Conn

TURN_MAX = 1000
"""Most of them that end in one turn: thousands can have left at the same moment, and others are served in between."""


class HalfClosed:
    """Keeps those that have sent their FIN, in the order in which they end: one timer is enough for all of them.

    Args:
        timeout_s: how long each may go on.

    Attributes:
        timer_s: when the timer that is set rings; inf: none is. Its owner's.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timer_s = inf
        self._timeout_s = timeout_s
        self._entries: dict[Conn, tuple[float, int]] = {}
        self._order: list[tuple[float, int, Conn]] = []  # no two numbers are the same: connections are not compared
        self._next = 0

    def add(self, conn: Conn, now_s: float, left_s: float = inf) -> None:
        """Take one in that has ended its side, in `time.monotonic()` seconds; elsewhere before, so `left_s` is left."""
        self.remove(conn)
        until_s = now_s + (left_s if 0.0 <= left_s <= self._timeout_s else self._timeout_s)
        self._next += 1
        self._entries[conn] = until_s, self._next
        insort(self._order, (until_s, self._next, conn))

    def remove(self, conn: Conn) -> None:
        """Forget one that has closed, if it is there."""
        entry = self._entries.pop(conn, None)
        if entry is not None:
            del self._order[bisect_left(self._order, entry)]

    def take_due(self, now_s: float) -> list[Conn]:
        """Take those out whose time is over, as many as a turn may end."""
        count = min(TURN_MAX, bisect_left(self._order, (now_s, self._next + 1)))
        due = [conn for _, _, conn in self._order[:count]]
        del self._order[:count]
        for conn in due:
            del self._entries[conn]
        return due

    def first_s(self) -> float:
        """Return when the first one ends; inf: there is none."""
        return self._order[0][0] if self._order else inf

    def left_s(self, conn: Conn, now_s: float) -> float | None:
        """Return how long one may still go on; None: it has not ended its side."""
        entry = self._entries.get(conn)
        return None if entry is None else max(0.0, entry[0] - now_s)

    def __len__(self) -> int:
        return len(self._entries)
