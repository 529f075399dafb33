"""The loop: what one pass of `wait_io()` does, in the thread that is inside it.

One pass sends what is queued, polls, and receives what is ready, in batches (`Batch`). Registration
is edge-triggered, once per connection for both directions; a connection remembers its edges in
`readable` and `writable`, and stands in `reads` or `writes` while there is something to do for it.
"""

import errno
import os
import socket
from collections import deque
from math import inf
from typing import Any

from gaiod.core import counters as layout
from gaiod.core.alarms import Alarms
from gaiod.core.connection import Conn, Mover
from gaiod.core.engine import Batch, Poller, accept, shutdown_write, take_error
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.operations import (
    ACCEPT,
    AFFINITY,
    CANCEL,
    CLOSED,
    CONNECT,
    FINISH,
    FREE,
    OPERATION_TYPES,
    POST,
    READ,
    SHUTDOWN,
    STOP,
    TIMER,
    WRITE,
    OpResult,
)

COMPLETE, AT_EOF, FAILED, EXPIRED = range(1, 5)  # columns of the operation counters
OUTCOMES = len(layout.OUTCOMES)

LOOP_ITERATIONS = layout.index("loop_iterations")
LOOP_EVENTS = layout.index("loop_events")
LOOP_BUSY_NS = layout.index("loop_busy_ns")
SWAP_EXHAUSTED = layout.index("swap_buffer_exhausted")
FREED = layout.index("conn_freed")
LAG = layout.LAG
LAG_BOUNDS = layout.LAG_BOUNDS_S

READABLE, WRITABLE, BROKEN = 1, 2, 4  # bits of Poller.events

BATCH_MAX = 512
"""Most calls in one batch: what one pass may delay the next poll by."""

EVENTS_MAX = 512
"""Most events one poll returns, on either engine."""

RECEIVES_MIN = 8
"""Fewest receives that are prepared, half of which may not fit any more."""

SEND_ROUNDS = 16
"""Most queued writes of one connection that one pass sends."""

PASSES_PER_POLL = 4
"""Passes that may return without having polled, while there is work known to do."""

ACCEPTS_PER_PASS = 64
"""Most connections one listener accepts in one pass, so that a flood of them starves nobody."""

ACCEPT_PAUSE_S = 0.1
"""How long a listener rests after the kernel had no descriptor or memory for a connection, unless
a connection closes before. accept() would fail again at once, and epoll has no further edge to tell."""

EAGAIN, EINTR, EINPROGRESS = errno.EAGAIN, errno.EINTR, errno.EINPROGRESS
ERRORS_FOR_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ERRORS_OF_LISTENER = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})


class Loop(Mover):
    """The state of a watcher, and the passes over it. `Watcher` is what the world sees of it."""

    def __init__(self, buffer_size: int, counters: Any, report_closes: bool) -> None:
        cells = memoryview(counters).cast("B").cast("q")
        if cells.readonly:
            raise TypeError(f"counters is a read-only {type(counters).__name__}: pass a writable buffer")
        self.counters = cells
        if len(self.counters) < layout.SIZE:
            raise ValueError(f"counters has {len(self.counters)} cells: {layout.SIZE} are needed")
        self.report_closes = report_closes
        self.poller = Poller()
        self.batch = Batch(buffer_size)
        self.alarms = Alarms(self.poller)
        self.done: list[OpResult] = []  # completions not yet returned
        self.reads: list[Conn] = []  # connections to receive from: readable, and with a read pending
        self.writes: list[Conn] = []  # connections to send to: writable, and with a write pending
        self.starved: list[Conn] = []  # listeners that wait for a descriptor or memory to be free
        self.released = False  # a descriptor was closed since
        self.held: list[Conn | None] = []  # by descriptor: keeps a connection alive while it has operations
        self.inbox: deque[OpResult] = deque()  # from other threads
        self.closed = False  # takes no more operations
        self.sleeping = False  # the loop is, or is about to be, in the poller: wake it
        self.passes = 0  # since the last poll
        self.full_polls = 0  # polls in a row, up to the last, that may have left events with the kernel
        self.receives_max = BATCH_MAX  # receives to prepare for the next batch
        self.now_s = self.poller.now()  # when the last poll returned

    def _run(self, timeout_s: float) -> list[OpResult]:
        """Pass until something completed or `timeout_s` is over (negative: never)."""
        until_s = inf if timeout_s < 0 else self.poller.now() + timeout_s
        fresh = True
        while True:
            if self.inbox:
                self._take_inbox()
            if self.closed:
                return []
            if self.released and self.starved:
                self._feed_starved()
            if self.writes:
                self._send_queued()
            if fresh:
                self.batch.recycle()  # only now: what was just sent may have been views
                self.counters[SWAP_EXHAUSTED] += self.batch.exhausted
                self.batch.exhausted = 0
                fresh = False
            if (not self.done and not self.reads) or self.passes >= PASSES_PER_POLL:
                self._poll(until_s)
            else:
                self.passes += 1
            if self.writes:
                self._send_queued()
            if self.reads:
                self._receive_ready()
            if self.passes == 0 and self.alarms.next_s <= self.now_s and self._has_seen_all():
                self._ring()  # after receiving: bytes that are there beat the deadline
            if self.done or self.now_s >= until_s:
                done = self.done
                self.done = []
                return done

    def _poll(self, until_s: float) -> None:
        """Ask the kernel what is ready; wait for it if there is nothing else to do."""
        before_s = self.poller.now()
        self._count_pass(before_s - self.now_s)
        self.sleeping = True  # first, then look into the inbox: who fills it later sees that we sleep
        timeout_s = 0.0
        if not (self.done or self.reads or self.writes or self.inbox):
            until_s = min(until_s, self.alarms.next_s)
            timeout_s = -1.0 if until_s == inf else max(0.0, until_s - before_s)
        events_count = self.poller.wait(timeout_s)
        self.sleeping = False
        self.passes = 0
        self.full_polls = self.full_polls + 1 if events_count >= EVENTS_MAX else 0
        self.now_s = self.poller.now()
        self.counters[LOOP_EVENTS] += events_count
        for i in range(events_count):
            conn = self.poller.owner(i)
            if conn is None:
                continue
            events = self.poller.events(i)
            if events & BROKEN:
                conn.broken = True  # an error or a hang-up alone must wake both directions
                events = READABLE | WRITABLE
            if events & READABLE:
                conn.readable = True
                self._read_on(conn)
            if events & WRITABLE:
                conn.writable = True
                self._write_on(conn)

    def _has_seen_all(self) -> bool:
        """Tell whether every edge from before the last poll is known: the kernel tells them in their order."""
        return self.full_polls * EVENTS_MAX >= len(self.held) or self.full_polls == 0

    def _count_pass(self, busy_s: float) -> None:
        """Count how long the loop was away from the poller: what a connection may have had to wait."""
        busy_ns = int(busy_s * 1e9)
        self.counters[LOOP_ITERATIONS] += 1
        self.counters[LOOP_BUSY_NS] += busy_ns
        bucket = 0
        for bound_s in LAG_BOUNDS:
            if busy_s <= bound_s:
                break
            bucket += 1
        self.counters[LAG + bucket] += 1

    def _send_queued(self) -> None:
        for _ in range(SEND_ROUNDS):
            writes = self.writes
            if not writes:
                return
            self.writes = []
            if len(writes) <= BATCH_MAX:
                self._send_batch(writes)
                continue
            for first in range(0, len(writes), BATCH_MAX):
                self._send_batch(writes[first : first + BATCH_MAX])

    def _send_batch(self, writes: list[Conn]) -> None:
        """Send the oldest write of each connection."""
        batch = self.batch
        batch.reset()
        operations: list[OpResult] = []
        for conn in writes:
            conn.writing = False
            operation = conn.write_head
            if operation is not None and operation.kind != WRITE:
                self._clear_way(conn)
        for conn in writes:
            operation = conn.write_head
            if operation is not None and conn.writable:
                batch.add_send(conn.fd, operation.pinned, operation.size)
                operations.append(operation)
        batch.send()
        for i in range(len(operations)):
            operation = operations[i]
            conn = operation.conn
            sent = batch.result(i)
            if sent >= 0:
                operation.size += sent
                conn.pending_write_bytes -= sent
                conn.bytes_sent += sent
                conn.active_s = self.now_s
                self.counters[conn.traffic + 1] += sent
                if operation.size == operation.length:
                    batch.keep(operation.pinned)
                    self._pop_write(conn)
                    self._finish(operation, None, COMPLETE)
                elif sent < batch.wanted(i):
                    conn.writable = False  # the kernel is full; it tells with an edge when it is not
            elif sent == -EAGAIN:
                conn.writable = False
            elif sent != -EINTR:
                batch.keep(operation.pinned)
                self._pop_write(conn)
                conn.pending_write_bytes -= operation.length - operation.size
                self._finish(operation, OSError(-sent, os.strerror(-sent)), FAILED)
            if operation.pending:
                self._own(operation)
            self._write_on(conn)

    def _clear_way(self, conn: Conn) -> None:
        """Do what stands before the next write: a connect, a FIN, a close."""
        while not conn.closed:
            operation = conn.write_head
            if operation is None or operation.kind == WRITE:
                return
            if operation.kind == CONNECT:
                self._connected(conn, operation)
            elif operation.kind == SHUTDOWN:
                self._pop_write(conn)
                shutdown_write(conn.fd)
            else:
                self._drop(conn, ConnClosed(f"{conn!r} is closed"))

    def _connected(self, conn: Conn, operation: OpResult) -> None:
        """Take the outcome of a connect. After a failure, what waited for it fails the same way."""
        self._pop_write(conn)
        if operation.error is None:
            error = take_error(conn.fd)
            if error == 0:
                self._complete(operation, None)
                return
            operation.error = OSError(error, os.strerror(error))
        conn.failure = operation.error
        self._complete(operation, conn.failure)
        self._end_queue(conn, True, -1, inf, conn.failure)
        self._end_queue(conn, False, -1, inf, conn.failure)

    def _receive_ready(self) -> None:
        """Receive once from each connection that is ready, as far as one batch goes."""
        reads = self.reads
        if len(reads) <= self.receives_max:
            self.reads = []
        else:
            reads = self.reads[: self.receives_max]
            del self.reads[: self.receives_max]
        batch = self.batch
        batch.reset()
        operations: list[OpResult] = []
        listeners: list[Conn] = []
        for conn in reads:
            conn.reading = False
            operation = conn.read_head
            if operation is None:
                continue
            if operation.kind == ACCEPT:
                listeners.append(conn)
            else:
                operations.append(operation)
                batch.add_receive(conn.fd, operation.pinned, operation.size)
        received_count = batch.receive()
        # A batch of large messages is full after a few: do not prepare hundreds in vain every time.
        self.receives_max = min(BATCH_MAX, 2 * max(RECEIVES_MIN, received_count))
        for i in range(len(operations)):
            operation = operations[i]
            conn = operation.conn
            if i < received_count:
                self._received(conn, operation, i, batch.result(i))
            self._read_on(conn)
        for conn in listeners:
            self._accept_ready(conn)
            self._read_on(conn)

    def _read_on(self, conn: Conn) -> None:
        """See to it that a connection which is ready and has a read pending gets its turn."""
        if conn.readable and not conn.reading and conn.read_head is not None:
            conn.reading = True
            self.reads.append(conn)

    def _write_on(self, conn: Conn) -> None:
        """As `_read_on`, for sending; a FIN or a close needs no room in the kernel."""
        operation = conn.write_head
        if operation is not None and not conn.writing and (conn.writable or operation.kind > POST):
            conn.writing = True
            self.writes.append(conn)

    def _received(self, conn: Conn, operation: OpResult, i: int, received: int) -> None:
        """Take the outcome of one receive."""
        batch = self.batch
        if received > 0:
            conn.bytes_received += received
            conn.active_s = self.now_s
            self.counters[conn.traffic] += received
            operation.size += received
            if operation.pinned is None:
                operation.buffer = batch.view(i)
            if received < batch.wanted(i) and not conn.broken:
                conn.readable = False  # the kernel's queue is empty; more bytes are a new edge
            if not operation.full or operation.size == operation.length:
                self._pop_read(conn)
                self._finish(operation, None, COMPLETE)
        elif received == 0:
            conn.at_eof = True
            self._pop_read(conn)
            self._finish(operation, EOFError("the peer has closed its side"), AT_EOF)
        elif received == -EAGAIN:
            conn.readable = False
        elif received != -EINTR:
            self._pop_read(conn)
            self._finish(operation, OSError(-received, os.strerror(-received)), FAILED)

    def _accept_ready(self, listener: Conn) -> None:
        """Accept what is queued at a listener, up to its share of a pass."""
        operation = listener.read_head
        assert operation is not None
        for _ in range(ACCEPTS_PER_PASS):
            fd = accept(listener.fd)
            if fd == -EAGAIN:
                listener.readable = False
                return
            if fd == -EINTR:
                continue
            if fd >= 0:
                conn = None
                error: Exception | None = None
                try:
                    conn = self._adopt(fd, operation.context)
                except OSError as failure:
                    os.close(fd)
                    error = failure
                self._report_accept(operation, conn, error)
                continue
            error = OSError(-fd, os.strerror(-fd))
            if -fd in ERRORS_OF_LISTENER:
                self._pop_read(listener)
                self._complete(operation, error)
                return
            self._report_accept(operation, None, error)
            if -fd in ERRORS_FOR_LACK:
                listener.readable = False
                self.starved.append(listener)
                self.released = False
                self.alarms.arm(listener, True, self.poller.now() + ACCEPT_PAUSE_S)
                return

    def _report_accept(self, operation: OpResult, conn: Conn | None, error: Exception | None) -> None:
        """Complete one accept of a listener; its own operation stays pending."""
        self.counters[ACCEPT * OUTCOMES] += 1
        self._complete(self._new_operation(ACCEPT, conn, operation.context, inf), error)

    def _feed_starved(self) -> None:
        """Let listeners that lacked a descriptor try again."""
        starved = self.starved
        self.starved = []
        for listener in starved:
            listener.readable = True
            self._read_on(listener)

    def _adopt(self, fd: int, context: Any) -> Conn:
        """Make the connection of a non-blocking descriptor, and watch it."""
        conn = Conn(self, fd, context, self.poller.now())
        try:
            self.poller.add(fd, conn)
        except BaseException:
            conn.closed = True  # the descriptor is still the caller's
            raise
        self._make_room(fd)
        return conn

    def _make_room(self, fd: int) -> None:
        while len(self.held) <= fd:
            self.held.append(None)

    # -- operations, from their start to their end ---------------------------------------------------

    def _new_operation(self, kind: int, conn: Conn | None, context: Any, deadline: float) -> OpResult:
        """Make a pending operation; without the generic call of a class, which costs as much as a recv."""
        operation = OpResult.__new__(OpResult)
        operation.kind = kind
        operation.operation = OPERATION_TYPES[kind] if kind <= CLOSED else None  # type: ignore[assignment]
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
        operation.pinned = None
        return operation

    def _take_inbox(self) -> None:
        for _ in range(len(self.inbox)):
            operation = self.inbox.popleft()
            if operation.kind <= POST:
                self.counters[operation.kind * OUTCOMES] += 1
                self._start(operation)
            else:
                self._fulfil(operation)

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
        if kind == READ or kind == ACCEPT:
            self._push_read(conn, operation)
        else:
            self._push_write(conn, operation)
        if operation.deadline != inf:
            self.alarms.arm(conn, kind == READ, operation.deadline)

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
        sock = socket.socket(family, socket.SOCK_STREAM, fileno=conn.fd)
        try:
            error = sock.connect_ex(address)
        finally:
            sock.detach()
        self._make_room(conn.fd)
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
        operation.pinned = None
        self.counters[operation.kind * OUTCOMES + outcome] += 1
        self.done.append(operation)

    def _complete(self, operation: OpResult, error: Exception | None) -> None:
        """`_finish`, where the outcome has yet to be told from the error."""
        outcome = COMPLETE if error is None else EXPIRED if isinstance(error, DeadlineExceeded) else FAILED
        self._finish(operation, error, outcome)

    def _fulfil(self, request: OpResult) -> None:
        """Do what was asked for without a completion."""
        kind = request.kind
        if kind == CLOSED:
            self.done.append(request)
        elif kind == AFFINITY:
            os.sched_setaffinity(0, [request.context])
        elif kind == CANCEL and type(request.buffer) is OpResult:
            self._cancel_timer(request.buffer)
        elif kind != STOP:  # that one only wakes the loop, to see that the watcher is closed
            conn = request.buffer
            if conn.closed:
                return
            if kind == FREE:
                self._drop(conn, ConnClosed(f"{conn!r} is closed"))
            elif kind == CANCEL:
                self._cancel(conn, request.context)
            elif not conn.closing:
                conn.closing = kind == FINISH
                if conn.closing:
                    self._end_queue(conn, True, -1, inf, ConnClosed(f"{conn!r} is closed"))
                self._push_write(conn, self._new_operation(kind, conn, None, inf))

    def _cancel(self, conn: Conn, op_type: Any) -> None:
        kind = -1 if op_type is None else int(op_type)
        error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        self._end_queue(conn, True, kind, inf, error)
        self._end_queue(conn, False, kind, inf, error)

    def _cancel_timer(self, operation: OpResult) -> None:
        if operation.kind == TIMER and operation.pending:
            self._complete(operation, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            self.alarms.stale += 1

    def _end_queue(self, conn: Conn, reading: bool, kind: int, limit_s: float, error: Exception) -> None:
        """Complete with `error` the operations of one direction of that kind (-1: any), due by `limit_s`."""
        operation = conn.read_head if reading else conn.write_head
        kept: list[OpResult] = []
        ended: list[OpResult] = []
        while operation is not None:
            matches = operation.kind <= POST and kind in (-1, operation.kind) and operation.deadline <= limit_s
            (ended if matches else kept).append(operation)
            operation = operation.next
        if not ended:
            return
        head = tail = None
        for operation in kept:
            operation.next = None
            if tail is None:
                head = operation
            else:
                tail.next = operation
            tail = operation
        if reading:
            conn.read_head, conn.read_tail, conn.read_count = head, tail, len(kept)
        else:
            conn.write_head, conn.write_tail, conn.write_count = head, tail, len(kept)
        if conn.read_head is None and conn.write_head is None:
            self.held[conn.fd] = None
        for operation in ended:
            operation.next = None
            if operation.kind == WRITE:
                conn.pending_write_bytes -= operation.length - operation.size
                self._own(operation)  # the completion may come in a later batch than its swap buffer lives
            self._complete(operation, error)
        if not reading:
            self._write_on(conn)

    def _ring(self) -> None:
        """See to the alarms that are due."""
        for target in self.alarms.due(self.now_s):
            if type(target) is OpResult:
                self._complete(target, None)
            else:
                self._expire(target[0], target[1])

    def _expire(self, conn: Conn, reading: bool) -> None:
        """End the operations of one direction that are due, and see to those that are not."""
        if conn.is_listener:
            self._feed_starved()
            return
        if conn.reading if reading else conn.writing:
            self.alarms.arm(conn, reading, self.now_s)  # it is ready, and its turn has not come: try first
            return
        self._end_queue(conn, reading, -1, self.now_s, DeadlineExceeded("the operation's deadline passed"))
        operation = conn.read_head if reading else conn.write_head
        next_s = inf
        while operation is not None:
            next_s = min(next_s, operation.deadline)
            operation = operation.next
        if next_s != inf:
            self.alarms.arm(conn, reading, next_s)

    def _drop(self, conn: Conn, error: Exception) -> None:
        """Close a connection; its operations complete with `error`."""
        self.counters[FREED] += 1
        self._end_queue(conn, True, -1, inf, error)
        self._end_queue(conn, False, -1, inf, error)
        self._release(conn)
        if self.report_closes and not conn.is_listener:
            self.done.append(self._new_operation(CLOSED, conn, conn.context, inf))

    def _release(self, conn: Conn) -> None:
        """Give a connection's descriptor back. In whichever thread drops the last reference."""
        conn.closed = True
        fd = conn.fd
        conn.fd = -1
        conn.read_head = conn.read_tail = None
        conn.write_head = conn.write_tail = None  # at most a FIN or a close is left
        if fd < len(self.held):
            self.held[fd] = None
        self.alarms.disarm(conn)
        self.released = True
        self.poller.remove(fd)
        os.close(fd)
