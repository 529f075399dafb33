"""The watcher: a proactor. Submit reads and writes, collect their completions.

`wait_io()` is the loop, and the thread inside it does all the I/O: submitting does none. One pass
sends what is queued, polls, and receives what is ready, in batches (`Batch`), and returns the
completions. Registration is edge-triggered, once per connection for both directions; a connection
remembers its edges in `readable` and `writable`.

This file is ordinary Python, and compiled by Cython when gaiod is installed where a compiler is:
`watcher.pxd` beside it gives the types. Everything private is in reach of both engines' tests.
"""

import errno
import os
import socket
import sys
from collections import deque
from enum import IntEnum
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from threading import Lock
from time import sleep
from typing import Any
from weakref import WeakKeyDictionary

from gaiod.core import counters as layout
from gaiod.core.engine import Batch, Poller, accept, pin, shutdown_write, take_error
from gaiod.core.errors import (
    ConnClosed,
    DeadlineExceeded,
    EmptyBuffer,
    NoSuchCore,
    TooManyOperations,
    UnsupportedConn,
    UsageError,
    WatcherClosed,
)


class OpType(IntEnum):
    """What an operation does."""

    READ = 0
    WRITE = 1
    ACCEPT = 2
    CONNECT = 3
    TIMER = 4
    POST = 5
    CLOSE = 6
    """Not submitted: the report of a watcher with `report_closes` that a connection closed."""


READ, WRITE, ACCEPT, CONNECT, TIMER, POST, CLOSED = range(7)
SHUTDOWN, FINISH, FREE, CANCEL, AFFINITY, STOP = range(7, 13)  # requests, which have no completion

OPERATION_TYPES = list(OpType)
COMPLETE, AT_EOF, FAILED, EXPIRED = range(1, 5)  # columns of the operation counters
OUTCOMES = len(layout.OUTCOMES)

LOOP_ITERATIONS = layout.index("loop_iterations")
LOOP_EVENTS = layout.index("loop_events")
LOOP_BUSY_NS = layout.index("loop_busy_ns")
SWAP_EXHAUSTED = layout.index("swap_buffer_exhausted")
GC_FOUND = layout.index("conn_gc_found")
GC_CLOSED = layout.index("conn_gc_closed")
FREED = layout.index("conn_freed")
UNASSIGNED = layout.index("unassigned_received_bytes")
LAG = layout.LAG
LAG_BOUNDS = layout.LAG_BOUNDS_S

READABLE, WRITABLE, BROKEN = 1, 2, 4  # bits of Poller.events

BATCH_MAX = 512
"""Most calls in one batch: what one pass may delay the next poll by."""

SEND_ROUNDS = 16
"""Most queued writes of one connection that one pass sends."""

PASSES_PER_POLL = 4
"""Passes that may return without having polled, while there is work known to do."""

ACCEPTS_PER_PASS = 64
"""Most connections one listener accepts in one pass, so that a flood of them starves nobody."""

ACCEPT_PAUSE_S = 0.1
"""How long a listener rests after the kernel had no descriptor or memory for a connection, unless
a connection closes before. accept() would fail again at once, and epoll has no further edge to tell."""

OPERATIONS_MAX = 65_536
"""Most operations pending per connection and direction, and submissions waiting from other threads:
a bound for a program that does not look at its completions, not a tuning knob."""

EAGAIN, EINTR = errno.EAGAIN, errno.EINTR
ERRORS_FOR_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ERRORS_OF_LISTENER = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})

_serials = count(1)


class OpResult:
    """One operation, pending and then complete.

    `buffer[:size]` is what was moved, whatever the outcome. A swap buffer (`is_swap_buffer`) is the
    watcher's and valid until the next `wait_io()`; any other is whose it was.

    Attributes:
        operation: which kind.
        context: what was given with it, or else its connection's `context`.
        conn: its connection; for ACCEPT the new one; None for TIMER and POST.
        buffer: the bytes read or written; None for the other kinds, and for a read that failed.
        is_swap_buffer: whether `buffer` belongs to the watcher.
        size: bytes moved, also when the operation failed midway.
        error: None, or why it failed: EOFError at the end of the stream, OSError with its errno
            from the network, DeadlineExceeded, ConnClosed, WatcherClosed.
    """

    __slots__ = (
        "buffer", "conn", "context", "deadline", "error", "full", "is_swap_buffer", "kind", "length", "next",
        "operation", "pending", "pinned", "size",
    )  # fmt: skip

    def __init__(
        self,
        operation: OpType,
        conn: "Conn | None" = None,
        *,
        buffer: Any = None,
        size: int | None = None,
        error: Exception | None = None,
        context: object = None,
        is_swap_buffer: bool = False,
    ) -> None:
        """Make a completed operation: for tests of code that takes completions."""
        self.kind = int(operation)
        self.operation = operation
        self.conn = conn
        self.context = context
        self.buffer = buffer
        self.is_swap_buffer = is_swap_buffer
        self.size = (0 if buffer is None else len(buffer)) if size is None else size
        self.error = error
        self.deadline = inf
        self.full = False
        self.length = self.size
        self.next: OpResult | None = None
        self.pending = False
        self.pinned: Any = None

    def __repr__(self) -> str:
        outcome = "pending" if self.pending else "ok" if self.error is None else repr(self.error)
        return f"<OpResult {self.operation.name} {self.size} bytes, {outcome}, {self.conn!r}>"


def new_operation(kind: int, conn: Any, context: Any, deadline: float) -> OpResult:
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


class Conn:
    """A connection of a watcher: a stream socket of which the watcher owns the descriptor.

    Its methods are the watcher's operations. It stays open while it is referenced or has pending
    operations; dropped without `close()` or `abort()`, its descriptor is closed and `get_gc()`
    counts it.

    Attributes:
        serial: unique in this process, never used again (a descriptor is).
        context: the context of operations that are given none. Set by whoever made it.
        data: free for its owner; the watcher never looks at it.
        close_reason: free for its owner, to say why it closes; "forgotten" if it was dropped.
        bytes_received, bytes_sent: moved so far.
        opened_s, active_s: `time.monotonic()` of its making, and of the pass that last moved bytes.
        traffic: index of the two counters that its received and sent bytes are added to.
    """

    __slots__ = (
        "__weakref__", "active_s", "broken", "bytes_received", "bytes_sent", "close_reason", "closed", "closing",
        "context", "data", "fd", "is_listener", "opened_s", "pending_write_bytes", "read_alarm", "read_alarm_s",
        "read_count", "read_head", "read_tail", "readable", "reading", "serial", "traffic", "watcher", "writable",
        "write_alarm", "write_alarm_s", "write_count", "write_head", "write_tail", "writing",
    )  # fmt: skip

    def __init__(self, watcher: "Watcher", fd: int, context: object, now_s: float) -> None:
        self.watcher = watcher
        self.fd = fd
        self.serial = next(_serials)
        self.context = context
        self.data: Any = None
        self.close_reason: str | None = None
        self.readable = False  # the kernel may have bytes: an edge was seen, and no short read since
        self.writable = True
        self.broken = False  # a hang-up or an error was seen: a short read tells nothing any more
        self.closing = False  # close() was called: it ends when the queued writes are sent
        self.closed = False
        self.is_listener = False
        self.reading = False  # in watcher.reads: it will be received from
        self.writing = False  # in watcher.writes
        self.read_head: OpResult | None = None  # pending operations, oldest first, linked by `next`
        self.read_tail: OpResult | None = None
        self.read_count = 0
        self.write_head: OpResult | None = None
        self.write_tail: OpResult | None = None
        self.write_count = 0
        self.pending_write_bytes = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.opened_s = now_s
        self.active_s = now_s
        self.traffic = UNASSIGNED
        self.read_alarm = 0  # the number of this direction's entry in watcher.alarms; 0: none
        self.read_alarm_s = inf
        self.write_alarm = 0
        self.write_alarm_s = inf

    def read(self, buf: Any = None, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.read`."""
        return self.watcher._submit_read(self, buf, context, deadline, False)

    def read_full(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.read_full`."""
        return self.watcher._submit_read(self, buf, context, deadline, True)

    def write(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.write`."""
        return self.watcher._submit_write(self, buf, context, deadline)

    def shutdown_write(self) -> None:
        """As `Watcher.shutdown_write`."""
        self.watcher._request(SHUTDOWN, self, None)

    def cancel(self, op_type: OpType | None = None) -> None:
        """As `Watcher.cancel`."""
        self.watcher._request(CANCEL, self, op_type)

    def close(self) -> None:
        """Close once the writes queued so far are with the kernel.

        Pending reads complete with ConnClosed now, and nothing more can be submitted. A peer that
        does not take its bytes keeps the connection open: `abort()` does not wait.
        """
        self.watcher._request(FINISH, self, None)

    def abort(self) -> None:
        """As `Watcher.free`."""
        self.watcher._request(FREE, self, None)

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed. It is the watcher's: do not close it or read from it."""
        return self.fd

    @property
    def local_address(self) -> Any:
        """The address of this end, as `socket.getsockname()` has it; None once closed."""
        return self.watcher._address(self, False)

    @property
    def peer_address(self) -> Any:
        """The address of the other end, as `socket.getpeername()` has it; None once either end is gone."""
        return self.watcher._address(self, True)

    def __repr__(self) -> str:
        return f"<Conn {self.serial} {'closed' if self.closed else f'fd {self.fd}'}>"

    def __del__(self) -> None:
        if not self.closed:
            self.watcher._forget(self)


class Watcher:
    """Moves the bytes of many connections, in the one thread that calls `wait_io()`.

    Submitting (`read`, `write`, `accept`, `connect`, `timer`, `post`, `free`, `cancel`, `close`) is
    allowed from any thread. Every accepted operation has exactly one completion, whatever happens;
    operations of one connection and direction complete in the order they were submitted, and the
    two directions do not wait for each other. A watcher that nobody references closes itself.

    Args:
        buffer_size: most bytes that a read without a buffer of its own returns.
        counters: where to count: a writable buffer of 64-bit integers, `counters.SIZE` or more of
            them, for instance in shared memory (layout: `gaiod.core.counters`).
        report_closes: also complete one `OpType.CLOSE` for every connection that closed, for
            whatever reason, its `conn` being the closed connection.
    """

    def __init__(self, buffer_size: int = 65536, *, counters: Any = None, report_closes: bool = False) -> None:
        self.closed = True  # until the rest of it exists
        self.shut = True
        if not 1 <= buffer_size <= 16 * 1024 * 1024:
            raise ValueError(f"buffer_size={buffer_size}: must be from 1 byte to 16 MiB")
        self.counters = memoryview(bytearray(8 * layout.SIZE) if counters is None else counters).cast("B").cast("q")
        if len(self.counters) < layout.SIZE:
            raise ValueError(f"counters has {len(self.counters)} cells: {layout.SIZE} are needed")
        self.report_closes = report_closes
        self.poller = Poller()
        self.batch = Batch(buffer_size)
        self.closed = False  # takes no more operations
        self.shut = False  # and has released everything
        self.gate = Lock()  # around releasing everything
        self.done: list[OpResult] = []  # completions not yet returned
        self.reads: list[Conn] = []  # connections to receive from: readable, and with a read pending
        self.writes: list[Conn] = []  # connections to send to: writable, and with a write pending
        self.starved: list[Conn] = []  # listeners that wait for a descriptor or memory to be free
        self.held: list[Conn | None] = []  # by descriptor: keeps a connection alive while it has operations
        self.inbox: deque[OpResult] = deque()  # from other threads
        self.sleeping = False  # the loop is, or is about to be, in the poller: wake it
        self.loop_thread = self.poller.thread()  # its maker, then whoever was last in wait_io(): may touch everything
        self.submitting = 0  # that thread is inside a submission
        self.in_loop = False
        self.released = False  # a descriptor was closed since a listener was starved
        self.passes = 0  # since the last poll
        self.now_s = self.poller.now()  # when the last poll returned
        self.alarms: list[tuple[float, int, Any]] = []  # heap: time, number, TIMER or 2 * fd + direction
        self.alarm_numbers = count(1)
        self.stale_alarms = 0
        self.delegated: WeakKeyDictionary[socket.socket, Conn] = WeakKeyDictionary()

    # -- what everybody uses ---------------------------------------------------------------------

    def delegate(self, sock: socket.socket, *, context: object = None) -> Conn:
        """Take a stream socket over: TCP or unix, connected.

        Its descriptor is duplicated (close-on-exec, non-blocking; options set before remain), and
        `sock` is closed.

        Raises:
            UnsupportedConn: not such a socket; it was left as it was.
            WatcherClosed: nothing was done.
            OSError: no descriptor is left; `sock` was left as it was.
        """
        return self._adopt_socket(sock, context, False)

    def read(
        self, conn: Conn | socket.socket, buf: Any = None, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """Read once: complete with the first bytes there are, at the end of the stream, or on failure.

        Without `buf` the completion's `buffer` is the watcher's swap buffer: read-only, and valid
        until the next `wait_io()`. A `buf` is filled from its start, and pinned until then.

        Args:
            conn: a connection of this watcher; a socket is delegated on first use.
            buf: a writable, contiguous buffer, not empty.
            context: comes back with the completion.
            deadline: in `time.monotonic()` seconds; then DeadlineExceeded, and the connection stays
                usable. Bytes that are there by then win.

        Raises:
            WatcherClosed, ConnClosed, UnsupportedConn, EmptyBuffer, TooManyOperations, TypeError
            (not a writable buffer): nothing was submitted.
        """
        return self._submit_read(conn, buf, context, deadline, False)

    def read_full(
        self, conn: Conn | socket.socket, buf: Any, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """As `read`, but complete only when `buf` is full, or with an error and the `size` read so far."""
        return self._submit_read(conn, buf, context, deadline, True)

    def write(
        self, conn: Conn | socket.socket, buf: Any, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """Write all of `buf`: complete when the kernel has taken it, or with an error and the `size` taken.

        `buf` is pinned until then, and must not be changed. A swap buffer may be written as it is:
        what the kernel does not take at once is copied.

        Args and Raises: as `read`; `buf` need not be writable.
        """
        return self._submit_write(conn, buf, context, deadline)

    def shutdown_write(self, conn: Conn) -> None:
        """Send a FIN after the writes queued so far. A write submitted later fails with EPIPE."""
        self._request(SHUTDOWN, conn, None)

    def free(self, conn: Conn | socket.socket) -> None:
        """Close at once: pending operations complete with ConnClosed, the descriptor closes.

        What the kernel has not taken is not sent (`Conn.close` waits for it). Closed already, or
        never delegated: nothing happens.
        """
        self._request(FREE, conn, None)

    def cancel(self, conn: "Conn | OpResult", op_type: OpType | None = None) -> None:
        """Complete the pending operations of a connection (of one type, or all) with ECANCELED.

        Their `size` is what was moved before. A timer is cancelled by what `timer()` returned.
        """
        self._request(CANCEL, conn, op_type)

    def connect(self, address: Any, *, context: object = None, deadline: float | None = None) -> Conn:
        """Open a connection; completes when it is established, or failed.

        The connection may be read from and written to before: that waits. After a failure it is of
        no use, and still has to be freed.

        Args:
            address: `(host, port)` with a numeric IPv4 or IPv6 host (names would block: resolve
                them first), or the path of a unix socket.
            context, deadline: as `read`; the context becomes the connection's.

        Raises:
            ValueError: not such an address.
            OSError: no descriptor is left.
        """
        return self._submit_connect(address, context, deadline)

    def accept(self, listener: Conn | socket.socket, *, context: object = None) -> Conn:
        """Accept connections, one completion each, until cancelled, freed or closed.

        Its last completion has the error that ended it, and the listener as its `conn`. One in
        between can have an error too, and no `conn`, when the kernel had no descriptor left, say: accepting goes on by itself.

        Args:
            listener: a listening socket, which is delegated, or the Conn of one.
            context: of the completions, and of the connections accepted.

        Returns:
            The listener's Conn.
        """
        return self._submit_accept(listener, context)

    def timer(self, deadline: float, *, context: object = None) -> OpResult:
        """Complete at `deadline` (`time.monotonic()` seconds). Returns what `cancel` takes."""
        if deadline != deadline or deadline == inf:
            raise ValueError(f"deadline={deadline}: must be finite")
        operation = new_operation(TIMER, None, context, deadline)
        self._submit(operation)
        return operation

    def post(self, context: object) -> None:
        """Complete a POST with `context` in the thread that waits: a message from any other thread."""
        self._submit(new_operation(POST, None, context, inf))

    def wait_io(self, timeout: float | None = None) -> list[OpResult]:
        """Do the I/O, and return the operations completed: at least one, or none when time is up.

        Swap buffers returned by the call before are released.

        Args:
            timeout: most seconds to wait; 0 looks once, None waits for ever.

        Raises:
            WatcherClosed: closed, and every completion was returned.
            UsageError: another thread is in it.
            OSError: the poller died; the watcher is of no further use.
        """
        if self.in_loop:
            raise UsageError("wait_io() is running already: one thread at a time")
        self.in_loop = True  # first, then look whether it is closed: close() does it the other way round
        try:
            if self.loop_thread != self.poller.thread():
                self.loop_thread = self.poller.thread()
                while self.submitting:  # the thread before this one has not finished its submission
                    sleep(0)
            return self._run(-1.0 if timeout is None else timeout)
        finally:
            self.in_loop = False

    def close(self) -> None:
        """Close every connection. What was pending completes with WatcherClosed, in the next `wait_io()`.

        From another thread than the one in `wait_io()`: that one does it, in its next pass.
        """
        if self.closed:
            return
        self.closed = True
        if not self.in_loop:
            self._shut()
        elif self.loop_thread != self.poller.thread():
            self.inbox.append(new_operation(STOP, None, None, inf))
            self.poller.wake()

    def connections(self, *, context: object = None, idle_since_s: float = inf) -> list[Conn]:
        """Return the open connections, listeners not included.

        Args:
            context: only those that have this context.
            idle_since_s: only those that moved no byte since that `time.monotonic()`.
        """
        return self._select(context, idle_since_s)

    def get_gc(self) -> tuple[int, int]:
        """Return how many connections were found dropped without being freed, and how many of those closed."""
        return self.counters[GC_FOUND], self.counters[GC_CLOSED]

    def set_loop_affinity(self, cpu: int) -> None:
        """Bind the thread in `wait_io()` to one CPU, from its next pass on.

        That thread polls and does the I/O, so this and `set_poller_affinity` are the same here.

        Raises:
            NoSuchCore: not a CPU this process may use, or no such thing on this system.
        """
        if not hasattr(os, "sched_getaffinity"):
            raise NoSuchCore(f"CPU {cpu}: {sys.platform} cannot bind a thread to a CPU")
        usable = sorted(os.sched_getaffinity(os.getpid()))
        if cpu not in usable:
            raise NoSuchCore(f"CPU {cpu}: this process may use {', '.join(map(str, usable))}")
        self._hand_over(new_operation(AFFINITY, None, cpu, inf))

    def set_poller_affinity(self, cpu: int) -> None:
        """The same as `set_loop_affinity`: one thread does both."""
        self.set_loop_affinity(cpu)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.shut:
            self.closed = True
            self._shut()

    # -- submitting: from any thread ---------------------------------------------------------------

    def _submit_read(self, target: Any, buf: Any, context: Any, deadline: Any, full: bool) -> Conn:
        conn = target if type(target) is Conn else self._resolve(target)
        if conn.closed or conn.closing or conn.watcher is not self or self.closed:
            self._refuse(conn)
        if conn.is_listener:
            raise UnsupportedConn("a listener has nothing to read; accept() its connections")
        if conn.read_count >= OPERATIONS_MAX:
            raise TooManyOperations(f"{conn.read_count} reads are pending on {conn!r}; await their completions")
        operation = new_operation(
            READ, conn, conn.context if context is None else context, inf if deadline is None else deadline
        )
        if buf is None:
            operation.is_swap_buffer = True
        else:
            operation.pinned = pin(buf, True)
            operation.buffer = buf
            operation.full = full
            operation.length = len(operation.pinned)
            if operation.length == 0:
                raise EmptyBuffer("cannot read into an empty buffer")
        if full and buf is None:
            raise EmptyBuffer("read_full() needs a buffer to fill")
        self._submit(operation)
        return conn

    def _submit_write(self, target: Any, buf: Any, context: Any, deadline: Any) -> Conn:
        conn = target if type(target) is Conn else self._resolve(target)
        if conn.closed or conn.closing or conn.watcher is not self or self.closed:
            self._refuse(conn)
        if conn.is_listener:
            raise UnsupportedConn("a listener cannot be written to; accept() its connections")
        if conn.write_count >= OPERATIONS_MAX:
            raise TooManyOperations(f"{conn.write_count} writes are pending on {conn!r}; await their completions")
        operation = new_operation(
            WRITE, conn, conn.context if context is None else context, inf if deadline is None else deadline
        )
        pinned = pin(buf, False)
        operation.pinned = pinned
        operation.length = len(pinned)
        if operation.length == 0:
            raise EmptyBuffer("cannot write an empty buffer")
        # A memoryview of the caller's can be released while this is pending: show ours instead.
        operation.buffer = pinned if type(pinned) is memoryview and type(buf) is memoryview else buf
        self._submit(operation)
        return conn

    def _submit_connect(self, address: Any, context: Any, deadline: Any) -> Conn:
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        family = _family(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        conn = Conn(self, sock.detach(), context, self.poller.now())
        conn.writable = False
        operation = new_operation(CONNECT, conn, context, inf if deadline is None else deadline)
        operation.buffer = (family, address)
        self._submit(operation)
        return conn

    def _submit_accept(self, listener: Any, context: Any) -> Conn:
        conn = listener if type(listener) is Conn else self._adopt_socket(listener, context, True)
        if conn.closed or conn.watcher is not self or self.closed:
            self._refuse(conn)
        if not conn.is_listener:
            raise UnsupportedConn(f"{conn!r} is not a listener")
        if conn.read_count:
            raise UsageError(f"accept() is pending on {conn!r} already: it serves until cancelled")
        self._submit(new_operation(ACCEPT, conn, context, inf))
        return conn

    def _submit(self, operation: OpResult) -> None:
        """Accept an operation: at once in the loop's own thread, else through the inbox."""
        deadline = operation.deadline
        if deadline != deadline:
            raise ValueError("deadline is not a number")
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        if operation.kind == POST or not self._claim():
            self._hand_over(operation)
            return
        try:
            self.counters[operation.kind * OUTCOMES] += 1
            self._start(operation)
        finally:
            self.submitting -= 1

    def _request(self, kind: int, target: Any, argument: Any) -> None:
        """Ask for something that has no completion; what is closed already needs nothing."""
        if type(target) is not Conn and type(target) is not OpResult:
            target = self.delegated.get(target)
        if self.closed or target is None:
            return
        conn = target
        if type(target) is Conn and (conn.closed or conn.watcher is not self):
            return
        request = new_operation(kind, None, argument, inf)
        request.buffer = target
        if not self._claim():
            self._hand_over(request)
            return
        try:
            self._fulfil(request)
        finally:
            self.submitting -= 1

    def _claim(self) -> bool:
        """Tell whether this thread may touch the loop's state; if so, it must count `submitting` down again.

        Asked twice, because another thread may enter wait_io() in between; that one waits for the count.
        """
        thread = self.poller.thread()
        if self.loop_thread != thread:
            return False
        self.submitting += 1
        if self.loop_thread == thread:
            return True
        self.submitting -= 1
        return False

    def _hand_over(self, operation: OpResult) -> None:
        """Put an operation into the inbox, and see to it that the loop looks."""
        if len(self.inbox) >= OPERATIONS_MAX and operation.kind <= POST:
            raise TooManyOperations(f"{OPERATIONS_MAX} submissions wait for wait_io(); call it, or submit less")
        operation.pinned = self.batch.own(operation.pinned)
        if type(operation.pinned) is bytes:
            operation.buffer = operation.pinned
        self.inbox.append(operation)
        if self.sleeping:
            self.poller.wake()
        if self.closed:  # it closed meanwhile, and may have looked into the inbox before
            try:
                self.inbox.remove(operation)
            except ValueError:
                return  # it was seen, and completed
            raise WatcherClosed("the watcher is closed")

    def _refuse(self, conn: Conn) -> None:
        """Say why nothing can be submitted."""
        if conn.watcher is not self:
            raise UsageError(f"{conn!r} belongs to another watcher")
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        raise ConnClosed(f"{conn!r} is closed")

    def _resolve(self, target: Any) -> Conn:
        """Return the connection of a socket, which is delegated on first use."""
        try:
            conn = self.delegated.get(target)
        except TypeError:
            conn = None  # not even weakly referenceable
        if conn is None:
            conn = self._adopt_socket(target, None, False)
            self.delegated[target] = conn
        return conn

    def _adopt_socket(self, sock: Any, context: Any, listening: bool) -> Conn:
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        _check_socket(sock, listening)
        fd = os.dup(sock.fileno())
        try:
            os.set_blocking(fd, False)
            conn = self._adopt(fd, context)
        except BaseException:
            os.close(fd)
            raise
        conn.is_listener = listening
        sock.close()
        return conn

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

    # -- the loop ----------------------------------------------------------------------------------

    def _run(self, timeout_s: float) -> list[OpResult]:
        """Pass until something completed or `timeout_s` is over (negative: never)."""
        until_s = inf if timeout_s < 0 else self.poller.now() + timeout_s
        fresh = True
        while True:
            if self.inbox:
                self._take_inbox()
            if self.closed:
                self._shut()
                return self._last_completions()
            if self.released and self.starved:
                self._feed_starved()
            if self.writes:
                self._send_queued()
            if fresh:
                self.batch.recycle()  # only now: what was just sent may have been views
                self.counters[SWAP_EXHAUSTED] = self.batch.exhausted
                fresh = False
            if (not self.done and not self.reads) or self.passes >= PASSES_PER_POLL:
                self._poll(until_s)
            else:
                self.passes += 1
            if self.writes:
                self._send_queued()
            if self.reads:
                self._receive_ready()
            if self.passes == 0 and self.alarms and self.alarms[0][0] <= self.now_s:
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
            if self.alarms and self.alarms[0][0] < until_s:
                until_s = self.alarms[0][0]
            timeout_s = -1.0 if until_s == inf else max(0.0, until_s - before_s)
        events_count = self.poller.wait(timeout_s)
        self.sleeping = False
        self.passes = 0
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
        operations = []
        for conn in writes:
            conn.writing = False
            operation = conn.write_head
            if operation is not None and operation.kind != WRITE:
                operation = self._next_write(conn)
            if operation is not None and not conn.closed:
                batch.add_send(conn.fd, operation.pinned, operation.size)
                operations.append(operation)
        batch.send()
        for i in range(len(operations)):
            operation = operations[i]
            conn = operation.conn  # type: ignore[assignment]
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
                self._pop_write(conn)
                conn.pending_write_bytes -= operation.length - operation.size
                self._finish(operation, OSError(-sent, os.strerror(-sent)), FAILED)
            if operation.pending:
                self._own(operation)
            self._write_on(conn)

    def _next_write(self, conn: Conn) -> OpResult | None:
        """Do what stands before the next write, and return that: a connect, a FIN, a close."""
        while not conn.closed:
            operation = conn.write_head
            if operation is None or operation.kind == WRITE:
                return operation
            if operation.kind == CONNECT:
                error = take_error(conn.fd)
                self._pop_write(conn)
                self._complete(operation, None if error == 0 else OSError(error, os.strerror(error)))
            elif operation.kind == SHUTDOWN:
                self._pop_write(conn)
                shutdown_write(conn.fd)
            else:
                self._drop(conn, ConnClosed(f"{conn!r} is closed"))
        return None

    def _receive_ready(self) -> None:
        """Receive once from each connection that is ready, as far as one batch goes."""
        reads = self.reads
        batch = self.batch
        batch.reset()
        operations = []
        listeners = []
        taken = 0
        for conn in reads:
            if len(operations) == BATCH_MAX:
                break
            taken += 1
            conn.reading = False
            operation = conn.read_head
            if operation is None or conn.closed:
                continue
            if operation.kind == ACCEPT:
                listeners.append(conn)
            else:
                operations.append(operation)
                batch.add_receive(conn.fd, operation.pinned, operation.size)
        self.reads = reads[taken:]
        received_count = batch.receive()
        for i in range(len(operations)):
            operation = operations[i]
            conn = operation.conn  # type: ignore[assignment]
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
        """As `_read_on`, for sending."""
        if conn.writable and not conn.writing and conn.write_head is not None:
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
                self._arm(listener, True, self.poller.now() + ACCEPT_PAUSE_S)
                return

    def _report_accept(self, operation: OpResult, conn: Conn | None, error: Exception | None) -> None:
        """Complete one accept of a listener; its own operation stays pending."""
        self.counters[ACCEPT * OUTCOMES] += 1
        self._complete(new_operation(ACCEPT, conn, operation.context, inf), error)

    def _feed_starved(self) -> None:
        """Let listeners that lacked a descriptor try again."""
        starved = self.starved
        self.starved = []
        for listener in starved:
            listener.readable = True
            self._read_on(listener)

    # -- operations, from their start to their end: in the loop's thread ----------------------------

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
            self._set_alarm((operation.deadline, next(self.alarm_numbers), operation))
            return
        if kind == POST:
            self._finish(operation, None, COMPLETE)
            return
        conn = operation.conn
        assert conn is not None
        if conn.closed or conn.closing:
            self._complete(operation, ConnClosed(f"{conn!r} is closed"))
            return
        if kind == READ or kind == ACCEPT:
            self._push_read(conn, operation)
        else:
            self._push_write(conn, operation)
        if operation.deadline != inf:
            self._arm(conn, kind == READ, operation.deadline)

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
        self.poller.add(conn.fd, conn)
        if error not in (0, errno.EINPROGRESS):
            operation.error = OSError(error, os.strerror(error))
        if error != errno.EINPROGRESS:
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
        if error is None:
            error = operation.error  # a connect that failed at once
        outcome = COMPLETE if error is None else EXPIRED if isinstance(error, DeadlineExceeded) else FAILED
        self._finish(operation, error, outcome)

    def _fulfil(self, request: OpResult) -> None:
        """Do what was asked for without a completion."""
        kind = request.kind
        if kind == CLOSED:
            self.done.append(request)
        elif kind == AFFINITY:
            os.sched_setaffinity(0, {request.context})
        elif kind == CANCEL and type(request.buffer) is OpResult:
            self._cancel_timer(request.buffer)
        else:
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
                self._push_write(conn, new_operation(kind, conn, None, inf))

    def _cancel(self, conn: Conn, op_type: Any) -> None:
        kind = -1 if op_type is None else int(op_type)
        error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        self._end_queue(conn, True, kind, inf, error)
        self._end_queue(conn, False, kind, inf, error)

    def _cancel_timer(self, operation: OpResult) -> None:
        if operation.kind == TIMER and operation.pending:
            self._complete(operation, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            self.stale_alarms += 1

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
            self._complete(operation, error)
        if not reading:
            self._write_on(conn)

    # -- time ----------------------------------------------------------------------------------------

    def _arm(self, conn: Conn, reading: bool, deadline_s: float) -> None:
        """Have a direction looked at by `deadline_s`.

        One entry per direction at most: a deadline behind the one that is set costs nothing, and is
        seen when that one rings. An idle timeout, which moves with every message, is such a one.
        """
        if deadline_s >= (conn.read_alarm_s if reading else conn.write_alarm_s):
            return
        if (conn.read_alarm if reading else conn.write_alarm) != 0:
            self.stale_alarms += 1
        number = next(self.alarm_numbers)
        if reading:
            conn.read_alarm, conn.read_alarm_s = number, deadline_s
        else:
            conn.write_alarm, conn.write_alarm_s = number, deadline_s
        # The descriptor, not the connection: an alarm must not keep a forgotten one alive.
        self._set_alarm((deadline_s, number, 2 * conn.fd + reading))

    def _set_alarm(self, alarm: Any) -> None:
        if self.stale_alarms > 64 and 2 * self.stale_alarms > len(self.alarms):
            self.alarms = [alarm for alarm in self.alarms if self._is_live(alarm)]
            heapify(self.alarms)
            self.stale_alarms = 0
        heappush(self.alarms, alarm)

    def _is_live(self, alarm: Any) -> bool:
        target = alarm[2]
        if type(target) is OpResult:
            return self._is_pending(target)
        conn = self.poller.find(target >> 1)
        return conn is not None and self._has_alarm(conn, target & 1, alarm[1])

    def _is_pending(self, operation: OpResult) -> bool:
        return operation.pending

    def _has_alarm(self, conn: Conn, reading: bool, number: int) -> bool:
        return number == (conn.read_alarm if reading else conn.write_alarm)

    def _ring(self) -> None:
        """Expire what is due."""
        due = []
        while self.alarms and self.alarms[0][0] <= self.now_s:
            alarm = heappop(self.alarms)
            if self._is_live(alarm):
                due.append(alarm)
            elif self.stale_alarms > 0:
                self.stale_alarms -= 1
        for alarm in due:
            target = alarm[2]
            if type(target) is OpResult:
                self._complete(target, None)
            else:
                self._expire(self.poller.find(target >> 1), target & 1)

    def _expire(self, conn: Conn, reading: bool) -> None:
        """End the operations of one direction that are due, and see to those that are not."""
        if reading:
            conn.read_alarm, conn.read_alarm_s = 0, inf
        else:
            conn.write_alarm, conn.write_alarm_s = 0, inf
        if conn.is_listener:
            self._feed_starved()
            return
        if conn.reading if reading else conn.writing:
            self._arm(conn, reading, self.now_s)  # it is ready, and its turn has not come: try first
            return
        self._end_queue(conn, reading, -1, self.now_s, DeadlineExceeded("the operation's deadline passed"))
        operation = conn.read_head if reading else conn.write_head
        next_s = inf
        while operation is not None:
            next_s = min(next_s, operation.deadline)
            operation = operation.next
        if next_s != inf:
            self._arm(conn, reading, next_s)

    # -- the end --------------------------------------------------------------------------------------

    def _drop(self, conn: Conn, error: Exception) -> None:
        """Close a connection; its operations complete with `error`."""
        self.counters[FREED] += 1
        self._end_queue(conn, True, -1, inf, error)
        self._end_queue(conn, False, -1, inf, error)
        self._release(conn)
        if self.report_closes and not conn.is_listener:
            self.done.append(new_operation(CLOSED, conn, conn.context, inf))

    def _release(self, conn: Conn) -> None:
        """Give a connection's descriptor back. In whichever thread drops the last reference."""
        conn.closed = True
        fd = conn.fd
        conn.fd = -1
        conn.read_head = conn.read_tail = None
        conn.write_head = conn.write_tail = None  # at most a FIN or a close is left
        if fd < len(self.held):
            self.held[fd] = None
        self.stale_alarms += (conn.read_alarm != 0) + (conn.write_alarm != 0)
        self.released = True
        self.poller.remove(fd)
        os.close(fd)

    def _forget(self, conn: Conn) -> None:
        """Close a connection that nobody references any more."""
        self.counters[GC_FOUND] += 1
        conn.close_reason = "forgotten"
        self._release(conn)
        self.counters[GC_CLOSED] += 1
        if self.report_closes and not conn.is_listener and not self.closed:
            self.inbox.append(new_operation(CLOSED, conn, conn.context, inf))

    def _shut(self) -> None:
        """Complete everything with WatcherClosed, and release every resource."""
        with self.gate:
            if self.shut:
                return
            while self.submitting and self.loop_thread != self.poller.thread():
                sleep(0)
            error = WatcherClosed("the watcher is closed")
            for operation in self.inbox:
                self._refuse_late(operation, error)
            self.inbox.clear()
            for conn in self.poller.owners():
                self._drop(conn, error)
            for alarm in self.alarms:
                if type(alarm[2]) is OpResult and self._is_pending(alarm[2]):
                    self._complete(alarm[2], error)
            self.alarms.clear()
            self.batch.close()
            self.poller.close()
            self.shut = True

    def _refuse_late(self, operation: OpResult, error: Exception) -> None:
        """End what was submitted but never seen by the loop."""
        if operation.kind == CLOSED:
            self.done.append(operation)
        elif operation.kind <= POST:
            self.counters[operation.kind * OUTCOMES] += 1
            self._complete(operation, error)
            if operation.kind == CONNECT and operation.conn is not None and not operation.conn.closed:
                self._drop(operation.conn, error)

    def _last_completions(self) -> list[OpResult]:
        if not self.done:
            raise WatcherClosed("the watcher is closed")
        done = self.done
        self.done = []
        return done

    # -- what is asked of it --------------------------------------------------------------------------

    def _select(self, context: Any, idle_since_s: float) -> list[Conn]:
        chosen = []
        for conn in self.poller.owners():
            if not conn.is_listener and (context is None or conn.context is context) and conn.active_s <= idle_since_s:
                chosen.append(conn)
        return chosen

    def _address(self, conn: Conn, peer: bool) -> Any:
        if conn.closed:
            return None
        sock = socket.socket(fileno=conn.fd)
        try:
            return sock.getpeername() if peer else sock.getsockname()
        except OSError:
            return None  # reset, or not connected yet
        finally:
            sock.detach()


def _family(address: Any) -> int:
    """Return the address family of what `connect` takes."""
    if isinstance(address, (str, bytes)):
        return socket.AF_UNIX
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, address[0].partition("%")[0])
            except OSError:
                continue
            return family
    raise ValueError(f"{address!r}: not a (numeric host, port) or the path of a unix socket; resolve names first")


def _check_socket(sock: Any, listening: bool) -> None:
    """Raise UnsupportedConn, saying why, if the watcher cannot take `sock` over."""
    ssl: Any = sys.modules.get("ssl")
    if ssl is not None and isinstance(sock, ssl.SSLSocket):
        raise UnsupportedConn("an ssl.SSLSocket keeps bytes of its own, which the watcher cannot see")
    if not isinstance(sock, socket.socket):
        raise UnsupportedConn(f"a {type(sock).__name__} is neither a Conn nor a socket.socket")
    if sock.fileno() < 0:
        raise UnsupportedConn("the socket is closed, or was delegated before: use the Conn")
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
        raise UnsupportedConn(f"a {sock.family.name} {sock.type.name} socket: only TCP and unix streams are supported")
    if bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) != listening:
        raise UnsupportedConn(
            "the socket is not listening" if listening else "the socket is listening: accept() its connections"
        )
