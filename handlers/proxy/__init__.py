"""proxy: connect every client to one of several servers, and carry the bytes both ways."""

import logging
import random
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from gaiod import (
    AdminState,
    Arrival,
    Conn,
    DeadlineExceeded,
    Handler,
    OpResult,
    OpType,
    ProxyHeader,
    Termination,
)

from .client_hello import Hello
from .health import Checks
from .names import Answer, Names
from .options import ProxyOptions
from .pool import Pool
from .queue import Queue
from .route import DEFAULT
from .servers import Endpoint, Server, hash_of
from .session import Session
from .sockets import socket_options

log = logging.getLogger("gaiod.handler.proxy")

START_S = 5.0
"""How long a worker waits for the first answers for its names, until it accepts clients without."""

NAME, CHECKS, EJECTION = "name", "checks", "ejection"
"""Kinds of what workers share. A key is the kind, a space, and the name or the endpoint."""

AUTHORITY = 0x02
"""The TLV of a PROXY header with the server that a client has named."""

AGE_SHARE_MIN = 0.8
"""Of `max_age` that the shortest-lived connection gets: those that began together must not all end together."""

NO_SERVER = {
    cause: Termination("no_server", who, how, cause, phase)
    for cause, who, how, phase in (
        ("down", "server", "error", "queue"),
        ("drained", "gaiod", "drain", "queue"),
        ("unresolved", "server", "error", "queue"),
        ("full", "gaiod", "limit", "queue"),
        ("queue_timeout", "gaiod", "timeout", "queue"),
        ("no_resources", "gaiod", "limit", "connect"),
        ("connect_refused", "server", "error", "connect"),
        ("connect_timeout", "server", "timeout", "connect"),
        ("connect_unreachable", "server", "error", "connect"),
        ("connect_reset", "server", "reset", "connect"),
        ("connect_tls", "server", "error", "connect"),
        ("no_route", "client", "error", "hello"),
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
    state_version = 1
    pools: dict[str, Pool]
    """By name; from `on_start` on."""
    pool: Pool
    """Of clients that nothing is asked; without servers where all of these are of named pools."""

    def __init__(self, options: ProxyOptions) -> None:
        super().__init__(options)
        self.announces = options.send_proxy != "none"
        self.closes_on_down = options.on_down == "close"
        self._dice = random.Random()
        self._socket_options = socket_options(options.tcp)
        self._half_closed: dict[Session, float] = {}  # one direction ended, and when
        self._names: Names | None = None
        self._answered: set[str] = set()  # names
        self._is_waiting = False  # for the first answers
        self._checks: list[Checks] = []
        self._may_say_s = 0.0  # when the next client that is routed nowhere may be logged

    @classmethod
    def servers_of(cls, options: ProxyOptions) -> tuple[str, ...]:
        return tuple(entry.address for entry in options.entries)

    @classmethod
    def buffer_limit_of(cls, options: ProxyOptions) -> int:
        return options.buffer_limit

    # -- hooks -----------------------------------------------------------------------------------------

    def on_start(self) -> None:
        servers = [Server(entry, self.server(entry.address)) for entry in self.options.entries]
        by_pool: dict[str, list[Server]] = {}
        for entry, server in zip(self.options.entries, servers, strict=True):
            by_pool.setdefault(entry.pool, []).append(server)
        self.pools = {name: self._pool_of(name, several) for name, several in by_pool.items()}
        self.pool = self.pools.get(DEFAULT) or self._pool_of(DEFAULT, [])
        for endpoint in self._endpoints():
            self._recall(endpoint)
        for name in self._unknown_names():
            if f"{NAME} {name}" in self.shared:
                self._recall_name(name, self.shared[f"{NAME} {name}"])
        self._refresh(time.monotonic())
        if self._unknown_names():
            self._is_waiting = True
            self.delay_ready()
            self.timer(START_S, self)
            self._look_up()

    def on_leader(self, is_leader: bool) -> None:
        self._look_up()
        for checks in self._checks:
            checks.stop()
        self._checks.clear()
        if is_leader:
            self._forget_others()
            self._check(self._endpoints())

    def on_admin_state(self, server: str, state: AdminState) -> None:
        found = next(each for each in self._servers() if each.label == server)
        was_checked = found.mode != "maint"
        found.pool.set_admin_state(found, state, time.monotonic())
        if self.is_leader and found.mode == "maint":
            self._forget_checks(found)
        elif self.is_leader and not was_checked:
            self._check(found.endpoints)
        found.pool.queue.serve()

    def on_share(self, key: str, value: Any) -> None:
        kind, _, name = key.partition(" ")
        endpoint = None if kind == NAME else self.find(name)
        now_s = time.monotonic()
        if kind == NAME:
            self._recall_name(name, value)
        elif endpoint is not None and kind == EJECTION:
            endpoint.server.pool.recall_ejection(endpoint, value, now_s)
        elif endpoint is not None and kind == CHECKS:
            endpoint.server.pool.recall_checks(endpoint, value, now_s)
            self._close_if_down(endpoint)
        self._refresh(now_s)
        self._serve_queues()

    def on_open(self, conn: Conn) -> None:
        session = conn.data = Session(self, conn)
        conn.busy = True  # until it is relayed: to wait for a server is not to be idle
        if self.options.route:
            session.open(self.options.route)
        else:
            self.find_server(session)

    def on_leave(self, conn: Conn) -> bytes | None:
        return conn.data.leave() if isinstance(conn.data, Session) else None

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        Session(self, conn).arrive(arrival)

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

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        if isinstance(conn.data, Session) and isinstance(error, DeadlineExceeded) and operation is OpType.READ:
            conn.data.late()
        else:
            super().on_error(conn, operation, error)

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
        for pool in self.pools.values():
            pool.refresh_if_due(now_s)
        self._serve_queues()

    def on_timer(self, data: Any) -> None:
        data.ring()

    def on_post(self, data: Answer) -> None:
        hosts = data.hosts or self._known_hosts(data.name)
        self.share(f"{NAME} {data.name}", {"hosts": hosts, "error": data.error})
        self._take_answer(replace(data, hosts=hosts), is_news=True)

    # -- what an operator asks ---------------------------------------------------------------------------

    def partner_of(self, conn: Conn) -> Conn | None:
        data = conn.data
        if not isinstance(data, Session):
            return None
        return data.server if conn is data.client else data.client

    def phase_of(self, conn: Conn) -> str:
        return conn.data.phase if isinstance(conn.data, Session) else super().phase_of(conn)

    def server_of(self, conn: Conn) -> str | None:
        session = conn.data
        if not isinstance(session, Session):
            return None
        endpoint = session.endpoint or (session.tried[-1] if session.tried else None)  # or could not be connected to
        return None if endpoint is None else endpoint.server.label

    def notes_on(self, conn: Conn) -> Iterable[str]:
        return conn.data.notes(self._half_closed.get(conn.data)) if isinstance(conn.data, Session) else ()

    # -- pools -----------------------------------------------------------------------------------------

    def _pool_of(self, name: str, servers: Iterable[Server]) -> Pool:
        pool = Pool(
            f"{self.listener}, pool {name}" if name else self.listener,
            self.options,
            servers,
            self._dice,
            changed=self._tell_ejection,
            speaks=lambda: self.is_leader,
        )
        pool.queue = Queue(self, pool, self.options.queue)
        return pool

    def _servers(self) -> Iterable[Server]:
        return (server for pool in self.pools.values() for server in pool.servers)

    def _endpoints(self) -> Iterable[Endpoint]:
        return (endpoint for server in self._servers() for endpoint in server.endpoints)

    def find(self, name: str) -> Endpoint | None:
        """Return the endpoint of that name; None: there is none (any more)."""
        return next((found for pool in self.pools.values() if (found := pool.find(name)) is not None), None)

    def _refresh(self, now_s: float) -> None:
        for pool in self.pools.values():
            pool.refresh(now_s)

    def _serve_queues(self) -> None:
        for pool in self.pools.values():
            pool.queue.serve()

    def count_route(self, how: str, client: Conn, wrong: str) -> None:
        """Count how a client was routed, or why it was not; `wrong` is for the log, which has such a line a second."""
        self.count(f"upstream_route_{how}")
        now_s = time.monotonic()
        if wrong and now_s >= self._may_say_s:
            self._may_say_s = now_s + 1.0
            log.warning("listener %s: a connection from %s: %s", self.listener, _host_of(client), wrong)

    # -- finding a server ------------------------------------------------------------------------------

    def find_server(self, session: Session) -> None:
        """Connect a client to a server, let it wait for one, or let it go."""
        pool = session.pool
        endpoint = None if pool.queue.waiting else self.choose(session)
        if endpoint is not None:
            session.connect(endpoint)
        elif not (pool.is_waiting_worthwhile and pool.queue.join(session)):
            self.refuse(session, pool.lack)

    def choose(self, session: Session) -> Endpoint | None:
        """Return who gets a client; None: nobody can take it now."""
        key = 0
        if self.options.balance == "source_hash" and session.client is not None:
            peer = session.client.peer_address
            key = hash_of(peer[0] if isinstance(peer, tuple) else "")
        return session.pool.choose(time.monotonic(), key, session.tried)

    def refuse(self, session: Session, cause: str) -> None:
        """Let a client go for which there is no server, for one of the causes of `NO_SERVER`."""
        self.count(f"upstream_unavailable_{cause}")
        session.close(NO_SERVER[cause])

    # -- what a session needs --------------------------------------------------------------------------

    def connect_to(
        self, endpoint: Endpoint, client: Conn | None, *, data: Any, deadline_s: float, asked: Hello | None = None
    ) -> Conn:
        """Open a connection to a server, for a client, and what it asks for; None: for a check.

        Raises:
            OSError: as `connect`.
        """
        tls = None if endpoint.server.tls is None else endpoint.server.tls.ask_for(client)
        return self.connect(
            endpoint.target,
            data=data,
            deadline=deadline_s,
            options=() if isinstance(endpoint.target, str) else self._socket_options,
            tls=tls,
            preface=self.header_for(client, asked) if self.announces and tls is not None else b"",
        )

    def draw_age(self) -> float:
        """Return for how many seconds a connection may go on."""
        share = AGE_SHARE_MIN + (1.0 - AGE_SHARE_MIN) * self._dice.random()
        return float(self.options.max_age) * share

    def header_for(self, client: Conn | None, asked: Hello | None = None) -> bytes:
        """Return the PROXY header that announces a client, and what it asks for; with None, one of the proxy's own."""
        header = ProxyHeader(None, None) if client is None else ProxyHeader(client.peer_address, client.local_address)
        if self.options.send_proxy == "v1":
            return header.encode_v1()
        if client is not None and client.tls is not None:
            header = header.with_tls(client.tls)
        elif asked is not None and asked.server_name is not None:
            header = replace(header, tlvs=((AUTHORITY, asked.server_name.encode()),))
        return header.encode_v2()

    def ended(self, session: Session, endpoint: Endpoint) -> None:
        """Take note that the connection to a server is closed."""
        if self.closes_on_down:
            endpoint.sessions.discard(session)
        self._half_closed.pop(session, None)
        self.give_back(endpoint)

    def give_back(self, endpoint: Endpoint) -> None:
        """Let somebody else have a connection's place."""
        pool: Pool = endpoint.server.pool
        if pool.give_back(endpoint):
            pool.queue.serve()

    def watch(self, session: Session, since_s: float) -> None:
        """Look every second whether a session goes on of which one direction ended at `since_s`."""
        self._half_closed[session] = since_s

    def half_closed_s(self, session: Session) -> float | None:
        """Return when one direction of a session ended; None: none has."""
        return self._half_closed.get(session)

    # -- names -----------------------------------------------------------------------------------------

    def _servers_named(self, name: str) -> Iterable[Server]:
        return (each for each in self._servers() if each.address.kind == "name" and each.address.host == name)

    def _unknown_names(self) -> set[str]:
        """Return the names of which nothing is known: no address, nor that there is none."""
        servers = (server for server in self._servers() if server.address.kind == "name")
        return {server.address.host for server in servers} - self._answered

    def _known_hosts(self, name: str) -> tuple[str, ...]:
        return tuple(self.shared.get(f"{NAME} {name}", {"hosts": ()})["hosts"])

    def _look_up(self) -> None:
        """Look up all names if this worker leads, else those that it knows nothing of; look up no others."""
        names = {server.address.host for server in self._servers() if server.address.kind == "name"}
        names = names if self.is_leader else self._unknown_names()
        self._names = Names(names, self.options.resolve_interval, self.post) if names else None
        if self._names is not None:
            self._names.start()

    def ring(self) -> None:
        """Accept clients after `START_S`, although nothing is known of some names: others may do."""
        unknown = self._unknown_names()
        if unknown and self.options.resolve == "optional":
            self.pool.warn_unknown(sorted(unknown), START_S)
        self._begin()

    def _begin(self) -> None:
        """Accept clients, unless `resolve: required` demands what is not there.

        Raises:
            LookupError: it does, and a server has no address. Once the worker is ready it is too late for that.
        """
        if self.options.resolve == "required" and self._is_waiting:
            missing = [server.label for server in self._servers() if not server.endpoints]
            if missing:
                raise LookupError(f"resolve: required, and no address is found for {', '.join(missing)}")
        self._is_waiting = False
        self.ready()

    def _recall_name(self, name: str, told: dict[str, Any] | None) -> None:
        """Take over the last answer that any worker had for a name."""
        if told is not None:
            self._take_answer(Answer(name, tuple(told["hosts"]), told["error"]), is_news=False)

    def _take_answer(self, answer: Answer, *, is_news: bool) -> None:
        """Take note of the addresses of a name, and of what is known of them."""
        now_s = time.monotonic()
        if answer.is_final:
            self._answered.add(answer.name)
        for server in self._servers_named(answer.name):
            new = server.pool.resolved(server, answer, now_s, is_news=is_news)
            for endpoint in new:
                self._recall(endpoint)
            if self.is_leader:
                self._check(new)
        self._refresh(now_s)
        if not self._unknown_names():
            self._begin()
        self._serve_queues()

    # -- health ----------------------------------------------------------------------------------------

    def _recall(self, endpoint: Endpoint) -> None:
        """Take over what other workers have told of an endpoint; then `refresh` the pool."""
        now_s = time.monotonic()
        if self.options.check is not False:
            endpoint.server.pool.recall_checks(endpoint, self.shared.get(f"{CHECKS} {endpoint}"), now_s)
        endpoint.server.pool.recall_ejection(endpoint, self.shared.get(f"{EJECTION} {endpoint}"), now_s)

    def _forget_others(self) -> None:
        """Take back what is shared of servers that there are no more, and of checks where there are none."""
        endpoints = [str(endpoint) for endpoint in self._endpoints()]
        known = {f"{NAME} {server.address.host}" for server in self._servers()}
        known.update(f"{EJECTION} {each}" for each in endpoints)
        if self.options.check is not False:
            known.update(f"{CHECKS} {each}" for each in endpoints)
        for key in self.shared.keys() - known:
            self.share(key, None)

    def _check(self, endpoints: Iterable[Endpoint]) -> None:
        if self.options.check is not False:
            self._checks = [checks for checks in self._checks if not checks.is_over]
            for endpoint in endpoints:
                if endpoint.server.mode != "maint":
                    checks = Checks(self, endpoint, self.options.check, self._dice)
                    self._checks.append(checks)
                    checks.start()

    def _forget_checks(self, server: Server) -> None:
        """Let the next check of a server decide alone, if it fails: nothing is checked for now."""
        for endpoint in server.endpoints:
            if not endpoint.is_down:
                endpoint.is_known = False
                self.share(f"{CHECKS} {endpoint}", None)

    def _tell_ejection(self, endpoint: Endpoint) -> None:
        """Tell other workers what this one has found out."""
        self.share(f"{EJECTION} {endpoint}", endpoint.server.pool.told(endpoint))

    def checked(self, endpoint: Endpoint, passed: bool, began_s: float) -> None:
        """Take note of one check of an endpoint, which began at `began_s`."""
        if passed and not endpoint.is_known:
            endpoint.is_known = True
            self.share(f"{CHECKS} {endpoint}", {"why": None, "up_s": None})
        pool: Pool = endpoint.server.pool
        if pool.checked(endpoint, passed, began_s, time.monotonic()):
            pool.queue.serve()

    def set_down(self, endpoint: Endpoint, why: str | None) -> None:
        """Take note of what the checks of an endpoint add up to: None, or why the last one failed."""
        now_s = time.monotonic()
        endpoint.server.pool.set_down(endpoint, why, now_s)
        self.share(f"{CHECKS} {endpoint}", {"why": why, "up_s": now_s if why is None else None})
        self._close_if_down(endpoint)
        endpoint.server.pool.queue.serve()

    def _close_if_down(self, endpoint: Endpoint) -> None:
        """Close who is connected to an endpoint that is down, where that is wanted."""
        if endpoint.is_down:
            for session in list(endpoint.sessions):
                session.close("server_down")


def _host_of(client: Conn) -> str:
    address = client.peer_address
    return address[0] if isinstance(address, tuple) else "a unix socket"
