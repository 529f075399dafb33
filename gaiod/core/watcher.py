"""The watcher: a proactor. Submit reads and writes, collect their completions.

`wait_io()` is the loop (`loop.py`), and the thread inside it does all the I/O: submitting does none.

This file and its neighbours are ordinary Python, compiled by Cython where a compiler is: a `.pxd` gives the types.
"""

import os
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf
from threading import RLock
from time import sleep
from typing import Any
from weakref import WeakKeyDictionary, ref

from gaiod.core import counters as layout
from gaiod.core.connection import RELAY_LIMIT, Conn
from gaiod.core.counters import GROUP, GROUP_CELLS, OUTCOME_COUNT
from gaiod.core.engine import Flow, Spool, open_stream, peer_name, set_option
from gaiod.core.errors import (
    ConnClosed,
    EmptyBuffer,
    NoSuchCore,
    NotQuiet,
    TooManyOperations,
    UnsupportedConn,
    UsageError,
    WatcherClosed,
)
from gaiod.core.group import LIMIT, LIMIT_MIN_BYTES, MEMORY_LIMIT, POLICIES, Group
from gaiod.core.handover import Unit, find_unit
from gaiod.core.loop import Loop
from gaiod.core.operations import (
    ACCEPT,
    AFFINITY,
    CANCEL,
    CLOSED,
    CONNECT,
    FREE,
    HANDSHAKE,
    PAUSE,
    POST,
    READ,
    RELAY,
    SHUTDOWN,
    STOP,
    TIMER,
    WRITE,
    OpType,
)
from gaiod.core.results import OpResult
from gaiod.core.sockets import check_deadline, check_socket, resolve_numeric

GC_FOUND = layout.index("conn_gc_found")
GC_CLOSED = layout.index("conn_gc_closed")

BUFFER_SIZE_MAX = 16 * 1024 * 1024
"""More than the kernel queues for one socket by default (tcp_rmem: 6 MiB)."""

OPERATIONS_MAX = 65_536
"""Most operations pending per connection and direction, and submissions waiting from other threads:
a bound for a program that does not look at its completions, not a tuning knob."""


class Watcher(Loop):
    """Moves the bytes of many connections, in the one thread that calls `wait_io()`.

    Submitting (`read`, `write`, `accept`, `connect`, `timer`, `post`, `free`, `cancel`, `close`) is
    allowed from any thread. Every accepted operation has exactly one completion, whatever happens;
    operations of one connection and direction complete in the order they were submitted, and the
    two directions do not wait for each other. A watcher that nobody references closes itself.

    Args:
        buffer_size: most bytes that a read without a buffer of its own returns.
        counters: where to count: a writable buffer of 64-bit integers, `counters.SIZE` or more of
            them, for instance in shared memory (layout: `gaiod.core.counters`).
        report_closes: also complete one `OpType.CLOSE` for every connection that closed, for
            whatever reason, its `conn` being the closed connection.
        report_hangups: also complete one `OpType.HANGUP` for a connection that its peer has reset, or that
            is over in both directions, while no read is pending on it.
    """

    # Of its own, beside the state of the loop, and changed by nobody else:
    #   loop_thread: its maker's, then of whoever was last in wait_io(): the one that may touch everything.
    #   submitting: submissions that this thread is inside of: 0 or 1.
    #   in_loop: a thread is inside wait_io().
    #   gate: around taking over what another thread brings, and around releasing everything.
    #   delegated: by socket, its Conn, or a weak reference to it where its owner has it by another name.
    #   shut: everything was released.

    def __init__(
        self, buffer_size: int = 65536, *, counters: Any = None, report_closes: bool = False,
        report_hangups: bool = False,
    ) -> None:  # fmt: skip
        self.closed = True  # until the rest of it exists
        self.shut = True
        if not 1 <= buffer_size <= BUFFER_SIZE_MAX:
            raise ValueError(f"buffer_size={buffer_size}: must be from 1 byte to {BUFFER_SIZE_MAX}")
        cells = bytearray(8 * layout.SIZE) if counters is None else counters
        super().__init__(buffer_size, cells, report_closes, report_hangups)
        self.loop_thread = self.poller.thread()
        self.submitting = 0
        self.in_loop = False
        self.gate = RLock()
        self.delegated: WeakKeyDictionary[socket.socket, Any] = WeakKeyDictionary()
        self.shut = False

    # -- what everybody uses ---------------------------------------------------------------------

    def delegate(self, sock: socket.socket, *, context: object = None) -> Conn:
        """Take a stream socket over: TCP or unix, connected.

        Its descriptor is duplicated (close-on-exec, non-blocking; options set before remain), and
        `sock` is closed.

        Raises:
            UnsupportedConn: not such a socket; it was left as it was.
            WatcherClosed: nothing was done.
            OSError: no descriptor is left; `sock` was left as it was.
        """
        return self._adopt_socket(sock, context, False)

    def read(
        self, conn: Conn | socket.socket, buf: Any = None, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """Read once: complete with the first bytes there are, at the end of the stream, or on failure.

        Without `buf` the completion's `buffer` is the watcher's swap buffer: read-only, and valid
        until the next `wait_io()`. A `buf` is filled from its start, and pinned until then.

        Args:
            conn: a connection of this watcher; a socket is delegated on first use.
            buf: a writable, contiguous buffer, not empty.
            context: comes back with the completion.
            deadline: in `time.monotonic()` seconds; then DeadlineExceeded, and the connection stays
                usable. Bytes that are there by then win.

        Raises:
            WatcherClosed, ConnClosed, UnsupportedConn, EmptyBuffer, TooManyOperations, TypeError
            (not a writable buffer): nothing was submitted.
        """
        return self._submit_read(conn, buf, context, deadline, False)

    def read_full(
        self, conn: Conn | socket.socket, buf: Any, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """As `read`, but complete only when `buf` is full, or with an error and the `size` read so far."""
        return self._submit_read(conn, buf, context, deadline, True)

    def write(
        self, conn: Conn | socket.socket, buf: Any, *, context: object = None, deadline: float | None = None
    ) -> Conn:
        """Write all of `buf`: complete when the kernel has taken it, or with an error and the `size` taken.

        `buf` is pinned until then, and must not be changed. A swap buffer may be written as it is:
        what the kernel does not take at once is copied.

        Args and Raises: as `read`; `buf` need not be writable.
        """
        return self._submit_write(conn, buf, context, deadline)

    def relay(
        self, source: Conn, sink: Conn, *, limit: int = RELAY_LIMIT, context: object = None,
        deadline: float | None = None,
    ) -> Conn:  # fmt: skip
        """Send to `sink` what `source` receives, until its end, which is passed on as a FIN.

        Completes then, with the `size` that was sent; or when either fails, with the error; or at the
        deadline. One direction: a proxy relays both ways. Writes queued on the sink go first, and those
        submitted meanwhile in between: whole messages are whole only before. What was received and not
        yet sent when it ends otherwise than at the end of the stream is still sent, as a write of nobody's;
        only a sink that fails, or is freed, loses it.

        Args:
            source: a connection of this watcher. Reads queued before it are served first.
            sink: another. It can be the sink of one relay only.
            limit: most bytes held in memory. A sink that does not take them pauses the source.
            context: comes back with the completion.
            deadline: as for `read`.

        Returns:
            The source.

        Raises:
            UsageError: the sink has a relay already, or is the source. Others as `read`.
        """
        return self._submit_relay(source, sink, limit, context, deadline)

    def start_tls(self, conn: Conn, tls: Any, *, context: object = None, deadline: float | None = None) -> Conn:
        """Speak TLS on a connection from now on: complete when the handshake is done, or has failed.

        From then on reads have what the peer has encrypted, and writes are encrypted; a write completes when the
        kernel has its last record. Operations that are submitted meanwhile wait for the handshake. After a failure
        the connection is of no use, and still has to be freed; a handshake that is cancelled, or expires, has failed.

        `shutdown_write` and `close` send a close_notify before the FIN, and wait for none; `free` sends none. A stream
        that ends without one ends with `TlsTruncated`. A write that expires or is cancelled has in its `size`
        also what is in records that were begun: at most 64 KiB, which are sent in any case.

        Args:
            conn: a connection of this watcher, with no operation pending and in no group. What was received of it must
                not have been more than was asked for: a byte that is the handshake's must not have been read.
            tls: who it is for its peer, a server or a client, and what it asks of it: from
                `gaiod.core.engine.open_tls`.
            context: comes back with the completion.
            deadline: as for `read`: of the whole handshake.

        Raises:
            UsageError: it has operations pending, is in a group or the sink of a relay, or speaks TLS; or this is not
                the thread that calls `wait_io()`, between its calls. Others as `read`.
        """
        return self._submit_handshake(conn, tls, context, deadline)

    def shutdown_write(self, conn: Conn) -> None:
        """Send a FIN after the writes queued so far. A write submitted later fails with EPIPE."""
        self._request(SHUTDOWN, conn, None)

    def free(self, conn: Conn | socket.socket) -> None:
        """Close at once: pending operations complete with ConnClosed, the descriptor closes.

        What the kernel has not taken is not sent (`Conn.close` waits for it). Closed already, or
        never delegated: nothing happens.
        """
        self._request(FREE, conn, None)

    def cancel(self, conn: "Conn | OpResult", op_type: OpType | None = None) -> None:
        """Complete the pending operations of a connection (of one type, or all) with ECANCELED.

        Their `size` is what was moved before. A timer is cancelled by what `timer()` returned.
        """
        self._request(CANCEL, conn, op_type)

    def connect(
        self, address: Any, *, context: object = None, deadline: float | None = None,
        options: Iterable[tuple[int, int, Any]] = (), tls: Any = None,
    ) -> Conn:  # fmt: skip
        """Open a connection; completes when it is established, or failed. With `tls`, when its handshake is done.

        The connection may be read from and written to before: that waits. After a failure it is of
        no use, and still has to be freed.

        Args:
            address: `(host, port)` with a numeric IPv4 or IPv6 host (names would block: resolve
                them first), or the path of a unix socket.
            context: comes back with the completion, and becomes the connection's.
            deadline: as for `read`.
            options: `(level, name, value)` each, as `socket.setsockopt` takes them; set before the
                connection is begun, so that the first packet is sent with them.
            tls: as for `start_tls`, of a client; None: no TLS.

        Raises:
            ValueError: not such an address.
            OSError: no descriptor is left, or the kernel refuses an option; nothing was begun.
        """
        return self._submit_connect(address, context, deadline, options, tls)

    def accept(self, listener: Conn | socket.socket, *, context: object = None) -> Conn:
        """Accept connections, one completion each, until cancelled, freed or closed.

        Its last completion has the error that ended it, and the listener as its `conn`. One in
        between can have an error too, and no `conn`, when the kernel had no descriptor left, say:
        accepting goes on by itself.

        Args:
            listener: a listening socket, which is delegated, or the Conn of one.
            context: of the completions, and of the connections accepted.

        Returns:
            The listener's Conn.
        """
        return self._submit_accept(listener, context)

    def pause(self, listener: Conn) -> None:
        """Accept nobody for a tenth of a second, or until a connection closes: as where no descriptor is left."""
        self._request(PAUSE, listener, None)

    def timer(self, deadline: float, *, context: object = None) -> OpResult:
        """Complete at `deadline` (`time.monotonic()` seconds). Returns what `cancel` takes."""
        operation = self._new_operation(TIMER, None, context, check_deadline(deadline))
        self._submit(operation)
        return operation

    def post(self, context: object) -> None:
        """Complete a POST with `context` in the thread that waits: a message from any other thread."""
        self._submit(self._new_operation(POST, None, context, inf))

    def group(
        self, *, limit: int = LIMIT, policy: str = "disconnect", memory_limit: int = MEMORY_LIMIT, cells: int = GROUP
    ) -> Group:
        """Make a group of connections that get what is published, each through a queue of its own.

        Args:
            limit: most bytes that wait for one member beyond what the kernel took, and so the longest message. A
                message also counts as 8 bytes at least.
            policy: what is done when one more does not fit: `disconnect` the member (`close_reason` is
                "slow_consumer"), `drop_oldest` of those that wait but the newest, `drop_newest`, or `latest_only`:
                the newest of each topic waits, always, and nothing else. `limit` is then for each message.
            memory_limit: most bytes of memory that the messages waiting for anybody take. Beyond, those who are
                furthest behind lose theirs; with `disconnect` and `latest_only` they are disconnected.
            cells: index of the counters that it adds to (`counters.GROUP_CELLS`).

        Raises:
            ValueError: no such policy, a limit that is too small, or cells that there are not.
        """
        if not 0 <= cells <= len(self.counters) - len(GROUP_CELLS):
            raise ValueError(f"cells={cells}: of {len(self.counters)} counters, {len(GROUP_CELLS)} must begin there")
        if policy not in POLICIES:
            raise ValueError(f"policy={policy!r}: must be one of {', '.join(POLICIES)}")
        if limit < LIMIT_MIN_BYTES:
            raise ValueError(f"limit={limit}: must be {LIMIT_MIN_BYTES} bytes or more")
        if memory_limit < limit:
            raise ValueError(f"memory_limit={memory_limit}: must not be below limit={limit}")
        return Group(self, Spool(self.counters, cells, limit, POLICIES[policy]), memory_limit)

    def detach(self, *conns: Conn) -> Unit:
        """Take connections out of the loop, so that a watcher in another process can go on with them.

        With them goes whatever is tied to them by relays. No byte of theirs moves any more, and no descriptor is
        closed, until `Unit.resume` or `Unit.release`. To be called in the loop's own thread between two calls of
        `wait_io()`, once the completions of the last one are dealt with.

        Raises:
            NotQuiet: one is closing, being connected, or has a part of what it reads. Nothing was changed: try later.
            UsageError: not in that thread, or not a connection of this watcher. Others as `read`.
        """
        return self._detach([self._usable(conn) for conn in conns])

    def attach(
        self,
        told: list[dict[str, Any]],
        descriptors: list[int],
        blobs: list[bytes],
        *,
        traffic: Sequence[int] = (),
        parcels: dict[Any, Any] | None = None,
    ) -> Unit:
        """Make the connections of a `Unit` that another watcher has described.

        They are like detached ones: nothing moves before `Unit.resume`. What is submitted meanwhile waits, and so do
        messages for the member of a group, which has to join one. Writes that were pending complete here, with the
        bytes that were left of each.

        Args:
            told: from `Unit.describe`, by way of JSON.
            descriptors: of the connections, in the same order; non-blocking, and close-on-exec. They are the watcher's
                from now on, also after an error.
            blobs: from `Unit.describe`.
            traffic: as `Conn.traffic`, of each connection; empty: it is not assigned.
            parcels: a dictionary for all units that refer to the same blobs: their messages are kept once.

        Raises:
            ValueError: what was told makes no sense; the descriptors are closed.
            UsageError: not in the loop's own thread, between two calls of `wait_io()`. WatcherClosed.
        """
        return self._attach(told, descriptors, blobs, traffic, {} if parcels is None else parcels)

    def wait_io(self, timeout: float | None = None) -> list[OpResult]:
        """Do the I/O, and return the operations completed: at least one, or none when time is up.

        Swap buffers returned by the call before are released.

        Args:
            timeout: most seconds to wait; 0 looks once, None waits for ever.

        Raises:
            WatcherClosed: closed, and every completion was returned.
            UsageError: another thread is in it.
            OSError: the poller died; the watcher is of no further use.
        """
        if self.in_loop:
            raise UsageError("wait_io() is running already: one thread at a time")
        self.in_loop = True  # first, then look whether it is closed: close() does it the other way round
        try:
            self._enter()
            done = self._run(-1.0 if timeout is None else max(0.0, timeout))
            if not done and self.closed:
                self._shut()
                done = self._last_completions()
            return done
        except BaseException:
            self._abandon_pass()
            raise
        finally:
            self.in_loop = False

    def close(self) -> None:
        """Close every connection. What was pending completes with WatcherClosed, in the next `wait_io()`.

        From another thread than the one in `wait_io()`: that one does it, in its next pass.
        """
        if self.closed:
            return
        self.closed = True
        if not self.in_loop and not (self.submitting and self.loop_thread == self.poller.thread()):
            self._shut()
        else:
            self.inbox.append(self._new_operation(STOP, None, None, inf))
            self.has_mail = True
            self.poller.wake()

    def connections(self, *, context: object = None, idle_since_s: float = inf) -> list[Conn]:
        """Return the open connections, listeners not included.

        Args:
            context: only those that have this context.
            idle_since_s: only those that moved no byte since that `time.monotonic()`. One that is `busy`, or being
                connected, is not idle.
        """
        return self._select(context, idle_since_s)

    def get_gc(self) -> tuple[int, int]:
        """Return how many connections were found dropped without being freed, and how many of those closed."""
        return self.counters[GC_FOUND], self.counters[GC_CLOSED]

    def set_loop_affinity(self, cpu: int) -> None:
        """Bind the thread in `wait_io()` to one CPU, from its next pass on.

        That thread polls and does the I/O, so this and `set_poller_affinity` are the same here.

        Raises:
            NoSuchCore: not a CPU this process may use, or no such thing on this system.
        """
        if not hasattr(os, "sched_getaffinity"):
            raise NoSuchCore(f"CPU {cpu}: {sys.platform} cannot bind a thread to a CPU")
        usable = sorted(os.sched_getaffinity(os.getpid()))
        if cpu not in usable:
            raise NoSuchCore(f"CPU {cpu}: this process may use {', '.join(map(str, usable))}")
        self._hand_over(self._new_operation(AFFINITY, None, cpu, inf))

    def set_poller_affinity(self, cpu: int) -> None:
        """The same as `set_loop_affinity`: one thread does both."""
        self.set_loop_affinity(cpu)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self.shut:
            self.closed = True
            self._shut()

    def _select(self, context: Any, idle_since_s: float) -> list[Conn]:
        chosen = []
        for conn in self.poller.owners():
            if conn.is_listener or not (context is None or conn.context is context) or conn.active_s > idle_since_s:
                continue
            if idle_since_s == inf or not self._is_at_work(conn):
                chosen.append(conn)
        return chosen

    def _is_at_work(self, conn: Conn) -> bool:
        """Tell whether a connection waits for something else than bytes: its owner, or to be connected."""
        operation = conn.write_head
        return conn.working or (operation is not None and operation.kind == CONNECT)

    # -- the door: what is checked before anything is accepted -----------------------------------------

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

    def _submit_handshake(self, target: Any, tls: Any, context: Any, deadline: Any) -> Conn:
        conn = self._usable(target)
        limit_s = inf if deadline is None else check_deadline(deadline)
        self._claim_for_group()
        try:
            if self.has_mail:
                self._take_inbox()
            if conn.read_head is not None or conn.write_head is not None or conn.relay_source is not None:
                raise UsageError(f"{conn!r} has operations pending; TLS begins between two of them")
            if conn.outbox is not None or conn.unit is not None or conn.secure is not None:
                raise UsageError(f"{conn!r} is in a group, is detached, or speaks TLS already")
            operation = self._new_operation(HANDSHAKE, conn, conn.context if context is None else context, limit_s)
            conn.secure = tls.session()
            if conn.writable:
                self._stall(conn)  # what is written waits
            if tls.is_client:
                conn.readable = True  # it begins: no edge tells it to
            self.counters[HANDSHAKE * OUTCOME_COUNT] += 1
            self._start(operation)
        finally:
            self._leave()
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
            if to.relay_source is not None:
                raise UsageError(f"{to!r} is the sink of a relay already; cancel that, or wait for its end")
            to.relay_source = conn
        try:
            self._submit(operation)
        except BaseException:
            to.relay_source = None
            raise
        return conn

    def _submit_connect(self, address: Any, context: Any, deadline: Any, options: Any, tls: Any) -> Conn:
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        family, address = resolve_numeric(address)
        session = None if tls is None else tls.session()
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
        operation.buffer = (family, address, session)
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
                if conn.relay_source is not None:
                    raise UsageError(f"{conn!r} is the sink of a relay: its bytes and whole messages cannot be mixed")
                group.join(conn, topic)
                self._note_touch(conn)
        finally:
            self._leave()

    def _part(self, of: Any, conn: Conn, topic: str | None) -> None:
        group: Group = of
        self._claim_for_group()
        try:
            if conn.outbox is not None and conn.outbox.group is group:
                self._note_touch(conn)
                group.part(conn, topic)
                self._schedule_write(conn)
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
            return self.fanout.publish(self, group, topic, message)
        finally:
            self._leave()

    def _disconnect_stalled(self, of: Any, grace_s: float) -> int:
        group: Group = of
        self._claim_for_group()
        try:
            return self.fanout.end_stalled(self, group, self.poller.now() - grace_s)
        finally:
            self._leave()

    def _detach(self, conns: list[Conn]) -> Unit:
        self._claim_for_group()
        try:
            if self.has_mail:
                self._take_inbox()
            found = find_unit(conns)
            for operation in self.done:
                if operation.conn in found:
                    raise NotQuiet(f"{operation.conn!r} has completions that were not taken")
            unit = Unit(self, found, {})
            unit.take_out()
            return unit
        finally:
            self._leave()

    def _attach(self, told: Any, descriptors: list[int], blobs: list[bytes], traffic: Any, parcels: Any) -> Unit:
        conns: list[Conn] = []
        if self.closed:
            for fd in descriptors:
                os.close(fd)
            raise WatcherClosed("the watcher is closed")
        self._claim_for_group()
        try:
            for fd in descriptors:
                self._make_room(fd)
                conn = Conn(self, fd, None, self.poller.now())
                conn.writable = False
                conns.append(conn)
            for conn, index in zip(conns, traffic, strict=False):
                conn.traffic = index
            unit = Unit(self, conns, parcels)
            unit.take_out()
            try:
                unit.fill(told, blobs)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                unit.silence()
                unit.release()
                raise ValueError(f"no unit of connections: {error!r}") from error
            return unit
        finally:
            self._leave()

    def _submit(self, operation: OpResult) -> None:
        """Accept an operation: at once in the loop's own thread, else through the inbox."""
        if self.closed:
            raise WatcherClosed("the watcher is closed")
        if operation.kind == POST or not self._claim():
            self._hand_over(operation)
            return
        try:
            if self.has_mail:
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
            if self.has_mail:
                self._take_inbox()
            self._run_request(request)
        finally:
            self._leave()

    # -- the two ways in: at once for the loop's own thread, else through the inbox --------------------

    def _enter(self) -> None:
        """Make this thread the loop's own."""
        thread = self.poller.thread()
        if self.loop_thread != thread:
            self.loop_thread = thread
            while self.submitting:  # the thread before this one has not finished its submission
                sleep(0)

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

    def _claim_for_group(self) -> None:
        """As `_claim`, where there is no inbox to fall back on."""
        if not self._claim():
            raise UsageError("this is for the thread that calls wait_io(), between its calls; post() from others")

    def _leave(self) -> None:
        """End what `_claim` allowed; and the watcher, if it was closed amid it."""
        self.submitting -= 1
        if self.closed and self.submitting == 0:
            self._shut()

    def _hand_over(self, operation: OpResult) -> None:
        """Put an operation into the inbox, and see to it that the loop looks."""
        if len(self.inbox) >= OPERATIONS_MAX and operation.kind <= POST:
            raise TooManyOperations(f"{OPERATIONS_MAX} submissions wait for wait_io(); call it, or submit less")
        operation.pinned = self.batch.own(operation.pinned)
        if type(operation.pinned) is bytes:
            operation.buffer = operation.pinned
        self.inbox.append(operation)
        self.has_mail = True
        if self.sleeping:
            self.poller.wake()
        if self.closed:  # it closed meanwhile, and may have looked into the inbox before
            try:
                self.inbox.remove(operation)
            except ValueError:
                return  # it was seen, and completed
            raise WatcherClosed("the watcher is closed")

    # -- whose connection it is ------------------------------------------------------------------------

    def _is_ours(self, conn: Conn) -> bool:
        return not conn.closed and conn.watcher is self

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

    # -- the end --------------------------------------------------------------------------------------

    def _forget(self, conn: Conn) -> None:
        """Close a connection that nobody references any more."""
        report = None
        with self.gate:
            if conn.closed:
                return  # by another thread that closes the watcher
            self.counters[GC_FOUND] += 1
            conn.close_reason = "forgotten"
            if self.report_closes and not conn.is_listener and not self.closed:
                report = self._new_report(CLOSED, conn)
                report.buffer = peer_name(conn.fd)
            self._release(conn)
            self.counters[GC_CLOSED] += 1
        if report is not None:
            self.inbox.append(report)
            self.has_mail = True
            if self.sleeping:
                self.poller.wake()

    def _shut(self) -> None:
        """Complete everything with WatcherClosed, and release every resource."""
        while True:
            with self.gate:
                if self.shut:
                    return
                if not self.submitting or self.loop_thread == self.poller.thread():
                    self._release_all()
                    self.shut = True
                    return
            sleep(0)  # without the gate: the submission under way may need it

    def _release_all(self) -> None:
        error = WatcherClosed("the watcher is closed")
        while (operation := self._next_submission()) is not None:
            self._refuse_late(operation, error)
        for unit in list(self.away):
            unit.release()
        for conn in [*self.poller.owners(), *self.held]:  # one that could not be watched may have operations
            if conn is not None:
                self._drop(conn, error)
        for operation in self.timers.pending_timers():
            self._complete(operation, error)
        self.batch.close()
        self.plumbing.close()
        self.poller.close()

    def _refuse_late(self, operation: OpResult, error: Exception) -> None:
        """End what was submitted but never seen by the loop."""
        if operation.kind == CLOSED:
            self.done.append(operation)
        elif operation.kind <= POST:
            self.counters[operation.kind * OUTCOME_COUNT] += 1
            self._complete(operation, error)
            if operation.kind == CONNECT and operation.conn is not None and not operation.conn.closed:
                self._drop(operation.conn, error)

    def _last_completions(self) -> list[OpResult]:
        if not self.done:
            raise WatcherClosed("the watcher is closed")
        done = self.done
        self.done = []
        return done
