"""Endings: what is asked for without a completion, and how operations and connections end before their time."""

import errno
import os
from math import inf
from typing import Any

from gaiod.core import counters as layout
from gaiod.core.connection import Conn
from gaiod.core.counters import OUTCOME_COUNT
from gaiod.core.engine import peer_name
from gaiod.core.errors import ConnClosed
from gaiod.core.operations import (
    AFFINITY,
    CANCEL,
    CLOSED,
    CONNECT,
    FINISH,
    FREE,
    PAUSE,
    POST,
    RELAY,
    RESET,
    STOP,
    TIMER,
    WRITE,
    OpResult,
)
from gaiod.core.queues import Queues
from gaiod.core.sockets import linger_none

FREED = layout.index("conn_freed")


class Endings(Queues):
    """What takes operations and connections out of a watcher's queues, other than their success."""

    def _take_inbox(self) -> None:
        for _ in range(len(self.inbox)):
            operation = self._next_submission()
            if operation is None:
                return
            if operation.kind <= POST:
                self.counters[operation.kind * OUTCOME_COUNT] += 1
                self._start(operation)
            else:
                self._fulfil(operation)

    def _next_submission(self) -> OpResult | None:
        """Take the oldest out of the inbox; None if it is empty (a submitter may take its own back)."""
        try:
            return self.inbox.popleft()
        except IndexError:
            return None

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
            if kind == FREE or kind == RESET:
                if kind == RESET:
                    linger_none(conn.fd)
                self._drop(conn, None)
            elif kind == CANCEL:
                self._cancel(conn, request.context)
            elif kind == PAUSE:
                if conn.is_listener and conn.read_head is not None and conn not in self.starved:
                    self._rest(conn)
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
            self.alarms.stale += 1

    def _end_relays_to(self, sink: Conn, error: Exception | None) -> None:
        """Complete the relay to a connection, running or queued, because that closes; `error` as in `_end_queue`."""
        source = sink.feeder
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
            if operation.kind == CONNECT:
                conn.failure = error  # it will not be made: what waits for it fails, now and later
        if conn.failure is error:
            self._end_queue(conn, True, -1, inf, error)
            self._end_queue(conn, False, -1, inf, error)
        if reading:
            self._read_on(conn)
            self._look_for_hangup(conn)
        else:
            self._write_on(conn)

    def _drop(self, conn: Conn, error: Exception | None) -> None:
        """Close a connection; its operations complete with `error`, or else ConnClosed."""
        if conn.closed:
            return  # another thread drops its last reference: it is being released there
        self.counters[FREED] += 1
        conn.closing = True
        self._end_queue(conn, True, -1, inf, error)
        self._end_queue(conn, False, -1, inf, error)
        self._end_relays_to(conn, error)
        report = None
        if self.report_closes and not conn.is_listener:
            report = self._new_report(CLOSED, conn)
            report.buffer = peer_name(conn.fd)  # while there is somebody who knows
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
        if conn.outbox is not None:
            group = conn.outbox.group
            conn.pending_write_bytes -= group.leave(conn)
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
