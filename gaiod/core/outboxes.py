"""What waits to be sent to the members of a group, interpreted: the standard library, nothing compiled.

`_outboxes.pyx` is the same interface for the compiled engine. A message that is published exists once, as a
`Parcel`; the outbox of each member that has not been sent it yet holds a reference. A `Fan` deals parcels out to
many outboxes in one go: what a member's kernel takes at once never enters its outbox.
"""

import errno
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

from gaiod.core.counters import (
    DELIVERED,
    DROPPED_NEWEST,
    DROPPED_OLDEST,
    DROPPED_REPLACED,
    HELD_BYTES,
    QUEUED_BYTES,
)

SEND_MAX = 256 * 1024
"""Most bytes one member is sent in a turn: its share of a pass."""

VECTOR_MAX = 64
"""Most messages that one call sends out of an outbox."""

PARCEL_BYTES = 128
"""What a message costs beside its bytes, while somebody waits for it: two Python objects. Without it, a limit on
the memory of many small messages would be no limit."""

QUEUE_BYTES = 8
"""What a message that waits costs in each outbox: a reference."""

DISCONNECT, DROP_OLDEST, DROP_NEWEST, LATEST_ONLY = range(4)
"""What is done about a member for whom a message does not fit. With DROP_OLDEST the newest message waits in any case,
be it behind the rest of one that was begun; with LATEST_ONLY the newest of each topic does, and there is no limit."""

UNCOUNTED = -1
"""Of a message that is forgotten here, because another process has it."""

NOTHING, BEGUN, ALL = range(3)
"""What an outbox may send in a turn; BEGUN: of a message that was begun."""


class Parcel:
    """A message that was published.

    Attributes:
        data: its bytes.
        topic: the number of its topic.
        audience: members whose place in the topic is below this get it; the others came later.
        references: how many outboxes hold it.
        serial: which of its group's messages it is.
        position: which of a feed's; 0: it came from elsewhere.
    """

    __slots__ = ("audience", "data", "position", "references", "serial", "topic")

    def __init__(self, data: bytes, topic: int, audience: int) -> None:
        self.data = data
        self.topic = topic
        self.audience = audience
        self.references = 0
        self.serial = 0
        self.position = 0


class Spool:
    """What the outboxes of a group have in common: their limits, and the count of what they hold.

    Attributes:
        queued_bytes: of messages that wait, counted once for each member that they wait for.
        held_bytes: of memory that messages take that somebody waits for, each counted once.
    """

    def __init__(self, cells: Any, first: int, limit: int, policy: int) -> None:
        self._cells = cells
        self._first = first
        self.limit = limit
        self.policy = policy
        self.queued_bytes = 0
        self.held_bytes = 0

    def add(self, cell: int, amount: int) -> None:
        """Add to one of the group's counters."""
        self._cells[self._first + cell] += amount

    def queue(self, size: int) -> None:
        """Count bytes that wait for one more member; or, negative, for one less."""
        self.queued_bytes += size
        self.add(QUEUED_BYTES, size)

    def hold(self, parcel: Parcel) -> None:
        """Take note that one more outbox holds a parcel."""
        parcel.references += 1
        if parcel.references == 1:
            self._hold_bytes(len(parcel.data) + PARCEL_BYTES)

    def let_go(self, parcel: Parcel) -> None:
        """Take note that one outbox less does."""
        parcel.references -= 1
        if parcel.references == 0:
            self._hold_bytes(-len(parcel.data) - PARCEL_BYTES)

    def _hold_bytes(self, size: int) -> None:
        self.held_bytes += size
        self.add(HELD_BYTES, size)


class Outbox:
    """What one member has not been sent yet, and the outcome of its last turn.

    Attributes:
        group: whose member it is.
        topics: what of.
        count: messages that wait.
        offset: bytes of the first that were sent.
        waiting_bytes: that were not.
        waiting_before: the same before the last turn.
        sent: bytes that the last turn sent.
        error: an errno, EAGAIN also if the kernel took less than it was given; 0: none.
        is_over: it holds more than it may, and its policy is to disconnect.
        progress_s: when it last sent something, or began to wait.
        is_behind, is_flushing: its owner's.
        session: what it is sent through, if the member speaks TLS; None: it does not.
    """

    __slots__ = (
        "_fd", "_index", "_may", "_queue", "_spool", "error", "group", "is_behind", "is_flushing", "is_over", "offset",
        "progress_s", "sent", "session", "topics", "waiting_before", "waiting_bytes",
    )  # fmt: skip

    def __init__(self, group: Any, spool: Spool) -> None:
        self.group = group
        self.topics: tuple[Any, ...] = ()
        self.session: Any = None
        self._spool = spool
        self._queue: deque[Parcel] = deque()
        self._fd = self._may = self._index = 0
        self.offset = self.waiting_bytes = self.waiting_before = self.sent = self.error = 0
        self.is_over = self.is_behind = self.is_flushing = False
        self.progress_s = 0.0

    @property
    def count(self) -> int:
        """Messages that wait, the one that was begun included."""
        return len(self._queue)

    def prepare(self, fd: int, may: int, index: int) -> None:
        """Say where a turn sends to, what it may, and which place the member has in the topic."""
        self._fd, self._may, self._index = fd, may, index

    def turn(self, batch: Sequence[Parcel], now_s: float) -> None:
        """Take a batch, send what may be sent, and see to the limit."""
        self.sent = self.error = 0
        self.is_over = False
        self.waiting_before = self.waiting_bytes
        first = 0
        while first < len(batch) and batch[first].audience <= self._index:
            first += 1
        if first < len(batch) and self._may == ALL and not self._queue:
            first = self._send_batch(batch, first)
        elif self._may != NOTHING and self._queue:
            self._send_queue()
        if not self._queue:
            self.progress_s = now_s
        for parcel in batch[first:]:
            self._push(parcel)
        if self.sent:
            self.progress_s = now_s
        self._keep_limit()
        self._spool.queue(self.waiting_bytes - self.waiting_before)

    def _send_batch(self, batch: Sequence[Parcel], first: int) -> int:
        """Send what never waited, and return the number of the parcel that was not sent whole."""
        last, size = first + 1, len(batch[first].data)
        while last < len(batch) and size + len(batch[last].data) <= SEND_MAX:
            size += len(batch[last].data)
            last += 1
        data = batch[first].data if last == first + 1 else b"".join(parcel.data for parcel in batch[first:last])
        left = self._send([data[:SEND_MAX]])
        while first < len(batch) and left >= len(batch[first].data):
            left -= len(batch[first].data)
            self._spool.add(DELIVERED, 1)
            first += 1
        self.offset = left
        self.waiting_bytes -= left  # all of it is about to be pushed
        return first

    def _send_queue(self) -> None:
        vector: list[bytes] = []
        room = SEND_MAX
        for parcel in self._queue:
            data = parcel.data if vector else parcel.data[self.offset :]
            vector.append(data[:room])
            room -= len(data)
            if room <= 0 or len(vector) == VECTOR_MAX or self._may == BEGUN:
                break
        left = self._send(vector)
        self.waiting_bytes -= left
        left += self.offset
        while self._queue and left >= len(self._queue[0].data):
            parcel = self._queue.popleft()
            left -= len(parcel.data)
            self._spool.let_go(parcel)
            self._spool.add(DELIVERED, 1)
        self.offset = left

    def _send(self, vector: list[bytes]) -> int:
        wanted = sum(map(len, vector))
        if self.session is not None:
            sent = self.session.take(self._fd, vector)
            if sent < 0:
                self.error = -sent
                return 0
            self.sent = sent
            if sent < wanted:
                self.error = errno.EAGAIN
            return self.sent
        try:
            self.sent = os.writev(self._fd, vector)
        except OSError as error:
            self.error = error.errno or errno.EIO
            return 0
        if self.sent < wanted:
            self.error = errno.EAGAIN
        return self.sent

    def _push(self, parcel: Parcel) -> None:
        self._spool.hold(parcel)
        self.waiting_bytes += len(parcel.data)
        if self._spool.policy == LATEST_ONLY:
            for i in range(self.offset > 0, len(self._queue)):
                before = self._queue[i]
                if before.topic == parcel.topic:
                    self._queue[i] = parcel
                    self._forget(before, DROPPED_REPLACED)
                    return
        self._queue.append(parcel)

    def _keep_limit(self) -> None:
        policy = self._spool.policy
        if policy == LATEST_ONLY:
            return  # what waits is the state of its topics
        begun = int(self.offset > 0)  # what was begun has to be sent
        while self._is_full():
            if policy == DISCONNECT:
                self.is_over = True
                return
            if policy == DROP_NEWEST:
                if len(self._queue) == begun:
                    return
                self._forget(self._queue.pop(), DROPPED_NEWEST)
            else:
                if len(self._queue) <= begun + 1:
                    return  # the newest is what the others are dropped for
                before = self._queue[begun]
                del self._queue[begun]
                self._forget(before, DROPPED_OLDEST)

    def _is_full(self) -> bool:
        limit = self._spool.limit
        return self.waiting_bytes > limit or len(self._queue) * QUEUE_BYTES > limit

    def _forget(self, parcel: Parcel, cell: int) -> None:
        self.waiting_bytes -= len(parcel.data)
        self._spool.let_go(parcel)
        if cell != UNCOUNTED:
            self._spool.add(cell, 1)

    def parcels(self) -> list[Parcel]:
        """Return what waits, the oldest first."""
        return list(self._queue)

    def clear(self, cell: int) -> int:
        """Forget what waits, and return how many bytes that were.

        Args:
            cell: what each message counts as; UNCOUNTED: it is not lost.
        """
        before = self.waiting_bytes
        self.waiting_bytes += self.offset
        self.offset = 0
        while self._queue:
            self._forget(self._queue.pop(), cell)
        self._spool.queue(self.waiting_bytes - before)
        return before - self.waiting_bytes

    def shed(self, cell: int, keeps_newest: bool) -> int:
        """As `clear`, but for a message of which a part was sent, and for the newest if that is to be kept."""
        before = self.waiting_bytes
        begun = int(self.offset > 0)
        newest = self._queue.pop() if keeps_newest and len(self._queue) > begun else None
        while len(self._queue) > begun:
            self._forget(self._queue.pop(), cell)
        if newest is not None:
            self._queue.append(newest)
        self._spool.queue(self.waiting_bytes - before)
        return before - self.waiting_bytes


class Fan:
    """Deals a batch of parcels out to many outboxes."""

    def __init__(self) -> None:
        self._outboxes: list[Outbox] = []

    def reset(self) -> None:
        """Forget the outboxes of the last time."""
        self._outboxes.clear()

    def add(self, outbox: Outbox, fd: int, may: int, index: int) -> None:
        """Add an outbox: see `Outbox.prepare`."""
        outbox.prepare(fd, may, index)
        self._outboxes.append(outbox)

    def deal(self, batch: Sequence[Parcel], now_s: float) -> None:
        """Give every outbox its turn. Without a batch: outboxes of any group send what waits in them."""
        for outbox in self._outboxes:
            outbox.turn(batch, now_s)
