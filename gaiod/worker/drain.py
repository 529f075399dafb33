"""Draining: letting connections finish, and closing in good order those that do not."""

import time
from collections.abc import Callable, Sequence
from math import ceil

from gaiod.core.connection import Conn
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.worker.listener import Listener

TICK_S = 0.02
QUIET_S = 1.0
"""A connection that has moved nothing for so long is not in the middle of a message, unless it waits for an answer."""

QUIET_PER_TICK = 10
"""Quiet connections that an eager drain closes per tick, 500 a second: their clients connect to somebody
else next, and that one should not see them all in one instant."""

LAST_PART = 0.1
"""In the last tenth of the time what is left is closed evenly, the quietest first, and last who waits for an answer."""

FLUSH_S = 0.5
"""How long what was written may take to be sent after the time is up."""


class Drain:
    """Stops listeners from accepting, and calls `done` when their connections are gone.

    Args:
        timeout_s: what connections have to finish.
        eager: also close those that are quiet and wait for no answer, before the time is up.
        is_held: tells whether connections may yet go to another worker: their time begins after that.
    """

    def __init__(
        self,
        watcher: Watcher,
        listeners: Sequence[Listener],
        timeout_s: float,
        *,
        eager: bool,
        done: Callable[[], None],
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._watcher = watcher
        self._listeners = listeners
        self._timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s
        self._is_held = is_held
        self._last_part_s = LAST_PART * timeout_s
        self._eager = eager
        self._done: Callable[[], None] | None = done
        for listener in listeners:
            listener.stop_accepting()
        watcher.post(self._tick)

    def cancel(self) -> None:
        """Do nothing more; another drain takes over."""
        self._done = None

    def _tick(self, result: OpResult) -> None:
        if self._done is None:
            return
        if self._is_held():
            self._deadline_s = time.monotonic() + self._timeout_s
            left_s = self._timeout_s
        else:
            left_s = self._deadline_s - time.monotonic()
            self._end_some(left_s)
        if any(listener.active for listener in self._listeners) and left_s > -FLUSH_S:
            self._watcher.timer(time.monotonic() + TICK_S, context=self._tick)
        else:
            self._done()

    def _end_some(self, left_s: float) -> None:
        if left_s <= -FLUSH_S:
            for listener in self._listeners:
                listener.close_all(abort=True)
        elif left_s <= 0:
            for listener in self._listeners:
                listener.close_all()
        else:
            self._close_some(left_s)

    def _close_some(self, left_s: float) -> None:
        now_s = time.monotonic()
        for listener in self._listeners:
            if left_s <= self._last_part_s:
                candidates = listener.clients()
                share = ceil(len(candidates) * TICK_S / left_s)
            elif self._eager:
                quiet = listener.clients(now_s - QUIET_S)
                candidates = [each for each in quiet if not (each.unanswered or each.pending_write_bytes)]
                share = QUIET_PER_TICK
            else:
                continue
            for conn in sorted(candidates, key=_urgency)[:share]:
                listener.end(conn, "drain")


def _urgency(conn: Conn) -> tuple[bool, float]:
    """Return how much a connection should go on: one that is busy is not quiet, however long nothing has moved."""
    return conn.busy or conn.unanswered, conn.active_s
