"""The router: the listeners that take messages, their sources, and who gets what these publish."""

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.feeder.journal import Journal, Message, Position
from gaiod.feeder.outlet import Destination, FeederContext, SourceOutlet
from gaiod.feeder.source_runner import Commands, Retry, SourceRunner
from gaiod.feeder.thread_queue import ThreadQueue
from gaiod.feeder.worker_links import WorkerLinks
from gaiod.handler.handler import Handler, Source
from gaiod.plugins import build_options, load_handler
from gaiod.process.feed_records import RecordError, hello, record

log = logging.getLogger("gaiod.feeder")


@dataclass(slots=True, eq=False)
class Feed:
    """What a listener gets, with one handler and its options.

    After a reload that changed those, or an upgrade, the workers before it still have the old one: their clients get
    the same messages, encoded as they were promised.

    Attributes:
        number: what records call it.
        stream: the messages of the listener, which are numbered there.
        handler: its class; None: it is not known yet, or cannot be loaded.
        options: the handler's.
        is_short: messages were not sent to who has it, because the handler was not loaded.
    """

    number: int
    stream: "ListenerFeed"
    handler: type[Handler] | None = None
    options: Any = None
    is_short: bool = False

    def load(self, reference: str, options: Mapping[str, Any]) -> type[Handler]:
        """Load its handler, and return it. It may raise whatever the handler does."""
        handler = load_handler(reference)
        self.options = build_options(handler, dict(options))
        self.handler = handler
        return handler

    def encode(self, topic: str, data: bytes) -> bytes:
        """Return a message as workers get it."""
        assert self.handler is not None
        return self.handler.encode_message(self.options, topic, data)


@dataclass(slots=True, eq=False)
class ListenerFeed:
    """The messages of one listener, whatever its options were and are.

    Attributes:
        name: the listener's.
        sequence: of the last message.
        feeds: by their keys.
        current: the key of the one whose sources run.
        runs: these sources.
        stopping: sources that were told to stop, and let their clients finish.
        loading: tries to load the handler, and to start the sources.
    """

    name: str
    settled: Callable[[], None]  # is called when nothing is stopping any more
    sequence: int = 0
    feeds: dict[str, Feed] = field(default_factory=dict)
    current: str | None = None
    runs: list[SourceRunner] = field(default_factory=list)
    stopping: list[SourceRunner] = field(default_factory=list)
    loading: Retry | None = None
    _then: Callable[[], None] | None = None

    def stop(self, runs: Sequence[SourceRunner], then: Callable[[], None] | None = None) -> None:
        """Stop some sources; call `then` when they have, and those that are stopping, unless this is called again."""
        self._then = then
        self.runs = [run for run in self.runs if run not in runs]
        self.stopping += runs
        for run in runs:
            run.stop(self._take_stopped)
        self._go_on()

    def _take_stopped(self, run: SourceRunner) -> None:
        self.stopping.remove(run)
        self._go_on()

    def _go_on(self) -> None:
        if not self.stopping:
            then, self._then = self._then, None
            if then is not None:
                then()
            self.settled()


class Router:
    """Everything that a feeder feeds."""

    def __init__(self, watcher: Watcher, journal: Journal, cells: Any, inlet_cells: Any, instance: int) -> None:
        """Make it, with no sources.

        Args:
            watcher: the feeder's.
            journal: what feeders before this one have left, locked.
            cells: where sources count.
            inlet_cells: where inlets do: the watcher's own.
            instance: counts the feeders there have been.
        """
        self._instance = instance
        self.links = WorkerLinks(watcher, self._greet, self._forget)
        self._journal = journal
        self._context = FeederContext(watcher, journal, cells, inlet_cells, ThreadQueue(watcher, self.links))
        self._streams = {
            name: ListenerFeed(name, self._settle, sequence) for name, sequence in journal.sequences.items()
        }
        self._numbers = count()
        self._when_settled: list[Callable[[], None]] = []

    @property
    def is_behind(self) -> bool:
        """Whether workers have not taken much of what was published."""
        return self._context.thread_queue.is_behind

    def run(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        """Run the sources of these listeners, and no others; those that run already go on.

        If a listener has other options now, sources that are like new ones go on (`Source`). The others stop first,
        and then new ones start.

        Args:
            wanted: of each listener its `name`, `handler` and `options`, the `key` of these, and the `rows` of its
                sources by their names.
        """
        keys = {each["name"]: each["key"] for each in wanted}
        for name, stream in self._streams.items():
            if stream.current is not None and name not in keys:
                self._stop(stream)
        self._journal.forget_others(keys)
        for each in wanted:
            stream = self._stream(each["name"])
            if stream.current != each["key"]:
                if stream.loading is not None:
                    stream.loading.cancel()
                stream.current = each["key"]
                attempt = partial(self._begin, self._feed(stream, each["key"]), each)
                stream.loading = Retry(
                    self._context.watcher, attempt, f"the sources of listener {each['name']} do not run"
                )
        self._forget()

    def take_inlets(self, inlets: Mapping[str, list[socket.socket]]) -> None:
        """Have sources listen at these sockets, and no others.

        Args:
            inlets: the sockets by address, which are taken over; none: those that were there.
        """
        before = self._context.inlets
        self._context.inlets = {address: sockets or before.get(address, []) for address, sockets in inlets.items()}
        for address, sockets in before.items():
            if self._context.inlets.get(address) is not sockets:
                for sock in sockets:
                    sock.close()
        for stream in self._streams.values():
            for run in stream.runs:
                run.renew_inlets()

    def stop(self, stopped: Callable[[], None]) -> None:
        """Stop every source, those that have clients of their own first, and then call `stopped`."""

        def stop_others() -> None:
            for stream in self._streams.values():
                self._stop(stream)
            self.when_settled(stopped)

        for stream in self._streams.values():
            stream.stop([run for run in stream.runs if run.listens])
        self.when_settled(stop_others)

    def when_settled(self, call: Callable[[], None]) -> None:
        """Call something when no source is stopping: at once, or later."""
        self._when_settled.append(call)
        self._settle()

    def _settle(self) -> None:
        if not any(stream.stopping for stream in self._streams.values()):
            calls, self._when_settled = self._when_settled, []
            for call in calls:
                call()

    def _stop(self, stream: ListenerFeed) -> None:
        if stream.loading is not None:
            stream.loading.cancel()
        stream.current = None
        stream.stop(stream.runs)

    def publish(self, listener: str | None, topic: str, data: bytes) -> dict[str, Any]:
        """Publish a message of an operator's, to one listener or to all that take it; return which, or an error."""
        commands = self._commands(listener)
        if not commands:
            why = "no listener takes messages" if listener is None else f"listener {listener} takes no messages"
            return _refused(
                f"{why} now: it has no handler that does, or cannot load it; see the log", os.EX_UNAVAILABLE
            )
        took, refusals = [], {}
        for name, source in commands.items():
            try:
                source.publish(data, topic)
                took.append(name)
            except BaseException as error:  # the handler's own, whatever it raises
                refusals[name] = str(error) or repr(error)
        if took:
            return {"listeners": took}
        texts = "; ".join(f"listener {name}: {text}" for name, text in refusals.items())
        return _refused(f"nobody takes a message of topic {topic!r}: {texts}", os.EX_DATAERR)

    def _commands(self, listener: str | None) -> dict[str, Commands]:
        """Return by listener where operators publish."""
        return {
            name: run.source
            for name, stream in self._streams.items()
            if listener in (None, name)
            for run in stream.runs
            if isinstance(run.source, Commands) and run.source.takes
        }

    # -- sources -----------------------------------------------------------------------------------------

    def _begin(self, feed: Feed, wanted: Mapping[str, Any]) -> None:
        """Load a handler, and let its sources begin or go on. What a source raises is its own run's business."""
        handler = feed.load(wanted["handler"], wanted["options"])  # perhaps anew: this set has its own code
        sources = [Commands(), *handler.sources_of(feed.options)]
        self._journal.keep_last(wanted["name"], handler.wants_last(feed.options))
        if feed.is_short:
            self.links.cut(feed.number)  # its workers come back, and get what they have missed
            feed.is_short = False
        stream, destination = feed.stream, Destination(feed.encode, partial(self._route, feed))
        old, new = list(stream.runs), []
        for source in sources:
            alike = next((run for run in old if run.is_like(source)), None)
            if alike is None:
                new.append(source)
            else:
                alike.go_on(destination)
                old.remove(alike)
        stream.stop(old, partial(self._start, stream, new, wanted["rows"], destination))

    def _start(
        self, stream: ListenerFeed, sources: Sequence[Source], rows: Mapping[str, int], destination: Destination
    ) -> None:
        for source in sources:
            name = f"source {source.name} of listener {stream.name}"
            number = rows.get(source.name)
            if number is None:
                log.error("%s did not exist when the configuration was read; reload to start it", name)
            else:
                outlet = partial(SourceOutlet, self._context, stream.name, source.name, number)
                stream.runs.append(SourceRunner(self._context.watcher, source, name, outlet, destination))

    def _route(self, feed: Feed, topic: str, data: bytes, encoded: bytes, position: Position | None) -> None:
        """Send a message: the moment that gives it its place among all others of the listener."""
        stream = feed.stream
        stream.sequence += 1
        self._journal.add(stream.name, stream.sequence, topic, data, position)  # first: who has got it, can be told so
        name = topic.encode()
        self.links.send(feed.number, record(feed.number, stream.sequence, name, encoded))
        for other in stream.feeds.values():
            if other.handler is None:
                other.is_short = True
            elif other is not feed:
                try:
                    old = other.encode(topic, data)
                except BaseException:  # it is missing there, as the next one's sequence tells
                    continue
                self.links.send(other.number, record(other.number, stream.sequence, name, old))

    # -- workers -----------------------------------------------------------------------------------------

    def _greet(self, wanted: dict[str, dict[str, Any]]) -> tuple[frozenset[int], bytes]:
        if not wanted:
            raise RecordError("it wants no feeds")
        answer, records = {}, []
        for name, each in wanted.items():
            stream, had = self._stream(name), each["sequence"]
            stream.sequence = max(stream.sequence, had or 0)  # a journal that is of another version is empty
            feed = self._feed(stream, each["key"])
            messages = self._journal.last_messages(name) if had is None else self._journal.messages(name, had)
            if stream.sequence and feed.handler is None:  # of a listener that is new, its own code will come
                self._load(feed, each)
            if feed.handler is not None and (had is not None or feed.handler.wants_last(feed.options)):
                records += self._encoded(feed, messages)
            records.append(record(feed.number, stream.sequence, b"", b""))
            answer[name] = {"number": feed.number}
        numbers = frozenset(each["number"] for each in answer.values())
        return numbers, b"".join((hello(answer, self._instance), *records))

    def _load(self, feed: Feed, wanted: Mapping[str, Any]) -> None:
        """Load the handler of a worker of another generation than runs here, with the code that runs here."""
        try:
            feed.load(wanted["handler"], wanted["options"])
        except BaseException as error:  # the handler's own
            log.warning(
                "listener %s: the handler of a worker cannot be loaded; it gets its messages later, if at all: %s",
                feed.stream.name,
                error,
            )

    def _encoded(self, feed: Feed, messages: Sequence[Message]) -> list[bytes]:
        found = []
        for sequence, topic, data in messages:
            try:
                found.append(record(feed.number, sequence, topic.encode(), feed.encode(topic, data)))
            except BaseException:  # it is missing there, as the next one's sequence tells
                continue
        return found

    def _stream(self, listener: str) -> ListenerFeed:
        return self._streams.setdefault(listener, ListenerFeed(listener, self._settle))

    def _feed(self, stream: ListenerFeed, key: str) -> Feed:
        if key not in stream.feeds:
            stream.feeds[key] = Feed(next(self._numbers), stream)
        return stream.feeds[key]

    def _forget(self) -> None:
        """Forget feeds whose sources do not run, and that nobody gets."""
        used = self.links.feeds
        for stream in self._streams.values():
            for key, feed in list(stream.feeds.items()):
                if key != stream.current and feed.number not in used:
                    del stream.feeds[key]


def _refused(error: str, status: int) -> dict[str, Any]:
    return {"error": error, "status": status}
