"""Test a handler without sockets: a script of what happens, and what the handler must then do.

    def test_reads_again_only_after_the_write_completes() -> None:
        assert_script(
            Echo(),
            (Opened(), [Read()]),
            (Arrived(b"ping"), [Write(b"ping")]),
            (Sent(), [Read()]),
            (PeerDone(), [Close()]),
        )

Each step is one event on one connection, and the list of everything the handler asked of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from gaiod.core.connection import RELAY_LIMIT, Conn
from gaiod.core.errors import ConnClosed, EmptyBuffer
from gaiod.core.operations import OpResult, OpType
from gaiod.runtime.handler import Handler, SocketOptions
from gaiod.runtime.servers import HandlerCounts
from gaiod.runtime.stats import CELL, HANDLER_CELLS, SERVER_CELLS, Layout

# -- what happens ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The listener begins to serve."""


@dataclass(frozen=True)
class Opened:
    """A client connected."""


@dataclass(frozen=True)
class Arrived:
    """A read completed with these bytes."""

    data: bytes


@dataclass(frozen=True)
class Sent:
    """The oldest write completed."""


@dataclass(frozen=True)
class PeerDone:
    """A read found the end of the stream."""


@dataclass(frozen=True)
class Closed:
    """The connection closed."""

    reason: str = "handler"


@dataclass(frozen=True)
class Ticked:
    """Time for `on_tick`."""


@dataclass(frozen=True)
class Timed:
    """The time of a `timer()` has come."""

    data: Any


@dataclass(frozen=True)
class Posted:
    """What another thread gave to `post()` has arrived."""

    data: Any


@dataclass(frozen=True)
class Connected:
    """The connection, opened by the handler itself, is established; or failed."""

    error: Exception | None = None


@dataclass(frozen=True)
class Relayed:
    """A relay from the connection ended: its stream did, or it failed."""

    error: Exception | None = None


@dataclass(frozen=True)
class Message:
    """A source published this, as `encode_message` has made it."""

    topic: str
    data: bytes


Event = Started | Opened | Arrived | Sent | PeerDone | Closed | Ticked | Timed | Posted | Connected | Relayed | Message

# -- what the handler does ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """It asked for bytes; with `size` if it gave a buffer of its own."""

    size: int | None = None
    full: bool = False


@dataclass(frozen=True)
class Write:
    """It wrote."""

    data: bytes


@dataclass(frozen=True)
class Close:
    """It closed, once everything written is sent."""


@dataclass(frozen=True)
class Abort:
    """It closed at once."""


@dataclass(frozen=True)
class Reset:
    """It closed at once, and told the peer that it is an error."""


@dataclass(frozen=True)
class ShutdownWrite:
    """It sent its FIN."""


@dataclass(frozen=True)
class Cancel:
    """It cancelled pending operations."""

    op_type: OpType | None = None


@dataclass(frozen=True)
class Connect:
    """It opened a connection of its own."""

    address: Any
    options: SocketOptions = ()


@dataclass(frozen=True)
class Timer:
    """It asked to be told after some seconds."""

    delay_s: float
    data: Any


@dataclass(frozen=True)
class Post:
    """It gave something to the worker's thread."""

    data: Any


@dataclass(frozen=True)
class RelayTo:
    """It began to relay the connection to another."""

    sink: Any


Action = Read | Write | Close | Abort | Reset | ShutdownWrite | Cancel | Connect | RelayTo | Timer | Post


@dataclass
class ScriptedConn:
    """Stands for a `Conn`: it writes down what is asked of it."""

    actions: list[Action] = field(default_factory=list)
    serial: int = 1
    context: Any = None
    data: Any = None
    close_reason: str | None = None
    closed: bool = False
    at_eof: bool = False
    pending_write_bytes: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    opened_s: float = 0.0
    active_s: float = 0.0
    proxy_header: Any = None
    local_address: Any = ("127.0.0.1", 7000)
    peer_address: Any = ("127.0.0.1", 40000)
    writes: list[bytes] = field(default_factory=list)
    """Written, and not yet Sent."""
    counts: dict[str, int] = field(default_factory=dict)
    """At the end of a script: what the handler has counted with `count()`, where it is not 0."""
    servers: dict[str, dict[str, int]] = field(default_factory=dict)
    """At the end of a script: what it has counted for each server, as `gaiod.runtime.stats.SERVER_CELLS` calls it."""

    def fileno(self) -> int:
        """No descriptor: there is no socket."""
        return -1

    def _check(self, buf: Any = b"some") -> None:
        """Refuse what a connection refuses."""
        if self.closed:
            raise ConnClosed(f"connection {self.serial} is closed")
        if len(buf) == 0:
            raise EmptyBuffer("a buffer must not be empty")

    def read(self, buf: Any = None, *, context: object = None, deadline: float | None = None) -> "ScriptedConn":
        """As `Conn.read`."""
        self._check(b"swap" if buf is None else buf)
        self.actions.append(Read(None if buf is None else len(buf)))
        return self

    def read_full(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "ScriptedConn":
        """As `Conn.read_full`."""
        self._check(buf)
        self.actions.append(Read(len(buf), full=True))
        return self

    def write(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "ScriptedConn":
        """As `Conn.write`."""
        data = bytes(buf)
        self._check(data)
        self.actions.append(Write(data))
        self.writes.append(data)
        self.pending_write_bytes += len(data)
        return self

    def relay_to(
        self, sink: Any, *, limit: int = RELAY_LIMIT, context: object = None, deadline: float | None = None
    ) -> "ScriptedConn":
        """As `Conn.relay_to`."""
        self._check()
        self.actions.append(RelayTo(sink))
        return self

    def shutdown_write(self) -> None:
        """As `Conn.shutdown_write`."""
        self.actions.append(ShutdownWrite())

    def cancel(self, op_type: OpType | None = None) -> None:
        """As `Conn.cancel`."""
        self.actions.append(Cancel(op_type))

    def close(self) -> None:
        """As `Conn.close`."""
        if not self.closed:
            self.actions.append(Close())
        self.closed = True

    def abort(self) -> None:
        """As `Conn.abort`."""
        if not self.closed:
            self.actions.append(Abort())
        self.closed = True

    def reset(self) -> None:
        """As `Conn.reset`."""
        if not self.closed:
            self.actions.append(Reset())
        self.closed = True


class _Script:
    """Serves a handler as a listener does, and writes down what it asks for."""

    def __init__(self, handler: Handler, conn: ScriptedConn) -> None:
        self.name = "script"
        self._conn = conn
        self._labels = handler.servers_of(handler.options)
        self._layout = Layout((len(self._labels),))
        self._cells = [0] * self._layout.size
        self.counts = HandlerCounts(self._cells, self._layout, 0, self._labels)

    def connect(self, address: Any, data: Any, deadline: float | None, options: SocketOptions) -> Conn:
        """As `Handler.connect`: there is one connection in a script, and this is it."""
        self._conn.actions.append(Connect(address, tuple(options)))
        self._conn.data = data
        return cast(Conn, self._conn)

    def timer(self, delay_s: float, data: Any) -> None:
        """As `Handler.timer`."""
        self._conn.actions.append(Timer(delay_s, data))

    def post(self, data: Any) -> None:
        """As `Handler.post`."""
        self._conn.actions.append(Post(data))

    def tell_counts(self) -> None:
        """Put what was counted into the connection."""
        self._conn.counts = self._some(HANDLER_CELLS, self._layout.row(0) + CELL[HANDLER_CELLS[0]])
        for number, label in enumerate(self._labels):
            self._conn.servers[label] = self._some(SERVER_CELLS, self._layout.server(0, number))

    def _some(self, names: Sequence[str], first: int) -> dict[str, int]:
        return {name: count for name, count in zip(names, self._cells[first:], strict=False) if count}


Step = tuple[Event, Sequence[Action]]


def assert_script(handler: Handler, *steps: Step) -> ScriptedConn:
    """Play events to a handler, and check after each what it did, in order and completely.

    Returns:
        The connection, to look at its `data`, say, or at what was counted.

    Raises:
        AssertionError: it did something else; the text says at which step.
    """
    scripted = ScriptedConn()
    conn = cast(Conn, scripted)
    script = _Script(handler, scripted)
    handler._host = script
    for number, (event, expected) in enumerate(steps, 1):
        scripted.actions.clear()
        _play(handler, conn, scripted, event)
        done = list(scripted.actions)
        assert done == list(expected), f"step {number}, {event}: the handler did {done}, not {list(expected)}"
    script.tell_counts()
    return scripted


def _play(handler: Handler, conn: Conn, scripted: ScriptedConn, event: Event) -> None:
    match event:
        case Started():
            handler.on_start()
        case Opened():
            handler.on_open(conn)
        case Arrived(data):
            handler.on_read(conn, OpResult(OpType.READ, conn, buffer=memoryview(data), is_swap_buffer=True))
        case Sent():
            assert scripted.writes, "Sent: the handler has nothing under way"
            data = scripted.writes.pop(0)
            scripted.pending_write_bytes -= len(data)
            handler.on_write(conn, OpResult(OpType.WRITE, conn, buffer=data))
        case PeerDone():
            handler.on_eof(conn)
        case Closed(reason):
            scripted.closed = True
            handler.on_close(conn, reason)
        case Ticked():
            handler.on_tick()
        case Timed(data):
            handler.on_timer(data)
        case Posted(data):
            handler.on_post(data)
        case Connected(error):
            handler.on_connect(conn, OpResult(OpType.CONNECT, conn, error=error))
        case Relayed(error):
            scripted.at_eof = scripted.at_eof or error is None
            handler.on_relay(conn, OpResult(OpType.RELAY, conn, error=error))
        case Message(topic, data):
            handler.on_message(topic, data)
