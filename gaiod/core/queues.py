"""What is pending: the operations of every connection, from their start to their end.

The operations of one direction of a connection are a linked list, oldest first. A connection stands
in `reads` or `writes` while there is something to do for it, and in `held` while it has operations at
all: that is what keeps it alive.
"""

import errno
import os
from collections import deque
from math import inf
from typing import Any

from gaiod.core import counters as layout
from gaiod.core.alarms import Alarms
from gaiod.core.connection import Conn, Mover
from gaiod.core.counters import BUFFERED, COMPLETE, EXPIRED, FAILED, OUTCOME_COUNT, PAUSED_NS, RESUMES
from gaiod.core.engine import Batch, Plumbing, Poller, connect
from gaiod.core.errors import ConnClosed, DeadlineExceeded, RelaySinkError
from gaiod.core.operations import (
    ACCEPT,
    CONNECT,
    HANGUP,
    OPERATION_TYPES,
    POST,
    READ,
    RELAY,
    SEEN,
    TIMER,
    TOLD,
    WRITE,
    OpResult,
)  # fmt: skip
from gaiod.core.outboxes import ALL, NOTHING, REST

EINPROGRESS = errno.EINPROGRESS
EPIPE, ENOBUFS, ENOMEM = errno.EPIPE, errno.ENOBUFS, errno.ENOMEM

ACCEPT_PAUSE_S = 0.1
"""How long a listener rests after the kernel had no descriptor or memory for a connection, unless
a connection closes before. accept() would fail again at once, and epoll has no further edge to tell."""

RECEIVES_FIRST = 512
"""Receives prepared for the first batch: as many as one takes."""


class Queues(Mover):
    """The state of a watcher, and what moves operations in and out of it."""

    def __init__(self, buffer_size: int, counters: Any, report_closes: bool) -> None:
        cells = memoryview(counters).cast("B").cast("q")
        if cells.readonly:
            raise TypeError(f"counters is a read-only {type(counters).__name__}: pass a writable buffer")
        self.counters = cells
        if len(self.counters) < layout.SIZE:
            raise ValueError(f"counters has {len(self.counters)} cells: {layout.SIZE} are needed")
        self.report_closes = report_closes
        self.report_hangups = False
        self.hung: list[Conn] = []  # connections whose peer is gone: it will be said, unless a read says it
        self.poller = Poller()
        self.batch = Batch(buffer_size)
        self.plumbing = Plumbing()
        self.alarms = Alarms(self.poller)
        self.done: list[OpResult] = []  # completions not yet returned
        self.reads: list[Conn] = []  # connections to receive from: readable, and with a read pending
        self.writes: list[Conn] = []  # connections to send to: writable, and with a write pending
        self.flushes: list[Conn] = []  # members of groups to send to: writable, and with messages waiting
        self.starved: list[Conn] = []  # listeners that wait for a descriptor or memory to be free
        self.released = False  # a descriptor was closed since
        self.held: list[Conn | None] = []  # by descriptor: keeps a connection alive while it has operations
        self.inbox: deque[OpResult] = deque()  # from other threads
        self.closed = False  # takes no more operations
        self.sleeping = False  # the loop is, or is about to be, in the poller: wake it
        self.passes = 0  # since the last poll
        self.full_polls = 0  # polls in a row, up to the last, that may have left events with the kernel
        self.receives_max = RECEIVES_FIRST  # receives to prepare for the next batch
        self.now_s = self.poller.now()  # when the last poll returned

    def _adopt(self, fd: int, context: Any, is_listener: bool) -> Conn:
        """Make the connection of a non-blocking descriptor, and watch it."""
        conn = Conn(self, fd, context, self.poller.now())
        conn.is_listener = is_listener
        self._make_room(fd)
        try:
            self.poller.add(fd, conn)
        except BaseException:
            conn.closed = True  # the descriptor is still the caller's
            raise
        return conn

    def _make_room(self, fd: int) -> None:
        while len(self.held) <= fd:
            self.held.append(None)

    def _read_on(self, conn: Conn) -> None:
        """See to it that a connection which is ready and has a read pending gets its turn."""
        if conn.readable and not conn.reading and conn.read_head is not None:
            conn.reading = True
            self.reads.append(conn)

    def _write_on(self, conn: Conn) -> None:
        """As `_read_on`, for sending; a FIN or a close needs no room in the kernel. Without writes, a relay may go on.

        Of a member of a group for which messages wait, the one that was begun goes first, then its writes, then
        the other messages, and at last a FIN or a close.
        """
        operation = conn.write_head
        outbox = conn.outbox
        if outbox is not None and outbox.count:
            if not outbox.is_flushing and self._allowance(conn) != NOTHING:
                outbox.is_flushing = True
                self.flushes.append(conn)
            if outbox.offset or operation is None or operation.kind > POST:
                return
        if operation is None:
            if conn.feeder is not None:
                self._feed(conn)
        elif not conn.writing and (conn.writable or operation.kind > POST):
            conn.writing = True
            self.writes.append(conn)

    def _feed(self, sink: Conn) -> None:
        """See to it that the relay to a connection that nothing else is written to gets its turn."""
        source = sink.feeder
        assert source is not None
        if source.reading or source.read_head is None or source.read_head.kind != RELAY:
            return
        flow = source.read_head.pinned
        if flow.sink is sink and (source.readable or flow.left):
            source.reading = True
            self.reads.append(source)

    def _allowance(self, conn: Conn) -> int:
        """Return what may be sent now of the messages that wait for a member of a group."""
        if not conn.writable:
            return NOTHING
        operation = conn.write_head
        if operation is None or operation.kind > POST:
            return ALL
        return REST if conn.outbox.offset else NOTHING

    def _rest(self, listener: Conn) -> None:
        """Accept no more for a while: there is no descriptor, or no memory."""
        now_s = self.poller.now()
        listener.readable = False
        listener.stall_s -= now_s
        self.starved.append(listener)
        self.released = False
        self.alarms.arm(listener, True, now_s + ACCEPT_PAUSE_S)

    def _feed_starved(self) -> None:
        """Let listeners that lacked a descriptor try again."""
        starved = self.starved
        self.starved = []
        for listener in starved:
            listener.stall_s += self.poller.now()
            listener.readable = True
            self._read_on(listener)

    def _look_for_hangup(self, conn: Conn) -> None:
        """See to it that a peer that is gone is told of at the end of the pass, if no read tells."""
        if conn.hung == SEEN and conn.read_head is None:
            self.hung.append(conn)

    def _note_fault(self, conn: Conn, error: int, told: bool) -> None:
        """Remember why a connection broke: the kernel tells one call, and all others that the stream has ended.

        EPIPE is what those are told that send; a lack of memory ends nothing. `told`: somebody gets the error.
        """
        if conn.fault == 0 and error != EPIPE and error != ENOBUFS and error != ENOMEM:
            conn.fault = error
            if told:
                conn.hung = TOLD

    def _end_of(self, conn: Conn) -> Exception:
        """Return what the end of a connection's stream was: its peer's FIN, or that it broke before."""
        if conn.fault != 0:
            return OSError(conn.fault, os.strerror(conn.fault))
        return EOFError("the peer has closed its side")

    def _stall(self, conn: Conn) -> None:
        """Send no more: the kernel is full. It tells with an edge when it is not."""
        conn.writable = False
        conn.stall_s -= self.now_s
        conn.blocked_s = self.now_s

    def _new_operation(self, kind: int, conn: Conn | None, context: Any, deadline: float) -> OpResult:
        """Make a pending operation; without the generic call of a class, which costs as much as a recv."""
        operation = OpResult.__new__(OpResult)
        operation.kind = kind
        operation.operation = OPERATION_TYPES[kind] if kind <= HANGUP else None  # type: ignore[assignment]
        operation.conn = conn
        operation.context = context
        operation.buffer = None
        operation.is_swap_buffer = False
        operation.size = 0
        operation.error = None
        operation.deadline = deadline
        operation.full = False
        operation.length = 0
        operation.next = None
        operation.pending = True
        operation.silent = False
        operation.pinned = None
        return operation

    def _start(self, operation: OpResult) -> None:
        """Queue an accepted operation."""
        kind = operation.kind
        if kind == TIMER:
            self.alarms.set_timer(operation)
            return
        if kind == POST:
            self._finish(operation, None, COMPLETE)
            return
        conn = operation.conn
        assert conn is not None
        if conn.closed or conn.closing:
            self._complete(operation, ConnClosed(f"{conn!r} is closed"))
            return
        if conn.failure is not None:
            self._complete(operation, conn.failure)
            return
        if kind == RELAY:
            flow = operation.pinned
            sink = flow.sink
            if sink.closed or sink.closing:
                self._complete(operation, ConnClosed(f"{sink!r} is closed"))
                return
        if kind == READ or kind == ACCEPT or kind == RELAY:
            self._push_read(conn, operation)
        else:
            self._push_write(conn, operation)
        if operation.deadline != inf:
            self.alarms.arm(conn, kind == READ or kind == RELAY, operation.deadline)

    def _push_read(self, conn: Conn, operation: OpResult) -> None:
        if conn.read_head is None:
            if conn.write_head is None:
                self.held[conn.fd] = conn
            conn.read_head = operation
        else:
            conn.read_tail.next = operation  # type: ignore[union-attr]
        conn.read_tail = operation
        conn.read_count += 1
        self._read_on(conn)

    def _push_write(self, conn: Conn, operation: OpResult) -> None:
        if operation.kind == CONNECT:
            self._begin_connect(conn, operation)
        if conn.write_head is None:
            if conn.read_head is None:
                self.held[conn.fd] = conn
            conn.write_head = operation
            self._write_on(conn)
        else:
            conn.write_tail.next = operation  # type: ignore[union-attr]
        if not conn.writing or conn.write_head is not operation:
            self._own(operation)  # it will not be sent before the swap buffer is released
        conn.write_tail = operation
        conn.write_count += 1
        conn.pending_write_bytes += operation.length

    def _own(self, operation: OpResult) -> None:
        """Copy what is left in a swap buffer, which will not outlive this pass."""
        pinned = operation.pinned
        owned = self.batch.own(pinned)
        if owned is not pinned:
            operation.pinned = owned
            operation.buffer = owned

    def _begin_connect(self, conn: Conn, operation: OpResult) -> None:
        """Send the SYN, and only then watch: an unconnected socket polls as hung up."""
        family, address = operation.buffer
        operation.buffer = None
        error = -connect(conn.fd, family, address)
        try:
            self.poller.add(conn.fd, conn)
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error not in (0, EINPROGRESS):
            operation.error = OSError(error, os.strerror(error))
        if error != EINPROGRESS:
            conn.writable = True

    def _pop_read(self, conn: Conn) -> None:
        """Take the oldest read off its queue."""
        operation = conn.read_head
        assert operation is not None
        conn.read_head = operation.next
        operation.next = None
        conn.read_count -= 1
        if conn.read_head is None:
            conn.read_tail = None
            self._look_for_hangup(conn)
            if conn.write_head is None:
                self.held[conn.fd] = None

    def _pop_write(self, conn: Conn) -> None:
        """Take the oldest write off its queue."""
        operation = conn.write_head
        assert operation is not None
        conn.write_head = operation.next
        operation.next = None
        conn.write_count -= 1
        if conn.write_head is None:
            conn.write_tail = None
            if conn.read_head is None:
                self.held[conn.fd] = None

    def _finish(self, operation: OpResult, error: Exception | None, outcome: int) -> None:
        """Complete an operation that is off its queue."""
        operation.error = error
        operation.pending = False
        if operation.kind == RELAY:
            self._unlink(operation)
        operation.pinned = None
        self.counters[operation.kind * OUTCOME_COUNT + outcome] += 1
        if not operation.silent:
            self.done.append(operation)

    def _unlink(self, operation: OpResult) -> None:
        """Let the sink of a relay go. What it had not taken becomes a write, unless it will take no more."""
        flow = operation.pinned
        sink = flow.sink
        if sink.feeder is operation.conn:
            sink.feeder = None
        left = flow.left
        if left:
            sink.pending_write_bytes -= left
            self.counters[sink.traffic + BUFFERED] -= left
            self.counters[sink.traffic + RESUMES] += 1
            self.counters[sink.traffic + PAUSED_NS] += int((self.now_s - flow.paused_s) * 1e9)
            if not sink.closing and not sink.closed and type(operation.error) is not RelaySinkError:
                self._write_rest(sink, flow.take())
        flow.close(self.plumbing)

    def _write_rest(self, sink: Conn, data: bytes) -> None:
        """Write what a relay had taken, on nobody's behalf."""
        rest = self._new_operation(WRITE, sink, None, inf)
        rest.silent = True
        rest.pinned = data
        rest.length = len(data)
        self.counters[WRITE * OUTCOME_COUNT] += 1
        self._push_write(sink, rest)

    def _complete(self, operation: OpResult, error: Exception | None) -> None:
        """`_finish`, where the outcome has yet to be told from the error."""
        outcome = COMPLETE if error is None else EXPIRED if isinstance(error, DeadlineExceeded) else FAILED
        self._finish(operation, error, outcome)
