"""proxy: connect every client to one of several servers, and carry the bytes both ways."""

import random
import time
from collections.abc import Iterable
from typing import Any

from gaiod import Conn, Handler, OpResult, ProxyHeader, Termination

from .health import Checks
from .names import Answer, Names
from .options import ProxyOptions
from .pool import Pool
from .queue import Queue
from .servers import Endpoint, Server, hash_of
from .session import Session
from .sockets import SocketOption, socket_options

AGE_SHARE_MIN = 0.8
"""Of `max_age` that the shortest-lived connection gets: those that began together must not all end together."""

NO_SERVER = {
    cause: Termination("no_server", who, how, cause, phase)
    for cause, who, how, phase in (
        ("down", "server", "error", "queue"),
        ("unresolved", "server", "error", "queue"),
        ("full", "gaiod", "limit", "queue"),
        ("queue_timeout", "gaiod", "timeout", "queue"),
        ("no_resources", "gaiod", "limit", "connect"),
        ("connect_refused", "server", "error", "connect"),
        ("connect_timeout", "server", "timeout", "connect"),
        ("connect_unreachable", "server", "error", "connect"),
        ("connect_reset", "server", "reset", "connect"),
        ("connect_other", "server", "error", "connect"),
    )
}
"""What is said of a client for which there is no server, by the cause that the metric tells."""


class Proxy(Handler):
    """Sends each client to the server that `balance` says; a `Session` is what becomes of the two.

    What happens on a connection is for its `data` to deal with: a session's, or a health check's. Data is taken
    off a connection of which the outcome is known already.
    """

    Options = ProxyOptions
    pool: Pool
    """From `on_start` on."""

    def __init__(self, options: ProxyOptions) -> None:
        super().__init__(options)
        self.announces = options.send_proxy != "none"
        self._dice = random.Random()
        self._socket_options = socket_options(options.tcp)
        self.queue = Queue(self, options.queue)
        self._half_closed: dict[Session, float] = {}  # one direction ended, and when
        self._names: Names | None = None

    @classmethod
    def servers_of(cls, options: ProxyOptions) -> tuple[str, ...]:
        return tuple(entry.address for entry in options.entries)

    @classmethod
    def buffer_limit_of(cls, options: ProxyOptions) -> int:
        return options.buffer_limit

    # -- hooks -----------------------------------------------------------------------------------------

    def on_start(self) -> None:
        servers = [Server(entry, self.server(entry.address)) for entry in self.options.entries]
        self.pool = Pool(self.listener, self.options, servers, self._dice)
        for server in servers:
            self._check(server.endpoints)
        names = [server.address.host for server in servers if server.address.kind == "name"]
        if names:
            self._names = Names(names, self.options.resolve_interval, self.post)
            self._names.start()

    def on_open(self, conn: Conn) -> None:
        session = conn.data = Session(self, conn)
        conn.busy = True  # until it is relayed: to wait for a server is not to be idle
        self.find_server(session)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.connected(conn, result)

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.relayed(conn, result)

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        if isinstance(conn.data, Session):
            conn.data.hung_up(conn, result)
        else:
            super().on_hangup(conn, result)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data.read(conn, bytes(result.buffer))

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.wrote(conn)

    def on_close(self, conn: Conn, reason: str) -> None:
        data, conn.data = conn.data, None
        if data is not None:
            data.closed(conn, reason)

    def on_tick(self) -> None:
        now_s = time.monotonic()
        for session, since_s in list(self._half_closed.items()):
            session.look(now_s, since_s)
        self.pool.refresh_if_due(now_s)
        self.queue.serve()

    def on_timer(self, data: Any) -> None:
        data.ring()

    def on_post(self, data: Answer) -> None:
        now_s = time.monotonic()
        for server in self.pool.servers:
            if server.address.kind == "name" and server.address.host == data.name:
                self._check(self.pool.resolved(server, data, now_s))
        self.queue.serve()

    # -- what an operator asks ---------------------------------------------------------------------------

    def partner_of(self, conn: Conn) -> Conn | None:
        data = conn.data
        if not isinstance(data, Session):
            return None
        return data.server if conn is data.client else data.client

    def phase_of(self, conn: Conn) -> str:
        return conn.data.phase if isinstance(conn.data, Session) else super().phase_of(conn)

    def server_of(self, conn: Conn) -> str | None:
        return conn.data.server_label if isinstance(conn.data, Session) else None

    def notes_on(self, conn: Conn) -> Iterable[str]:
        return conn.data.notes(self._half_closed.get(conn.data)) if isinstance(conn.data, Session) else ()

    # -- finding a server ------------------------------------------------------------------------------

    def find_server(self, session: Session) -> None:
        """Connect a client to a server, let it wait for one, or let it go."""
        endpoint = None if self.queue else self.choose(session)
        if endpoint is not None:
            session.connect(endpoint)
        elif not (self.pool.is_waiting_worthwhile and self.queue.join(session)):
            self.refuse(session, self.pool.lack)

    def choose(self, session: Session) -> Endpoint | None:
        """Return who gets a client; None: nobody can take it now."""
        key = 0
        if self.options.balance == "source_hash" and session.client is not None:
            peer = session.client.peer_address
            key = hash_of(peer[0] if isinstance(peer, tuple) else "")
        return self.pool.choose(time.monotonic(), key, session.tried)

    def refuse(self, session: Session, cause: str) -> None:
        """Let a client go for which there is no server, for one of the causes of `NO_SERVER`."""
        self.count(f"upstream_unavailable_{cause}")
        session.close(NO_SERVER[cause])

    # -- what a session needs --------------------------------------------------------------------------

    def options_of(self, endpoint: Endpoint) -> tuple[SocketOption, ...]:
        """Return what to set on a socket before it connects there."""
        return () if isinstance(endpoint.target, str) else self._socket_options

    def draw_age(self) -> float:
        """Return for how many seconds a connection may go on."""
        return float(self.options.max_age) * self._dice.uniform(AGE_SHARE_MIN, 1.0)

    def header_for(self, client: Conn | None) -> bytes:
        """Return the PROXY header that announces a client; with None, a connection that is the proxy's own."""
        header = ProxyHeader(None, None) if client is None else ProxyHeader(client.peer_address, client.local_address)
        return header.encode_v1() if self.options.send_proxy == "v1" else header.encode_v2()

    def begun(self, session: Session, endpoint: Endpoint) -> None:
        """Remember who is connected where, if that will be asked for."""
        if self.options.on_down == "close":
            endpoint.sessions.add(session)

    def ended(self, session: Session, endpoint: Endpoint) -> None:
        """Take note that the connection to a server is closed."""
        endpoint.sessions.discard(session)
        self._half_closed.pop(session, None)
        self.give_back(endpoint)

    def give_back(self, endpoint: Endpoint) -> None:
        """Let somebody else have a connection's place."""
        if self.pool.give_back(endpoint):
            self.queue.serve()

    def watch(self, session: Session) -> None:
        """Look every second whether a session goes on of which one direction ended."""
        self._half_closed[session] = time.monotonic()

    # -- health ----------------------------------------------------------------------------------------

    def _check(self, endpoints: Iterable[Endpoint]) -> None:
        if self.options.check is not False:
            for endpoint in endpoints:
                Checks(self, endpoint, self.options.check, self._dice).start()

    def checked(self, endpoint: Endpoint, passed: bool, began_s: float) -> None:
        """Take note of one check of an endpoint, which began at `began_s`."""
        if self.pool.checked(endpoint, passed, began_s, time.monotonic()):
            self.queue.serve()

    def set_down(self, endpoint: Endpoint, why: str | None) -> None:
        """Take note of what the checks of an endpoint add up to: None, or why the last one failed."""
        self.pool.set_down(endpoint, why, time.monotonic())
        if why is not None:
            for session in list(endpoint.sessions):
                session.close("server_down")
        self.queue.serve()
