"""The model: what must be true of a watcher, whatever was done to it.

It is told of each call that moves bytes, and of each completion, and compares. What may be expected of the watcher
when it rests is in `rest.py`.
"""

import errno
from typing import Any
from weakref import ref

from core.simulation.files import CONNECTED, Sock
from core.simulation.groups import Membership
from core.simulation.kernel import Kernel
from core.simulation.setting import Fault
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, RelaySinkError, UsageError, WatcherClosed
from gaiod.core.operations import (
    ACCEPT,
    CLOSED,
    CONNECT,
    HANGUP,
    READ,
    RELAY,
    TIMER,
    WRITE,
)
from gaiod.core.results import OpResult

ECANCELED = errno.ECANCELED


class Op:
    """An operation that was accepted.

    Attributes:
        data: what the watcher read for it, or holds for it as a relay.
        moved: bytes that it has written, or relayed.
        payload: what it shall write.
        cancelled, must_end: somebody asked for that; and it was there already when it was asked for.
    """

    __slots__ = (
        "cancelled", "data", "deadline", "full", "kind", "moved", "must_end", "number", "payload", "rec", "sink",
        "size", "thread",
    )  # fmt: skip

    def __init__(self, number: int, kind: int, rec: "Rec | None", thread: int) -> None:
        self.number = number
        self.kind = kind
        self.rec = rec
        self.thread = thread
        self.data = bytearray()
        self.moved = 0
        self.payload = b""
        self.size = 0
        self.full = False
        self.deadline: float | None = None
        self.sink: Rec | None = None
        self.cancelled = self.must_end = False

    def __repr__(self) -> str:
        name = ("READ", "WRITE", "ACCEPT", "CONNECT", "RELAY", "TIMER", "POST")[self.kind]
        return f"{name} {self.number}" + (f" of {self.rec.key}" if self.rec else "")


class Rec:
    """What the model knows of a connection.

    Attributes:
        conn: the client's reference; None: dropped.
        asked: what ends it was asked for: "close", "free", and "shut", which ends only its writing.
        was_told: somebody was, why it broke, by an operation that failed.
        closed_after: the last operation before close() was called.
        rests: what relays to it left over, as writes of nobody's.
    """

    def __init__(self, key: int, conn: Conn, sock: Sock) -> None:
        self.key = key
        self.conn: Conn | None = conn
        self.ref = ref(conn)
        self.serial = conn.serial
        self.sock = sock
        sock.rec = self
        self.ops: dict[int, Op] = {}
        self.rests: list[bytearray] = []
        self.asked: set[str] = set()
        self.reports = 0
        self.hangups = 0
        self.was_told = False
        self.closed_after = 0
        self.is_listener = False
        self.member: Membership | None = None

    @property
    def is_open(self) -> bool:
        return self.sock.references > 0

    def __repr__(self) -> str:
        return f"connection {self.key}"


class Model:
    """What has been accepted, and what came of it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        kernel.model = self
        self.ops: dict[int, Op] = {}
        self.recs: dict[int, Rec] = {}
        self.by_serial: dict[int, Rec] = {}
        self.numbers = 0
        self.is_closed = False
        self.is_over = False  # the run is: what is left of the watcher must not touch anything any more
        self.watcher: Any = None
        self.early_hangups: list[int] = []
        self.deliverable = 0
        self.early_reports: list[int] = []
        self.unlinking: Op | None = None

    def new_rec(self, key: int, conn: Conn, sock: Sock, op: Op | None = None) -> Rec:
        """Take note of a connection, and of the operation that made it."""
        rec = self.recs[key] = self.by_serial[conn.serial] = Rec(key, conn, sock)
        if conn.serial in self.early_reports:
            self.early_reports.remove(conn.serial)
            rec.reports = 1
        if conn.serial in self.early_hangups:
            self.early_hangups.remove(conn.serial)
            rec.hangups = 1
        if op is not None:
            op.rec = rec
            if op.number in self.ops:
                rec.ops[op.number] = op
        return rec

    def new_op(self, kind: int, rec: Rec | None) -> Op:
        self.numbers += 1
        op = self.ops[self.numbers] = Op(self.numbers, kind, rec, self.kernel.thread)
        if rec is not None:
            rec.ops[op.number] = op
        return op

    def forget(self, op: Op) -> None:
        """Take an operation for ended, or for not accepted."""
        del self.ops[op.number]
        if op.rec is not None and op.number in op.rec.ops:
            del op.rec.ops[op.number]

    # -- calls of the watcher --------------------------------------------------------------------------

    def head(self, sock: Sock, reading: bool) -> tuple[Rec, OpResult]:
        """Return for which operation a call is."""
        rec: Rec | None = sock.rec
        if rec is None or type(rec) is not Rec:
            raise Fault("a call on a connection that nobody knows")
        conn = rec.ref()
        operation = None if conn is None else conn.read_head if reading else conn.write_head
        if operation is None:
            raise Fault(f"a call on {rec} without an operation")
        return rec, operation

    def on_receive(self, sock: Sock, data: bytes) -> None:
        rec, operation = self.head(sock, True)
        op = self.ops[operation.context]
        if op.kind != READ or op.rec is not rec:
            raise Fault(f"{op} got bytes of {rec}")
        op.data += data

    def on_send(self, sock: Sock, data: bytes) -> None:
        rec, operation = self.head(sock, False)
        if rec.member is not None:
            rec.member.is_between(rec)
        if operation.silent:
            rest = rec.rests[0]
            if rest[: len(data)] != data:
                raise Fault(f"the rest of a relay to {rec} is {bytes(rest)!r}, and sent was {data!r}")
            del rest[: len(data)]
            return
        op = self.ops[operation.context]
        if op.kind != WRITE or op.rec is not rec or op.payload[op.moved : op.moved + len(data)] != data:
            raise Fault(f"{op} sent {data!r} at {op.moved} of {op.payload!r} to {rec}")
        op.moved += len(data)

    def on_relay_in(self, sock: Sock, data: bytes) -> None:
        op = self.ops[self.head(sock, True)[1].context]
        if op.kind != RELAY or op.rec is not sock.rec:
            raise Fault(f"{op} relayed bytes of {sock.rec}")
        op.data += data

    def on_relay_out(self, sock: Sock, data: bytes) -> None:
        conn = sock.rec.ref()
        relay_source = conn.relay_source
        operation = None if relay_source is None else relay_source.read_head
        if operation is None or operation.kind != RELAY:
            raise Fault(f"{sock.rec} was sent relayed bytes, and has no relay")
        op = self.ops[operation.context]
        if op.sink is not sock.rec or op.data[: len(data)] != data:
            raise Fault(f"{op} sent {data!r} to {sock.rec}, and holds {bytes(op.data)!r} for {op.sink}")
        if conn.write_head is not None:
            raise Fault(f"{op} sent before a write to {sock.rec} that came first")
        del op.data[: len(data)]
        op.moved += len(data)

    def on_publish(self, sock: Sock, data: bytes) -> None:
        rec: Rec = sock.rec
        if rec.member is None:
            raise Fault(f"{rec} was sent a message, and is in no group")
        rec.member.take(rec, data)

    # -- what the watcher does with the rests of relays ------------------------------------------------

    def on_rest(self, sink: Conn, data: bytes) -> None:
        """A relay that ended leaves a write."""
        op = self.unlinking
        rec = self.by_serial[sink.serial]
        if op is None or op.sink is not rec or op.data != data:
            raise Fault(f"{op} left {data!r} on {rec}, and holds {bytes(op.data) if op else None!r}")
        op.data.clear()
        rec.rests.append(bytearray(data))

    def on_unlinked(self, op: Op, error: Exception | None) -> None:
        """A relay ended, and left what it had to: all, or there is nobody to take it."""
        sink = op.sink
        assert sink is not None
        conn = sink.ref()
        if op.data and not (conn is None or conn.closing or conn.closed or isinstance(error, RelaySinkError)):
            raise Fault(f"{op} lost {bytes(op.data)!r}")

    def on_rest_over(self, operation: OpResult) -> None:
        rec = self.by_serial[operation.conn.serial]
        rest = rec.rests.pop(0)
        if rest and operation.error is None:
            raise Fault(f"the rest of a relay to {rec} ended with {bytes(rest)!r} not sent")

    def on_read_expired(self, operation: OpResult) -> None:
        """A deadline is no reason for a read to fail if there was something to read before the last poll."""
        rec = self.by_serial[operation.conn.serial]
        setting = self.kernel.setting
        if operation.error is operation.conn.failure:
            return
        if setting.late or setting.shuffles or any(op.kind == RELAY for op in rec.ops.values()):
            return
        if rec.sock.rx and rec.sock.ready_at < self.kernel.polls - 1:
            raise Fault(f"{operation.context} of {rec} expired, though there was something to read")

    # -- completions ------------------------------------------------------------------------------------

    def complete(self, result: OpResult) -> Op | None:
        """Check a completion; return whose it is, unless it goes on."""
        if result.kind == CLOSED:
            self.check_report(result)
            return None
        if result.kind == HANGUP:
            self.check_hangup(result)
            return None
        number: Any = result.context
        op = self.ops.get(number)
        if op is None:
            raise Fault(f"{result!r} of operation {number}, which is not pending")
        if op.kind != result.kind:
            raise Fault(f"{result!r} is told of {op}")
        if op.kind == ACCEPT and (result.conn is None or not result.conn.is_listener):
            return op  # one of many
        if result.pending:
            raise Fault(f"{op} is returned, and pending")
        self.forget(op)
        self.check_error(op, result.error)
        self.check_bytes(op, result)
        if result.error is None and op.rec is not None and op.kind in (READ, WRITE, RELAY):
            self.check_order(op)
        return op

    def check_report(self, result: OpResult) -> None:
        rec = self.by_serial.get(result.conn.serial)
        if rec is None:  # another thread is about to get it
            self.early_reports.append(result.conn.serial)
            return
        rec.reports += 1
        if not self.kernel.setting.report_closes or rec.reports > 1 or rec.is_open:
            raise Fault(f"{rec} is reported as closed, the {rec.reports}. time")

    def check_hangup(self, result: OpResult) -> None:
        """A peer that is gone is told of once, with what it left."""
        rec = self.by_serial.get(result.conn.serial)
        if rec is None:
            self.early_hangups.append(result.conn.serial)
            return
        rec.hangups += 1
        if not self.kernel.setting.report_hangups or rec.hangups > 1:
            raise Fault(f"{rec} is reported to hang up, the {rec.hangups}. time")
        if rec.is_open and not rec.sock.is_over():
            raise Fault(f"{rec} is reported to hang up, and does not")
        if rec.is_open and result.size != len(rec.sock.rx):
            raise Fault(f"{rec} hangs up with {result.size} bytes left, and {len(rec.sock.rx)} can be read")
        if not isinstance(result.error, EOFError | OSError):
            raise Fault(f"{rec} hangs up with {result.error!r}")

    def check_order(self, op: Op) -> None:
        """Operations of a direction complete in the order in which a thread submitted them."""
        assert op.rec is not None
        for other in op.rec.ops.values():
            is_earlier = other.number < op.number and other.thread == op.thread
            if is_earlier and other.kind in (READ, WRITE, RELAY) and (other.kind == WRITE) == (op.kind == WRITE):
                raise Fault(f"{op} overtook {other}")

    def check_bytes(self, op: Op, result: OpResult) -> None:
        """The bytes of a completion are those that were moved, and as many as had to be."""
        error = result.error
        if op.kind == READ:
            shown = b"" if result.buffer is None else bytes(memoryview(result.buffer)[: result.size])
            if result.size != len(op.data) or (shown != op.data and (op.size or error is None)):
                raise Fault(f"{op} has {result.size} bytes, {shown!r}, and read were {bytes(op.data)!r}")
            if error is None and (not op.data or (op.full and len(op.data) != op.size)):
                raise Fault(f"{op} completed with {len(op.data)} of {op.size} bytes")
        elif op.kind == WRITE:
            if result.size != op.moved or (error is None and op.moved != len(op.payload)):
                raise Fault(f"{op} has size {result.size}, and {op.moved} of {len(op.payload)} bytes were sent")
        elif op.kind == RELAY:
            if result.size != op.moved:
                raise Fault(f"{op} has size {result.size}, and {op.moved} bytes were sent")
            if error is None:
                self.check_relayed(op)
        elif op.kind == CONNECT and error is None and op.rec is not None and not op.rec.sock.was_established:
            raise Fault(f"{op} completed, and there is no connection")
        elif op.kind == TIMER and error is None and self.kernel.now_s < (op.deadline or 0):
            raise Fault(f"{op} rang early")

    @staticmethod
    def check_relayed(op: Op) -> None:
        """A relay that succeeds has relayed all, and the end."""
        assert op.rec is not None and op.sink is not None
        if op.data or not op.rec.sock.told_eof:
            raise Fault(f"{op} is over, before the end of its source or with {bytes(op.data)!r} left")
        if op.sink.is_open and op.sink.sock.state == CONNECTED and not op.sink.sock.fin_out:
            raise Fault(f"{op} is over, and has passed no FIN on to {op.sink}")

    def check_error(self, op: Op, error: Exception | None) -> None:
        """There is a reason for an error."""
        if error is None:
            return
        rec, sink = op.rec, op.sink
        if isinstance(error, OSError) and error.errno != errno.EPIPE:
            broken = sink if isinstance(error, RelaySinkError) else rec
            if broken is not None and error.errno in broken.sock.told:
                broken.was_told = True
        if isinstance(error, WatcherClosed):
            justified = self.is_closed
        elif isinstance(error, DeadlineExceeded):
            justified = op.deadline is not None and op.deadline <= self.kernel.now_s
        elif isinstance(error, ConnClosed):
            justified = bool(rec and self.has_end(rec, op)) or bool(sink and self.has_end(sink))
        elif isinstance(error, RelaySinkError):
            justified = sink is not None and error.errno in sink.sock.told
        elif isinstance(error, EOFError):
            justified = bool(rec and rec.sock.told_eof)
        elif op.kind == CONNECT and rec is None:
            justified = True  # the thread that asked does not have it yet
        elif isinstance(error, OSError):
            number = error.errno or 0
            told = rec is not None and number in rec.sock.told
            of_sink = sink is not None and number in sink.sock.told
            justified = told or of_sink or (number == ECANCELED and op.cancelled)
        else:
            justified = False
        if not justified and not (rec is not None and self.failed_so(rec) is error):
            raise Fault(f"{op} failed with {error!r} for no reason")

    @staticmethod
    def failed_so(rec: Rec | None) -> Exception | None:
        """Return why the connect of a connection failed: what waits for it fails the same way."""
        conn = rec.ref() if rec else None
        return None if conn is None else conn.failure

    @staticmethod
    def has_end(rec: Rec, op: Op | None = None) -> bool:
        """Tell whether the end of a connection was asked for, or came: before a write that was submitted before."""
        if "free" in rec.asked or ("close" not in rec.asked and not rec.is_open):
            return True
        conn = rec.ref()
        if conn is not None and conn.close_reason is not None:
            return True
        is_sent_first = op is not None and op.kind == WRITE and op.number <= rec.closed_after
        return "close" in rec.asked and not is_sent_first

    def is_justified(self, op: Op | None, rec: Rec, error: Exception) -> bool:
        """Tell whether a call may be refused so."""
        if isinstance(error, WatcherClosed):
            return self.is_closed
        if isinstance(error, ConnClosed):
            return self.has_end(rec)
        if not isinstance(error, UsageError) or op is None or op.sink is not rec:
            return False
        others = (each for each in self.ops.values() if each.kind == RELAY and each.sink is rec)
        return any(each.thread != op.thread for each in others)  # which came to the sink amid this one's submission
