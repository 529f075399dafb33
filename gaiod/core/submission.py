"""Submitting: what a call from any thread becomes, before the loop sees it."""

import os
import socket
from contextlib import suppress
from math import inf
from threading import RLock
from time import sleep
from typing import Any
from weakref import WeakKeyDictionary, ref

from gaiod.core.connection import RELAY_LIMIT, Conn
from gaiod.core.counters import OUTCOME_COUNT
from gaiod.core.engine import Flow, open_stream, set_option
from gaiod.core.errors import ConnClosed, EmptyBuffer, TooManyOperations, UnsupportedConn, UsageError, WatcherClosed
from gaiod.core.group import Group
from gaiod.core.loop import Loop
from gaiod.core.operations import ACCEPT, CONNECT, POST, READ, RELAY, WRITE, OpResult
from gaiod.core.sockets import check_deadline, check_socket, resolve_numeric

OPERATIONS_MAX = 65_536
"""Most operations pending per connection and direction, and submissions waiting from other threads:
a bound for a program that does not look at its completions, not a tuning knob."""


class Submission(Loop):
    """The checks at the door, and the two ways in: at once for the loop's own thread, else through the inbox."""

    def __init__(self, buffer_size: int, counters: Any, report_closes: bool) -> None:
        super().__init__(buffer_size, counters, report_closes)
        self.loop_thread = self.poller.thread()  # its maker, then whoever was last in wait_io(): may touch everything
        self.submitting = 0  # that thread is inside a submission
        self.in_loop = False
        self.gate = RLock()  # around taking over what another thread brings, and around releasing everything
        # A Conn, or a weak reference to one where its owner has it by another name.
        self.delegated: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()

    def _enter(self) -> None:
        """Make this thread the loop's own."""
        thread = self.poller.thread()
        if self.loop_thread != thread:
            self.loop_thread = thread
            while self.submitting:  # the thread before this one has not finished its submission
                sleep(0)

    def _submit_read(self, target: Any, buf: Any, context: Any, deadline: Any, full: bool) -> Conn:
        conn = self._usable(target)
        if conn.read_count >= OPERATIONS_MAX:
            raise TooManyOperations(f"{conn.read_count} reads are pending on {conn!r}; await their completions")
        operation = self._new_operation(READ, conn, conn.context if context is None else context, inf)
        if deadline is not None:
            operation.deadline = check_deadline(deadline)
        if buf is None:
            operation.is_swap_buffer = True
        else:
            operation.pinned = self.batch.pin(buf, True)
            operation.buffer = buf
            operation.full = full
            operation.length = self.batch.length(operation.pinned)
            if operation.length == 0:
                raise EmptyBuffer("cannot read into an empty buffer")
        if full and buf is None:
            raise EmptyBuffer("read_full() needs a buffer to fill")
        self._submit(operation)
        return conn

    def _submit_write(self, target: Any, buf: Any, context: Any, deadline: Any) -> Conn:
        conn = self._usable(target)
        if conn.write_count >= OPERATIONS_MAX:
            raise TooManyOperations(f"{conn.write_count} writes are pending on {conn!r}; await their completions")
        operation = self._new_operation(WRITE, conn, conn.context if context is None else context, inf)
        if deadline is not None:
            operation.deadline = check_deadline(deadline)
        pinned = self.batch.pin(buf, False)
        operation.pinned = pinned
        operation.length = self.batch.length(pinned)
        if operation.length == 0:
            raise EmptyBuffer("cannot write an empty buffer")
        # A memoryview of the caller's can be released while this is pending: show ours instead.
        operation.buffer = pinned if type(pinned) is memoryview and type(buf) is memoryview else buf
        self._submit(operation)
        return conn

    def _submit_relay(self, source: Any, sink: Any, limit: int, context: Any, deadline: Any) -> Conn:
        conn, to = self._usable(source), self._usable(sink)
        if not 1 <= limit <= RELAY_LIMIT:
            raise ValueError(f"limit={limit}: must be from 1 byte to {RELAY_LIMIT}")
        if conn is to:
            raise UsageError(f"{conn!r} cannot be relayed to itself")
        operation = self._new_operation(RELAY, conn, conn.context if context is None else context, inf)
        if deadline is not None:
            operation.deadline = check_deadline(deadline)
        operation.pinned = Flow(to, limit)
        with self.gate:
            if to.outbox is not None:
                raise UsageError(f"{to!r} is in a group: whole messages cannot be kept apart from a relay's bytes")
            if to.feeder is not None:
                raise UsageError(f"{to!r} is the sink of a relay already; cancel that, or wait for its end")
            to.feeder = conn
        try:
            self._submit(operation)
        except BaseException:
            to.feeder = None
            raise
        return conn

    def _submit_connect(self, address: Any, context: Any, deadline: Any, options: Any) -> Conn:
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        family, address = resolve_numeric(address)
        limit_s = inf if deadline is None else check_deadline(deadline)
        fd = open_stream(family)
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd))
        try:
            for level, name, value in options:
                error = -set_option(fd, level, name, value)
                if error:
                    raise OSError(error, f"{os.strerror(error)}: option {name} of level {level}")
        except BaseException:
            os.close(fd)
            raise
        self._make_room(fd)
        conn = Conn(self, fd, context, self.poller.now())
        conn.writable = False
        conn.stall_s = -conn.opened_s
        conn.blocked_s = conn.opened_s
        operation = self._new_operation(CONNECT, conn, context, limit_s)
        operation.buffer = (family, address)
        try:
            self._submit(operation)
        except BaseException:
            conn.closed = True  # it never was open
            os.close(fd)
            raise
        return conn

    def _submit_accept(self, listener: Any, context: Any) -> Conn:
        conn = listener if type(listener) is Conn else self._adopt_socket(listener, context, True)
        if conn.closed or conn.closing or conn.watcher is not self or self.closed:
            self._refuse(conn)
        if not conn.is_listener:
            raise UnsupportedConn(f"{conn!r} is not a listener")
        if conn.read_count:
            raise UsageError(f"accept() is pending on {conn!r} already: it serves until cancelled")
        self._submit(self._new_operation(ACCEPT, conn, context, inf))
        return conn

    def _join(self, to: Any, conn: Conn, topic: str) -> None:
        group: Group = to
        conn = self._usable(conn)
        if conn.outbox is not None and conn.outbox.group is not group:
            raise UsageError(f"{conn!r} is in another group; it can be in one")
        self._claim_for_group()
        try:
            with self.gate:  # another thread may submit a relay
                if conn.feeder is not None:
                    raise UsageError(f"{conn!r} is the sink of a relay: its bytes and whole messages cannot be mixed")
                group.join(conn, topic)
        finally:
            self._leave()

    def _part(self, of: Any, conn: Conn, topic: str | None) -> None:
        group: Group = of
        self._claim_for_group()
        try:
            if conn.outbox is not None and conn.outbox.group is group:
                group.part(conn, topic)
                self._write_on(conn)
        finally:
            self._leave()

    def _publish(self, to: Any, topic: str, data: Any) -> int:
        group: Group = to
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        message = data if type(data) is bytes else bytes(memoryview(data))
        size = len(message)
        if size == 0:
            raise EmptyBuffer("cannot publish an empty message")
        if size > group.spool.limit:
            raise ValueError(f"a message of {size} bytes is longer than the queues, of {group.spool.limit}")
        if group.fresh_bytes + size > group.memory_limit:
            raise TooManyOperations(f"{group.fresh_bytes} bytes are published and not dealt out; publish less, or wait")
        self._claim_for_group()
        try:
            return self._publish_on(group, topic, message)
        finally:
            self._leave()

    def _disconnect_stalled(self, of: Any, grace_s: float) -> int:
        group: Group = of
        self._claim_for_group()
        try:
            return self._end_stalled(group, self.poller.now() - grace_s)
        finally:
            self._leave()

    def _claim_for_group(self) -> None:
        """As `_claim`, where there is no inbox to fall back on."""
        if not self._claim():
            raise UsageError("groups are for the thread that calls wait_io(), between its calls; post() from others")

    def _submit(self, operation: OpResult) -> None:
        """Accept an operation: at once in the loop's own thread, else through the inbox."""
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        if operation.kind == POST or not self._claim():
            self._hand_over(operation)
            return
        try:
            if self.inbox:
                self._take_inbox()  # what was submitted before this comes before it
            self.counters[operation.kind * OUTCOME_COUNT] += 1
            self._start(operation)
        finally:
            self._leave()

    def _request(self, kind: int, target: Any, argument: Any) -> None:
        """Ask for something that has no completion; what is closed already needs nothing."""
        if type(target) is not Conn and type(target) is not OpResult:
            if not isinstance(target, socket.socket):
                raise UnsupportedConn(f"a {type(target).__name__} is neither a Conn nor a socket.socket")
            target = self._find_delegated(target)
        if self.closed or target is None or (type(target) is Conn and not self._is_ours(target)):
            return
        request = self._new_operation(kind, None, argument, inf)
        request.buffer = target
        if not self._claim():
            with suppress(WatcherClosed):  # meanwhile: then there is nothing left to be done
                self._hand_over(request)
            return
        try:
            if self.inbox:
                self._take_inbox()
            self._fulfil(request)
        finally:
            self._leave()

    def _is_ours(self, conn: Conn) -> bool:
        return not conn.closed and conn.watcher is self

    def _claim(self) -> bool:
        """Tell whether this thread may touch the loop's state; if so, it must `_leave()`.

        Nobody may inside wait_io() or another submission: what is called there is a finalizer, run by a
        garbage collection at any allocation, or a signal handler. Asked twice, because another thread may
        enter wait_io() in between; that one waits for the count.
        """
        thread = self.poller.thread()
        if self.loop_thread != thread or self.in_loop or self.submitting:
            return False
        self.submitting += 1
        if self.loop_thread == thread:
            return True
        self.submitting -= 1
        return False

    def _leave(self) -> None:
        """End what `_claim` allowed; and the watcher, if it was closed amid it."""
        self.submitting -= 1
        if self.closed and self.submitting == 0:
            self._shut()

    def _shut(self) -> None:
        raise NotImplementedError

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

    def _usable(self, target: Any) -> Conn:
        """Return the connection to read from or write to."""
        conn = target if type(target) is Conn else self._resolve(target)
        if conn.closed or conn.closing or conn.watcher is not self or self.closed:
            self._refuse(conn)
        if conn.is_listener:
            raise UnsupportedConn("a listener can be neither read nor written; accept() its connections")
        return conn

    def _resolve(self, target: Any) -> Conn:
        """Return the connection of a socket, which is delegated on first use."""
        conn = self._find_delegated(target) if isinstance(target, socket.socket) else None
        if conn is None:
            conn = self._adopt_socket(target, None, False)
            self.delegated[target] = conn  # who has no other name for it keeps it by this one
        return conn

    def _find_delegated(self, sock: socket.socket) -> Conn | None:
        """Return the connection that a socket became, if there is one."""
        found: Any = self.delegated.get(sock)
        return found() if type(found) is ref else found

    def _adopt_socket(self, sock: Any, context: Any, listening: bool) -> Conn:
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        check_socket(sock, listening)
        fd = os.dup(sock.fileno())
        claimed = self._claim()  # a signal handler that closes the watcher amid this has it closed at the end
        try:
            os.set_blocking(fd, False)
            with self.gate:
                if self.closed:  # by another thread, meanwhile: what it releases must include this, or never see it
                    raise WatcherClosed("the watcher is closed")
                conn = self._adopt(fd, context, listening)
        except BaseException:
            os.close(fd)
            raise
        finally:
            if claimed:
                self._leave()
        sock.close()
        self.delegated[sock] = ref(conn)  # weakly: who delegates by hand has the connection
        return conn
