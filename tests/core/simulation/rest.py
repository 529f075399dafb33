"""What must be true while the loop sleeps: nothing is pending that could be done."""

from collections.abc import Iterator

from core.simulation.files import CONNECTED, DEAD, IN, OUT
from core.simulation.model import Model, Op, Rec
from core.simulation.setting import Fault
from gaiod.core.connection import Conn
from gaiod.core.operations import ACCEPT, CONNECT, POST, READ, RELAY, WRITE
from gaiod.core.pending import ACCEPT_PAUSE_S
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


def _chain(operation: OpResult | None) -> Iterator[OpResult]:
    while operation is not None:
        yield operation
        operation = operation.next


def check_rest(model: Model, watcher: Watcher) -> None:
    """Raise a Fault if the loop sleeps amid something that it could do."""
    now_s = model.kernel.now_s
    for op in model.ops.values():
        if op.kind == POST:
            raise Fault(f"{op} has not come")
        if op.must_end:
            raise Fault(f"{op} was cancelled, and is pending")
        if op.deadline is not None and op.deadline <= now_s:
            raise Fault(f"the time of {op} is over, and it is pending")
    if {conn.serial for conn in watcher.connections()} != {
        rec.serial for rec in model.recs.values() if rec.is_open and not rec.is_listener and rec.sock.items
    }:
        raise Fault(f"connections() are {watcher.connections()}, and open are {list(model.recs.values())}")
    if watcher.inbox or watcher.fanout.rounds or watcher.done:
        raise Fault("the loop sleeps, and has work")
    for rec in model.recs.values():
        if rec.is_open:
            _check_open(model, watcher, rec)
        elif rec.ops:
            raise Fault(f"{rec} is closed, and {list(rec.ops.values())} are pending")
        elif model.kernel.setting.report_closes and not rec.reports and not rec.is_listener:
            raise Fault(f"{rec} is closed, and that was not reported")


def _check_open(model: Model, watcher: Watcher, rec: Rec) -> None:
    conn = rec.ref()
    if conn is None:
        raise Fault(f"{rec} is gone, and its descriptor is open")
    reads, writes = list(_chain(conn.read_head)), list(_chain(conn.write_head))
    if len(reads) != conn.read_count or len(writes) != conn.write_count:
        raise Fault(f"{rec} counts {conn.read_count} and {conn.write_count}, and has {reads} and {writes}")
    pending = sorted(op.context for op in (*reads, *writes) if op.kind <= POST and not op.silent)
    if pending != sorted(rec.ops):
        raise Fault(f"of {rec}, {list(rec.ops.values())} are pending, and the watcher has {pending}")
    if "free" in rec.asked:
        raise Fault(f"{rec} was freed, and is open")
    if rec.conn is None and not reads and not writes and not is_kept(watcher, conn):
        raise Fault(f"{rec} was dropped, and is open")
    if reads:
        _check_reading(model, watcher, rec, conn, reads[0])
    elif model.kernel.setting.report_hangups:
        _check_hangup(rec, conn)
    _check_writing(rec, conn, writes)
    if (
        "shut" in rec.asked
        and not writes
        and conn.failure is None
        and rec.sock.state == CONNECTED
        and not rec.sock.fin_out
    ):
        raise Fault(f"{rec} has sent all, and no FIN")
    if (conn.bytes_received, conn.bytes_sent) != (rec.sock.taken, rec.sock.given):
        raise Fault(f"{rec} counts {conn.bytes_received} bytes received, {conn.bytes_sent} sent, and is wrong")
    _check_bytes(rec, conn, writes)


def _check_hangup(rec: Rec, conn: Conn) -> None:
    if rec.sock.is_over() and conn.failure is None and not rec.hangups and not rec.was_told:
        raise Fault(f"the peer of {rec} is gone, and that was not told")


def is_kept(watcher: Watcher, conn: Conn) -> bool:
    """Tell whether something of the watcher's keeps a connection without operations: a group, or a relay to it."""
    return conn.outbox is not None or conn.relay_source is not None


def _check_reading(model: Model, watcher: Watcher, rec: Rec, conn: Conn, head: OpResult) -> None:
    bits = rec.sock.mask()
    if head.kind == READ and bits & IN:
        raise Fault(f"{rec} is readable, and a read is pending")
    if head.kind == RELAY:
        op: Op = model.ops[head.context]
        sink = op.sink
        assert sink is not None
        to = sink.ref()
        if to is None or not sink.is_open:
            raise Fault(f"{op} goes to {sink}, which is closed")
        if to.write_head is None and sink.sock.mask() & OUT and (op.data or bits & IN):
            raise Fault(f"{op} could move: {rec} is readable or bytes are held, and {sink} is writable")
    if head.kind == ACCEPT and bits & IN:
        kernel = model.kernel
        lack_s, closes = rec.sock.lack
        if kernel.now_s >= lack_s + ACCEPT_PAUSE_S or kernel.closes != closes:
            raise Fault(f"{rec} has clients, and an accept is pending")


def _check_writing(rec: Rec, conn: Conn, writes: list[OpResult]) -> None:
    is_writable = bool(rec.sock.mask() & OUT)
    outbox = conn.outbox
    if outbox is not None and outbox.count:
        if is_writable:
            raise Fault(f"{rec} is writable, and {outbox.count} messages wait for it")
        return
    if not writes:
        return
    head = writes[0]
    if head.kind == WRITE and is_writable:
        raise Fault(f"{rec} is writable, and a write is pending")
    if head.kind > POST:
        raise Fault(f"{rec} has nothing to send, and its end of writing waits")
    if head.kind == CONNECT and (rec.sock.was_established or rec.sock.state == DEAD):
        raise Fault(f"{rec} is connected, or cannot be, and that is not told")


def _check_bytes(rec: Rec, conn: Conn, writes: list[OpResult]) -> None:
    """The count of bytes that wait is the sum of those that do."""
    waiting = sum(operation.length - operation.size for operation in writes)
    if conn.outbox is not None:
        waiting += conn.outbox.waiting_bytes
    relay_source = conn.relay_source
    if relay_source is not None and relay_source.read_head is not None and relay_source.read_head.kind == RELAY:
        flow = relay_source.read_head.pinned
        if flow.sink is conn:
            waiting += flow.left
    if conn.pending_write_bytes != waiting:
        raise Fault(f"{rec} counts {conn.pending_write_bytes} bytes that wait, and they are {waiting}")


def check_descriptors(model: Model, watcher: Watcher, held_by_others: int) -> None:
    """As many descriptors are open as there are connections, and those of the watcher's own."""
    kernel = model.kernel
    own = 0 if watcher.shut else 3 + 2 * watcher.plumbing._count
    connections = sum(rec.is_open for rec in model.recs.values())
    if len(kernel.files) != own + connections + held_by_others:
        raise Fault(f"{len(kernel.files)} descriptors are open: {own} of the watcher's, {connections} connections")
