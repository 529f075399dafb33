"""Do the steps of a plan, check what holds on any engine, and log what came of each operation."""

import errno
import fcntl
import hashlib
import select
import socket
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from core.differential.steps import Plan, Step
from core.support.sockets import connected_pair, pattern, reset
from core.support.waiting import LIMIT_S
from gaiod.core.connection import Conn
from gaiod.core.errors import UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

MUCH = 3_000_000


class Line:
    """A connection, its peer, and what each has sent and got so far."""

    def __init__(self, number: int, conn: Conn, peer: socket.socket) -> None:
        self.number = number
        self.conn: Conn | None = conn
        self.peer: socket.socket | None = peer
        self.peer_sent = bytearray()
        self.read = bytearray()
        self.written = bytearray()
        self.peer_got = bytearray()
        self.pending: dict[OpType, deque[int]] = {OpType.READ: deque(), OpType.WRITE: deque()}
        self.log: dict[OpType, list[Any]] = {OpType.READ: [], OpType.WRITE: []}

    @property
    def open_conn(self) -> Conn | None:
        return None if self.conn is None or self.conn.closed else self.conn


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.watcher = Watcher(plan.buffer_size)
        self.others: list[Any] = []
        self.others_pending: set[int] = set()
        self.serial = 0
        self.family = socket.AF_INET if plan.is_tcp else socket.AF_UNIX
        self.lines = [self.new_line(number) for number in range(plan.conns)]
        self.ended: list[Line] = []
        self.settle()
        for group in plan.groups:
            for step in group:
                self.do(step, self.lines[step.conn])
            self.settle()
        self.finish()

    def new_line(self, number: int) -> Line:
        """Connect."""
        near, far = connected_pair(self.family)
        far.settimeout(LIMIT_S)
        return Line(number, self.watcher.delegate(near), far)

    def log(self) -> Any:
        """Return what is to be the same on every engine."""
        every = [*self.ended, *self.lines]
        lines = [{kind.name: entries for kind, entries in line.log.items()} for line in every]
        streams = [[self.digest(line.read), len(line.peer_sent)] for line in every]
        return {"lines": lines, "streams": streams, "others": sorted(self.others)}

    # -- steps ------------------------------------------------------------------------------------

    def do(self, step: Step, line: Line) -> None:
        """Do one step; what is over already refuses it."""
        name = step.action
        if name == "begin again":
            self.begin_again(line)
        elif name.startswith("peer"):
            if line.peer is not None:
                self.PEER_ACTIONS[name](self, step, line)
        elif name in ("timer", "timer cancelled", "post"):
            self.do_other(step)
        elif (conn := line.open_conn) is not None:
            try:
                self.ACTIONS[name](self, step, line, conn)
            except UsageError as error:
                line.log[OpType.READ].append(["refused", type(error).__name__])

    def context(self) -> int:
        """Return the number of the next operation."""
        self.serial += 1
        return self.serial

    def deadline(self, step: Step) -> float | None:
        """Return when the step's operation ends."""
        return {"none": None, "past": time.monotonic() - 1, "far": time.monotonic() + 1e6}[step.deadline]

    def begin_again(self, line: Line) -> None:
        """Where a connection is over, make another, which gets the descriptors of the first."""
        if line.peer is not None and line.open_conn is not None:
            return
        if line.conn is not None:
            line.conn.abort()
        self.settle()
        if any(line.pending.values()):
            return  # dropped, but alive for what is pending
        self.check_is_over(line)
        self.ended.append(line)
        self.lines[line.number] = self.new_line(line.number)

    def do_other(self, step: Step) -> None:
        """Submit what needs no connection."""
        context = self.context()
        self.others_pending.add(context)
        if step.action == "post":
            self.watcher.post(context)
            return
        timer = self.watcher.timer(self.deadline(step) or 1e9, context=context)
        if step.action == "timer cancelled":
            self.watcher.cancel(timer)

    def submit(
        self, line: Line, kind: OpType, function: Callable[..., object], *arguments: Any, **options: Any
    ) -> None:
        """Submit an operation, and await its completion."""
        context = self.context()
        function(*arguments, context=context, **options)
        line.pending[kind].append(context)

    def do_read(self, step: Step, line: Line, conn: Conn) -> None:
        self.submit(line, OpType.READ, conn.read, deadline=self.deadline(step))

    def do_read_into(self, step: Step, line: Line, conn: Conn) -> None:
        self.submit(line, OpType.READ, conn.read, bytearray(step.size), deadline=self.deadline(step))

    def do_read_full(self, step: Step, line: Line, conn: Conn) -> None:
        self.submit(line, OpType.READ, conn.read_full, bytearray(step.size), deadline=self.deadline(step))

    def do_echo(self, step: Step, line: Line, conn: Conn) -> None:
        context = -self.context()  # negative: what it reads is written back as it is
        conn.read(context=context, deadline=self.deadline(step))
        line.pending[OpType.READ].append(context)

    def do_write(self, step: Step, line: Line, conn: Conn) -> None:
        data = pattern(step.size, self.serial)
        self.submit(line, OpType.WRITE, conn.write, data, deadline=self.deadline(step))

    def do_write_much(self, step: Step, line: Line, conn: Conn) -> None:
        self.submit(line, OpType.WRITE, conn.write, pattern(MUCH, self.serial), deadline=self.deadline(step))

    def do_cancel_reads(self, step: Step, line: Line, conn: Conn) -> None:
        conn.cancel(OpType.READ)

    def do_cancel_writes(self, step: Step, line: Line, conn: Conn) -> None:
        conn.cancel(OpType.WRITE)

    def do_cancel(self, step: Step, line: Line, conn: Conn) -> None:
        conn.cancel()

    def do_shut_down(self, step: Step, line: Line, conn: Conn) -> None:
        conn.shutdown_write()

    def do_close(self, step: Step, line: Line, conn: Conn) -> None:
        conn.close()

    def do_abort(self, step: Step, line: Line, conn: Conn) -> None:
        conn.abort()

    def do_forget(self, step: Step, line: Line, conn: Conn) -> None:
        line.conn = None

    def peer_sends(self, step: Step, line: Line) -> None:
        data = pattern(step.size, len(line.peer_sent))
        try:
            line.peer.sendall(data)  # type: ignore[union-attr]
        except OSError:
            return  # the connection is closed
        line.peer_sent += data
        if (conn := line.open_conn) is not None:
            self.await_arrival(line, conn)

    def peer_receives(self, step: Step, line: Line) -> None:
        self.settle()
        assert line.peer is not None
        line.peer.setblocking(False)
        try:
            while part := line.peer.recv(1 << 20):
                line.peer_got += part
        except OSError:
            pass  # that was all, or the end
        line.peer.settimeout(LIMIT_S)

    def peer_half_closes(self, step: Step, line: Line) -> None:
        try:
            line.peer.shutdown(socket.SHUT_WR)  # type: ignore[union-attr]
        except OSError:
            return
        self.await_event(line, select.POLLRDHUP)

    def peer_closes(self, step: Step, line: Line) -> None:
        self.peer_receives(step, line)  # unread bytes would make it a reset
        assert line.peer is not None
        line.peer.close()
        line.peer = None
        self.await_event(line, select.POLLRDHUP)

    def peer_resets(self, step: Step, line: Line) -> None:
        assert line.peer is not None
        reset(line.peer)
        line.peer = None
        self.await_event(line, select.POLLHUP | select.POLLERR)

    ACTIONS: dict[str, Callable[["Run", Step, Line, Conn], None]] = {
        "read": do_read,
        "read into": do_read_into,
        "read full": do_read_full,
        "echo": do_echo,
        "write": do_write,
        "write much": do_write_much,
        "cancel reads": do_cancel_reads,
        "cancel writes": do_cancel_writes,
        "cancel": do_cancel,
        "shut down": do_shut_down,
        "close": do_close,
        "abort": do_abort,
        "forget": do_forget,
    }
    PEER_ACTIONS: dict[str, Callable[["Run", Step, Line], None]] = {
        "peer sends": peer_sends,
        "peer receives": peer_receives,
        "peer half-closes": peer_half_closes,
        "peer closes": peer_closes,
        "peer resets": peer_resets,
    }

    # -- waiting until the kernel has done its part, so that timing decides nothing -------------------------

    def await_arrival(self, line: Line, conn: Conn) -> None:
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            waiting = int.from_bytes(fcntl.ioctl(conn.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
            if conn.bytes_received + waiting >= len(line.peer_sent):
                return
        raise AssertionError(f"line {line.number}: what the peer sent did not arrive")

    def await_event(self, line: Line, event: int) -> None:
        if (conn := line.open_conn) is not None:
            poll = select.poll()
            poll.register(conn.fileno(), event)
            assert poll.poll(LIMIT_S * 1000), f"line {line.number}: no event {event}"

    def settle(self) -> None:
        """Pass until nothing more completes."""
        quiet = 0
        while quiet < 3:
            done = self.watcher.wait_io(0)
            for result in done:
                self.take(result)
            quiet = 0 if done else quiet + 1

    # -- what came of it ----------------------------------------------------------------------------

    @staticmethod
    def digest(data: bytes | bytearray) -> str:
        return hashlib.blake2b(data, digest_size=8).hexdigest()

    @staticmethod
    def outcome(error: Exception | None) -> str:
        if error is None:
            return "ok"
        name = type(error).__name__
        return f"{name} {errno.errorcode[error.errno]}" if isinstance(error, OSError) and error.errno else name

    def take(self, result: OpResult) -> None:
        """Check a completion, and log it."""
        context: Any = result.context
        outcome = self.outcome(result.error)
        if result.operation not in (OpType.READ, OpType.WRITE):
            self.others_pending.remove(context)
            self.others.append([context, result.operation.name, outcome])
            return
        (line,) = (line for line in self.lines if context in line.pending[result.operation])
        pending = line.pending[result.operation]
        if result.error is None:
            assert pending[0] == context, f"line {line.number}: {context} overtook {list(pending)}"
        pending.remove(context)
        moved = b"" if result.buffer is None else bytes(memoryview(result.buffer)[: result.size])
        assert len(moved) == result.size
        if result.operation is OpType.READ:
            line.read += moved
            line.log[OpType.READ].append([context, outcome, result.size, self.digest(moved)])
            assert line.peer_sent.startswith(line.read), f"line {line.number}: read what was not sent, or out of order"
            if context < 0 and result.error is None and (conn := line.open_conn) is not None:
                try:
                    self.submit(line, OpType.WRITE, conn.write, result.buffer)
                except UsageError:
                    line.log[OpType.READ].append(["not echoed"])
        else:
            line.written += moved
            size: int | str = result.size if result.error is None or result.size == 0 else "some"
            line.log[OpType.WRITE].append([context, outcome, size])

    def finish(self) -> None:
        """Close everything, and check that nothing is missing."""
        for line in self.lines:
            if line.peer is not None:
                self.peer_receives(Step("", 0, 0, "none"), line)
        self.watcher.close()
        try:
            while True:
                for result in self.watcher.wait_io(0):
                    self.take(result)
        except WatcherClosed:
            pass
        assert not self.others_pending
        for line in self.lines:
            self.check_is_over(line)

    @staticmethod
    def check_is_over(line: Line) -> None:
        """Check that nothing is missing, and let go of the peer."""
        assert not any(line.pending.values()), f"line {line.number}: never completed: {line.pending}"
        assert line.written.startswith(line.peer_got), f"line {line.number}: other bytes came than were written"
        if line.peer is not None:
            line.peer.close()
            line.peer = None
