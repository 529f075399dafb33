"""Plays a script to a handler."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.group import Group
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import ClientTls
from gaiod.handler.arrival import Arrival
from gaiod.handler.coroutines.waits import Wait
from gaiod.handler.handler import Handler, SocketOptions
from gaiod.handler.server_stats import HandlerCounts
from gaiod.handler.shared_values import SharedValues
from gaiod.handler.termination import termination_of
from gaiod.stats.cells import CELL, HANDLER_CELLS, SERVER_CELLS, Layout
from gaiod.testing.actions import Action, Connect, DelayReady, MakeGroup, PauseAccepting, Post, Ready, Share, Timer
from gaiod.testing.conn import ScriptedConn, ScriptedGroup
from gaiod.testing.events import (
    Administered,
    Arrived,
    Arrives,
    Cancelled,
    Closed,
    Connected,
    Elapsed,
    Event,
    Expired,
    HungUp,
    Leaves,
    Led,
    Message,
    Opened,
    PeerDone,
    Posted,
    Relayed,
    Secured,
    Sent,
    Shared,
    Started,
    Ticked,
    Timed,
)


class _Script:
    """Serves a handler as a listener does, and writes down what it asks for."""

    def __init__(self, handler: Handler, conn: ScriptedConn, offers_tls: bool) -> None:
        self.name = "script"
        self.offers_tls = offers_tls
        self._conn = conn
        self._labels = handler.servers_of(handler.options)
        self._layout = Layout((len(self._labels),))
        self._cells = [0] * self._layout.size
        self.counts = HandlerCounts(self._cells, self._layout, 0, self._labels)
        self.is_started = False
        self.is_starting = False
        self.is_leader = False
        self._later: list[_LaterCall] = []
        self.values = SharedValues()

    def connect(
        self, address: Any, data: Any, deadline: float | None, options: SocketOptions, *,
        tls: ClientTls | None, preface: bytes,
    ) -> Conn:  # fmt: skip
        """As `Handler.connect`: there is one connection in a script, and this is it."""
        self._conn.actions.append(Connect(address, tuple(options), tls, preface))
        self._conn.data = data
        return cast(Conn, self._conn)

    def group(self, limit: int, policy: str, grace_s: float, memory_limit: int) -> Group:
        """As `Handler.group`."""
        self._conn.actions.append(MakeGroup(limit, policy))
        return cast(Group, ScriptedGroup(self._conn.actions, limit))

    def pause_accepting(self, error: Exception) -> None:
        """As `Handler.pause_accepting`."""
        self._conn.actions.append(PauseAccepting())

    def delay_ready(self) -> None:
        """As `Handler.delay_ready`."""
        self._conn.actions.append(DelayReady())

    def ready(self) -> None:
        """As `Handler.ready`."""
        self._conn.actions.append(Ready())

    def timer(self, delay_s: float, data: Any) -> None:
        """As `Handler.timer`."""
        self._conn.actions.append(Timer(delay_s, data))

    def post(self, data: Any) -> None:
        """As `Handler.post`."""
        self._conn.actions.append(Post(data))

    def call_later(self, delay_s: float, action: Callable[[], None]) -> "_LaterCall":
        """As `Host.call_later`: `Elapsed` lets the time pass."""
        call = _LaterCall(delay_s, action)
        self._later.append(call)
        return call

    def call_soon(self, action: Callable[[], None]) -> None:
        """As `Host.call_soon`, at once."""
        action()

    def run(self, function: Callable[[], Any], threads_max: int) -> Any:
        """As `Host.run`, but at once, and in no other thread."""
        wait = Wait()
        try:
            wait.finish(function())
        except Exception as error:
            wait.fail(error)
        return wait

    def failed(self, name: str, conn: Conn | None) -> None:
        """Let the test have the exception that is being handled."""
        raise  # noqa: PLE0704 - called where it is being handled

    def elapse(self, seconds: float) -> None:
        """Let time pass, and call what was to be called by then, in its order."""
        for call in self._later:
            call.left_s -= seconds
        while due := [call for call in self._later if call.left_s <= 0]:
            first = min(due, key=lambda call: call.left_s)
            self._later.remove(first)
            first.ring()

    @property
    def shared(self) -> Mapping[str, Any]:
        """As `Handler.shared`."""
        return self.values.values

    def share(self, key: str, value: Any) -> None:
        """As `Handler.share`."""
        if self.values.put(key, value):
            self._conn.actions.append(Share(key, self.shared.get(key)))

    def tell_counts(self) -> None:
        """Put what was counted into the connection."""
        self._conn.counts = self._some(HANDLER_CELLS, self._layout.row(0) + CELL[HANDLER_CELLS[0]])
        for number, label in enumerate(self._labels):
            self._conn.servers[label] = self._some(SERVER_CELLS, self._layout.server(0, number))

    def _some(self, names: Sequence[str], first: int) -> dict[str, int]:
        return {name: count for name, count in zip(names, self._cells[first:], strict=False) if count}


class _LaterCall:
    """Something that a script calls when its time has come."""

    def __init__(self, left_s: float, action: Callable[[], None]) -> None:
        self.left_s = left_s
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not call it."""
        self._action = None

    def ring(self) -> None:
        """Call it, if it was not cancelled."""
        if self._action is not None:
            self._action()


Step = tuple[Event, Sequence[Action]]


def assert_script(handler: Handler, *steps: Step, offers_tls: bool = True) -> ScriptedConn:
    """Play events to a handler, and check after each what it did, in order and completely.

    Args:
        handler: it.
        steps: the events, and for each what the handler does.
        offers_tls: what `Handler.offers_tls` is.

    Returns:
        The connection, to look at its `data`, say, or at what was counted.

    Raises:
        AssertionError: it did something else; the text says at which step.
    """
    scripted = ScriptedConn()
    conn = cast(Conn, scripted)
    script = _Script(handler, scripted, offers_tls)
    handler._host = script
    for number, (event, expected) in enumerate(steps, 1):
        scripted.actions.clear()
        if isinstance(event, Elapsed):
            script.elapse(event.seconds)
        elif isinstance(event, Started | Shared | Led | Administered):
            _play_worker(handler, script, event)
        else:
            _play(handler, conn, scripted, event)
        done = list(scripted.actions)
        assert done == list(expected), f"step {number}, {event}: the handler did {done}, not {list(expected)}"
    script.tell_counts()
    return scripted


def _play_worker(handler: Handler, script: _Script, event: Started | Shared | Led | Administered) -> None:
    match event:
        case Started():
            script.is_started = script.is_starting = True
            handler._start()
            script.is_starting = False
        case Shared(key, value):
            if script.values.put(key, value) and script.is_started:
                handler.on_share(key, script.shared.get(key))
        case Administered(server, state):
            handler.on_admin_state(server, state)
        case Led(is_leader):
            if is_leader != script.is_leader:
                script.is_leader = is_leader
                handler.on_leader(is_leader)


def _play(handler: Handler, conn: Conn, scripted: ScriptedConn, event: Event) -> None:
    match event:
        case Opened():
            handler.on_open(conn)
        case Arrives():
            _arrive(handler, conn, scripted, event)
        case Leaves(expected):
            _leave(handler, conn, event, expected)
        case Arrived(data):
            handler.on_read(conn, OpResult(OpType.READ, conn, buffer=memoryview(data), is_swap_buffer=True))
        case Sent():
            handler.on_write(conn, OpResult(OpType.WRITE, conn, buffer=_oldest_write(scripted, event)))
        case PeerDone():
            handler.on_eof(conn)
        case Expired(operation):
            _end_early(scripted, event, operation)
            handler.on_error(conn, operation, DeadlineExceeded("the operation's deadline passed"))
        case Cancelled(operation):
            _end_early(scripted, event, operation)
            handler.on_error(conn, operation, OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))
        case HungUp(unread, error):
            handler.on_hangup(conn, OpResult(OpType.HANGUP, conn, size=unread, error=error))
        case Closed(reason):
            scripted.closed = True
            handler.on_close(conn, termination_of(reason).in_phase(handler.phase_of(conn)))
        case Ticked():
            handler.on_tick()
        case Timed(data):
            handler.on_timer(data)
        case Posted(data):
            handler.on_post(data)
        case Connected(error, tls):
            scripted.tls = tls or scripted.tls
            handler.on_connect(conn, OpResult(OpType.CONNECT, conn, error=error))
        case Secured(tls):
            scripted.tls = tls
            handler.on_tls(conn)
        case Relayed(error):
            scripted.at_eof = scripted.at_eof or error is None
            handler.on_relay(conn, OpResult(OpType.RELAY, conn, error=error))
        case Message(topic, data):
            handler.on_message(topic, data)


def _arrive(handler: Handler, conn: Conn, scripted: ScriptedConn, event: Arrives) -> None:
    versions = {handler.state_version, *handler.state_accepts} - {None}
    assert event.version in versions, (
        f"{event}: the handler does not take this version; add it to state_accepts, if on_arrive understands it"
    )
    if event.unsent:
        scripted.writes.append(event.unsent)
        scripted.pending_write_bytes += len(event.unsent)
    handler.on_arrive(conn, Arrival(event.state, event.version, cast(Conn | None, event.partner)))


def _leave(handler: Handler, conn: Conn, event: Leaves, expected: bytes | None) -> None:
    assert handler.state_version is not None, f"{event}: the handler has no state_version, so nothing leaves it"
    state = None if conn.busy else handler.on_leave(conn)
    assert state is None or isinstance(state, bytes), f"{event}: on_leave must return bytes or None, not {state!r}"
    assert state == expected, f"{event}: on_leave returned {state!r}"


def _oldest_write(scripted: ScriptedConn, event: Event) -> bytes:
    """Take what is no longer under way."""
    assert scripted.writes, f"{event}: the handler has nothing under way"
    data = scripted.writes.pop(0)
    scripted.pending_write_bytes -= len(data)
    return data


def _end_early(scripted: ScriptedConn, event: Event, operation: OpType) -> None:
    assert operation in (OpType.READ, OpType.WRITE), f"{event}: write Relayed(error) or Connected(error)"
    if operation is OpType.WRITE:
        _oldest_write(scripted, event)
