"""What stands for connections, and groups of them, in a script."""

from dataclasses import dataclass, field
from typing import Any

from gaiod.core.connection import RELAY_LIMIT
from gaiod.core.errors import ConnClosed, EmptyBuffer, UsageError
from gaiod.core.operations import OpType
from gaiod.testing.actions import (
    Abort,
    Action,
    Cancel,
    Close,
    Join,
    Leave,
    Publish,
    Read,
    RelayTo,
    Reset,
    ShutdownWrite,
    StartTls,
    Write,
)


@dataclass(eq=False)
class ScriptedConn:
    """Stands for a `Conn`: it writes down what is asked of it."""

    actions: list[Action] = field(default_factory=list)
    serial: int = 1
    context: Any = None
    data: Any = None
    close_reason: str | None = None
    closed: bool = False
    at_eof: bool = False
    unanswered: bool = False
    pending_write_bytes: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    opened_s: float = 0.0
    active_s: float = 0.0
    busy: bool = False
    proxy_header: Any = None
    tls: Any = None
    local_address: Any = ("127.0.0.1", 7000)
    peer_address: Any = ("127.0.0.1", 40000)
    writes: list[bytes] = field(default_factory=list)
    """Written, and not yet Sent."""
    counts: dict[str, int] = field(default_factory=dict)
    """At the end of a script: what the handler has counted with `count()`, where it is not 0."""
    servers: dict[str, dict[str, int]] = field(default_factory=dict)
    """At the end of a script: what it has counted for each server, as `gaiod.stats.cells.SERVER_CELLS` calls it."""

    def fileno(self) -> int:
        """No descriptor: there is no socket."""
        return -1

    def stalled_s(self, now_s: float) -> float:
        """As `Conn.stalled_s`: here nobody makes anybody wait."""
        return 0.0

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

    def start_tls(
        self, tls: Any = None, *, server: bool = False, unread: bytes | bytearray | memoryview | None = None,
        context: object = None, deadline: float | None = None,
    ) -> "ScriptedConn":  # fmt: skip
        """As `Conn.start_tls`; where something is unread, the connection closes."""
        self._check()
        if server == (tls is not None) or unread is None:
            raise UsageError("write start_tls(server=True, unread=what was read beyond the request), or a ClientTls")
        if self.pending_write_bytes:
            raise UsageError("the connection has a write pending; call start_tls in the on_write that completes it")
        self.actions.append(StartTls(bytes(unread), tls))
        self.closed = len(unread) > 0
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


class ScriptedGroup:
    """Stands for a `Group`: it writes down what is asked of it. What is published counts as sent at once."""

    def __init__(self, actions: list[Action], limit: int) -> None:
        self._actions = actions
        self._limit = limit
        self._members: dict[str, set[ScriptedConn]] = {}
        self.waiting_bytes = self.held_bytes = self.pending_bytes = 0

    def add(self, conn: ScriptedConn, topic: str = "") -> None:
        """As `Group.add`."""
        if conn.closed:
            raise ConnClosed(f"connection {conn.serial} is closed")
        members = self._members.setdefault(topic, set())
        if conn not in members:
            members.add(conn)
            self._actions.append(Join(topic))

    def remove(self, conn: ScriptedConn, topic: str | None = None) -> None:
        """As `Group.remove`."""
        for members in self._members.values() if topic is None else [self._members.get(topic, set())]:
            members.discard(conn)
        self._actions.append(Leave(topic))

    def publish(self, data: Any, topic: str = "") -> int:
        """As `Group.publish`."""
        message = bytes(data)
        if not message:
            raise EmptyBuffer("cannot publish an empty message")
        if len(message) > self._limit:
            raise ValueError(f"a message of {len(message)} bytes is longer than the queues, of {self._limit}")
        self._actions.append(Publish(message, topic))
        return self.members(topic)

    def members(self, topic: str = "") -> int:
        """As `Group.members`."""
        return sum(not conn.closed for conn in self._members.get(topic, ()))

    def topics_of(self, conn: ScriptedConn) -> list[str]:
        """As `Group.topics_of`."""
        return [topic for topic, members in self._members.items() if conn in members]

    @property
    def topics(self) -> list[str]:
        """As `Group.topics`."""
        return [topic for topic in self._members if self.members(topic)]

    def __len__(self) -> int:
        return len({conn for members in self._members.values() for conn in members if not conn.closed})
