"""A source from its start to its stop, started again when it raises; and the source that every listener has."""

import logging
import time
from collections.abc import Callable

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.outlet import Destination, SourceOutlet
from gaiod.handler.handler import PUBLISH, Outlet, Source
from gaiod.process.backoff import Backoff

log = logging.getLogger("gaiod.feeder")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
"""After a start that failed; twice as long after each further one."""


class Commands(Source):
    """Publishes what `gaiod publish` says."""

    name = PUBLISH

    def __init__(self) -> None:
        self._outlet: Outlet | None = None

    def __eq__(self, other: object) -> bool:
        """All do the same."""
        return isinstance(other, Commands)

    __hash__ = None  # type: ignore[assignment]

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
        self._try()

    def cancel(self) -> None:
        """Try no more."""
        self._is_over = True

    def _try(self, result: OpResult | None = None) -> None:
        if self._is_over:
            return
        try:
            self._attempt()
        except BaseException:  # SystemExit, CancelledError: it must not end what feeds everybody
            pause_s = self._backoff.take()
            log.exception("%s; next attempt in %g s", self._what, pause_s)
            self._watcher.timer(time.monotonic() + pause_s, context=self._try)


class SourceRunner:
    """A source that runs.

    Attributes:
        source: the source.
    """

    def __init__(
        self,
        watcher: Watcher,
        source: Source,
        name: str,
        new_outlet: Callable[[Destination], SourceOutlet],
        destination: Destination,
    ) -> None:
        """Start a source, again and again until that works.

        Args:
            watcher: the feeder's.
            source: the source.
            name: what the log calls it.
            new_outlet: makes the outlet of one start.
            destination: where its messages go.
        """
        self.source = source
        self._name = name
        self._new_outlet = new_outlet
        self._destination = destination
        self._outlet: SourceOutlet | None = None
        self._retry = Retry(watcher, self._start, f"{name} cannot be started")

    @property
    def listens(self) -> bool:
        """Whether it has clients of its own."""
        return self._outlet is not None and self._outlet.listens

    def is_like(self, source: Source) -> bool:
        """Tell whether it does what another source would do in its place: `Source` says how that is known."""
        try:
            return type(self.source) is type(source) and bool(self.source == source)
        except BaseException:  # the author's own
            return False

    def go_on(self, destination: Destination) -> None:
        """Send what is published from now on somewhere else."""
        self._destination = destination
        if self._outlet is not None:
            self._outlet.destination = destination

    def stop(self, stopped: Callable[["SourceRunner"], None]) -> None:
        """Stop it, and call `stopped`: at once, or when its clients are done. To be called once."""
        self._retry.cancel()
        if self._outlet is None:
            stopped(self)
        else:
            self._outlet.finish(lambda: self._stop(stopped))

    def _stop(self, stopped: Callable[["SourceRunner"], None]) -> None:
        assert self._outlet is not None
        self._outlet.close()
        try:
            self.source.stop()
        except BaseException:
            log.exception("%s raised when it was stopped", self._name)
        stopped(self)

    def renew_inlets(self) -> None:
        """Have it listen at the sockets that its addresses have now."""
        if self._outlet is not None:
            self._outlet.renew_inlets()

    def _start(self) -> None:
        outlet = self._new_outlet(self._destination)
        outlet.up = True
        try:
            self.source.start(outlet)
        except BaseException:
            outlet.close()
            raise
        self._outlet = outlet
