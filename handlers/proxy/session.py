"""A session: one client, the server it is connected to, and what becomes of the two."""

import json
import random
import time
from typing import TYPE_CHECKING

from gaiod import (
    Arrival,
    Conn,
    ConnClosed,
    DeadlineExceeded,
    NotTaken,
    OpResult,
    RelaySinkError,
    Termination,
    TlsError,
    shown,
)

from .client_hello import Hello, HelloReader, NoHello
from .failures import is_full, is_ours, reason_of, words_for
from .pool import Pool
from .route import DEFAULT, RouteOptions
from .servers import Endpoint
from .sockets import unsent_bytes

if TYPE_CHECKING:
    from . import Proxy

UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
"""The alert that ends a handshake for a server that is not here (RFC 6066, 3)."""

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 1.0
"""How long a further try at an endpoint that has just failed waits: doubled each time, then 50 to 100 % of it."""

RETRY_FULL_S = 0.5
"""The first of them, where the backlog is full: it takes longer to get shorter than a restart takes to begin."""

LINGER_LOOK_S = 0.2
"""How often to look whether a side that is to be reset has been sent everything."""

FINS = {
    True: Termination("peer_eof", "client", "fin", phase="data"),
    False: Termination("server_eof", "server", "fin", phase="data"),
}
"""What ended a session in order: by whether the client was the first to send its end. What that ended was `data`."""


FAILED = ("reset", "timeout")
"""How a server's connection ends that did not end its stream."""


class Session:
    """The `data` of a client's connection, and of that to its server.

    Both directions are relayed, each until its end: as long as the server is being connected to nothing is read
    of the client, so a try that fails can be repeated elsewhere.
    """

    __slots__ = (
        "client", "endpoint", "hello", "is_broken", "is_connected", "pool", "proxy", "server", "survivor",
        "tried", "until_s",
    )  # fmt: skip

    def __init__(self, proxy: "Proxy", client: Conn) -> None:
        self.proxy = proxy
        self.client: Conn | None = client
        self.pool: Pool = proxy.pool
        self.hello: HelloReader | None = None  # what it has said so far, until a server has it
        self.server: Conn | None = None
        self.endpoint: Endpoint | None = None  # which the server is at
        self.tried: tuple[Endpoint, ...] = ()  # could not be connected to
        self.is_connected = False
        self.is_broken = False  # one of the two does not take bytes any more
        self.survivor: Conn | None = None  # whom to reset when it has been sent what the other had said
        self.until_s = 0.0  # when it will be too old

    # -- what it asks for ------------------------------------------------------------------------------

    def open(self, route: RouteOptions) -> None:
        """Begin: find out for which pool it is, and then a server."""
        client = self.client
        assert client is not None
        self.hello = HelloReader()
        if client.tls is not None:  # it is terminated here
            self.hello.asked = Hello(client.tls.server_name, (client.tls.alpn,) if client.tls.alpn else ())
            self._route(self.hello.asked)
        else:
            self.until_s = time.monotonic() + route.timeout
            client.read(deadline=self.until_s)

    def read(self, client: Conn, data: bytes) -> None:
        """Take more of what a client says first."""
        assert self.hello is not None
        try:
            hello = self.hello.feed(data)
        except NoHello as error:
            self.proxy.count_route(error.cause, client, str(error))
            self.close(Termination("tls_error", "client", "error", error.cause, "hello"))
            return
        if hello is None:
            client.read(deadline=self.until_s)
        else:
            self._route(hello)

    def _route(self, hello: Hello) -> None:
        proxy, client, route = self.proxy, self.client, self.proxy.options.route
        assert route and client is not None
        name, how = route.pool_for(hello)
        pool = proxy.pools.get(DEFAULT if name is None else name)
        stranger = shown(hello.server_name) if how == "unknown_name" and hello.server_name else ""
        proxy.count_route(how, client, stranger and f"it asks for {stranger}, which route does not name")
        if pool is not None:
            self.pool = pool
            proxy.find_server(self)
            return
        if client.tls is None:
            client.write(UNRECOGNIZED_NAME)
        proxy.refuse(self, "no_route")

    def late(self) -> None:
        """Let a client go that did not say in time what it asks for."""
        client = self.client
        assert client is not None
        self.proxy.count_route("timeout", client, "")
        self.close(Termination("deadline", "client", "timeout", "route.timeout", "hello"))

    # -- finding a server ------------------------------------------------------------------------------

    def connect(self, endpoint: Endpoint) -> None:
        """Connect to the server that was chosen."""
        proxy = self.proxy
        now_s = time.monotonic()
        deadline_s = now_s + proxy.options.connect_timeout
        try:
            server = proxy.connect_to(endpoint, self.client, data=self, deadline_s=deadline_s, asked=self._asked)
        except OSError as error:
            self._failed(endpoint, error)
            return
        self.server = server
        self.endpoint = endpoint
        endpoint.server.pool.take(endpoint)

    def connected(self, conn: Conn, result: OpResult) -> None:
        """Go on once a server is connected to, or could not be."""
        client, endpoint = self.client, self.endpoint
        if client is None or endpoint is None:
            return  # the client went first, and this connection with it
        error = result.error
        if error is None:
            self._relay(client, conn, endpoint)
        elif not isinstance(error, ConnClosed):
            is_there = conn.peer_address is not None
            self.server = self.endpoint = conn.data = None
            conn.abort()
            self.proxy.give_back(endpoint)
            self._failed(endpoint, error, is_there=is_there)

    def _failed(self, endpoint: Endpoint, error: Exception, *, is_there: bool = False) -> None:
        """Try once more, elsewhere if there is somebody else; or let the client go. `is_there`: as of `words_for`."""
        proxy = self.proxy
        why = reason_of(error)
        own = is_ours(error, endpoint.target)
        if own:
            proxy.pause_accepting(error)  # it says nothing of the server: nothing is counted there
        else:
            endpoint.server.stats.failed(why)
            words = words_for(error, endpoint.target, is_there=is_there)
            if why == "tls":
                endpoint.server.pool.tls_failed(endpoint, time.monotonic(), words)
            endpoint.server.pool.failed(endpoint, time.monotonic(), words)
        self.tried += (endpoint,)
        if len(self.tried) > proxy.options.retries:
            proxy.refuse(self, "no_resources" if own else f"connect_{why}")
            return
        proxy.count("upstream_retries")
        following = None if own else proxy.choose(self)
        if following is not None and following not in self.tried:
            self.connect(following)
        else:
            first_s = RETRY_FULL_S if is_full(error, endpoint.target) else RETRY_FIRST_S
            delay_s = min(first_s * 2.0 ** min(len(self.tried) - 1, 8), RETRY_MAX_S)
            proxy.timer(delay_s * random.uniform(0.5, 1.0), self)

    def ring(self) -> None:
        """Go on with what was to wait: a further try, or a reset."""
        if self.survivor is not None:
            self._reset_when_sent(self.survivor)
        elif self.client is not None:
            self.proxy.find_server(self)

    # -- from one worker to another --------------------------------------------------------------------

    def leave(self) -> bytes | None:
        """Describe it for the worker that goes on with it; None: it is about to begin, or to end."""
        endpoint = self.endpoint
        if not self.is_connected or endpoint is None or self.client is None or self.server is None:
            return None
        if self.is_broken or self.survivor is not None:
            return None
        half_closed_s = self.proxy.half_closed_s(self)
        return json.dumps({"server": str(endpoint), "until_s": self.until_s, "half_closed_s": half_closed_s}).encode()

    def arrive(self, arrival: Arrival) -> None:
        """Go on with a session of another worker: its relays are here already.

        Raises:
            NotTaken: its server is not one of this configuration.
        """
        proxy, server, told = self.proxy, arrival.partner, json.loads(arrival.state)
        endpoint = proxy.find(told["server"])
        if endpoint is None or server is None or self.client is None:
            raise NotTaken(f"there is no server {told['server']}")
        self.client.data = server.data = self
        self.server, self.endpoint = server, endpoint
        self.is_connected = True
        self.until_s = float(told["until_s"])
        self.pool = endpoint.server.pool
        self.pool.take(endpoint)
        endpoint.server.stats.arrived()
        if proxy.closes_on_down:
            endpoint.sessions.add(self)
        if told["half_closed_s"] is not None:
            proxy.watch(self, float(told["half_closed_s"]))

    # -- relaying --------------------------------------------------------------------------------------

    def _relay(self, client: Conn, server: Conn, endpoint: Endpoint) -> None:
        """Carry the bytes, both ways."""
        proxy = self.proxy
        now_s = time.monotonic()
        self.is_connected = True
        client.busy = False
        self.until_s = now_s + proxy.draw_age()
        endpoint.server.stats.connected(now_s - server.opened_s)
        endpoint.server.pool.succeeded(endpoint, server.opened_s, now_s)
        limit = proxy.options.buffer_limit
        try:
            if proxy.announces and endpoint.server.tls is None:
                server.write(proxy.header_for(client, self._asked))
            if self.hello is not None:
                if self.hello.data:
                    server.write(self.hello.data)
                self.hello = None
            client.relay_to(server, limit=limit, deadline=self.until_s)
            server.relay_to(client, limit=limit)
        except ConnClosed:  # the client is being closed, by an operator, say: it was too late
            server.abort()
        else:
            if proxy.closes_on_down:
                endpoint.sessions.add(self)

    def wrote(self, conn: Conn) -> None:
        """Go on after the PROXY header was sent: the relay does."""

    def relayed(self, conn: Conn, result: OpResult) -> None:
        """Go on after one direction ended, from `conn` to the other."""
        other = self.server if conn is self.client else self.client
        if other is None:
            return  # it is closing already
        error = result.error
        if error is None:
            if self.is_broken:
                self._reset(conn, other)
            elif other.at_eof:
                self.close(FINS[other is self.client])
            else:
                self.proxy.watch(self, time.monotonic())
        elif isinstance(error, RelaySinkError):
            self._blame(other, error)
            if other.at_eof:
                self._reset(other, conn)
            else:
                self.is_broken = True  # what it has sent is still delivered; then its end comes by itself
                self.proxy.watch(self, time.monotonic())
        elif isinstance(error, DeadlineExceeded):
            self.close("max_age")
        else:
            if isinstance(error, OSError):
                self._blame(conn, error)
            self._reset(conn, other)

    def hung_up(self, conn: Conn, result: OpResult) -> None:
        """Go on after a side has gone that nothing is read of: a client that waits, or one that had said all.

        A client that waits leaves, with what it has sent: nobody is there for an answer, and it said so. One that has
        only ended its sending side (FIN) is not gone.
        """
        other = self.server if conn is self.client else self.client
        error = result.error
        if self.is_connected and other is not None and isinstance(error, OSError):
            self._blame(conn, error)
            self._reset(conn, other)
        else:
            conn.close_reason = conn.close_reason or _end_of(error)
            conn.abort()

    def look(self, now_s: float, since_s: float) -> None:
        """Look whether it goes on, one direction having ended at `since_s`; if not, end it."""
        client, server = self.client, self.server
        if client is None or server is None:
            return  # it is ending
        if now_s >= self.until_s:
            self.close("max_age")
        elif now_s - max(since_s, client.active_s, server.active_s) >= self.proxy.options.half_closed_timeout:
            client.close_reason = client.close_reason or "half_closed_timeout"
            client.abort()
            server.abort()

    # -- what an operator asks -------------------------------------------------------------------------

    @property
    def _asked(self) -> Hello | None:
        """What it has asked for, until a server has it; None: nothing is known of it."""
        return None if self.hello is None else self.hello.asked

    @property
    def _is_reading(self) -> bool:
        return self.hello is not None and self.hello.asked is None

    @property
    def phase(self) -> str:
        """How far it is: `queue`, `connect`, `data`, or `closing` once one direction has ended."""
        if self._is_reading:
            return "hello"
        if not self.is_connected:
            return "connect" if self.endpoint is not None or self.tried else "queue"
        client, server = self.client, self.server
        has_ended = (client is not None and client.at_eof) or (server is not None and server.at_eof)
        return "closing" if has_ended else "data"

    def notes(self, since_s: float | None) -> list[str]:
        """Return what there is to say, in sentences; `since_s`: when one direction ended."""
        notes, now_s = [], time.monotonic()
        if self.hello is not None and self.hello.asked is not None:
            notes.append(f"It asks for {shown(self.hello.asked.server_name or 'no server by name')}.")
        if self.tried and not self.is_connected:
            notes.append(f"It could not be connected to {', '.join(each.server.label for each in self.tried)}.")
            notes += [f"{each}: {each.tls_trouble}." for each in dict.fromkeys(self.tried) if each.tls_trouble]
        if self.survivor is not None:
            notes.append("One side was reset; the other is reset, too, once it has what was said before.")
        elif self._is_reading:
            notes.append("It has not said yet which server it wants (its ClientHello): route waits for that.")
        elif self.endpoint is None:
            notes.append("It waits for a server: nothing is read of it before one has accepted.")
            notes += self.pool.troubles()
        elif not self.is_connected:
            notes.append(f"It is being connected to {self.endpoint.server.label}.")
        else:
            server = self.endpoint.server
            drained = ", to which an operator lets nobody else" if server.is_drained else ""
            notes.append(f"Its server is {server.label}{drained}.")
        if since_s is not None and self.survivor is None:
            left_s = self.proxy.options.half_closed_timeout
            notes.append(f"One direction ended {now_s - since_s:.1f} s ago; {left_s:g} s without a byte end it all.")
        return notes

    # -- ending ----------------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End both sides in order, what is on its way included."""
        client, server = self.client, self.server
        if client is not None:
            client.close_reason = client.close_reason or reason
        if server is not None:
            server.close()  # first: what the client has not taken yet becomes a write there
        if client is not None:
            client.close()

    def closed(self, conn: Conn, reason: str) -> None:
        """Let go of a side that has closed, and close the other, unless it is to be reset."""
        client, server = self.client, self.server
        if conn is client:
            self.client = None
            if not self.is_connected:
                self.pool.queue.leave(self)
            if server is None or server is self.survivor:
                return
            if self.is_connected:
                server.close()
            else:
                server.abort()
        elif conn is server:
            endpoint = self.endpoint  # which stays: it is asked for when the client has closed, too
            self.server = None
            if endpoint is not None:
                if self.is_connected:
                    endpoint.server.stats.closed()
                self.proxy.ended(self, endpoint)
            if client is not None and client is not self.survivor:
                client.close_reason = client.close_reason or reason
                if isinstance(reason, Termination) and reason.who == "server" and reason.how in FAILED:
                    self._end_by_reset(client)  # the write of a PROXY header failed, say
                else:
                    client.close()

    def _blame(self, dead: Conn, error: OSError) -> None:
        """Remember why it ends: one of the two failed. What failed first is why."""
        client, endpoint = self.client, self.endpoint
        if isinstance(error, TlsError) and dead is self.server and endpoint is not None:
            endpoint.server.pool.tls_failed(endpoint, time.monotonic(), words_for(error, endpoint.target))
        if client is not None:
            who = "client" if dead is client else "server"
            client.close_reason = client.close_reason or Termination.of_error(error, dead, who)

    def _reset(self, dead: Conn, survivor: Conn) -> None:
        """Let the survivor know by a reset that the other side was: an end in order would be a lie."""
        dead.abort()
        self._end_by_reset(survivor)

    def _end_by_reset(self, survivor: Conn) -> None:
        self.survivor = survivor
        self.until_s = time.monotonic() + self.proxy.options.half_closed_timeout
        self._reset_when_sent(survivor)

    def _reset_when_sent(self, survivor: Conn) -> None:
        """Reset it once it has everything: a reset makes the kernel forget what it has not sent."""
        if survivor.closed:
            return
        is_sent = not survivor.pending_write_bytes and not unsent_bytes(survivor.fileno())
        if is_sent or time.monotonic() >= self.until_s:
            survivor.reset()
        else:
            self.proxy.timer(LINGER_LOOK_S, self)


def _end_of(error: Exception | None) -> str:
    return "peer_reset" if isinstance(error, OSError) else "peer_eof"
