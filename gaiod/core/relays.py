"""Relays: bytes that go from one connection to another without anybody looking at them.

A relay is an operation of its source's reading side that lasts until the end of the stream. The loop
gives it its turn as it does a read: one receive and one send, through memory or a pipe that all relays
share (`flows.py`). Only what the sink did not take is kept, at most `limit` bytes; as long as there is
something, the source is not read. So a relay that flows costs no memory, and one that does not has a bound.
"""

import errno
import os
from math import inf

from gaiod.core.connection import Conn
from gaiod.core.counters import BUFFERED, COMPLETE, FAILED, PAUSED_NS, PAUSES, RESUMES
from gaiod.core.engine import Plumbing, shutdown_write
from gaiod.core.errors import RelaySinkError
from gaiod.core.operations import RELAY, SHUTDOWN, TOLD
from gaiod.core.pending import Operations
from gaiod.core.results import OpResult
from gaiod.core.turns import Turns

EAGAIN, EINTR = errno.EAGAIN, errno.EINTR


class Relays:
    """What a pass does for the relays of a watcher.

    It keeps nothing from one pass to the next: a relay is an operation, with its `Flow`. It is given the operations
    with each call, and holds no reference to them: the loop holds it, and a circle would keep a watcher alive.

    Attributes:
        plumbing: the pipes that relays go through; the operations own it.
        moving: the sources whose turn is under way; nobody between two turns.
    """

    def __init__(self, plumbing: Plumbing) -> None:
        self.plumbing = plumbing
        self.moving = Turns()

    def move_ready(self, operations: Operations, sources: Turns) -> None:
        """Move what can be moved, once for each."""
        moving = self.moving
        for i in range(sources.count):
            source = sources.items[i]
            operation = source.read_head
            assert operation is not None
            flow = operation.pinned
            sink = flow.sink
            if sink.writable and sink.write_head is None:
                flow.prepare(source.fd, sink.fd, source.readable)
                if source.secure is not None or sink.secure is not None:
                    flow.secure(source.secure, sink.secure)
                moving.add(source)
                self.plumbing.add(flow)
        self.plumbing.turn()
        for i in range(moving.count):
            source = moving.items[i]
            operation = source.read_head
            if operation is not None and operation.kind == RELAY:
                self._take_turn(operations, source, operation)
        self.forget_turn()

    def forget_turn(self) -> None:
        """Forget whose turn it was: it is over, or an exception ended it."""
        self.moving.clear()
        self.plumbing.reset()

    def _take_turn(self, operations: Operations, source: Conn, operation: OpResult) -> None:
        """Take the outcome of one turn."""
        flow = operation.pinned
        sink = flow.sink
        received, sent = flow.received, flow.sent
        if received > 0:
            source.bytes_received += received
            source.active_s = operations.now_s
            source.unanswered, sink.unanswered = True, False
            operations.counters[source.traffic] += received
        if flow.drained == 2 or (flow.drained == 1 and not source.broken):
            source.readable = False  # the kernel's queue is empty; more bytes are a new edge
        if sent > 0:
            sink.bytes_sent += sent
            sink.active_s = operations.now_s
            operations.counters[sink.traffic + 1] += sent
            operation.size += sent
        left = flow.left
        if left != flow.left_before:
            sink.pending_write_bytes += left - flow.left_before
            operations.counters[sink.traffic + BUFFERED] += left - flow.left_before
        if left and not flow.left_before:
            operations.counters[sink.traffic + PAUSES] += 1
            flow.paused_s = operations.now_s
        elif flow.left_before and not left:
            operations.counters[sink.traffic + RESUMES] += 1
            operations.counters[sink.traffic + PAUSED_NS] += int((operations.now_s - flow.paused_s) * 1e9)
        if flow.error not in (0, EAGAIN, EINTR):
            operations._note_fault(sink, flow.error, True)
            self._end(operations, source, operation, RelaySinkError(flow.error, os.strerror(flow.error)))
        elif received < 0:
            operations._note_fault(source, -received, True)
            self._end(operations, source, operation, operations._error_of(source, -received))
        elif left and flow.error == EINTR:
            operations._resume_relay(sink)
        elif left:
            operations._stall(sink)
        elif flow.ended and source.fault != 0:
            source.hung = TOLD
            self._end(operations, source, operation, OSError(source.fault, os.strerror(source.fault)))
        elif flow.ended:
            self._pass_end_on(operations, sink)
            self._end(operations, source, operation, None)
        else:
            operations._schedule_read(source)
        if source.secure is not None or sink.secure is not None:
            self._flush_sessions(operations, source, sink)

    def _pass_end_on(self, operations: Operations, sink: Conn) -> None:
        """Send a FIN; with TLS, a close_notify before it, which the kernel may take later."""
        if sink.secure is None:
            shutdown_write(sink.fd)
        else:
            operations._push_write(sink, operations._new_operation(SHUTDOWN, sink, None, inf))

    def _flush_sessions(self, operations: Operations, source: Conn, sink: Conn) -> None:
        """See to what a turn has left: a source's answer to what it read, a sink's records that the kernel refused."""
        if source.secure is not None:
            operations._flush_later(source)
        if sink.secure is not None:
            operations._flush_later(sink)

    def _end(self, operations: Operations, source: Conn, operation: OpResult, error: OSError | None) -> None:
        source.at_eof = source.at_eof or error is None
        operations._pop_read(source)
        operations._finish(operation, error, COMPLETE if error is None else FAILED)
        operations._schedule_read(source)
