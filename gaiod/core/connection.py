"""Connections: the state of one stream socket, and its operations as methods."""

import time
from itertools import count
from math import inf
from typing import Any

from gaiod.core import counters
from gaiod.core.errors import UsageError
from gaiod.core.operations import CANCEL, FINISH, FREE, RESET, SHUTDOWN, OpType
from gaiod.core.results import OpResult
from gaiod.core.sockets import address_of
from gaiod.core.tls import ClientTls

UNASSIGNED = counters.index("unassigned_received_bytes")

RELAY_LIMIT = 262_144
"""Most bytes that one direction of a relay holds: what it moves in one turn. More would be a queue behind a queue."""

_serials = count(1)


class Submitter:
    """What a connection asks of its watcher."""

    def _submit_read(self, target: Any, buf: Any, context: Any, deadline: Any, full: bool) -> "Conn":
        raise NotImplementedError

    def _submit_write(self, target: Any, buf: Any, context: Any, deadline: Any) -> "Conn":
        raise NotImplementedError

    def _submit_handshake(self, target: Any, tls: Any, context: Any, deadline: Any) -> "Conn":
        raise NotImplementedError

    def _submit_relay(self, source: Any, sink: Any, limit: int, context: Any, deadline: Any) -> "Conn":
        raise NotImplementedError

    def _join(self, to: Any, conn: "Conn", topic: str) -> None:
        raise NotImplementedError

    def _part(self, of: Any, conn: "Conn", topic: str | None) -> None:
        raise NotImplementedError

    def _publish(self, to: Any, topic: str, data: Any) -> int:
        raise NotImplementedError

    def _disconnect_stalled(self, of: Any, grace_s: float) -> int:
        raise NotImplementedError

    def _request(self, kind: int, target: Any, argument: Any) -> None:
        raise NotImplementedError

    def _forget(self, conn: "Conn") -> None:
        raise NotImplementedError


class Conn:
    """A connection of a watcher: a stream socket of which the watcher owns the descriptor.

    Its methods are the watcher's operations. It stays open while it is referenced or has pending
    operations; dropped without `close()` or `abort()`, its descriptor is closed and `get_gc()`
    counts it.

    Made by a watcher only.

    Attributes:
        serial: unique in this process, never used again (a descriptor is).
        context: the context of operations that are given none. Set by whoever made it.
        data: free for its owner; the watcher never looks at it.
        close_reason: free for its owner, to say why it closes; "forgotten" if it was dropped.
        bytes_received, bytes_sent: moved so far.
        opened_s, active_s: `time.monotonic()` of its making, and of the pass that last moved bytes.
        proxy_header: what a load balancer announced it with (`gaiod.ProxyHeader`); None if none did.
        at_eof: a read found the end of the stream.
        unanswered: of two that are relayed to each other, its peer has spoken last.
        traffic: index of the two counters that its received and sent bytes are added to.
    """

    __slots__ = (
        "__weakref__",
        "active_s",
        "at_eof",
        "blocked_s",
        "broken",
        "bytes_received",
        "bytes_sent",
        "close_reason",
        "closed",
        "closing",
        "context",
        "data",
        "failure",
        "fault",
        "fd",
        "has_copies",
        "hung",
        "is_listener",
        "opened_s",
        "outbox",
        "pending_write_bytes",
        "proxy_header",
        "read_count",
        "read_head",
        "read_tail",
        "read_timer",
        "read_timer_s",
        "readable",
        "reading",
        "relay_source",
        "secure",
        "serial",
        "stall_s",
        "traffic",
        "unanswered",
        "unit",
        "watcher",
        "working",
        "writable",
        "write_count",
        "write_head",
        "write_tail",
        "write_timer",
        "write_timer_s",
        "writing",
    )  # fmt: skip

    def __init__(self, watcher: Submitter, fd: int, context: object, now_s: float) -> None:
        self.watcher = watcher
        self.fd = fd
        self.serial = next(_serials)
        self.context = context
        self.data: Any = None
        self.close_reason: str | None = None
        self.proxy_header: Any = None
        self.at_eof = False
        self.unanswered = False
        self.failure: Exception | None = None  # why its connect failed: everything else fails the same way
        self.readable = False  # the kernel may have bytes: an edge was seen, and no short read since
        self.writable = True
        self.broken = False  # a hang-up or an error was seen: a short read tells nothing any more
        self.has_copies = False  # another process may have its descriptor: closing it here ends nothing
        self.hung = 0  # whether the peer was seen to be gone, and somebody was told: see `Loop._report_hangups`
        self.fault = 0  # the errno that the kernel told of it, to one call only: the end that others see was none
        self.closing = False  # close() was called: it ends when the queued writes are sent
        self.closed = False
        self.is_listener = False
        self.reading = False  # in watcher.reads: it will be received from
        self.writing = False  # in watcher.writes
        self.read_head: OpResult | None = None  # pending operations, oldest first, linked by `next`
        self.read_tail: OpResult | None = None
        self.read_count = 0
        self.relay_source: Conn | None = None  # the connection whose bytes are relayed to this one
        self.secure: Any = None  # its TLS `Session`; None: what it moves is what its owner reads and writes
        self.unit: Any = None  # the `Unit` that it was detached with; None: its loop moves its bytes
        self.outbox: Any = None  # what waits for it as the member of a group; None: it is in none
        self.write_head: OpResult | None = None
        self.write_tail: OpResult | None = None
        self.write_count = 0
        self.pending_write_bytes = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.opened_s = now_s
        self.active_s = now_s
        self.stall_s = 0.0  # how long it was not writable; while it is not, less the time when that began
        self.blocked_s = 0.0  # when it stopped being writable last
        self.traffic = UNASSIGNED
        self.working = False  # `busy`
        self.read_timer = 0  # the number of this direction's entry in watcher.timers; 0: none
        self.read_timer_s = inf
        self.write_timer = 0
        self.write_timer_s = inf

    @property
    def busy(self) -> bool:
        """Whether its owner is at work for it, though no byte moves: then it is not idle.

        To be set by its owner. Its idle time begins anew when the work is done.
        """
        return self.working

    @busy.setter
    def busy(self, is_busy: bool) -> None:
        if self.working and not is_busy:
            self.active_s = time.monotonic()
        self.working = is_busy

    def read(self, buf: Any = None, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.read`."""
        return self.watcher._submit_read(self, buf, context, deadline, False)

    def read_full(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.read_full`."""
        return self.watcher._submit_read(self, buf, context, deadline, True)

    def write(self, buf: Any, *, context: object = None, deadline: float | None = None) -> "Conn":
        """As `Watcher.write`."""
        return self.watcher._submit_write(self, buf, context, deadline)

    def relay_to(
        self, sink: "Conn", *, limit: int = RELAY_LIMIT, context: object = None, deadline: float | None = None
    ) -> "Conn":
        """As `Watcher.relay`, from this connection."""
        return self.watcher._submit_relay(self, sink, limit, context, deadline)

    def start_tls(
        self, tls: Any = None, *, server: bool = False, unread: bytes | bytearray | memoryview | None = None,
        context: object = None, deadline: float | None = None,
    ) -> "Conn":  # fmt: skip
        """Speak TLS from now on, in a handler whose protocol begins without (STARTTLS, PostgreSQL's SSLRequest).

        With a client, with `server=True`, on a listener with `tls: {start: handler}`: write the answer to its request,
        and call this in `on_write`. With a server, with a `gaiod.ClientTls`, when its answer has been read. Next is
        `on_tls`, or `on_close`: the handshake failed, or was not done in time. No other operation may be pending.

        What came together with the request, or the answer, was not encrypted, whoever has sent it. Who takes it for a
        part of what follows lets an attacker speak in the peer's name (CVE-2011-0411, CVE-2021-23222). So it has to be
        shown here, and if there is any, the connection is closed instead (`tls_error`, `plaintext`).

        Args:
            tls: who the server is, and what is shown to it. Outside of handlers: as for `Watcher.start_tls`.
            server: use the certificates of the connection's listener, and its deadline, `tls.handshake_timeout`.
            unread: what was read of the peer beyond its request or answer; b"": nothing was.
            context: outside of handlers, as for `Watcher.start_tls`.
            deadline: in `time.monotonic()` seconds; not with `server`.

        Raises:
            UsageError: as `Watcher.start_tls`; or the listener's TLS does not begin when its handler says so.
            ValueError: as `gaiod.prepare_tls`.
        """
        if not server and tls is None:
            raise UsageError("start_tls needs to know who this end is: server=True, or a ClientTls")
        if not server and not isinstance(tls, ClientTls):
            return self.watcher._submit_handshake(self, tls, context, deadline)
        if unread is None:
            raise UsageError("start_tls needs unread: what was read beyond the request, or the answer; b'' for nothing")
        if server and (tls is not None or context is not None or deadline is not None):
            raise UsageError("start_tls(server=True) has the tls, context and deadline of the listener; give no other")
        begin = getattr(self.context, "start_tls", None)
        if begin is None:
            raise UsageError(f"{self!r} is of no listener, which would have certificates; give it tls of open_tls")
        begin(self, bytes(unread), tls, deadline)
        return self

    def shutdown_write(self) -> None:
        """As `Watcher.shutdown_write`."""
        self.watcher._request(SHUTDOWN, self, None)

    def cancel(self, op_type: OpType | None = None) -> None:
        """As `Watcher.cancel`."""
        self.watcher._request(CANCEL, self, op_type)

    def close(self) -> None:
        """Close once the writes queued so far are with the kernel.

        Pending reads complete with ConnClosed now, and nothing more can be submitted. A peer that
        does not take its bytes keeps the connection open: `abort()` does not wait.
        """
        self.watcher._request(FINISH, self, None)

    def abort(self) -> None:
        """As `Watcher.free`."""
        self.watcher._request(FREE, self, None)

    def reset(self) -> None:
        """As `abort`, but tell the peer that it failed: it gets a RST, not the end of a stream."""
        self.watcher._request(RESET, self, None)

    def stalled_s(self, now_s: float) -> float:
        """Return for how many seconds so far the peer did not take what was written, at `time.monotonic()` `now_s`."""
        return self.stall_s if self.writable else max(0.0, self.stall_s + now_s)

    def rested_s(self, now_s: float) -> float:
        """Return for how many seconds so far a listener did not accept, because of `Watcher.pause` or for lack."""
        return self.stall_s if self.stall_s >= 0 else self.stall_s + now_s

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed. It is the watcher's: do not close it or read from it."""
        return self.fd

    def announce(self, header: Any) -> None:
        """Believe a `gaiod.ProxyHeader` that was read: what came before this is not counted any more."""
        self.proxy_header = header
        self.bytes_received = 0
        self.opened_s = self.active_s

    @property
    def tls(self) -> Any:
        """What was agreed with its peer (`gaiod.core.tls.TlsFacts`); None: no TLS, or no handshake was completed."""
        return None if self.secure is None or not self.secure.is_open else self.secure.facts()

    @property
    def local_address(self) -> Any:
        """The address of this end, as `socket.getsockname()` has it; None once closed. IPv4 is never shown as IPv6.

        With a `proxy_header` that says it: the address that the client connected to.
        """
        if self.closed:
            return None
        header = self.proxy_header
        if header is not None and header.destination is not None:
            return header.destination
        return address_of(self.fd, peer=False)

    @property
    def peer_address(self) -> Any:
        """The address of the other end, as `socket.getpeername()` has it; None once either end is gone.

        IPv4 is never shown as IPv6 (`::ffff:10.0.0.1`), as a socket for both families does.

        With a `proxy_header` that says it: the client's, and not that of the load balancer at the other end.
        """
        if self.closed:
            return None
        header = self.proxy_header
        if header is not None and header.source is not None:
            return header.source
        return address_of(self.fd, peer=True)

    def __repr__(self) -> str:
        return f"<Conn {self.serial} {'closed' if self.closed else f'fd {self.fd}'}>"

    def __del__(self) -> None:
        if not self.closed:
            self.watcher._forget(self)
