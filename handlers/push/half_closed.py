"""Subscribers that have ended their side of the connection, each until its time is over."""

from collections import OrderedDict

from gaiod import Conn

TURN_MAX = 1000
"""Most of them that end in one turn: thousands can have left at the same moment, and others are served in between."""


class HalfClosed:
    """Keeps those that have sent their FIN, in the order in which they end: one timer is enough for all of them.

    Args:
        timeout_s: how long each may go on.

    Attributes:
        is_timed: the timer is set. Its owner's.
    """

    def __init__(self, timeout_s: float) -> None:
        self.is_timed = False
        self._timeout_s = timeout_s
        self._until_s: OrderedDict[Conn, float] = OrderedDict()

    def add(self, conn: Conn, now_s: float) -> None:
        """Take one in that has ended its side now, in `time.monotonic()` seconds."""
        self._until_s[conn] = now_s + self._timeout_s

    def remove(self, conn: Conn) -> None:
        """Forget one that has closed, if it is there."""
        self._until_s.pop(conn, None)

    def take_due(self, now_s: float) -> list[Conn]:
        """Take those out whose time is over, as many as a turn may end."""
        due: list[Conn] = []
        while self._until_s and len(due) < TURN_MAX and self.next_in_s(now_s) <= 0:
            due.append(self._until_s.popitem(last=False)[0])
        return due

    def next_in_s(self, now_s: float) -> float:
        """Return how soon the first one ends. There has to be one."""
        return max(0.0, next(iter(self._until_s.values())) - now_s)

    def left_s(self, conn: Conn, now_s: float) -> float | None:
        """Return how long one may still go on; None: it has not ended its side."""
        until_s = self._until_s.get(conn)
        return None if until_s is None else max(0.0, until_s - now_s)

    def __len__(self) -> int:
        return len(self._until_s)
