"""The main loop of a process that the supervisor has started: a heartbeat, completions, and an orderly end."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from gaiod.core.engine import Stopwatch
from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.channel import Channel
from gaiod.process.dispatch import Dispatcher, dispatch

GOODBYE_S = 0.5
"""How long the last words to the supervisor may take."""


class MainLoop:
    """Runs a watcher in the process's only thread.

    Args:
        watcher: it is closed at the end.
        channel: to the supervisor.
        watch: times the hooks; None: nobody wants to know.
    """

    def __init__(self, watcher: Watcher, channel: Channel, watch: Stopwatch | None = None) -> None:
        self._watcher = watcher
        self._channel = channel
        self._watch = watch
        self._dispatcher = Dispatcher(watcher, watch)

    @property
    def ended(self) -> bool:
        """Whether it is to end, or has."""
        return self._dispatcher.ended

    def end(self) -> None:
        """Return from `run`, once what this pass has brought is dealt with."""
        self._dispatcher.ended = True

    def after_pass(self, call: Callable[[], None]) -> None:
        """Have something called once all completions of this pass are dealt with, and before the next begins."""
        self._dispatcher.after_pass = call

    def beat_every(self, interval_s: float, cells: Any, heartbeat: int, also: Sequence[Callable[[], None]]) -> None:
        """Write the heartbeat now and then: a supervisor that reads an old one knows that the loop hangs.

        Args:
            interval_s: between two beats.
            cells: shared with the supervisor.
            heartbeat: the cell's index; `time.monotonic_ns()` is written there.
            also: called at each beat.
        """

        def beat(result: OpResult | None) -> None:
            cells[heartbeat] = time.monotonic_ns()
            for call in also:
                call()
            self._watcher.timer(time.monotonic() + interval_s, context=beat)

        beat(None)

    def run(self, at_end: Callable[[], None]) -> None:
        """Serve until `end` is called.

        Args:
            at_end: called once the last words are sent, or cannot be, before the watcher is closed.
        """
        wait_io, watch = self._watcher.wait_io, self._watch
        self._dispatcher.run()
        until_s = time.monotonic() + GOODBYE_S
        while self._channel.is_sending and time.monotonic() < until_s:
            dispatch(wait_io(until_s - time.monotonic()), watch)
        at_end()
        self._watcher.close()
        try:
            while True:
                dispatch(wait_io(), watch)
        except WatcherClosed:
            pass  # every completion was taken
