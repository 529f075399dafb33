"""Units: connections that are taken out of a loop, whole, so that a watcher in another process can go on with them.

Theory of operation
===================

A unit is a connection, and whatever is tied to it by relays: two processes must never write to one socket. Between two
passes it is taken out of its loop: its descriptors out of the kernel's poller (a copy in another process would keep
waking this one), its connections out of the lists of those that have something to do. The connections themselves stay
as they are, with their operations; nothing moves any more, because none of them is readable or writable.

What is asked of them meanwhile waits: operations in their queues, requests (`close`, `cancel`) in the unit. So there
are two ways on, and either is whole. `resume` puts everything back: the poller tells what is ready as if it were new.
`release` closes this process's descriptors, without a word to the peers, and completes what was pending.

`describe` says what a unit is in plain values, and `build` makes such a unit in another watcher. It begins like one
that was taken out: it touches no socket before it is resumed. Pending reads are not carried. Nothing was consumed by
them, and whoever takes the connection submits reads of its own.
"""

from math import inf
from operator import index
from typing import TYPE_CHECKING, Any

from gaiod.core.connection import Conn
from gaiod.core.counters import BUFFERED, OUTCOME_COUNT, PAUSES
from gaiod.core.engine import Fan, Flow, Parcel
from gaiod.core.errors import ConnClosed, NotQuiet
from gaiod.core.operations import CONNECT, POST, READ, RELAY, SEEN, SHUTDOWN, TOLD, UNSEEN, WRITE
from gaiod.core.outboxes import NOTHING, UNCOUNTED
from gaiod.core.pending import Operations

if TYPE_CHECKING:
    from gaiod.core.group import Group
    from gaiod.core.results import OpResult

EVERYTHING = 1 << 62
"""A position that no feed reaches."""


class Unit:
    """Connections that no loop moves bytes for.

    Made by `Watcher.detach` and `Watcher.attach`. To be used in the thread that calls `wait_io()`, between its calls.

    Attributes:
        conns: those that were asked for, and then those tied to them by relays.
        is_touched: something was asked of them since; what `describe` said before is not all.
        is_over: it was resumed or released.
    """

    def __init__(self, operations: Operations, conns: list[Conn], parcels: dict[Any, Parcel]) -> None:
        """Make one.

        Args:
            operations: of the watcher whose connections they are.
            conns: of it.
            parcels: messages that arrived with it and with others, by identity and topic: each exists once.
        """
        self.parcels = parcels
        self.operations = operations
        self.conns = conns
        self.is_touched = False
        self.is_over = False
        self.requests: list[OpResult] = []  # and the operations that were submitted after the first of them
        self.waiting: dict[Conn, list[tuple[str, bytes]]] = {}  # messages, until it is resumed
        self.taken_s = 0.0  # when it was taken out
        self.serials: dict[Conn, int] = {}  # of the last messages that `describe` has told of, by member

    def resume(self, *, has_copies: bool = False) -> None:
        """Let the loop go on with them: as if nothing had happened, or, of a unit that was built, for the first time.

        One that the kernel will not watch any more is dropped, with its error.

        Args:
            has_copies: another process may have copies of the descriptors, and never close them. So the ends of these
                connections will be said to the peers, who would otherwise not see them.
        """
        if self.is_over:
            return
        operations = self.operations
        self._end()
        for conn in self.conns:
            conn.has_copies = has_copies
            try:
                operations.poller.add(conn.fd, conn)
            except OSError as error:
                conn.close_reason = conn.close_reason or "error"
                operations._drop(conn, error)
        for conn in self.conns:
            if not conn.closed:
                self._let_have(conn)
                self._rouse(conn)
        requests = self.requests
        self.requests = []
        for request in requests:
            if request.kind <= POST:
                operations._start(request)
            else:
                operations._run_request(request)

    def release(self) -> None:
        """Give the connections up: another process goes on with them, or has never let them go.

        Their descriptors are closed here, and their peers see nothing. What is pending completes with ConnClosed.
        """
        if self.is_over:
            return
        self._end()
        operations = self.operations
        for conn in self.conns:
            conn.closed = True  # first: what a relay holds must not become a write
        error = ConnClosed("the connection was handed over")
        for conn in self.conns:
            operations._end_queue(conn, True, -1, inf, error)
            operations._end_relays_to(conn, error)
        for conn in self.conns:
            operations._end_queue(conn, False, -1, inf, error)
            operations._give_up(conn, UNCOUNTED)
        for request in self.requests:
            if request.kind <= POST:
                operations._complete(request, error)
        self.requests = []

    def describe(self) -> tuple[list[dict[str, Any]], list[bytes]]:
        """Return what they are, as plain values for JSON, one for each of `conns`; and the bytes that they refer to.

        Bytes are numbered in the order of the list. A message that waits for several members is the same object for
        each. Times are `time.monotonic()` seconds, which is one clock for all processes of a machine. What is nothing
        is not said: most connections have nothing else than times.

        Raises:
            MemoryError: there is no memory for what a relay's pipe holds.
        """
        blobs: list[bytes] = []
        now_s = self.operations.poller.now()
        told = []
        for conn in self.conns:
            plain: dict[str, Any] = {
                "opened_s": conn.opened_s,
                "active_s": conn.active_s,
                "stalled_s": conn.stalled_s(now_s),
                "received": conn.bytes_received,
                "sent": conn.bytes_sent,
                "at_eof": bool(conn.at_eof),
                "unanswered": bool(conn.unanswered),
                "fault": conn.fault,
                "hangup_told": conn.hung == TOLD,
                "writes": [],
            }
            self._describe_group(conn, plain, blobs)
            self._describe_writes(conn, plain["writes"], blobs)
            self._describe_relay(conn, plain, blobs)
            told.append({key: value for key, value in plain.items() if value})
        return told, blobs

    def messages_until(self, conn: Conn, position: int) -> list[tuple[str, bytes]]:
        """Return what was published for a connection since it was described: (topic, message) each; of none: nothing.

        Those of the feed (`Group.position`) up to `position`: who goes on with it gets the later ones by itself.
        """
        outbox = conn.outbox
        if outbox is None or conn not in self.serials:
            return []
        group: Group = outbox.group
        return group.messages_for(conn, self.serials[conn], position)

    def expect(self, conn: Conn, messages: list[tuple[str, bytes]]) -> None:
        """Let a connection that was built have what was published for it meanwhile: see `messages_until`."""
        if messages:
            self.waiting.setdefault(conn, []).extend(messages)

    # -- taking out and putting back -------------------------------------------------------------------

    def take_out(self) -> None:
        """Take the connections out of their loop. `Operations` has found them quiet."""
        operations = self.operations
        self.taken_s = operations.poller.now()
        operations.away.add(self)
        for conn in self.conns:
            conn.unit = self
            operations.poller.remove(conn.fd)
            operations.held[conn.fd] = None
            operations.timers.forget(conn)
            if conn.reading:
                operations.reads.remove(conn)
            if conn.writing:
                operations.writes.remove(conn)
                if conn.write_head is not None and conn.write_head.kind == WRITE:
                    operations._own(conn.write_head)  # it will not be sent before the swap buffer is released
            conn.reading = conn.writing = conn.readable = False
            outbox = conn.outbox
            if outbox is not None and outbox.is_flushing:
                outbox.is_flushing = False
                operations.flushes.remove(conn)
            if conn.hung == SEEN:
                conn.hung = UNSEEN  # the poller tells again
            if conn.writable:
                conn.writable = False
                conn.stall_s -= operations.poller.now()
                conn.blocked_s = operations.poller.now()

    def _end(self) -> None:
        self.is_over = True
        self.operations.away.discard(self)
        for conn in self.conns:
            conn.unit = None

    def _rouse(self, conn: Conn) -> None:
        """Put a connection back among those that have something to do."""
        operations = self.operations
        if conn.read_head is not None or conn.write_head is not None:
            operations.held[conn.fd] = conn
        operations.timers.forget(conn)
        outbox = conn.outbox
        if outbox is not None:  # that nothing was sent to it was not its peer's fault
            now_s = operations.poller.now()
            outbox.progress_s = min(now_s, outbox.progress_s + now_s - self.taken_s)
        for reading in (True, False):
            next_s = inf
            operation = conn.read_head if reading else conn.write_head
            while operation is not None:
                next_s = min(next_s, operation.deadline)
                operation = operation.next
            if next_s != inf:
                operations.timers.arm(conn, reading, next_s)
        operations._schedule_write(conn)

    # -- what they are ---------------------------------------------------------------------------------

    def _describe_writes(self, conn: Conn, told: list[Any], blobs: list[bytes]) -> None:
        operation = conn.write_head
        while operation is not None:
            if operation.kind == WRITE:
                deadline_s = None if operation.deadline == inf else operation.deadline
                told.append([len(blobs), deadline_s, bool(operation.silent)])
                blobs.append(self.operations.batch.rest(operation.pinned, operation.size))
            else:
                told.append("shutdown")
            operation = operation.next

    def _describe_relay(self, conn: Conn, plain: dict[str, Any], blobs: list[bytes]) -> None:
        operation = conn.read_head
        if operation is None or operation.kind != RELAY:
            return
        flow = operation.pinned
        plain["relay"] = {
            "to": self.conns.index(flow.sink),
            "limit": flow.wanted,
            "size": operation.size,
            "deadline_s": None if operation.deadline == inf else operation.deadline,
            "bulk": flow.bulk,
            "ended": bool(flow.ended),
            "held": None,
        }
        if flow.left:
            flow.hold(self.operations.plumbing)
            plain["relay"]["held"] = len(blobs)
            blobs.append(flow.copy_leftover())

    def _describe_group(self, conn: Conn, plain: dict[str, Any], blobs: list[bytes]) -> None:
        """Say what a member waits for. The rest of a message that was begun becomes its first write."""
        outbox = conn.outbox
        if outbox is None:
            return
        group: Group = outbox.group
        self.serials[conn] = group.serial
        messages = group.messages_for(conn, -1, EVERYTHING)
        plain["topics"] = [topic.name for topic in outbox.topics]
        plain["messages"] = []
        for i in range(len(messages)):
            topic, data = messages[i]
            if i == 0 and outbox.offset:
                plain["writes"].append([len(blobs), None, True])
                blobs.append(data[outbox.offset :])
                continue
            plain["messages"].append([topic, len(blobs)])
            blobs.append(data)

    # -- making them -----------------------------------------------------------------------------------

    def fill(self, told: list[dict[str, Any]], blobs: list[bytes]) -> None:
        """Give connections that were just made what was described.

        Raises:
            KeyError, TypeError, ValueError, IndexError: it makes no sense; the unit is to be released.
        """
        for conn, plain in zip(self.conns, told, strict=True):
            self._fill_conn(conn, plain)
            for each in plain.get("writes", ()):
                self._fill_write(conn, each, blobs)
            if plain.get("messages"):
                self.waiting[conn] = [(str(topic), blobs[number]) for topic, number in plain["messages"]]
        for conn, plain in zip(self.conns, told, strict=True):
            if plain.get("relay") is not None:
                self._fill_relay(conn, plain["relay"], blobs)
        self.is_touched = False

    def silence(self) -> None:
        """Let nobody be told of what was filled in: it made no sense as a whole."""
        for conn in self.conns:
            for head in (conn.read_head, conn.write_head):
                operation = head
                while operation is not None:
                    operation.silent = True
                    operation = operation.next

    def _fill_conn(self, conn: Conn, plain: dict[str, Any]) -> None:
        now_s = self.operations.poller.now()
        conn.opened_s = float(plain["opened_s"])
        conn.active_s = float(plain["active_s"])
        conn.stall_s = plain.get("stalled_s", 0.0) - now_s
        conn.blocked_s = now_s
        conn.bytes_received = index(plain.get("received", 0))
        conn.bytes_sent = index(plain.get("sent", 0))
        conn.fault = index(plain.get("fault", 0))
        conn.at_eof = bool(plain.get("at_eof"))
        conn.unanswered = bool(plain.get("unanswered"))
        conn.hung = TOLD if plain.get("hangup_told") else UNSEEN

    def _fill_write(self, conn: Conn, each: Any, blobs: list[bytes]) -> None:
        operations = self.operations
        if each == "shutdown":
            operations._push_write(conn, operations._new_operation(SHUTDOWN, conn, None, inf))
            return
        number, deadline_s, silent = each
        data = blobs[number]
        if not data:
            raise ValueError("a write of no bytes")
        operation = operations._new_operation(WRITE, conn, None, inf if deadline_s is None else deadline_s)
        operation.silent = silent
        operation.buffer = operation.pinned = data
        operation.length = len(data)
        operations.counters[WRITE * OUTCOME_COUNT] += 1
        operations._push_write(conn, operation)

    def _fill_relay(self, conn: Conn, plain: dict[str, Any], blobs: list[bytes]) -> None:
        operations = self.operations
        sink = self.conns[plain["to"]]
        if sink is conn or sink.relay_source is not None:
            raise ValueError("a relay to a connection that has one")
        deadline_s = plain["deadline_s"]
        flow = Flow(sink, plain["limit"])
        held = b"" if plain["held"] is None else blobs[plain["held"]]
        flow.restore(held, plain["ended"], plain["bulk"])
        operation = operations._new_operation(RELAY, conn, None, inf if deadline_s is None else deadline_s)
        operation.size = plain["size"]
        operation.pinned = flow
        sink.relay_source = conn
        operations.counters[RELAY * OUTCOME_COUNT] += 1
        operations._push_read(conn, operation)
        if held:
            flow.paused_s = operations.poller.now()
            sink.pending_write_bytes += len(held)
            operations.counters[sink.traffic + BUFFERED] += len(held)
            operations.counters[sink.traffic + PAUSES] += 1

    def _let_have(self, conn: Conn) -> None:
        """Let a connection have the messages that waited, before those that it has got since it joined a group."""
        messages = self.waiting.pop(conn, None)
        if messages is None:
            return
        outbox = conn.outbox
        if outbox is None:  # nobody's group has it: they are bytes like others
            for _, data in messages:
                self.operations._write_leftover(conn, data)
            return
        group: Group = outbox.group
        since = outbox.parcels()
        conn.pending_write_bytes -= outbox.clear(UNCOUNTED)
        parcels = []
        for topic, data in messages:
            key = (id(data), topic)
            parcel = self.parcels.get(key)
            if parcel is None:
                parcel = self.parcels[key] = Parcel(data, group.number_of(topic), 0)
            parcels.append(parcel)
        fan = Fan()
        fan.reset()
        fan.add(outbox, conn.fd, NOTHING, -1)
        fan.deal(parcels + since, self.operations.poller.now())
        conn.pending_write_bytes += outbox.waiting_bytes - outbox.waiting_before
        if outbox.count and not outbox.is_behind:
            outbox.is_behind = True
            group.behind.add(conn)


def find_unit(conns: list[Conn]) -> list[Conn]:
    """Return connections with all that are tied to them by relays.

    Raises:
        NotQuiet: one of them is in the middle of something that cannot be carried.
    """
    found: list[Conn] = []
    seen: set[Conn] = set()
    to_see = conns[::-1]
    while to_see:
        conn = to_see.pop()
        if conn in seen:
            continue
        seen.add(conn)
        found.append(conn)
        why = lack_of_quiet(conn)
        if why is not None:
            raise NotQuiet(f"{conn!r} {why}")
        operation = conn.read_head
        if operation is not None and operation.kind == RELAY:
            flow = operation.pinned
            to_see.append(flow.sink)
        if conn.relay_source is not None:
            to_see.append(conn.relay_source)
    return found


def lack_of_quiet(conn: Conn) -> str | None:
    """Return what a connection is in the middle of; None: nothing that cannot be carried."""
    if conn.closed or conn.closing:
        return "is closing"
    if conn.unit is not None:
        return "is detached already"
    if conn.failure is not None:
        return "has failed"
    if conn.secure is not None:
        return "speaks TLS, and its keys are this process's"
    operation = conn.write_head
    if operation is not None and operation.kind == CONNECT:
        return "is being connected"
    operation = conn.read_head
    is_relay = operation is not None and operation.kind == RELAY
    if is_relay and operation is not None and operation.next is not None:
        return "has reads behind its relay"
    while operation is not None:
        if operation.kind == READ and operation.size > 0:
            return "has a part of what it reads"
        if operation.kind > POST or (operation.kind == RELAY and not is_relay):
            return "has a relay behind its reads"
        operation = operation.next
    return None
