"""The loop: what one pass of `wait_io()` does, in the thread that is inside it.

Theory of operation
===================

A connection is registered with the kernel once, edge-triggered, for both directions. An edge is told once, so the
connection remembers it in `readable` and `writable`, until a short receive or a full kernel clears the flag. A
connection that is ready and has an operation pending stands in `reads` or `writes` (`pending.py`). One pass works those
lists off, in batches that make their system calls without the GIL unless they are few (`Batch`):

1. The inbox: start what other threads submitted. First, because submissions have to be seen in their order.
2. Send what the hooks wrote since the last pass, before anything else: a peer waits for it, and a write may be a view
   of the swap buffer that step 5 takes back.
3. Deal out what was published (`Fanout`), after the writes: a member's own write never waits behind a round. At most
   512 members, so that many subscribers do not delay the poll.
4. Let paused listeners accept again, if a descriptor was closed since.
5. Take the swap buffer back. Only now: until here, completions of the last pass and writes may show its bytes.
6. Poll, unless completions or ready reads are waiting already; after four passes without one, poll in any case, or a
   busy connection would keep new edges from being seen. The poll sleeps only if nothing at all is left to do.
   `sleeping` is set before the inbox is looked at, so a thread that fills it afterwards knows to wake the loop.
7. Send again: the poll found room in kernels that were full.
8. Receive from what is ready, once for each connection; then accept; then take steps of handshakes; then relay. One
   turn each, so that no connection keeps the others waiting, and one batch, so that all that was received fits the
   swap buffer. The batch encrypts and decrypts as well, for the connections that have a TLS session.
9. Report peers that are gone, after receiving: a pending read tells it better, with the bytes that came before. If
   something completed, only after step 2 of the next pass: most of them are closed by then, and need no report.
10. Expire deadlines and timers, last: bytes that are there beat the deadline. Only after a poll that has seen every
    edge, because an edge that is still with the kernel may be such bytes.
11. Return the completions, if there are any or time is up; otherwise begin again.

The hooks run between two calls of `wait_io()`, never inside a pass.
"""

import errno
import os
from math import inf
from typing import Any

from gaiod.core import counters as layout
from gaiod.core.connection import Conn
from gaiod.core.counters import AT_EOF, COMPLETE, FAILED, OUTCOME_COUNT
from gaiod.core.engine import accept, shutdown_write, take_error
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.fanout import Fanout
from gaiod.core.handshakes import Handshakes
from gaiod.core.operations import (
    ACCEPT,
    CONNECT,
    FLUSH,
    HANDSHAKE,
    HANGUP,
    READ,
    RELAY,
    SEEN,
    SHUTDOWN,
    TOLD,
    UNSEEN,
    WRITE,
)
from gaiod.core.pending import Operations
from gaiod.core.relays import Relays
from gaiod.core.results import OpResult
from gaiod.core.sockets import find_hangup
from gaiod.core.turns import Turns

LOOP_ITERATIONS = layout.index("loop_iterations")
LOOP_EVENTS = layout.index("loop_events")
LOOP_BUSY_NS = layout.index("loop_busy_ns")
SWAP_EXHAUSTED = layout.index("swap_buffer_exhausted")
LAG = layout.LAG
LAG_BOUNDS = layout.LAG_BOUNDS_S

READABLE, WRITABLE, BROKEN, HUNG = 1, 2, 4, 8  # bits of Poller.events

BATCH_MAX = 512
"""Most calls in one batch: what one pass may delay the next poll by."""

EVENTS_MAX = 512
"""Most events one poll returns, on either engine."""

RECEIVES_FIRST = 512
"""Receives prepared for the first batch: as many as one takes."""

RECEIVES_MIN = 8
"""Fewest receives that are prepared, half of which may not fit any more."""

SEND_ROUNDS = 16
"""Most queued writes of one connection that one pass sends."""

PASSES_PER_POLL = 4
"""Passes that may return without having polled, while there is work known to do."""

ACCEPTS_PER_PASS = 64
"""Most connections one listener accepts in one pass, so that a flood of them starves nobody."""

EAGAIN, EINTR = errno.EAGAIN, errno.EINTR
ERRORS_FOR_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ERRORS_OF_LISTENER = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})


class Loop(Operations):
    """The passes over what is pending.

    Only the thread inside `wait_io()` changes what is here, but for `closed`, which `Watcher` sets.

    Attributes:
        closed: no more operations are accepted, and the pass under way is the last.
        report_hangups: whether a completion tells of a peer that is gone while no read does.
        relays, fanout: what a pass does for relays and for groups.
        sleeping: the loop is, or is about to be, in the poller: who puts something into the inbox must wake it.
        passes: since the last poll.
        full_polls: polls in a row, up to the last, that may have left events with the kernel.
        receives_max: receives to prepare for the next batch.
        spare_turns: changes places with `reads` or `writes` when their turn has come.
        handshakes: what a pass does for connections that begin to speak TLS.
        listeners, beginners, sources: whose turn it is beside the reads: accepts, handshakes, relays.
    """

    def __init__(self, buffer_size: int, counters: Any, report_closes: bool, report_hangups: bool) -> None:
        super().__init__(buffer_size, counters, report_closes)
        self.closed = False
        self.report_hangups = report_hangups
        self.relays = Relays(self.plumbing)
        self.fanout = Fanout()
        self.sleeping = False
        self.passes = 0
        self.full_polls = 0
        self.receives_max = RECEIVES_FIRST
        self.spare_turns = Turns()
        self.handshakes = Handshakes()
        self.listeners = Turns()
        self.beginners = Turns()
        self.sources = Turns()

    def _run(self, timeout_s: float) -> list[OpResult]:
        """Pass until something completed or `timeout_s` is over (negative: never)."""
        until_s = inf if timeout_s < 0 else self.poller.now() + timeout_s
        fresh = True
        while True:
            if self.closed:
                return []
            if self.has_mail:
                self._take_inbox()
            if self.writes.count:
                self._send_queued()
            if self.hung:
                self._report_hangups()  # only now: the hooks may have closed them
            if self.fanout.has_rounds or self.flushes:
                self.fanout.deal(self)
            if self.released and self.paused:
                self._resume_listeners()
            if fresh:
                self.batch.recycle()  # only now: what was just sent may have been views
                self.counters[SWAP_EXHAUSTED] += self.batch.exhausted
                self.batch.exhausted = 0
                fresh = False
            if (not self.done and not self.reads.count) or self.passes >= PASSES_PER_POLL:
                self._poll(until_s)
            else:
                self.passes += 1
            if self.writes.count:
                self._send_queued()
            if self.reads.count:
                self._receive_ready()
            if self.hung and not self.done:
                self._report_hangups()
            if self.passes == 0 and self.timers.next_s <= self.now_s and self._has_seen_all():
                self._run_timers()  # after receiving: bytes that are there beat the deadline
            if self.done or self.now_s >= until_s:
                done = self.done
                self.done = []
                return done

    def _abandon_pass(self) -> None:
        """Forget whose turn it was when an exception ended a pass, so that nobody gets it twice."""
        self.has_mail = True
        self.batch.reset()
        self.relays.forget_turn()
        self.spare_turns.clear()
        self.listeners.clear()
        self.beginners.clear()
        self.sources.clear()

    def _poll(self, until_s: float) -> None:
        """Ask the kernel what is ready; wait for it if there is nothing else to do."""
        before_s = self.poller.now()
        self._count_pass(before_s - self.now_s)
        self.sleeping = True  # first, then look into the inbox: who fills it later sees that we sleep
        timeout_s = 0.0
        if not (self.done or self.reads.count or self.writes.count or self.flushes or self.hung) and not (
            self.has_mail or self.fanout.has_rounds
        ):
            until_s = min(until_s, self.timers.next_s)
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
                if events & HUNG and self.report_hangups and conn.hung == UNSEEN:
                    conn.hung = SEEN
                    self._look_for_hangup(conn)
                events = READABLE | WRITABLE
            if events & READABLE and not (self.paused and conn in self.paused):
                conn.readable = True  # but one more client does not wake a listener that rests
                self._schedule_read(conn)
            if events & WRITABLE and not conn.writable:
                if conn.secure is not None and not conn.secure.is_open:
                    self.handshakes.note_room(self, conn)
                    continue
                conn.writable = True
                conn.stall_s += self.now_s
                self._schedule_write(conn)

    def _report_hangups(self) -> None:
        """Tell once of each peer that is gone, where no read does.

        A pending read that fails says so itself; any other brings its connection here when it is over.
        """
        hung = self.hung
        self.hung = []
        for conn in hung:
            if conn.hung != SEEN or conn.read_head is not None or conn.closed or conn.is_listener:
                continue
            if conn.failure is not None:
                continue
            found = find_hangup(conn.fd)
            if found is None:
                conn.hung = UNSEEN  # the event of a descriptor's former life, or a connection that is being made
                continue
            conn.hung = TOLD
            self._note_fault(conn, found[0], True)
            report = self._new_report(HANGUP, conn)
            report.size = found[1]
            report.error = OSError(found[0], os.strerror(found[0])) if found[0] else self._end_of(conn)
            self.done.append(report)

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
        """Send what was written, in rounds: the oldest write of each connection, then the next ones."""
        for _ in range(SEND_ROUNDS):
            if not self.writes.count:
                return
            turns = self.writes
            self.writes = self.spare_turns
            self.spare_turns = turns
            first = 0
            while first < turns.count:
                self._send_batch(turns, first, min(first + BATCH_MAX, turns.count))
                first += BATCH_MAX
            turns.clear()

    def _send_batch(self, turns: Turns, first: int, end: int) -> None:
        """Send the oldest write of each of some connections."""
        batch = self.batch
        batch.reset()
        for i in range(first, end):
            conn = turns.items[i]
            conn.writing = False
            operation = conn.write_head
            if operation is not None and operation.kind != WRITE:
                self._clear_way(conn)
                if conn.write_head is None or conn.write_head.kind != WRITE:
                    self._schedule_write(conn)
        for i in range(first, end):
            conn = turns.items[i]
            operation = conn.write_head
            if operation is not None and operation.kind == WRITE and conn.writable:
                batch.add_send(conn.fd, operation.pinned, operation.size, operation)
                if conn.secure is not None:
                    batch.secure(conn.secure)
        batch.send()
        for i in range(batch.count):
            self._sent(batch.operation(i), i, batch.result(i))
        batch.reset()

    def _sent(self, operation: OpResult, i: int, sent: int) -> None:
        """Take the outcome of one send."""
        batch = self.batch
        conn = operation.conn
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
                self._stall(conn)
        elif sent == -EAGAIN:
            self._stall(conn)
        elif sent != -EINTR:
            batch.keep(operation.pinned)
            self._note_fault(conn, -sent, not operation.silent)
            self._pop_write(conn)
            conn.pending_write_bytes -= operation.length - operation.size
            self._finish(operation, OSError(-sent, os.strerror(-sent)), FAILED)
        if operation.pending:
            self._own(operation)
        self._schedule_write(conn)

    def _clear_way(self, conn: Conn) -> None:
        """Do what stands before the next write: a connect, a FIN, a close."""
        while not conn.closed:
            operation = conn.write_head
            if operation is None or operation.kind == WRITE:
                return
            if operation.kind == CONNECT:
                if not self._connected(conn, operation):
                    return
            elif operation.kind == FLUSH:
                if not self._flush(conn):
                    return
                self._pop_write(conn)
            elif conn.outbox is not None and conn.outbox.count:
                return  # messages that wait come before its end
            elif conn.secure is not None and not self._say_goodbye(conn):
                return
            elif operation.kind == SHUTDOWN:
                self._pop_write(conn)
                shutdown_write(conn.fd)
            else:
                self._drop(conn, None)

    def _flush(self, conn: Conn) -> bool:
        """Send what a TLS session has made; tell whether nothing is left."""
        error = -conn.secure.flush(conn.fd)
        if error == EAGAIN:
            if conn.writable:
                self._stall(conn)
            return False
        if error:
            self._note_fault(conn, error, False)
        return True

    def _say_goodbye(self, conn: Conn) -> bool:
        """Send the close_notify that goes before a FIN or a close; tell whether the kernel has it."""
        if not conn.secure.is_open or conn.failure is not None:
            return True
        conn.secure.shutdown()
        return self._flush(conn)

    def _connected(self, conn: Conn, operation: OpResult) -> bool:
        """Take the outcome of a connect; False: it waits for its handshake.

        After a failure, what waited for it fails the same way.
        """
        if operation.error is None:
            error = take_error(conn.fd) if conn.broken else 0  # a connect that fails is always told as an error
            if error == 0:
                conn.active_s = self.now_s
                if self._begin_handshake(conn):
                    return False
                self._pop_write(conn)
                conn.stall_s = 0.0
                self._complete(operation, None)
                return True
            operation.error = OSError(error, os.strerror(error))
        self._pop_write(conn)
        conn.stall_s = 0.0
        conn.failure = operation.error
        self._complete(operation, conn.failure)
        self._end_queue(conn, True, -1, inf, conn.failure)
        self._end_queue(conn, False, -1, inf, conn.failure)
        return True

    def _receive_ready(self) -> None:
        """Receive once from each connection that is ready, as far as one batch goes."""
        turns = self.reads
        self.reads = self.spare_turns
        self.spare_turns = turns
        count = min(turns.count, self.receives_max)
        for i in range(count, turns.count):
            self.reads.add(turns.items[i])
        batch = self.batch
        batch.reset()
        for i in range(count):
            conn = turns.items[i]
            conn.reading = False
            operation = conn.read_head
            if operation is None:
                continue
            if operation.kind == READ:
                batch.add_receive(conn.fd, operation.pinned, operation.size, operation)
                if conn.secure is not None:
                    batch.secure(conn.secure)
            elif operation.kind == RELAY:
                self.sources.add(conn)
            elif operation.kind == HANDSHAKE:
                self.beginners.add(conn)
            elif conn.readable:  # else it was paused meanwhile
                self.listeners.add(conn)
        turns.clear()
        received_count = batch.receive()
        # A batch of large messages is full after a few: do not prepare hundreds in vain every time.
        wanted_count = received_count if received_count < batch.count else self.receives_max
        self.receives_max = min(BATCH_MAX, 2 * max(RECEIVES_MIN, wanted_count))
        for i in range(batch.count):
            operation = batch.operation(i)
            conn = operation.conn
            if i < received_count:
                self._received(conn, operation, i, batch.result(i))
            self._schedule_read(conn)
        batch.reset()
        if self.listeners.count:
            for i in range(self.listeners.count):
                conn = self.listeners.items[i]
                self._accept_ready(conn)
                self._schedule_read(conn)
            self.listeners.clear()
        if self.beginners.count:
            self.handshakes.step(self, self.beginners)
            self.beginners.clear()
        if self.sources.count:
            self.relays.move_ready(self, self.sources)
            self.sources.clear()

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
            if conn.secure is not None:
                self._note_drained(conn)
            elif received < batch.wanted(i) and not conn.broken:
                conn.readable = False  # the kernel's queue is empty; more bytes are a new edge
            if not operation.full or operation.size == operation.length:
                self._pop_read(conn)
                self._finish(operation, None, COMPLETE)
        elif received == 0:
            error = self._end_of(conn)
            conn.at_eof = conn.fault == 0
            if not conn.at_eof:
                conn.hung = TOLD
            self._pop_read(conn)
            self._finish(operation, error, AT_EOF if conn.at_eof else FAILED)
        elif received == -EAGAIN and conn.secure is not None:
            self._note_drained(conn)  # a part of a record is no byte
        elif received == -EAGAIN:
            conn.readable = False
        elif received != -EINTR:
            self._note_fault(conn, -received, True)
            self._pop_read(conn)
            self._finish(operation, self._error_of(conn, -received), FAILED)

    def _note_drained(self, conn: Conn) -> None:
        """Take from a TLS session whether there is more: in the kernel's queue, or in a record that it holds."""
        if conn.secure.drained == 2 or (conn.secure.drained == 1 and not conn.broken):
            conn.readable = False
        self._flush_later(conn)  # its answer to what it read

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
                    conn = self._adopt(fd, operation.context, False)
                except OSError as failure:
                    os.close(fd)
                    error = failure.with_traceback(None)  # it would refer to this frame, and keep the one before alive
                self._report_accept(operation, conn, error)
                continue
            error = OSError(-fd, os.strerror(-fd))
            if -fd in ERRORS_OF_LISTENER:
                self._pop_read(listener)
                self._complete(operation, error)
                return
            self._report_accept(operation, None, error)
            if -fd in ERRORS_FOR_LACK:
                self._pause_accepting(listener)
                return

    def _report_accept(self, operation: OpResult, conn: Conn | None, error: Exception | None) -> None:
        """Complete one accept of a listener; its own operation stays pending."""
        self.counters[ACCEPT * OUTCOME_COUNT] += 1
        self._complete(self._new_operation(ACCEPT, conn, operation.context, inf), error)

    def _run_timers(self) -> None:
        """See to the timers that are due."""
        for target in self.timers.due(self.now_s):
            if type(target) is OpResult:
                self._complete(target, None)
            else:
                self._expire(target[0], target[1])

    def _expire(self, conn: Conn, reading: bool) -> None:
        """End the operations of one direction that are due, and see to those that are not."""
        if conn.is_listener:
            self._resume_listeners()
            return
        if conn.reading if reading else conn.writing:
            self.timers.arm(conn, reading, self.now_s)  # it is ready, and its turn has not come: try first
            return
        self._end_queue(conn, reading, -1, self.now_s, DeadlineExceeded("the operation's deadline passed"))
        operation = conn.read_head if reading else conn.write_head
        next_s = inf
        while operation is not None:
            next_s = min(next_s, operation.deadline)
            operation = operation.next
        if next_s != inf:
            self.timers.arm(conn, reading, next_s)
