"""A source from its start to its stop, started again when it raises; and the source that every listener has."""

import errno
import logging
import time
from collections.abc import Callable

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.outlet import SourceOutlet
from gaiod.handler.handler import PUBLISH, Outlet, Source
from gaiod.process.backoff import Backoff

log = logging.getLogger("gaiod.feeder")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
"""After a start that failed; twice as long after each further one."""

BUSY_PAUSE_S = 0.01
"""Where somebody else has the address, it begins with this, and up to `PAUSE_FIRST_S` without a word: in an upgrade it
is the daemon before this one, which lets go of it in a moment. Nothing is ever taken over from a living process."""


class Commands(Source):
    """Publishes what `gaiod publish` says."""

    name = PUBLISH

    def __init__(self) -> None:
        self._outlet: Outlet | None = None

    def start(self, outlet: Outlet) -> None:
        """Begin to take commands."""
        self._outlet = outlet

    def stop(self) -> None:
        """Take no more."""
        self._outlet = None

    @property
    def takes(self) -> bool:
        """Whether it takes commands."""
        return self._outlet is not None

    def publish(self, data: bytes, topic: str) -> None:
        """Publish a message; as `Outlet.publish`."""
        if self._outlet is not None:
            self._outlet.publish(data, topic)


class Retry:
    """Tries something until it does not raise, less and less often. `attempt` is called at once, and later."""

    def __init__(self, watcher: Watcher, attempt: Callable[[], None], what: str) -> None:
        self._watcher = watcher
        self._attempt = attempt
        self._what = what
        self._backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)
        self._is_over = False
        self._busy_pause_s = BUSY_PAUSE_S
        self._try()

    def cancel(self) -> None:
        """Try no more."""
        self._is_over = True

    def _try(self, result: OpResult | None = None) -> None:
        if self._is_over:
            return
        now_s = time.monotonic()
        try:
            self._attempt()
        except BaseException as error:  # SystemExit, CancelledError: it must not end what feeds everybody
            is_busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            if is_busy and self._busy_pause_s < PAUSE_FIRST_S:
                self._watcher.timer(now_s + self._busy_pause_s, context=self._try)
                self._busy_pause_s *= 2
                return
            pause_s = self._backoff.take()
            if is_busy:
                log.error("%s: another process listens there; next attempt in %g s", self._what, pause_s)
            else:
                log.exception("%s; next attempt in %g s", self._what, pause_s)
            self._watcher.timer(now_s + pause_s, context=self._try)


class SourceRunner:
    """A source that runs. `new_outlet` makes the outlet of one start; `name` is what the log calls it."""

    def __init__(self, watcher: Watcher, source: Source, name: str, new_outlet: Callable[[], SourceOutlet]) -> None:
        self.source = source
        self._name = name
        self._new_outlet = new_outlet
        self._outlet: SourceOutlet | None = None
        self._is_stopped = False
        self._retry = Retry(watcher, self._start, f"{name} cannot be started")

    def stop(self) -> None:
        """Stop it; twice: nothing happens."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._retry.cancel()
        if self._outlet is not None:
            self._outlet.close()
            try:
                self.source.stop()
            except BaseException:
                log.exception("%s raised when it was stopped", self._name)

    def _start(self) -> None:
        outlet = self._new_outlet()
        outlet.up = True
        try:
            self.source.start(outlet)
        except BaseException:
            outlet.close()
            raise
        self._outlet = outlet
