"""When a worker that died is started again, and when that is given up."""

from collections import deque

SETTLED_S = 1.0
"""A worker that has served for so long is not one that cannot: when it dies, it is replaced at once."""

FAILURES_MAX, FAILURES_WINDOW_S = 5, 30.0
"""So many workers of a slot that died before they had settled, in this time: starting more does not help."""

BACKOFF_FIRST_S = 0.5
"""The pause after the first of them; twice as long after each further one."""


class CrashLoop:
    """Remembers, for each slot, the workers that died before they had settled."""

    def __init__(self) -> None:
        self._failures: dict[int, deque[float]] = {}

    def pause_s(self, slot: int, served_s: float, now_s: float) -> float | None:
        """Return how long to wait before the next worker is started; None: not at all, give up.

        Args:
            slot: where a worker has died.
            served_s: for how long it had served.
            now_s: the time, by any clock that goes on.
        """
        if served_s >= SETTLED_S:
            return 0.0
        failures = self._failures.setdefault(slot, deque(maxlen=FAILURES_MAX))
        failures.append(now_s)
        recent = sum(now_s - failed_s <= FAILURES_WINDOW_S for failed_s in failures)
        return None if recent >= FAILURES_MAX else BACKOFF_FIRST_S * 2.0 ** (recent - 1)
