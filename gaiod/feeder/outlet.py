"""Outlets: what a source publishes through. `gaiod.Outlet` is the interface, this is what there is behind it."""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, get_ident
from typing import Any

from gaiod.addresses import parse_address
from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.journal import Journal, Position, check_position
from gaiod.feeder.source_listener import CONNECTIONS_MAX, SourceListener
from gaiod.feeder.thread_queue import ThreadQueue
from gaiod.handler.handler import IDLE_TIMEOUT_S, Handler
from gaiod.log.rate_limit import LimitedLog
from gaiod.process.feed_records import MESSAGE_MAX_BYTES, TOPIC_MAX_BYTES
from gaiod.settings import ListenerSettings
from gaiod.stats.feeder_cells import SOURCE_CELL, row

log = logging.getLogger("gaiod.feeder")

QUIET_S = 0.25
"""When a source stops, a connection to it is closed once it has moved nothing for so long: what its client has sent
until then is published. One that is descheduled between its connect and its message takes milliseconds."""

FINISH_MAX_S = 1.0
"""How long a source that stops waits for that. Clients that connect meanwhile wait for the one that follows."""

FINISH_LOOK_S = 0.02
"""How often it is looked whether they are quiet."""

OVERHEAD_BYTES = 512
"""What a message of a thread takes beside its bytes, until the loop has sent it. It bounds small ones, too: the loop
takes 2,000 at a time, some 15 ms of work."""


@dataclass(slots=True)
class FeederContext:
    """What all outlets of a feeder work with.

    Attributes:
        watcher: the feeder's.
        journal: where positions are kept.
        cells: where sources count: `feeder_cells`, shared with the supervisor.
        inlet_cells: where inlets do: the watcher's own.
        thread_queue: what other threads publish through.
        inlets: the sockets at which sources may listen, by address.
        lock: around each count, since threads count.
        thread: the loop's.
    """

    watcher: Watcher
    journal: Journal
    cells: Any
    inlet_cells: Any
    thread_queue: ThreadQueue
    inlets: dict[str, list[socket.socket]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    thread: int = field(default_factory=get_ident)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where messages of a source go: the feed of its listener, which is another one after a reload of other options.

    Attributes:
        encode: makes of (topic, message) what workers get; raises ValueError for one that cannot be published.
        route: sends (topic, message, encoded message), and keeps a position, in the loop's thread.
    """

    encode: Callable[[str, bytes], bytes]
    route: Callable[[str, bytes, bytes, Position | None], None]


class SourceOutlet:
    """The outlet of one source, from one start of it to its stop.

    Attributes:
        destination: where its messages go.
    """

    def __init__(
        self,
        context: FeederContext,
        listener: str,
        source: str,
        number: int,
        destination: Destination,
    ) -> None:
        """Make it.

        Args:
            context: the feeder's.
            listener: the name of the listener that is fed.
            source: the source's.
            number: of its row of cells.
            destination: where its messages go.
        """
        self.destination = destination
        self._context = context
        self.tell = LimitedLog(log, f"source {source} of listener {listener}").tell
        self._listener = listener
        self._inlet_name = f"{listener}/{source}"
        self._row = row(number)
        self._is_open = True
        self._inlets: list[SourceListener] = []

    # -- what a source uses ------------------------------------------------------------------------------

    def publish(self, data: bytes, topic: str, position: Position | None = None) -> None:
        """As `Outlet.publish`."""
        if not self._is_open:
            return
        if position is not None:
            check_position(position)
        destination = self.destination  # a thread may publish while that changes
        try:
            encoded = _checked(topic, destination.encode(topic, data))
        except BaseException as error:  # the handler's own, whatever it raises
            if position is not None:
                self.keep(*position)
            self._count("refused")
            self.tell(logging.WARNING, "refused", "a message is refused: %s", error)
            if isinstance(error, Exception):
                raise
            raise RuntimeError(f"encode_message raised {error!r}") from error  # that would end a source's thread
        send = partial(self._send, destination, topic, data, encoded, position)
        self._in_loop(send, len(data) + len(encoded))

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
        address = str(parse_address(bind, listen=True))
        if address not in context.inlets:
            raise ValueError(f"the daemon has not opened {address}; name it in listens_on of the source")
        settings = ListenerSettings(
            name=self._inlet_name,
            bind=address,
            handler="",
            connections_max=CONNECTIONS_MAX,
            idle_timeout_s=idle_timeout_s,
        )
        inlet = SourceListener(context.watcher, context.inlet_cells, settings, handler)
        inlet.serve(context.inlets[address])
        self._inlets.append(inlet)

    # -- what the feeder uses ----------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether its source has clients of its own."""
        return bool(self._inlets)

    def finish(self, finished: Callable[[], None]) -> None:
        """Accept no more; call `finished` when what clients have sent is published, at once if there can be none."""
        if not self._inlets:
            finished()
            return
        for inlet in self._inlets:
            inlet.stop_accepting()
        until_s = time.monotonic() + FINISH_MAX_S

        def look(result: OpResult) -> None:
            left = [inlet for inlet in self._inlets if inlet.close_quiet(QUIET_S)]
            if left and time.monotonic() < until_s:
                look_later(FINISH_LOOK_S)
            else:
                finished()

        def look_later(delay_s: float) -> None:
            self._context.watcher.timer(time.monotonic() + delay_s, context=look)

        look_later(0.0)  # not now: who was accepted in this pass is yet to be told of

    def close(self) -> None:
        """Do nothing more for the source: what its threads publish from now on goes to nobody, and waits for none."""
        self.up = False
        with self._context.lock:
            self._is_open = False
        self._context.thread_queue.wake()
        inlets, self._inlets = self._inlets, []
        for inlet in inlets:
            inlet.close()

    def renew_inlets(self) -> None:
        """Listen at the sockets that the addresses have now."""
        for inlet in self._inlets:
            inlet.serve(self._context.inlets.get(inlet.address, []))

    def _in_loop(self, action: Callable[[], None], size: int) -> None:
        if get_ident() == self._context.thread:
            action()
        else:
            self._context.thread_queue.put(action, size + OVERHEAD_BYTES, lambda: self._is_open)

    def _send(
        self, destination: Destination, topic: str, data: bytes, encoded: bytes, position: Position | None
    ) -> None:
        if self._is_open:
            destination.route(topic, data, encoded, position)
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
