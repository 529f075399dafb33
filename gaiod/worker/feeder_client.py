"""A worker's side of the feed: a link to the feeder, and what comes over it to the listeners' handlers."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gaiod.core.connection import Conn
from gaiod.core.errors import WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.backoff import Backoff
from gaiod.process.dispatch import Target
from gaiod.process.feed_records import Reader, RecordError, hello
from gaiod.worker.listener import Listener

log = logging.getLogger("gaiod.worker")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 2.0
"""Before connecting again; twice as long after each failure. A feeder that was restarted is there in 0.2 s."""

LOOK_AGAIN_S = 0.001
"""When to look again whether everything is dealt out: a pass over 512 members takes a few milliseconds."""


@dataclass(slots=True, eq=False)
class _Subscription:
    """What one listener has got. `sequence` is up to where it has got everything there was; None: it is new."""

    listener: Listener
    key: str
    sequence: int | None = None


class FeederClient(Target):
    """The link to the feeder, made again whenever it breaks."""

    def __init__(
        self, watcher: Watcher, address: str, keys: Mapping[Listener, str], connected: Callable[[int], None]
    ) -> None:
        """Connect.

        Args:
            watcher: the worker's.
            address: of the feeder's unix socket.
            keys: of the feed of each listener that takes messages.
            connected: called with the feeder's instance when all that was missing has come, and messages come from now
                on; each time.
        """
        super().__init__(self._read, self._written)
        self._watcher = watcher
        self._address = address
        self._connected = connected
        self._wanted = {listener.name: _Subscription(listener, key) for listener, key in keys.items()}
        self._by_number: dict[int, _Subscription] = {}
        self._instance = 0
        self._missing: set[int] = set()  # numbers of feeds whose messages from before have not all come
        self._conn: Conn | None = None
        self._backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)
        self._connect()

    def on_completion(self, result: OpResult) -> None:
        """Take the beginning or the end of the link."""
        if result.conn is not self._conn or result.operation is OpType.CLOSE:
            return  # of a link before this one
        if result.operation is OpType.CONNECT and result.error is None:
            self._say_hello()
        elif not isinstance(result.error, WatcherClosed):
            self._break()

    def positions(self) -> dict[str, tuple[str, int]]:
        """Return the key of each listener's feed, and how far it has come."""
        return {name: (each.key, each.sequence or 0) for name, each in self._wanted.items()}

    def _connect(self, result: OpResult | None = None) -> None:
        try:
            self._conn = self._watcher.connect(self._address, context=self)
        except OSError as error:
            log.warning("cannot connect to the feeder: %s; next attempt in %g s", error, self._backoff.next_s)
            self._again()

    def _again(self) -> None:
        self._watcher.timer(time.monotonic() + self._backoff.take(), context=self._connect)

    def _break(self) -> None:
        """End the link, and make another."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.abort()
            self._again()

    def _say_hello(self) -> None:
        assert self._conn is not None
        self._reader = Reader()
        self._by_number = {}
        feeds = {
            name: {
                "key": each.key,
                "sequence": each.sequence,
                "handler": each.listener.settings.handler,
                "options": dict(each.listener.settings.options),
            }
            for name, each in self._wanted.items()
        }
        self._conn.write(hello(feeds))
        self._conn.read()

    def _written(self, conn: Conn, result: OpResult) -> None:
        """Hello was said."""

    def _read(self, conn: Conn, result: OpResult) -> None:
        if conn is not self._conn:
            return
        self._reader.add(result.buffer)
        try:
            if not self._by_number:
                answer = self._reader.take_hello()
                if answer is not None:
                    feeds, self._instance = answer
                    self._by_number = {each["number"]: self._wanted[name] for name, each in feeds.items()}
                    self._missing = set(self._by_number)
            if self._by_number:
                for number, sequence, topic, data in self._reader.take_records():
                    self._take_record(number, sequence, topic, data)
        except (RecordError, KeyError, TypeError) as error:
            log.error("the feeder sent something that cannot be understood: %s; reconnecting", error)
            self._break()
            return
        self._read_on(conn)

    def _read_on(self, conn: Conn) -> None:
        """Read more, once what came before is dealt out: else it would pile up here, and not where it has a bound."""
        if conn is not self._conn:
            return
        if any(each.listener.is_behind for each in self._by_number.values()):
            self._watcher.timer(time.monotonic() + LOOK_AGAIN_S, context=lambda result: self._read_on(conn))
        else:
            conn.read()

    def _take_record(self, number: int, sequence: int, topic: str, data: bytes) -> None:
        subscription = self._by_number[number]
        if not data:
            self._take_end(subscription, number, sequence)
            return
        if subscription.sequence is not None:
            missed = sequence - subscription.sequence - 1
            if missed > 0:
                subscription.listener.count_missed(missed)
            if number in self._missing:
                subscription.listener.count_resent()
            subscription.sequence = sequence
        subscription.listener.deliver(sequence, topic, data)

    def _take_end(self, subscription: _Subscription, number: int, sequence: int) -> None:
        """Take that all has come that was missing, up to a sequence."""
        if subscription.sequence is not None and sequence > subscription.sequence:
            subscription.listener.count_missed(sequence - subscription.sequence)
        subscription.sequence = sequence
        self._missing.discard(number)
        if not self._missing:
            self._backoff.reset()
            self._connected(self._instance)
