"""The connection log: a line when a connection opens, moves, and closes, and every so often in between.

At most `rate` lines a second: a flood of connections must not fill a disk, nor cost more than it has to. A line
costs 16 us, one that is dropped 0.3 us (CPython 3.11).
"""

import logging
import time
from collections.abc import Callable
from typing import Any

from gaiod.core.connection import Conn
from gaiod.handler.termination import Termination
from gaiod.log.format import fields
from gaiod.log.rate_limit import RateLimit
from gaiod.settings import ConnectionLogSettings
from gaiod.stats.closes import ending_of
from gaiod.worker.names import Names

log = logging.getLogger("gaiod.connections")

TELL_INTERVAL_S = 10.0
"""What tells of dropped lines must not be half of the lines that are left."""


class ConnectionLog:
    """Writes what is wanted about the connections of a worker, and counts what is over the rate.

    Attributes:
        wants_opened, wants_closed, wants_moved: whether there is a line for that.
        every_s: how often there is one for each that is open; None: never.
        wants_any: whether there are lines at all.
    """

    def __init__(
        self,
        settings: ConnectionLogSettings,
        names: Names,
        count_dropped: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a log.

        Args:
            settings: what is wanted.
            names: of the worker's connections.
            count_dropped: called with 1 for each line that is over the rate.
            clock: in seconds; connections' times must be by it.
        """
        self.wants_opened = settings.opened
        self.wants_closed = settings.closed
        self.every_s = settings.every_s
        self.wants_moved = settings.moved
        self.wants_any = settings.opened or settings.closed or settings.moved or settings.every_s is not None
        self._rate = settings.rate
        self._names = names
        self._count_dropped = count_dropped
        self._clock = clock
        self._left = float(settings.rate)
        self._filled_s = clock()
        self._dropped = 0
        self._tells = RateLimit(TELL_INTERVAL_S)

    def opened(self, listener: str, conn: Conn, peer: str) -> None:
        """Tell of a new connection."""
        if self._may_write():
            log.info("connection opened", extra=fields(**self._who(listener, conn, peer)))

    def moved(self, listener: str, conn: Conn, peer: str, paused_s: float) -> None:
        """Tell of a connection that another worker has handed over, and for how long nobody moved its bytes."""
        origin = self._names.origin_of(conn)
        if origin is not None and self._may_write():
            place = {"from_worker": origin.worker, "from_generation": origin.generation, "from_process": origin.process}
            moved = {**place, "moves": origin.moves, "paused_s": round(paused_s, 6)}
            log.info("connection moved", extra=fields(**self._who(listener, conn, peer), **moved))

    def alive(self, listener: str, conn: Conn, peer: str) -> None:
        """Tell how an open connection is doing."""
        if self._may_write():
            who = self._who(listener, conn, peer)
            log.info("connection open", extra=fields(**who, **self._traffic(conn), pending=conn.pending_write_bytes))

    def closed(self, listener: str, conn: Conn, peer: str, termination: Termination, server: str | None) -> None:
        """Tell of the end of a connection, and of the server it was with, if it was with one."""
        if self._may_write():
            who = self._who(listener, conn, peer)
            if server is not None:
                who["server"] = server
            log.info("connection closed", extra=fields(**who, **self._traffic(conn), **ending_of(termination.key)))

    def _who(self, listener: str, conn: Conn, peer: str) -> dict[str, Any]:
        return {"conn": self._names.of(conn), "listener": listener, "peer": peer}

    def _traffic(self, conn: Conn) -> dict[str, Any]:
        now_s = self._clock()
        return {
            "received": conn.bytes_received,
            "sent": conn.bytes_sent,
            "duration_s": round(now_s - conn.opened_s, 3),
            "stalled_s": round(conn.stalled_s(now_s), 3),
        }

    def _may_write(self) -> bool:
        """Take a line out of what this second allows: a bucket that fills at `rate`, and holds a second's worth."""
        now_s = self._clock()
        self._left = min(float(self._rate), self._left + (now_s - self._filled_s) * self._rate)
        self._filled_s = now_s
        if self._left < 1:
            self._dropped += 1
            self._count_dropped(1)
            return False
        if self._dropped and self._tells.allows(now_s):
            log.warning("the connection log exceeded its rate", extra=fields(dropped=self._dropped, rate=self._rate))
            self._dropped = 0
            self._left -= 1
        self._left -= 1
        return True
