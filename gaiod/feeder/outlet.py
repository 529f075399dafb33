"""Outlets: what a source publishes through. `gaiod.Outlet` is the interface, this is what there is behind it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, get_ident
from typing import Any

from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.journal import Journal, Position, check_position
from gaiod.feeder.source_listener import SourceListener
from gaiod.feeder.thread_queue import ThreadQueue
from gaiod.handler.handler import IDLE_TIMEOUT_S, Handler
from gaiod.log.rate_limit import LimitedLog
from gaiod.process.feed_records import MESSAGE_MAX_BYTES, TOPIC_MAX_BYTES
from gaiod.stats.feeder_cells import SOURCE_CELL, row

log = logging.getLogger("gaiod.feeder")

OVERHEAD_BYTES = 512
"""What a message of a thread takes beside its bytes, until the loop has sent it. It bounds small ones, too: the loop
takes 2,000 at a time, some 15 ms of work."""


@dataclass(frozen=True, slots=True)
class FeederContext:
    """What all outlets of a feeder work with.

    Attributes:
        watcher: the feeder's.
        journal: where positions are kept.
        cells: where sources count: `feeder_cells`, shared with the supervisor.
        inlet_cells: where inlets do: the watcher's own.
        thread_queue: what other threads publish through.
        lock: around each count, since threads count.
        thread: the loop's.
    """

    watcher: Watcher
    journal: Journal
    cells: Any
    inlet_cells: Any
    thread_queue: ThreadQueue
    lock: Lock = field(default_factory=Lock)
    thread: int = field(default_factory=get_ident)


class SourceOutlet:
    """The outlet of one source, from one start of it to its stop."""

    def __init__(
        self,
        context: FeederContext,
        listener: str,
        source: str,
        number: int,
        *,
        encode: Callable[[str, bytes], bytes],
        route: Callable[[str, bytes, bytes, Position | None], None],
    ) -> None:
        """Make it.

        Args:
            context: the feeder's.
            listener: the name of the listener that is fed.
            source: the source's.
            number: of its row of cells.
            encode: makes of (topic, message) what workers get; raises ValueError for one that cannot be published.
            route: sends (topic, message, encoded message), and keeps a position, in the loop's thread.
        """
        self._context = context
        self.tell = LimitedLog(log, f"source {source} of listener {listener}").tell
        self._listener = listener
        self._inlet_name = f"{listener}/{source}"
        self._row = row(number)
        self._encode = encode
        self._route = route
        self._is_open = True
        self._inlets: list[SourceListener] = []

    # -- what a source uses ------------------------------------------------------------------------------

    def publish(self, data: bytes, topic: str, position: Position | None = None) -> None:
        """As `Outlet.publish`."""
        if not self._is_open:
            return
        if position is not None:
            check_position(position)
        try:
            encoded = _checked(topic, self._encode(topic, data))
        except BaseException as error:  # the handler's own, whatever it raises
            if position is not None:
                self.keep(*position)
            self._count("refused")
            self.tell(logging.WARNING, "refused", "a message is refused: %s", error)
            if isinstance(error, Exception):
                raise
            raise RuntimeError(f"encode_message raised {error!r}") from error  # that would end a source's thread
        self._in_loop(lambda: self._send(topic, data, encoded, position), len(data) + len(encoded))

    def position(self, origin: str) -> str | None:
        """As `Outlet.position`."""
        return self._context.journal.position(self._listener, origin)

    def keep(self, origin: str, text: str) -> None:
        """As `Outlet.keep`."""
        check_position((origin, text))
        self._in_loop(lambda: self._keep((origin, text)), 0)

    @property
    def is_behind(self) -> bool:
        """As `Outlet.is_behind`."""
        return self._context.thread_queue.is_behind

    @property
    def up(self) -> bool:
        """As `Outlet.up`."""
        return bool(self._context.cells[self._row + SOURCE_CELL["up"]])

    @up.setter
    def up(self, is_up: bool) -> None:
        with self._context.lock:
            if self._is_open:
                self._context.cells[self._row + SOURCE_CELL["up"]] = bool(is_up)

    def reconnected(self) -> None:
        """As `Outlet.reconnected`."""
        self._count("reconnects")

    def gap(self, reason: str) -> None:
        """As `Outlet.gap`."""
        self._count("gaps")
        if self._is_open:
            self.tell(logging.WARNING, "gap", "messages may be missing: %s", reason)

    def reset(self, kind: str, reason: str) -> None:
        """As `Outlet.reset`."""
        self._count(kind)
        self.gap(reason)

    def timer(self, delay_s: float, action: Callable[[], None]) -> None:
        """As `Outlet.timer`."""
        self._context.watcher.timer(time.monotonic() + delay_s, context=lambda result: self._call("timer", action))

    def post(self, action: Callable[[], None]) -> None:
        """As `Outlet.post`."""

        def take(result: OpResult) -> None:
            self._call("post", action)

        try:
            self._context.watcher.post(take)
        except WatcherClosed:
            pass  # the thread cannot know

    def serve(self, bind: str, handler: Handler, *, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        """As `Outlet.serve`."""
        context = self._context
        self._inlets.append(
            SourceListener(
                context.watcher, context.inlet_cells, self._inlet_name, bind, handler, idle_timeout_s=idle_timeout_s
            )
        )

    # -- what the feeder uses ----------------------------------------------------------------------------

    def close(self) -> None:
        """Do nothing more for the source: what its threads publish from now on goes to nobody, and waits for none."""
        self.up = False
        with self._context.lock:
            self._is_open = False
        self._context.thread_queue.wake()
        inlets, self._inlets = self._inlets, []
        for inlet in inlets:
            inlet.close()

    def _in_loop(self, action: Callable[[], None], size: int) -> None:
        if get_ident() == self._context.thread:
            action()
        else:
            self._context.thread_queue.put(action, size + OVERHEAD_BYTES, lambda: self._is_open)

    def _send(self, topic: str, data: bytes, encoded: bytes, position: Position | None) -> None:
        if self._is_open:
            self._route(topic, data, encoded, position)
            self._count("published")
            self._note_kept(position)

    def _keep(self, position: Position) -> None:
        if self._is_open:
            self._context.journal.move(self._listener, position)
            self._note_kept(position)

    def _note_kept(self, position: Position | None) -> None:
        if position is not None:
            with self._context.lock:
                self._context.cells[self._row + SOURCE_CELL["keeps"]] = 1

    def _call(self, what: str, action: Callable[[], None]) -> None:
        if self._is_open:
            try:
                action()
            except BaseException:  # SystemExit, CancelledError: it must not end what feeds everybody
                self.tell(logging.ERROR, what, "what its %s was for raised; the source goes on", what, traceback=True)

    def _count(self, cell: str) -> None:
        with self._context.lock:
            if self._is_open:
                self._context.cells[self._row + SOURCE_CELL[cell]] += 1


def _checked(topic: str, encoded: bytes) -> bytes:
    """Return what can be sent.

    Raises:
        ValueError: it cannot.
    """
    size = len(topic.encode())
    if size > TOPIC_MAX_BYTES:
        raise ValueError(f"its topic has {size} bytes; give one of at most {TOPIC_MAX_BYTES}")
    if not encoded:
        raise ValueError("it is empty; give at least a byte")
    if len(encoded) > MESSAGE_MAX_BYTES:
        raise ValueError(f"it has {len(encoded)} bytes; give at most {MESSAGE_MAX_BYTES}")
    return encoded
