"""The feeder's connections to its workers, and how far behind each is.

A worker that takes less than is published makes the sources wait. One that takes nothing does not: who hangs must
not stop the others. What waits for it is bounded, and then it is cut off; it comes back, and counts what it missed.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.log.rate_limit import LimitedLog
from gaiod.process.dispatch import Target
from gaiod.process.feed_records import Reader, RecordError
from gaiod.process.peer_credentials import peer_uid

log = logging.getLogger("gaiod.feeder")

BEHIND_BYTES = 1024 * 1024
"""A link for which so much waits is behind: some milliseconds of work for a worker, and 16 of its reads."""

CAUGHT_UP_BYTES = 256 * 1024
"""... and no longer, once so little does: sources go on in stretches, not message by message."""

LINK_MAX_BYTES = 64 * 1024 * 1024
"""What waits for a worker at most. The messages are the same for all: ten that hang cost what one does."""

STALLED_S = 1.0
"""A link that has taken nothing for so long is waited for no more."""

OVERHEAD_BYTES = 64
"""What a record takes beside its bytes, while it waits."""

BATCH_BYTES = 256 * 1024
"""What is given to the kernel in one write: a write is behind by as much, whatever waits."""

HELLO_TIMEOUT_S = 5.0

Greet = Callable[[dict[str, dict[str, Any]]], tuple[frozenset[int], bytes]]
"""Takes a worker's hello; returns the numbers of its feeds, and the answer."""


class WorkerLink(Target):
    """A worker, as the feeder sees it.

    Attributes:
        feeds: the numbers of what it gets; none before it has said hello.
        waiting_bytes: what it has not taken, in bytes of memory.
    """

    def __init__(self, conn: Conn, links: "WorkerLinks") -> None:
        super().__init__(self._read, self._written)
        self.feeds: frozenset[int] = frozenset()
        self.waiting_bytes = 0
        self._conn = conn
        self._links = links
        self._reader = Reader()
        self._waiting: deque[bytes] = deque()
        self._in_flight = 0
        self._busy_since_s = 0.0
        conn.context = self
        conn.read(deadline=time.monotonic() + HELLO_TIMEOUT_S)

    def send(self, data: bytes) -> None:
        """Send whole records, behind those that wait."""
        if not self._waiting and not self._in_flight:
            self._busy_since_s = time.monotonic()
        self._waiting.append(data)
        self.waiting_bytes += len(data) + OVERHEAD_BYTES
        if not self._in_flight:
            self._write()

    def is_stalled(self, now_s: float) -> bool:
        """Tell whether it has taken nothing for a while, although there was something to take."""
        return now_s - max(self._conn.active_s, self._busy_since_s) > STALLED_S

    def cut(self) -> None:
        """End it."""
        self._waiting.clear()
        self.waiting_bytes = 0
        self._conn.abort()
        self._links.gone(self)

    def on_completion(self, result: OpResult) -> None:
        """The worker is gone, or says nothing."""
        if result.operation is not OpType.CLOSE and not self._conn.closed:
            if isinstance(result.error, DeadlineExceeded):
                self._links.limited.tell(
                    logging.WARNING,
                    "silent",
                    "somebody connected, and said nothing for %g s; closing it",
                    HELLO_TIMEOUT_S,
                )
            self.cut()

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._reader.add(result.buffer)
        try:
            if self.feeds or (wanted := self._reader.take_hello()) is None:
                if self.feeds and not self._reader.is_empty:
                    raise RecordError("it says more than hello")
            else:
                self.feeds, answer = self._links.greet(wanted[0])
                self.send(answer)
        except (RecordError, KeyError, TypeError, AttributeError) as error:
            self._links.limited.tell(logging.WARNING, "worker", "a worker is not understood, and cut off: %s", error)
            self.cut()
            return
        conn.read()

    def _written(self, conn: Conn, result: OpResult) -> None:
        if conn.closed:
            return  # it was cut off a moment ago
        self.waiting_bytes -= self._in_flight
        self._in_flight = 0
        if self._waiting:
            self._busy_since_s = time.monotonic()
            self._write()
        self._links.took(self)

    def _write(self) -> None:
        """Give the kernel a batch of what waits."""
        batch = [self._waiting.popleft()]
        size = len(batch[0])
        while self._waiting and size + len(self._waiting[0]) <= BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1])
        self._in_flight = size + len(batch) * OVERHEAD_BYTES
        self._conn.write(b"".join(batch) if len(batch) > 1 else batch[0])


class WorkerLinks(Target):
    """All links of a feeder.

    Args:
        watcher: the feeder's.
        greet: answers a worker's hello.
        left: called when a link has ended.

    Attributes:
        changed: guards what other threads look at; notified when nobody is behind any more.
        limited: the log. Everybody on the machine can connect here: not each who does gets a line.
    """

    def __init__(self, watcher: Watcher, greet: Greet, left: Callable[[], None]) -> None:
        super().__init__(None, None)  # the links have targets of their own
        self.greet = greet
        self.changed = Condition()
        self.limited = LimitedLog(log)
        self._watcher = watcher
        self._left = left
        self._links: set[WorkerLink] = set()
        self._behind: set[WorkerLink] = set()
        self._is_looking = False

    def open(self, sock: socket.socket) -> None:
        """Accept workers, at a listening socket that is taken over."""
        self._socket = self._watcher.accept(sock, context=self)

    @property
    def is_behind(self) -> bool:
        """Whether a worker that takes something has not taken much. Any thread may look."""
        return bool(self._behind)

    @property
    def feeds(self) -> set[int]:
        """The numbers of the feeds that somebody gets."""
        return {number for link in self._links for number in link.feeds}

    def send(self, number: int, data: bytes) -> None:
        """Send a record of a feed to everybody who gets it."""
        for link in list(self._links):
            if number in link.feeds:
                link.send(data)
                if link.waiting_bytes > BEHIND_BYTES:
                    self._fell_behind(link)

    def cut(self, number: int) -> None:
        """Cut everybody off who gets a feed."""
        for link in list(self._links):
            if number in link.feeds:
                link.cut()

    def took(self, link: WorkerLink) -> None:
        """Take note that a link has taken something."""
        if link.waiting_bytes <= CAUGHT_UP_BYTES:
            self._behind.discard(link)
            self._tell()

    def gone(self, link: WorkerLink) -> None:
        """Take note that a link has ended."""
        self._links.discard(link)
        self._behind.discard(link)
        self._tell()
        self._left()

    def on_completion(self, result: OpResult) -> None:
        """Take a worker, or the failure of accepting one."""
        if result.error is not None:
            if not isinstance(result.error, (ConnClosed, WatcherClosed)):
                self.limited.tell(
                    logging.WARNING, "accept", "accepting a worker failed: %s; trying again", result.error
                )
            return
        conn = result.conn
        uid = peer_uid(conn.fileno())
        if uid not in (None, os.geteuid()):
            self.limited.tell(logging.WARNING, "stranger", "user %s connected as if it were a worker; closing it", uid)
            conn.context = _STRANGER
            conn.abort()
            return
        self._links.add(WorkerLink(conn, self))

    def _fell_behind(self, link: WorkerLink) -> None:
        if link.waiting_bytes > LINK_MAX_BYTES:
            mib = LINK_MAX_BYTES >> 20
            self.limited.tell(
                logging.WARNING,
                "behind",
                "a worker has not taken %d MiB, and is cut off; it counts what it misses",
                mib,
            )
            link.cut()
        elif link not in self._behind and not link.is_stalled(time.monotonic()):
            self._behind.add(link)
            if not self._is_looking:
                self._is_looking = True
                self._look_later()

    def _look_later(self) -> None:
        self._watcher.timer(time.monotonic() + STALLED_S / 4, context=self._look)

    def _look(self, result: OpResult) -> None:
        """Stop waiting for those that take nothing."""
        now_s = time.monotonic()
        stalled = {link for link in self._behind if link.is_stalled(now_s)}
        if stalled:
            self.limited.tell(
                logging.WARNING,
                "stalled",
                "%d of %d workers take nothing; not waiting for them",
                len(stalled),
                len(self._links),
            )
            self._behind -= stalled
            self._tell()
        self._is_looking = bool(self._behind)
        if self._is_looking:
            self._look_later()

    def _tell(self) -> None:
        if not self._behind:
            with self.changed:
                self.changed.notify_all()


class _Stranger(Target):
    """The context of a connection that was no worker's."""

    def on_completion(self, result: OpResult) -> None:
        """Do nothing."""


_STRANGER = _Stranger(None, None)
