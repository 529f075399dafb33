"""The client: does the steps of a plan, takes what a watcher returns, and shows it to the model."""

import sys
from collections.abc import Callable
from copy import copy

from core.simulation.files import CONNECTED
from core.simulation.kernel import MAIN
from core.simulation.model import Model
from core.simulation.network import Network
from core.simulation.rest import check_descriptors, check_rest
from core.simulation.setting import Fault, Setting, Step
from core.simulation.threads import lines_in_core
from core.simulation.user import User
from gaiod.core import counters
from gaiod.core.connection import UNASSIGNED, Conn
from gaiod.core.errors import NotQuiet, UsageError, WatcherClosed
from gaiod.core.operations import ACCEPT, READ
from gaiod.core.pollers import _Process
from gaiod.core.results import OpResult

SETTLING_MAX = 400
"""More passes do not settle what a run does: it goes on for ever."""


class Client(User, Network):
    """One run: a kernel, a watcher, and everything that is done to them."""

    def __init__(self, setting: Setting, model: Model) -> None:
        super().__init__(setting, model)
        self.kernel.on_sleep = self.on_sleep

    def do(self, step: Step) -> None:
        """Do one step; what it needs may be missing."""
        getattr(self, f"do_{step[0]}")(*step[1:])

    def do_wait(self, ms: int, salt: int, is_by_line: bool, interrupts: tuple[tuple[int, Step], ...]) -> None:
        """Pass, and have other steps happen before the n-th call of the kernel, or line of the watcher."""
        kernel = self.kernel
        kernel.dice = salt
        kernel.is_late = self.setting.late
        first = 1 if is_by_line else kernel.calls + 1
        in_order = sorted(interrupts, key=lambda interrupt: -interrupt[0])
        kernel.interrupts = [(first + n, self._interrupt(step)) for n, step in in_order]
        kernel.by_line = is_by_line and bool(interrupts)
        try:
            self.wait(ms / 1000)
        finally:
            kernel.is_late = kernel.by_line = False
        while kernel.interrupts:
            kernel.interrupt()

    def do_look(self, ms: int) -> None:
        """As `wait`, for the other thread, which may do so if the first does not."""
        if self.watcher.in_loop or self.kernel.thread == MAIN:
            return
        self.is_looking = True
        try:
            self.wait(ms / 1000)
        finally:
            self.is_looking = False

    def _interrupt(self, step: Step) -> Callable[[], None]:
        return lambda: self.do(step)

    def wait(self, timeout_s: float) -> bool:
        """Call wait_io(), and take what it returns; tell whether that was something."""
        self.kernel.idle_polls = 0
        if self.is_looking and self.kernel.thread == MAIN:
            self.other.finish()
        views, self.views = self.views, []
        try:
            results = self.traced_wait(timeout_s) if self.kernel.by_line else self.watcher.wait_io(timeout_s)
        except WatcherClosed:
            if not self.is_closed:
                raise
            return False
        for view in views:
            try:
                memoryview(view)
            except ValueError:
                continue
            raise Fault("a swap view outlived the next wait_io()")
        for result in results:
            self.take(result)
        return bool(results)

    def traced_wait(self, timeout_s: float) -> list[OpResult]:
        """As `wait_io`, interrupted at lines."""
        kernel = self.kernel
        lines = 0

        def take() -> None:
            nonlocal lines
            lines += 1
            if kernel.is_interrupted:
                return  # amid another interrupt's submission: which of the two came first is anybody's guess
            while kernel.interrupts and lines >= kernel.interrupts[-1][0] and kernel.thread == MAIN:
                kernel.interrupt()

        sys.settrace(lines_in_core(take))
        try:
            return self.watcher.wait_io(timeout_s)
        finally:
            sys.settrace(None)

    def do_thread(self, lines: int, step: Step) -> None:
        """Have the other thread begin a step."""
        if self.kernel.thread == MAIN:
            self.other.start(lambda: self.do(step), lines)

    def do_resume(self, lines: int) -> None:
        if self.kernel.thread == MAIN:
            self.other.resume(lines)

    def take(self, result: OpResult) -> None:
        op = self.model.complete(result)
        if op is None:
            return
        if op.kind == ACCEPT and result.error is None:
            conn: Conn = result.conn
            if conn.closed:
                return
            sock = self.kernel.file(conn.fd)
            self.model.new_rec(sock.key, conn, sock)
        if op.kind == READ and result.is_swap_buffer and result.error is None:
            self.views.append(result.buffer)

    def do_fork(self) -> None:
        """Have a forked child drop its copy of the watcher: its descriptors are its own, the epoll is not."""
        child = copy(self.watcher.poller)
        child._owners = dict(child._owners)
        _Process.forks += 1
        try:
            for fd in list(child._owners):
                child.remove(fd)
        finally:
            _Process.forks -= 1

    def do_away(self, key: int, steps: tuple[Step, ...]) -> None:
        """Detach a connection, do other steps meanwhile, and put it back: as if it had been there."""
        rec = self.rec(key)
        if rec is None or self.other.is_busy:
            return
        assert rec.conn is not None
        try:
            unit = self.watcher.detach(rec.conn)
        except (NotQuiet, UsageError):
            return
        unit.describe()
        for step in steps:
            self.do(step)
        refused, self.kernel.watches_refused = self.kernel.watches_refused, 0  # else it would be closed, as it should
        unit.resume()
        self.kernel.watches_refused = refused

    def do_pass(self, ms: int) -> None:
        """Let time go by while the client does something else."""
        self.kernel.now_s += ms / 1000

    def do_settle(self) -> None:
        """Pass until the loop sleeps."""
        self.other.finish()
        self.kernel.dice = 1
        for _ in range(SETTLING_MAX):
            if not self.wait(0.00001):
                return
        raise Fault("it never settles")

    def on_sleep(self) -> None:
        if not self.is_closed and not self.other.is_busy:
            check_rest(self.model, self.watcher)

    def check(self) -> None:
        """What is true between any two steps."""
        if self.kernel.unraised:
            raise self.kernel.unraised[0]
        if self.other.is_busy:
            return
        check_descriptors(self.model, self.watcher, 0)
        for rec in self.model.recs.values():
            if rec.is_open or rec.conn is None or self.is_closed or not rec.asked.isdisjoint(("close", "free")):
                continue
            if rec.conn.close_reason is None:
                raise Fault(f"{rec} closed, and nobody asked for it")

    def do_shutdown(self) -> None:
        """Close the watcher."""
        self.model.is_closed = True
        self.views.clear()
        self.watcher.close()

    def end(self) -> None:
        """Let everything come to rest, then close the watcher: all that is pending completes."""
        self.other.finish()
        if not self.is_closed:
            self.kernel.limit = 1000
            self.do_settle()
            for _ in range(SETTLING_MAX):
                socks = [rec.sock for rec in self.model.recs.values() if rec.is_open]
                for sock in socks:
                    self.kernel.act(sock, sock.far_take, sock.on_its_way)
                if not self.wait(0.00001) and not any(sock.on_its_way for sock in socks):
                    break
            self.check()
            self.check_delivered()
            self.do_shutdown()
        for _ in range(SETTLING_MAX):
            if not self.wait(0):
                break
        if self.model.early_reports:
            raise Fault("a connection was reported as closed that nobody had")
        if self.model.ops:
            raise Fault(f"never completed: {list(self.model.ops.values())}")
        self.check()
        self.check_counters()

    def abandon(self) -> None:
        """Let go of the watcher and of what it left open: from now on, a descriptor of that number is a real one."""
        self.other.abandon()
        for conn in (*self.watcher.poller.owners(), *(rec.ref() for rec in self.model.recs.values())):
            if conn is not None:
                conn.closed = True
        self.watcher.closed = self.watcher.shut = self.model.is_over = True

    def check_delivered(self) -> None:
        """Members that take everything have everything, where nothing may be dropped."""
        for rec in self.model.recs.values():
            member = rec.member
            if member is None or not rec.is_open or rec.asked or rec.sock.state != CONNECTED:
                continue
            if member.begun or (not member.may_skip and any(member.owed.values())):
                raise Fault(f"{rec} was not sent all: {member.begun!r} and {member.owed}")

    def check_counters(self) -> None:
        """What was submitted or published has an outcome, nothing is held, and the bytes are counted."""
        cells = self.watcher.counters
        for kind in range(len(counters.OPERATIONS)):
            submitted, *outcomes = cells[kind * counters.OUTCOME_COUNT : (kind + 1) * counters.OUTCOME_COUNT]
            if submitted != sum(outcomes):
                raise Fault(f"of {submitted} operations of kind {kind}, {sum(outcomes)} are counted as ended")
        moved = cells[UNASSIGNED : UNASSIGNED + 6]
        socks = [rec.sock for rec in self.model.recs.values()]
        if (moved[0], moved[1]) != (sum(sock.taken for sock in socks), sum(sock.given for sock in socks)):
            raise Fault(f"{moved[0]} bytes received and {moved[1]} sent are counted, which is wrong")
        if moved[counters.PAUSES] != moved[counters.RESUMES] or moved[counters.BUFFERED]:
            raise Fault(f"relays are counted as paused, and all are over: {list(moved)}")
        group = cells[counters.GROUP : counters.SIZE]
        accounted = sum(group[counters.DELIVERED : counters.DROPPED_CLOSED + 1])
        if accounted != self.model.deliverable:
            raise Fault(f"of {self.model.deliverable} messages to be delivered, {accounted} are accounted for")
        if group[counters.SUBSCRIBERS] or group[counters.QUEUED_BYTES] or group[counters.HELD_BYTES]:
            raise Fault(f"a group has something left when all are closed: {list(group)}")
