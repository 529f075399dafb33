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
from gaiod.core.connection import Conn, Submitter
from gaiod.core.counters import (
    BUFFERED,
    COMPLETE,
    DROPPED_CLOSED,
    EXPIRED,
    FAILED,
    OUTCOME_COUNT,
    PAUSED_NS,
    RESUMES,
)
from gaiod.core.engine import Batch, Plumbing, Poller, connect, peer_name, shutdown_write
from gaiod.core.errors import ConnClosed, DeadlineExceeded, RelaySinkError, TlsError, TlsTruncated
from gaiod.core.operations import (
    ACCEPT,
    AFFINITY,
    CANCEL,
    CLOSED,
    CONNECT,
    FINISH,
    FLUSH,
    FREE,
    HANDSHAKE,
    HANGUP,
    OPERATION_TYPES,
    PAUSE,
    POST,
    READ,
    RELAY,
    RESET,
    SEEN,
    STOP,
    TIMER,
    TOLD,
    WRITE,
)
from gaiod.core.outboxes import ALL, BEGUN, NOTHING
from gaiod.core.results import OpResult
from gaiod.core.sockets import linger_none
from gaiod.core.timers import Timers
from gaiod.core.turns import Turns

FREED = layout.index("conn_freed")

EINPROGRESS = errno.EINPROGRESS
EPIPE, ENOBUFS, ENOMEM = errno.EPIPE, errno.ENOBUFS, errno.ENOMEM
ECONNRESET, EPROTO = errno.ECONNRESET, errno.EPROTO

ACCEPT_PAUSE_S = 0.1
"""How long a listener rests after the kernel had no descriptor or memory for a connection, unless
a connection closes before. accept() would fail again at once, and epoll has no further edge to tell."""


class Operations(Submitter):
    """Every pending operation, its start and its end.

    It decides what is pending and what has something to do; it receives and sends nothing. That is the business of
    the loop, which derives from it, and of the loop's `Relays` and `Fanout`, which are given it. Its methods have an
    underscore because a watcher inherits them: they are for the files of the core.

    Only the thread that may touch the loop's state (`Watcher._claim`) changes anything here. Two exceptions: any
    thread appends to `inbox`; and `_release` runs in whichever thread drops the last reference to a connection.

    Attributes:
        counters: the cells that are counted in. Everybody in the core adds to them.
        report_closes: whether a completion tells of each connection that closes.
        poller, batch, plumbing, timers: the kernel's events, the memory of reads and writes, the pipes of relays, and
            what is due when. Made and kept here, used by all of the core.
        done: completions not yet returned; the loop takes them out.
        reads, writes: connections to receive from and to send to: ready, and with an operation pending. The loop
            takes them out, and relays stand among the reads.
        flushes: members of groups to send to: writable, and with messages waiting. `Fanout` takes them out.
        hung: connections whose peer is gone: the loop reports it, unless a read does.
        paused: listeners that wait for a descriptor or memory to be free.
        released: whether a descriptor was closed since.
        held: by descriptor: keeps a connection alive while it has operations.
        inbox: operations and requests from other threads.
        has_mail: set after something was put into the inbox, and cleared before it is emptied.
        away: the units of connections that are detached.
        now_s: when the last poll returned; the loop sets it.
    """

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
        self.plumbing = Plumbing()
        self.timers = Timers(self.poller)
        self.done: list[OpResult] = []
        self.reads = Turns()
        self.writes = Turns()
        self.flushes: list[Conn] = []
        self.hung: list[Conn] = []
        self.paused: list[Conn] = []
        self.released = False
        self.held: list[Conn | None] = []
        self.inbox: deque[OpResult] = deque()
        self.has_mail = False
        self.away: set[Any] = set()
        self.now_s = self.poller.now()

    # -- the start of connections and operations -------------------------------------------------------

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

    def _new_operation(self, kind: int, conn: Conn | None, context: Any, deadline: float) -> OpResult:
        """Make a pending operation; without the generic call of a class, which costs as much as a recv."""
        operation = OpResult.__new__(OpResult)
        operation.kind = kind
        operation.operation = OPERATION_TYPES[kind] if kind <= HANGUP else None  # type: ignore[assignment]
        operation.conn = conn
        operation.context = context
        operation.deadline = deadline
        operation.pending = True
        return operation

    def _start(self, operation: OpResult) -> None:
        """Queue an accepted operation."""
        kind = operation.kind
        if kind == TIMER:
            self.timers.set_timer(operation)
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
            self._note_touch(sink)
        if conn.unit is not None:
            conn.unit.is_touched = True
            if conn.unit.requests:  # what was asked before this comes before it
                conn.unit.requests.append(operation)
                return
        if kind == READ or kind == ACCEPT or kind == RELAY or kind == HANDSHAKE:
            self._push_read(conn, operation)
        else:
            self._push_write(conn, operation)
        if operation.deadline != inf:
            self.timers.arm(conn, kind == READ or kind == RELAY or kind == HANDSHAKE, operation.deadline)

    def _note_touch(self, conn: Conn) -> None:
        """Take note that something was asked of a connection: if it is detached, what was said of it is not all."""
        if conn.unit is not None:
            conn.unit.is_touched = True

    def _push_read(self, conn: Conn, operation: OpResult) -> None:
        if conn.read_head is None:
            if conn.write_head is None:
                self.held[conn.fd] = conn
            conn.read_head = operation
        else:
            conn.read_tail.next = operation  # type: ignore[union-attr]
        conn.read_tail = operation
        conn.read_count += 1
        self._schedule_read(conn)

    def _push_write(self, conn: Conn, operation: OpResult) -> None:
        if operation.kind == CONNECT:
            self._begin_connect(conn, operation)
        if conn.write_head is None:
            if conn.read_head is None:
                self.held[conn.fd] = conn
            conn.write_head = operation
            self._schedule_write(conn)
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
        """Send the SYN, and only then watch: an unconnected socket polls as hung up.

        With TLS, a handshake of nobody's stands before all reads, and the connect completes when that is done.
        """
        family, address, session = operation.buffer
        operation.buffer = None
        if session is not None:
            handshake = self._new_operation(HANDSHAKE, conn, session, inf)
            handshake.silent = True
            self.counters[HANDSHAKE * OUTCOME_COUNT] += 1
            self._push_read(conn, handshake)
        error = -connect(conn.fd, family, address)
        try:
            self.poller.add(conn.fd, conn)
        except OSError as failure:
            error = failure.errno or errno.EIO
        if error not in (0, EINPROGRESS):
            operation.error = OSError(error, os.strerror(error))
        if error != EINPROGRESS:
            conn.writable = True

    # -- what has something to do ----------------------------------------------------------------------

    def _schedule_read(self, conn: Conn) -> None:
        """See to it that a connection which is ready and has a read pending gets its turn."""
        if conn.readable and not conn.reading and conn.read_head is not None:
            conn.reading = True
            self.reads.add(conn)

    def _schedule_write(self, conn: Conn) -> None:
        """As `_schedule_read`, for sending; a FIN or a close needs no room in the kernel.

        Without writes, the relay to the connection resumes.

        Of a member of a group for which messages wait, the one that was begun goes first, then its writes, then
        the other messages, and at last a FIN or a close.
        """
        operation = conn.write_head
        outbox = conn.outbox
        if outbox is not None and outbox.count:
            if not outbox.is_flushing and self._allowance(conn) != NOTHING:
                outbox.is_flushing = True
                self.flushes.append(conn)
            if outbox.offset or operation is None or (operation.kind > POST and operation.kind != FLUSH):
                return
        if operation is None:
            if conn.relay_source is not None:
                self._resume_relay(conn)
        elif not conn.writing and (conn.writable or (operation.kind > POST and self._needs_no_room(conn))):
            conn.writing = True
            self.writes.add(conn)

    def _needs_no_room(self, conn: Conn) -> bool:
        """Tell whether the FIN or the close that is next can be done though the kernel takes nothing."""
        if conn.secure is None or conn.failure is not None:
            return conn.unit is None
        if not conn.secure.is_open:  # a FIN waits for the handshake, a close does not
            return conn.write_head.kind == FINISH  # type: ignore[union-attr]
        return not conn.secure.held

    def _resume_relay(self, sink: Conn) -> None:
        """See to it that the relay to a connection that nothing else is written to gets its turn."""
        source = sink.relay_source
        assert source is not None
        if source.reading or source.read_head is None or source.read_head.kind != RELAY:
            return
        flow = source.read_head.pinned
        if flow.sink is sink and (source.readable or flow.left):
            source.reading = True
            self.reads.add(source)

    def _allowance(self, conn: Conn) -> int:
        """Return what may be sent now of the messages that wait for a member of a group."""
        if not conn.writable:
            return NOTHING
        operation = conn.write_head
        if operation is None or (operation.kind > POST and operation.kind != FLUSH):
            return ALL
        return BEGUN if conn.outbox.offset else NOTHING

    def _begin_handshake(self, conn: Conn) -> bool:
        """Begin the handshake that a connect has to wait for, once TCP is there; False: there is none."""
        handshake = conn.read_head
        if handshake is None or handshake.kind != HANDSHAKE or not handshake.silent:
            return False
        conn.secure = handshake.context
        conn.stall_s = 0.0
        self._stall(conn)  # what is written waits
        conn.readable = True  # it begins: no edge tells it to
        self._schedule_read(conn)
        return True

    def _end_connect(self, conn: Conn) -> None:
        """Complete a connect whose handshake is done."""
        operation = conn.write_head
        if operation is not None and operation.kind == CONNECT:
            self._pop_write(conn)
            self._finish(operation, None, COMPLETE)

    def _stall(self, conn: Conn) -> None:
        """Send no more: the kernel is full. It tells with an edge when it is not."""
        conn.writable = False
        conn.stall_s -= self.now_s
        conn.blocked_s = self.now_s

    def _flush_later(self, conn: Conn) -> None:
        """See to it that what a TLS session has made, and the kernel has not taken, is sent, be there no write."""
        if conn.secure.held and not conn.closed:
            if conn.writable:
                self._stall(conn)
            if conn.write_head is None:
                self._push_write(conn, self._new_operation(FLUSH, conn, None, inf))

    def _pause_accepting(self, listener: Conn) -> None:
        """Accept no more for a while: there is no descriptor, or no memory."""
        now_s = self.poller.now()
        listener.readable = False
        listener.stall_s -= now_s
        self.paused.append(listener)
        self.released = False
        self.timers.arm(listener, True, now_s + ACCEPT_PAUSE_S)

    def _resume_listeners(self) -> None:
        """Let listeners that lacked a descriptor try again."""
        paused = self.paused
        self.paused = []
        for listener in paused:
            listener.stall_s += self.poller.now()
            listener.readable = True
            self._schedule_read(listener)

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

    def _error_of(self, conn: Conn, error: int) -> OSError:
        """Return what an errno means that a receive on a connection had; with TLS there is more to say."""
        session = conn.secure
        if session is not None:
            reason = session.reason()
            if reason:
                failed = TlsError(EPROTO, f"TLS failed: {session.words()}")
                failed.reason = reason
                return failed
            if session.is_truncated:
                return TlsTruncated(ECONNRESET, "the stream ended without the peer's close_notify")
        return OSError(error, os.strerror(error))

    # -- what was asked for without a completion -------------------------------------------------------

    def _take_inbox(self) -> None:
        self.has_mail = False  # first: what comes meanwhile sets it again
        for _ in range(len(self.inbox)):
            operation = self._next_submission()
            if operation is None:
                return
            if operation.kind <= POST:
                self.counters[operation.kind * OUTCOME_COUNT] += 1
                self._start(operation)
            else:
                self._run_request(operation)

    def _next_submission(self) -> OpResult | None:
        """Take the oldest out of the inbox; None if it is empty (a submitter may take its own back)."""
        try:
            return self.inbox.popleft()
        except IndexError:
            return None

    def _run_request(self, request: OpResult) -> None:
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
            if conn.unit is not None:
                conn.unit.is_touched = True
                conn.unit.requests.append(request)
                return
            if kind == FREE or kind == RESET:
                if kind == RESET:
                    linger_none(conn.fd)
                    conn.has_copies = False  # the RST comes with the last of them: a FIN would say that all was sent
                self._drop(conn, None)
            elif kind == CANCEL:
                self._cancel(conn, request.context)
            elif kind == PAUSE:
                if conn.is_listener and conn.read_head is not None and conn not in self.paused:
                    self._pause_accepting(conn)
            elif not conn.closing:
                if conn.outbox is not None:
                    group = conn.outbox.group
                    group.part(conn, None)
                if kind == FINISH:
                    self._end_relays_to(conn, None)
                    conn.closing = True
                    self._end_queue(conn, True, -1, inf, None)
                self._push_write(conn, self._new_operation(kind, conn, None, inf))

    def _cancel(self, conn: Conn, op_type: Any) -> None:
        kind = -1 if op_type is None else int(op_type)
        error = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        self._end_queue(conn, True, kind, inf, error)
        self._end_queue(conn, False, kind, inf, error)

    def _cancel_timer(self, operation: OpResult) -> None:
        if operation.kind == TIMER and operation.pending:
            self._complete(operation, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
            self.timers.stale += 1

    # -- the end of operations -------------------------------------------------------------------------

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

    def _complete(self, operation: OpResult, error: Exception | None) -> None:
        """`_finish`, where the outcome has yet to be told from the error."""
        outcome = COMPLETE if error is None else EXPIRED if isinstance(error, DeadlineExceeded) else FAILED
        self._finish(operation, error, outcome)

    def _unlink(self, operation: OpResult) -> None:
        """Let the sink of a relay go. What it had not taken becomes a write, unless it will take no more."""
        flow = operation.pinned
        sink = flow.sink
        if sink.relay_source is operation.conn:
            sink.relay_source = None
        left = flow.left
        if left:
            sink.pending_write_bytes -= left
            self.counters[sink.traffic + BUFFERED] -= left
            self.counters[sink.traffic + RESUMES] += 1
            self.counters[sink.traffic + PAUSED_NS] += int((self.now_s - flow.paused_s) * 1e9)
            if not sink.closing and not sink.closed and type(operation.error) is not RelaySinkError:
                self._write_leftover(sink, flow.copy_leftover())
        flow.close(self.plumbing)

    def _write_leftover(self, sink: Conn, data: bytes) -> None:
        """Write what a relay had taken, on nobody's behalf."""
        rest = self._new_operation(WRITE, sink, None, inf)
        rest.silent = True
        rest.pinned = data
        rest.length = len(data)
        self.counters[WRITE * OUTCOME_COUNT] += 1
        self._push_write(sink, rest)

    def _end_relays_to(self, sink: Conn, error: Exception | None) -> None:
        """Complete the relay to a connection, running or queued, because that closes; `error` as in `_end_queue`."""
        source = sink.relay_source
        if source is None or source.closed:
            return
        operation = source.read_head
        kept: list[OpResult] = []
        ended: list[OpResult] = []
        while operation is not None:
            flow = operation.pinned if operation.kind == RELAY else None
            (ended if flow is not None and flow.sink is sink else kept).append(operation)
            operation = operation.next
        if ended:
            self._take_out(source, True, kept, ended, ConnClosed(f"{sink!r} is closed") if error is None else error)

    def _end_queue(self, conn: Conn, reading: bool, kind: int, limit_s: float, error: Exception | None) -> None:
        """Complete the operations of one direction of that kind (-1: any), due by `limit_s`; None: ConnClosed."""
        operation = conn.read_head if reading else conn.write_head
        kept: list[OpResult] = []
        ended: list[OpResult] = []
        while operation is not None:
            matches = operation.kind <= POST and kind in (-1, operation.kind) and operation.deadline <= limit_s
            (ended if matches else kept).append(operation)
            operation = operation.next
        if ended:
            self._take_out(conn, reading, kept, ended, ConnClosed(f"{conn!r} is closed") if error is None else error)

    def _take_out(
        self, conn: Conn, reading: bool, kept: list[OpResult], ended: list[OpResult], error: Exception
    ) -> None:
        """Complete some operations of one direction, and let what stood behind them have its turn."""
        if conn.secure is not None and not reading and ended[0] is conn.write_head:
            self._take_back(conn, ended[0])
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
            if operation.kind == CONNECT or operation.kind == HANDSHAKE:
                conn.failure = error  # it will not be made: what waits for it fails, now and later
        if conn.failure is error:
            self._end_queue(conn, True, -1, inf, error)
            self._end_queue(conn, False, -1, inf, error)
        if reading:
            self._schedule_read(conn)
            self._look_for_hangup(conn)
        else:
            self._schedule_write(conn)
            if conn.secure is not None:
                self._flush_later(conn)

    def _take_back(self, conn: Conn, operation: OpResult) -> None:
        """Count what is in records that were made for a write which ends before the kernel has them.

        They have their numbers in the stream, so they are sent in any case: `_flush_later`. At most 64 KiB.
        """
        if operation.kind == WRITE:
            session = conn.secure
            held = session.disown()
            operation.size += held
            conn.pending_write_bytes -= held
            conn.bytes_sent += held
            self.counters[conn.traffic + 1] += held

    # -- the end of connections ------------------------------------------------------------------------

    def _drop(self, conn: Conn, error: Exception | None) -> None:
        """Close a connection; its operations complete with `error`, or else ConnClosed."""
        if conn.closed:
            return  # another thread drops its last reference: it is being released there
        if conn.unit is not None:
            conn.abort()  # later, if it stays
            return
        self.counters[FREED] += 1
        conn.closing = True
        if conn.secure is not None:
            conn.secure.close()  # first: nothing of what it holds is sent any more
        self._end_queue(conn, True, -1, inf, error)
        self._end_queue(conn, False, -1, inf, error)
        self._end_relays_to(conn, error)
        report = None
        if self.report_closes and not conn.is_listener:
            report = self._new_report(CLOSED, conn)
            report.buffer = peer_name(conn.fd)  # while there is somebody who knows
        if conn.has_copies:
            shutdown_write(conn.fd)
        self._release(conn)
        if report is not None:
            self.done.append(report)

    def _new_report(self, kind: int, conn: Conn) -> OpResult:
        """Make a completion that nobody has submitted."""
        report = self._new_operation(kind, conn, conn.context, inf)
        report.pending = False
        return report

    def _release(self, conn: Conn) -> None:
        """Give a connection's descriptor back. In whichever thread drops the last reference."""
        if conn.closed:
            return
        conn.closed = True
        fd = conn.fd
        self.timers.disarm(conn)
        self.released = True
        self.poller.remove(fd)
        self._give_up(conn, DROPPED_CLOSED)

    def _give_up(self, conn: Conn, lost_as: int) -> None:
        """Close the descriptor of a connection that is closed, and let go of what waits for it.

        Args:
            conn: which.
            lost_as: what messages of a group that waited for it count as.
        """
        if conn.outbox is not None:
            group = conn.outbox.group
            conn.pending_write_bytes -= group.leave(conn, lost_as)
        if conn.secure is not None:
            conn.secure.close()
        fd = conn.fd
        conn.fd = -1
        conn.read_head = conn.read_tail = None
        conn.write_head = conn.write_tail = None  # at most a FIN or a close is left
        if fd < len(self.held):
            self.held[fd] = None
        os.close(fd)
