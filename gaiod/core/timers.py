"""Time: timers, and the deadlines of pending operations, in one heap that is checked lazily."""

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.engine import Poller
from gaiod.core.results import OpResult

STALE_MIN = 64
"""Stale entries that are not worth a sweep."""


class Timers:
    """What has to be looked at, and when.

    A connection has one entry per direction at most: a deadline behind the one that is set costs
    nothing, and is seen when that one rings. An idle timeout, which moves with every message, is
    such a one.

    Attributes:
        next_s: when the first entry is due, in `time.monotonic()` seconds; infinite if there is none.
    """

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.heap: list[tuple[float, int, Any]] = []  # time, number, a TIMER or 2 * descriptor + direction
        self.numbers = count(1)
        self.stale = 0
        self.next_s = inf

    def set_timer(self, operation: OpResult) -> None:
        """Add a TIMER."""
        self._push((operation.deadline, next(self.numbers), operation))

    def arm(self, conn: Conn, reading: bool, deadline_s: float) -> None:
        """Have one direction of a connection looked at by `deadline_s`."""
        if deadline_s >= (conn.read_timer_s if reading else conn.write_timer_s):
            return
        if (conn.read_timer if reading else conn.write_timer) != 0:
            self.stale += 1
        number = next(self.numbers)
        if reading:
            conn.read_timer = number
            conn.read_timer_s = deadline_s
        else:
            conn.write_timer = number
            conn.write_timer_s = deadline_s
        # The descriptor, not the connection: an entry must not keep a forgotten one alive.
        self._push((deadline_s, number, 2 * conn.fd + reading))

    def disarm(self, conn: Conn) -> None:
        """Note that a connection's entries mean nothing any more. From any thread: it only counts."""
        self.stale += (conn.read_timer != 0) + (conn.write_timer != 0)

    def forget(self, conn: Conn) -> None:
        """Give up a connection's entries, if there are any: it is looked at no more, or is armed anew."""
        self.disarm(conn)
        self._silence(conn, True)
        self._silence(conn, False)

    def due(self, now_s: float) -> list[Any]:
        """Take out what is due by `now_s`: timers, and (connection, is the reading direction)."""
        ringing: list[Any] = []
        while self.heap and self.heap[0][0] <= now_s:
            entry = heappop(self.heap)
            target = entry[2]
            owner = self._owner_of(entry)
            if owner is None:
                self.stale = max(0, self.stale - 1)
            elif type(target) is OpResult:
                ringing.append(target)
            else:
                ringing.append((self._silence(owner, target & 1), bool(target & 1)))
        self._look_ahead()
        return ringing

    def pending_timers(self) -> list[OpResult]:
        """Return the timers that have not rung."""
        return [entry[2] for entry in self.heap if type(entry[2]) is OpResult and entry[2] is self._owner_of(entry)]

    def _push(self, entry: Any) -> None:
        if self.stale > STALE_MIN and 2 * self.stale > len(self.heap):
            self.heap = [entry for entry in self.heap if self._owner_of(entry) is not None]
            heapify(self.heap)
            self.stale = 0
        heappush(self.heap, entry)
        self._look_ahead()

    def _look_ahead(self) -> None:
        self.next_s = self.heap[0][0] if self.heap else inf

    def _owner_of(self, entry: Any) -> Any:
        """Return whose entry it is: a timer that is pending, a connection that has it set; None if it is stale."""
        target = entry[2]
        if type(target) is OpResult:
            return target if self._is_pending(target) else None
        # Looked up once: another thread may drop the connection at any time.
        conn = self.poller.find(target >> 1)
        return conn if self._has_timer(conn, target & 1, entry[1]) else None

    def _is_pending(self, operation: OpResult) -> bool:
        return operation.pending

    def _has_timer(self, conn: Conn | None, reading: bool, number: int) -> bool:
        return conn is not None and number == (conn.read_timer if reading else conn.write_timer)

    def _silence(self, conn: Conn, reading: bool) -> Conn:
        if reading:
            conn.read_timer = 0
            conn.read_timer_s = inf
        else:
            conn.write_timer = 0
            conn.write_timer_s = inf
        return conn
