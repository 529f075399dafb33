"""What the client asks of a watcher: every operation and request there is, from whichever thread."""

from collections.abc import Callable
from typing import Any

from core.simulation.files import CONNECTED, LISTENING, Sock
from core.simulation.groups import Membership
from core.simulation.kernel import MAIN
from core.simulation.model import Model, Op, Rec
from core.simulation.modules import Socket
from core.simulation.observed import Observed
from core.simulation.setting import Fault, Setting
from core.simulation.threads import Other
from gaiod.core.connection import Conn
from gaiod.core.errors import TooManyOperations, UsageError, WatcherClosed
from gaiod.core.group import Group
from gaiod.core.operations import (
    ACCEPT,
    CONNECT,
    POST,
    READ,
    RELAY,
    TIMER,
    WRITE,
    OpType,
)
from gaiod.core.results import OpResult

PAYLOAD = bytes((i * 11 + (i >> 4) * 5) & 255 for i in range(2048))


class User:
    """Who has connections, and does things to them; each `do_` is a step of that name."""

    def __init__(self, setting: Setting, model: Model) -> None:
        self.kernel = model.kernel
        self.setting = setting
        self.model = model
        self.other = Other(self.kernel)
        self.kernel.other = self.other
        self.watcher = Observed(
            setting.buffer_size, report_closes=setting.report_closes, report_hangups=setting.report_hangups
        )
        self.watcher.model = self.model
        self.model.watcher = self.watcher
        self.timers: dict[int, OpResult] = {}
        self.views: list[Any] = []
        self.group: Group | None = None
        self.published = 0
        self.is_looking = False  # the other thread is, or is about to be, in wait_io()

    def rec(self, key: int) -> Rec | None:
        """Return a connection that the client still has; None: there is none."""
        rec = self.model.recs.get(key)
        return rec if rec is not None and rec.conn is not None else None

    def deadline(self, ms: int | None) -> float | None:
        return None if ms is None else self.kernel.now_s + ms / 1000

    def submit(self, op: Op, call: Callable[[], object], *reasons: type[Exception]) -> bool:
        """Submit an operation; a refusal needs a reason."""
        try:
            call()
        except (UsageError, OSError, ValueError) as error:
            self.model.forget(op)
            refused = op.rec is not None and any(
                self.model.is_justified(op, rec, error) for rec in (op.rec, op.sink) if rec is not None
            )
            if not (refused or isinstance(error, reasons) or (isinstance(error, WatcherClosed) and self.is_closed)):
                raise Fault(f"{op} was refused with {error!r} for no reason") from error
            return False
        return True

    @property
    def is_closed(self) -> bool:
        return self.model.is_closed

    def do_delegate(self, key: int, room: int, far_room: int, is_unix: bool, early: int) -> None:
        """Delegate a connected socket, to which its peer has sent something already."""
        if key in self.kernel.socks:
            return
        sock = Sock(key, room, far_room, is_unix)
        sock.state = CONNECTED
        sock.was_established = True
        sock.far_send(early)
        self._delegate(key, sock)

    def _delegate(self, key: int, sock: Sock) -> None:
        self.kernel.socks[key] = sock
        limit, self.kernel.limit = self.kernel.limit, 1000
        held = Socket(fileno=self.kernel.open(sock))
        self.kernel.limit = limit
        try:
            conn = self.watcher.delegate(held)  # type: ignore[arg-type]
        except (OSError, WatcherClosed) as error:
            held.close()
            if isinstance(error, WatcherClosed) and not self.is_closed:
                raise Fault("delegate() says that the watcher is closed") from error
            return
        self.model.new_rec(key, conn, sock)

    def do_read(self, key: int, size: int, is_full: bool, ms: int | None) -> None:
        rec = self.rec(key)
        if rec is None or rec.is_listener:
            return
        assert rec.conn is not None
        op = self.model.new_op(READ, rec)
        op.deadline = self.deadline(ms)
        op.size, op.full = size, is_full
        read = rec.conn.read_full if is_full else rec.conn.read
        buffer = bytearray(size) if size else None
        self.submit(op, lambda: read(buffer, context=op.number, deadline=op.deadline))

    def do_write(self, key: int, size: int, how: str, ms: int | None) -> None:
        rec = self.rec(key)
        if rec is None or rec.is_listener:
            return
        assert rec.conn is not None
        conn = rec.conn
        op = self.model.new_op(WRITE, rec)
        op.deadline = self.deadline(ms)
        first = op.number * 37 % 1000
        data: Any = PAYLOAD[first : first + size]
        if how == "view" and self.views:
            data = self.views[size % len(self.views)]
        elif how == "bytearray":
            data = bytearray(data)
        op.payload = bytes(data)
        # A view that another thread's wait_io() releases meanwhile raises ValueError.
        reasons = (ValueError,) if how == "view" and self.other.is_busy else ()
        self.submit(op, lambda: conn.write(data, context=op.number, deadline=op.deadline), *reasons)

    def do_relay(self, key: int, to: int, limit: int, ms: int | None) -> None:
        source, sink = self.rec(key), self.rec(to)
        if source is None or sink is None or source.is_listener or sink.is_listener:
            return
        assert source.conn is not None and sink.conn is not None
        conn, sink_conn = source.conn, sink.conn
        has_reason = source is sink or sink_conn.relay_source is not None or sink_conn.outbox is not None
        op = self.model.new_op(RELAY, source)
        op.sink = sink
        op.deadline = self.deadline(ms)
        reasons = (UsageError,) if has_reason or self.kernel.thread != MAIN else ()
        self.submit(
            op, lambda: conn.relay_to(sink_conn, limit=limit, context=op.number, deadline=op.deadline), *reasons
        )

    def do_cancel(self, key: int, kind: int | None) -> None:
        rec = self.rec(key)
        if rec is None:
            return
        assert rec.conn is not None
        conn = rec.conn
        self._mark_cancelled(rec, kind, not self.other.is_busy)
        conn.cancel(None if kind is None else OpType(kind))
        self._mark_cancelled(rec, kind, False)  # what another thread has submitted meanwhile is cancelled, or is not

    @staticmethod
    def _mark_cancelled(rec: Rec, kind: int | None, must_end: bool) -> None:
        for op in rec.ops.values():
            if kind is None or op.kind == kind:
                op.cancelled = True
                op.must_end = op.must_end or must_end

    def do_shut(self, key: int) -> None:
        self._ask(key, "shut", Conn.shutdown_write)

    def do_close(self, key: int) -> None:
        self._ask(key, "close", Conn.close)

    def do_abort(self, key: int) -> None:
        self._ask(key, "free", Conn.abort)

    def do_reset(self, key: int) -> None:
        self._ask(key, "free", Conn.reset)

    def _ask(self, key: int, what: str, how: Callable[[Conn], None]) -> None:
        rec = self.rec(key)
        if rec is None or self.is_closed:
            return
        assert rec.conn is not None
        if what == "close" and what not in rec.asked:
            rec.closed_after = self.model.numbers if not self.other.is_busy else -1
        rec.asked.add(what)
        conn = rec.conn
        how(conn)

    def do_drop(self, key: int) -> None:
        rec = self.rec(key)
        if rec is not None:
            rec.conn = None

    def do_connect(self, key: int, how: int, ms: int | None) -> None:
        if key in self.kernel.socks or self.is_closed:
            return
        op = self.model.new_op(CONNECT, None)
        op.deadline = self.deadline(ms)
        kernel = self.kernel
        before, kernel.coming[kernel.thread] = kernel.coming.get(kernel.thread, 0), key
        try:
            conn = self.watcher.connect((f"10.0.0.{how}", key), context=op.number, deadline=op.deadline)
        except (OSError, WatcherClosed) as error:
            self.model.forget(op)
            if isinstance(error, WatcherClosed) and not self.is_closed:
                raise Fault("connect() says that the watcher is closed") from error
            return
        finally:
            kernel.coming[kernel.thread] = before
        self.model.new_rec(key, conn, kernel.socks[key], op)

    def do_listen(self, key: int) -> None:
        if key in self.kernel.socks:
            return
        sock = Sock(key, 32, 32, False)
        sock.state = LISTENING
        self.kernel.socks[key] = sock
        limit, self.kernel.limit = self.kernel.limit, 1000
        held = Socket(fileno=self.kernel.open(sock))
        self.kernel.limit = limit
        op = self.model.new_op(ACCEPT, None)
        try:
            conn = self.watcher.accept(held, context=op.number)  # type: ignore[arg-type]
        except (OSError, WatcherClosed):
            self.model.forget(op)
            held.close()
            return
        self.model.new_rec(key, conn, sock, op).is_listener = True

    def do_accept(self, key: int) -> None:
        rec = self.rec(key)
        if rec is None or not rec.is_listener:
            return
        conn = rec.conn
        assert conn is not None
        op = self.model.new_op(ACCEPT, rec)
        reasons = (UsageError,) if len(rec.ops) > 1 else ()
        self.submit(op, lambda: self.watcher.accept(conn, context=op.number), *reasons)

    def do_timer(self, number: int, ms: int) -> None:
        op = self.model.new_op(TIMER, None)
        op.deadline = self.kernel.now_s + ms / 1000
        deadline = op.deadline

        def call() -> None:
            self.timers[number] = self.watcher.timer(deadline, context=op.number)

        self.submit(op, call)

    def do_untimer(self, number: int) -> None:
        timer = self.timers.get(number)
        if timer is not None:
            op: Any = self.model.ops.get(timer.context)
            if op is not None:
                op.cancelled = op.must_end = True
            self.watcher.cancel(timer)

    def do_post(self) -> None:
        op = self.model.new_op(POST, None)
        self.submit(op, lambda: self.watcher.post(op.number))

    # -- groups -----------------------------------------------------------------------------------------

    def _may_use_group(self) -> bool:
        watcher = self.watcher
        if (
            self.is_closed
            or watcher.in_loop
            or watcher.submitting
            or not watcher.loop_thread == self.kernel.thread == MAIN
        ):
            return False
        if self.group is None:
            setting = self.setting
            self.group = self.watcher.group(
                limit=setting.limit, policy=setting.policy, memory_limit=setting.memory_limit
            )
        return True

    def do_join(self, key: int, topic: str) -> None:
        rec = self.rec(key)
        if rec is None or rec.is_listener or not self._may_use_group():
            return
        if not rec.sock.items:  # its connect cannot be watched: of no use, and only to be freed
            return
        assert rec.conn is not None and self.group is not None
        try:
            self.group.add(rec.conn, topic)
        except UsageError as error:
            if not self.model.is_justified(None, rec, error) and rec.conn.relay_source is None:
                raise Fault(f"{rec} may not join: {error!r}") from error
            return
        if rec.member is None:
            rec.member = Membership(self.setting.policy != "disconnect")
        rec.member.topics.add(topic)

    def do_part(self, key: int, topic: str | None) -> None:
        rec = self.rec(key)
        if rec is None or rec.member is None or not self._may_use_group():
            return
        assert rec.conn is not None and self.group is not None
        self.group.remove(rec.conn, topic)
        rec.member.topics = set() if topic is None else rec.member.topics - {topic}

    def do_publish(self, topic: str, size: int) -> None:
        if not self._may_use_group() or self.published > 255:
            return
        assert self.group is not None
        data = bytes((self.published,)) + PAYLOAD[self.published : self.published + size - 1]
        to = [
            rec for rec in self.model.recs.values()
            if rec.member is not None and self._has(rec, topic)
        ]  # fmt: skip
        try:
            count = self.group.publish(data, topic)
        except (TooManyOperations, ValueError):
            return
        if count != len(to):
            raise Fault(f"published to {count} members, and there are {to}")
        self.published += 1
        self.model.deliverable += len(to)
        for rec in to:
            rec.member.publish(topic, data)  # type: ignore[union-attr]

    @staticmethod
    def _has(rec: Rec, topic: str) -> bool:
        """Tell whether a connection has a topic. When one that closes leaves its group is the watcher's to say."""
        conn = rec.ref()
        if not rec.is_open or conn is None or rec.member is None:
            return False
        if not rec.asked.isdisjoint(("close", "free", "shut")):
            return conn.outbox is not None and topic in [each.name for each in conn.outbox.topics]
        return topic in rec.member.topics

    def do_stalled(self, ms: int) -> None:
        if self._may_use_group():
            assert self.group is not None
            self.group.disconnect_stalled(ms / 1000)
