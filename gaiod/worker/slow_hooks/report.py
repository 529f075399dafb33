"""Hooks that block their loop for longer than `slow_hook`: counted exactly, and logged with their stack.

Two look. The loop itself reads a coarse clock after each hook (`Stopwatch`): so every slow hook is counted, whatever it
does. A thread (`Sampler`) sees one that goes on, and where it is; C code that holds the GIL keeps it from that.
"""

import logging
import time
from threading import Lock

from gaiod.core.engine import Stopwatch
from gaiod.log.rate_limit import RateLimit

log = logging.getLogger("gaiod.worker")

LOG_INTERVAL_S = 10.0
"""At most one slow call of a hook is told of in this time: a stack is a kilobyte, and a hook may always be slow."""

UNSEEN = "no stack: it kept the interpreter to itself until its end, as C code that holds the GIL does"


class SlowHooks:
    """Tells of slow hooks. The loop's thread says what is over, another what goes on.

    Attributes:
        watch: the worker's; one that stands still where hooks may take as long as they like.
    """

    def __init__(self, limit_s: float | None) -> None:
        self.watch = Stopwatch(0 if limit_s is None else int(limit_s * 1e9))
        self._lock = Lock()  # so that "it is over" does not come before "it goes on"
        self._limits: dict[tuple[str, str], RateLimit] = {}
        self._seen_ns = 0
        self._is_told = False

    def goes_on(self, since_ns: int, where: str, hook: str, conn: str, stack: str) -> None:
        """Log a hook that blocks its loop since a time of the stopwatch; once, however often this is called.

        Args:
            since_ns: when it began.
            where: the listener and the handler.
            hook: its name.
            conn: which connection it was called for; empty: for none.
            stack: where it is now.
        """
        with self._lock:
            if since_ns in (self._seen_ns, 0):
                return
            self._seen_ns = since_ns
            more = self._may_tell(where, hook)
            self._is_told = more is not None
            if more is not None:
                so_far_s = (time.monotonic_ns() - since_ns) / 1e9
                _tell(f"{where}: {hook} blocks its worker for {so_far_s:.2f} s so far{conn}{more}", stack)

    def is_over(self, where: str, hook: str, conn: str, took_ns: int) -> None:
        """Log what a slow hook took in all, if it was told of, or could not be seen while it went on."""
        with self._lock:
            if self._seen_ns == self.watch.since_ns - took_ns:
                if self._is_told:
                    _tell(f"{where}: {hook} is over after {took_ns / 1e9:.2f} s{conn}")
            elif (more := self._may_tell(where, hook)) is not None:
                _tell(f"{where}: {hook} blocked its worker for {took_ns / 1e9:.2f} s{conn}; {UNSEEN}{more}")

    def _may_tell(self, where: str, hook: str) -> str | None:
        """Return what to say of those that were not told of; None: do not tell of this one either."""
        limit = self._limits.setdefault((where, hook), RateLimit(LOG_INTERVAL_S))
        if not limit.allows(time.monotonic()):
            return None
        refused = limit.take_refused()
        return f" ({refused} more like this were not logged)" if refused else ""


def _tell(text: str, stack: str | None = None) -> None:
    record = log.makeRecord(log.name, logging.WARNING, __file__, 0, "%s", (text,), None, sinfo=stack)
    log.handle(record)
