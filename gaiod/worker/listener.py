"""A listener in a worker: its handler, its limits, and the way from completions to hooks."""

import errno
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, TlsError, UsageError, WatcherClosed
from gaiod.core.group import Group
from gaiod.core.operations import ACCEPT, CLOSED, CONNECT, HANDSHAKE, RELAY
from gaiod.core.results import OpResult
from gaiod.core.sockets import peer_text
from gaiod.core.tls import ClientTls
from gaiod.core.watcher import Watcher
from gaiod.handler.admin_state import AdminState, admin_states, server_of_key
from gaiod.handler.arrival import Arrival, NotTaken
from gaiod.handler.failures import StartError, failed_start, likeness_of
from gaiod.handler.handler import Handler, SocketOptions
from gaiod.handler.server_stats import HandlerCounts
from gaiod.handler.termination import Termination, of_client, of_error, of_server, termination_of
from gaiod.log.rate_limit import LimitedLog
from gaiod.plugins import label_of
from gaiod.process.dispatch import Target
from gaiod.settings import ListenerSettings, ProxyProtocolSettings, TlsSettings
from gaiod.stats.cells import ACCEPT_ERRORS, CELL, HANDOVER_BOUNDS_S, HANDSHAKE_BOUNDS_S, Layout, bucket_of
from gaiod.ticket_scope import scope_of
from gaiod.worker.admission.accept_pauses import AcceptPauses
from gaiod.worker.admission.access import Access
from gaiod.worker.admission.bans import Bans
from gaiod.worker.admission.per_address import PerAddress
from gaiod.worker.admission.proxy_header_wait import ProxyHeaderWait
from gaiod.worker.admission.tallies import Tallies
from gaiod.worker.admission.tls_wait import PHASE as HANDSHAKE_PHASE
from gaiod.worker.admission.tls_wait import TlsWait
from gaiod.worker.admission.total import Total, limits_of
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.inspect.recent_closes import RecentCloses
from gaiod.worker.ledger import Ledger, phase_at_end, server_of
from gaiod.worker.listener_timers import Timers
from gaiod.worker.names import Names
from gaiod.worker.shared_state import RATE, SharedState
from gaiod.worker.slow_hooks.report import SlowHooks
from gaiod.worker.tls_clients import TlsClients

if TYPE_CHECKING:
    from gaiod.handler.coroutines.threads import Threads

log = logging.getLogger("gaiod.worker")

HANDED_OVER = Termination("handed_over", "gaiod", "drain")
HANDED_BACK = Termination("handed_back", "gaiod", "drain")
"""Why a connection ends for a handler that another worker goes on with. Its client sees nothing of it."""

STATE_MAX_BYTES = 64 * 1024
"""Of what a handler says of a connection that leaves: it is a description, and not a store."""

FIRST_HANDSHAKE = CELL[f"tls_handshake_le_{HANDSHAKE_BOUNDS_S[0]}"]
FIRST_HANDOVER = CELL[f"handover_le_{HANDOVER_BOUNDS_S[0]}"]

BEHIND_BYTES = 256 * 1024
"""What one send of the fan-out takes. More does not make it cheaper."""

NO_ACCESS = Termination("access", "gaiod", "limit", "access", "accept")
BANNED = Termination("ban", "gaiod", "kill", phase="accept")
OVER_LIMIT = Termination("limit", "gaiod", "limit", "connections_max", "accept")
INJECTED = Termination("tls_error", "client", "error", "plaintext", HANDSHAKE_PHASE)
LATE_SERVER = Termination("deadline", "server", "timeout", "deadline", HANDSHAKE_PHASE)

SWEEP_INTERVAL_MAX_S = 1.0
SWEEPS_PER_TIMEOUT = 8
"""How often connections are looked at within their idle timeout, and so how late one may be closed. A
sweep of 20,000 connections takes the compiled core 0.1 ms; a timer each would cost 150 bytes each."""


@dataclass(slots=True, eq=False)
class Common:
    """What the admission of all listeners of a worker has in common.

    Attributes:
        tallies: what all workers count together; None: nothing, and `per_address` is not in force.
        bans: whom an operator has banned.
        connections_max: of all listeners and workers together; None: no limit.
    """

    tallies: Tallies | None = None
    bans: Bans = field(default_factory=Bans)
    connections_max: int | None = None


TicketKeys = Mapping[str, Sequence[str]]
"""By scope (`gaiod.ticket_scope`), the newest first: hexadecimal text."""


class Listener(Target):
    """Serves one listening socket through one handler.

    It is the `context` of its connections. A hook that raises costs its connection, and nobody else.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        handler: Handler,
        watcher: Watcher,
        cells: Any,
        layout: Layout,
        *,
        number: int,
        connection_log: ConnectionLog | None = None,
        names: Names | None = None,
        recent_closes: RecentCloses | None = None,
        slow: SlowHooks | None = None,
        shared: Mapping[str, Any] | None = None,
        share: Callable[[str, Any], None] | None = None,
        ticket_keys: TicketKeys | None = None,
        common: Common | None = None,
        started: Callable[[StartError | None], None] | None = None,
    ) -> None:
        """Make a listener; `start` lets its handler begin, `open` lets it serve.

        Args:
            settings: its limits.
            handler: what answers its connections; it gets its `connect()` and its like here.
            watcher: the worker's.
            cells: where to count: 64-bit integers.
            layout: where in them.
            number: which of the layout's listeners this is.
            connection_log: where its connections are written down; None: nowhere.
            names: of the worker's connections.
            recent_closes: where it is remembered why they closed; None: nowhere.
            slow: is told of its slow hooks; None: nobody is.
            shared: what the workers of the listener share already.
            share: tells the others of a key and its value; None: there are no others, so it leads.
            ticket_keys: those of TLS tickets, by scope.
            common: what admission has in common with other listeners; None: nothing.
            started: called if the start took longer than `start`: it is ready, or could not be.
        """
        super().__init__(handler.on_read, handler.on_write)
        self.settings = settings
        self.name, self.label = settings.name, label_of(settings.handler)
        self.active = 0
        self.handler = handler
        self._watcher = watcher
        self._cells, self._row = cells, layout.row(number)
        self._names = names if names is not None else Names(0)
        self._slow = slow if slow is not None else SlowHooks(None)
        self._watch = self._slow.watch
        self._upstream = self._row + CELL["upstream_received_bytes"]
        self.counts = HandlerCounts(cells, layout, number, settings.servers)
        self._threads: Threads | None = None
        self._groups: WeakSet[Group] = WeakSet()
        self._sockets: list[Conn] = []
        self._started = started or _nobody_waits
        self.is_starting = self.is_delayed = False  # delayed: its handler has said so, and not yet that it is ready
        self._is_open = False  # from its start until it accepts no more
        self._timers = Timers(watcher, lambda: self._is_open or self.active > 0)
        self._tell = LimitedLog(log, f"listener {settings.name}").tell
        self._ledger = Ledger(settings.name, cells, self._row, connection_log, recent_closes, names=self._names)
        self._accept_pauses = AcceptPauses(lambda reason, ns: self._count(f"accept_paused_{reason}_ns", ns))
        self._is_alone = share is None
        self._admin_states = admin_states(shared or {})
        self._shared = SharedState(watcher, shared or {}, share or _nobody_to_tell, self._delayed)
        self._access = None if settings.access is None else Access(settings.access)
        self._common = common or Common()
        self._limits = _limits_of(settings, self._common)
        self._header_wait = None if settings.proxy_protocol is None else self._wait_for(settings.proxy_protocol)
        self._tls_wait = None if settings.tls is None else self._wait_for_tls(settings.tls, ticket_keys or {})
        self._tls_clients = TlsClients()
        handler._host = self

    def _wait_for(self, balancers: ProxyProtocolSettings) -> ProxyHeaderWait:
        return ProxyHeaderWait(
            self._watcher,
            balancers,
            admit=self._announced,
            reject=self._not_announced,
            closed=self._unserved_closed,
        )

    def _wait_for_tls(self, tls: TlsSettings, keys: TicketKeys) -> TlsWait:
        return TlsWait(
            self._watcher,
            tls,
            ticket_keys=_keys_for(self.settings, keys),
            admit=self._admit,
            reject=self._no_tls,
            closed=self._unserved_closed,
            count=lambda cell: self._count(f"tls_{cell}"),
            took=self._note_handshake,
        )

    def _note_handshake(self, took_s: float) -> None:
        self._count("tls_handshake_ns", round(took_s * 1e9))
        self._cells[self._row + FIRST_HANDSHAKE + bucket_of(took_s, HANDSHAKE_BOUNDS_S)] += 1

    # -- starting and stopping -----------------------------------------------------------------------

    def start(self) -> None:
        """Let the handler begin. Nobody is accepted yet, so one that cannot costs nobody anything.

        Raises:
            StartError: its `on_start` raised.
        """
        self._is_open = True
        self._timers.every(min(SWEEP_INTERVAL_MAX_S, self.settings.idle_timeout_s / SWEEPS_PER_TIMEOUT), self._sweep)
        if type(self.handler).on_tick is not Handler.on_tick:
            self._timers.every(self.handler.tick_interval_s, self._tick)
        if self._ledger.every_s is not None:
            self._timers.every(self._ledger.every_s, lambda: self._ledger.alive(self.clients()))
        self.is_starting = True
        try:
            self.handler._start()
        except BaseException as error:
            self._count("handler_error_on_start")
            self._tell(logging.ERROR, "on_start", "on_start raised; it is not served", traceback=True)
            raise failed_start(self.name, self.settings.handler, type(self.handler), error) from error
        finally:
            self.is_starting = False
        for server, state in self._admin_states.items():
            self._set_admin_state(server, state)
        if self._is_alone:
            self.lead(True)

    def open(self, sockets: Iterable[socket.socket]) -> None:
        """Serve listening sockets, which are taken over; if it was drained since its start, they are closed."""
        for sock in sockets:
            if self._is_open:
                self._sockets.append(self._watcher.accept(sock, context=self))
            else:
                sock.close()

    def serve_instead(self, sockets: Iterable[socket.socket]) -> None:
        """Serve other listening sockets, which are taken over, instead of those that it has; see `open`."""
        self._free_sockets()
        self.open(sockets)

    def renew(self, settings: ListenerSettings, ticket_keys: TicketKeys) -> None:
        """Take settings that differ only in what files have which they name: for connections that come from now on.

        Args:
            settings: those.
            ticket_keys: those of TLS tickets, by scope: what is asked of clients may be something else.
        """
        before, self.settings = self.settings, settings
        if settings.access is not None and settings.access != before.access:
            self._access = Access(settings.access)
        if self._tls_wait is not None and settings.tls is not None and settings.tls != before.tls:
            try:
                self._tls_wait.renew(settings.tls, _keys_for(settings, ticket_keys))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                self._tell(
                    logging.ERROR, "tls", "what it had before stays in force: OpenSSL does not take it: %s", error
                )

    def stop_accepting(self) -> None:
        """Accept no more; the connections go on."""
        self._is_open = False
        self._free_sockets()

    def _free_sockets(self) -> None:
        self._accept_pauses.look(self._sockets)
        for sock in self._sockets:
            self._watcher.free(sock)
        self._sockets.clear()

    def set_ticket_keys(self, keys: TicketKeys) -> None:
        """Use other keys for TLS tickets, if some are its own."""
        own = _keys_for(self.settings, keys)
        if self._tls_wait is not None and own:
            self._tls_wait.set_ticket_keys(own)

    def close_all(self, *, abort: bool = False) -> None:
        """Close every connection once what was written to it is sent, or at once."""
        for conn in self._watcher.connections(context=self):
            self.end(conn, "drain", abort=abort)
        for wait in (self._header_wait, self._tls_wait):
            if wait is not None:
                wait.close_all()

    def end(self, conn: Conn, reason: str, *, abort: bool = False) -> None:
        """Close a connection, for a reason that is counted unless there was one before."""
        conn.close_reason = conn.close_reason or reason
        if abort:
            conn.abort()
        else:
            conn.close()

    def clients(self, idle_since_s: float = inf) -> list[Conn]:
        """Return its open connections that moved nothing since then, those its handler opened not included."""
        found = self._watcher.connections(context=self, idle_since_s=idle_since_s)
        return [conn for conn in found if conn.traffic != self._upstream]

    # -- what an operator asks -------------------------------------------------------------------------

    def is_client(self, conn: Conn) -> bool:
        """Tell a client's connection from one that the handler opened."""
        return conn.traffic != self._upstream

    def find(self, serial: int) -> Conn | None:
        """Return an open connection of either kind; None: it has none of that number."""
        return next((conn for conn in self._watcher.connections(context=self) if conn.serial == serial), None)

    # -- what the feed brings ----------------------------------------------------------------------------

    def deliver(self, sequence: int, topic: str, data: bytes) -> None:
        """Let the handler have a message of the feed. Before its start, and once all is over, nobody wants it."""
        if self._is_open or self.active:
            groups = list(self._groups)
            for group in groups:
                group.position = sequence
            self._call("on_message", None, self.handler.on_message, (topic, data))
            for group in groups:
                group.position = 0

    def count_missed(self, messages: int) -> None:
        """Count messages that did not get here."""
        self._count("feed_gaps", messages)
        self._tell(logging.WARNING, "feed_gaps", "%d messages did not get to this worker", messages)

    def count_resent(self) -> None:
        """Count a message that came late: what was to bring it had ended."""
        self._count("feed_resent")

    # -- what its workers have in common ---------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """As `Handler.is_leader`."""
        return self._shared.is_leader

    @property
    def shared(self) -> Mapping[str, Any]:
        """As `Handler.shared`."""
        return self._shared.values

    def share(self, key: str, value: Any) -> None:
        """As `Handler.share`."""
        if self._shared.share(key, value):
            self._count("shared_values")

    def take_shared(self, key: str, value: Any, *, is_own: bool) -> None:
        """Take what a worker has shared, this one or another, or an operator; if it is news, let the handler know."""
        server = server_of_key(key)
        if server is not None:
            self._admin_states[server] = AdminState(**(value or {}))
            if self._is_open or self.active:
                self._set_admin_state(server, self._admin_states[server])
            return
        if self._shared.take(key, value, is_own=is_own) and (self._is_open or self.active):
            self._call("on_share", None, self.handler.on_share, (key, self.shared.get(key)))

    def lead(self, is_leader: bool) -> None:
        """Lead, or do so no more; it may be what it does already."""
        if is_leader != self.is_leader:
            self._shared.is_leader = is_leader
            if self._is_open or self.active:
                self._call("on_leader", None, self.handler.on_leader, (is_leader,))

    def _set_admin_state(self, server: str, state: AdminState) -> None:
        if server in self.settings.servers:
            self._call("on_admin_state", None, self.handler.on_admin_state, (server, state))

    def _delayed(self, values: int) -> None:
        self._count("shared_values_delayed", values)
        self._tell(
            logging.WARNING, "shared", "more than %g values a second are shared: only the last of each key is", RATE
        )

    # -- what its handler asks for -------------------------------------------------------------------

    def connect(
        self, address: Any, data: Any, deadline: float | None, options: SocketOptions, *,
        tls: ClientTls | None, preface: bytes,
    ) -> Conn:  # fmt: skip
        """As `Handler.connect`."""
        client = None if tls is None else self._tls_clients.client_of(address, tls, preface)
        conn = self._watcher.connect(address, context=self, deadline=deadline, options=options, tls=client)
        conn.data = data
        conn.traffic = self._upstream
        return conn

    @property
    def offers_tls(self) -> bool:
        """As `Handler.offers_tls`."""
        return self.settings.tls is not None and self.settings.tls.starts_by_handler

    def start_tls(self, conn: Conn, unread: bytes, tls: ClientTls | None, deadline: float | None) -> None:
        """As `Conn.start_tls`; `tls` None: as a server."""
        if tls is not None:
            self._start_tls_with_server(conn, unread, tls, deadline)
            return
        if self._tls_wait is None or not self.offers_tls:
            raise UsageError(f"listener {self.name} has no tls: {{start: handler, ...}}, so its handler begins no TLS")
        if not self.is_client(conn):
            raise UsageError(f"{conn!r} is with a server, and not with a client: give it a ClientTls")
        if unread:
            self._count("tls_failed_plaintext")
            self._end_without_tls(conn, f"{len(unread)} bytes came unencrypted behind its request for TLS", INJECTED)
        else:
            self._tls_wait.begin(conn)

    def _start_tls_with_server(self, conn: Conn, unread: bytes, tls: ClientTls, deadline: float | None) -> None:
        if self.is_client(conn):
            raise UsageError(f"{conn!r} is with a client, and not with a server: write server=True")
        if unread:
            wrong = f"{len(unread)} bytes came unencrypted behind its answer"
            self._end_without_tls(conn, wrong, of_server(INJECTED))
        else:
            conn.start_tls(self._tls_clients.client_of(conn.peer_address, tls), deadline=deadline)

    def pause_accepting(self, error: Exception) -> None:
        """As `Handler.pause_accepting`."""
        self._accept_pauses.failed(self._sockets, getattr(error, "errno", None))
        for sock in self._sockets:
            self._watcher.pause(sock)
        self._tell(logging.WARNING, "paused", "there is no room for another client: %s; accepting waits", error)

    def delay_ready(self) -> None:
        """As `Handler.delay_ready`."""
        if not self.is_starting:
            raise RuntimeError("delay_ready works in on_start: later, the worker is ready")
        self.is_delayed = True

    def ready(self) -> None:
        """As `Handler.ready`."""
        was_delayed, self.is_delayed = self.is_delayed, False
        if was_delayed and not self.is_starting:
            self._started(None)

    def group(self, limit: int, policy: str, grace_s: float, memory_limit: int) -> Group:
        """As `Handler.group`."""
        group = self._watcher.group(
            limit=limit, policy=policy, memory_limit=memory_limit, cells=self._row + CELL["push_subscribers"]
        )
        self._groups.add(group)
        if policy == "disconnect":
            interval_s = min(SWEEP_INTERVAL_MAX_S, grace_s / SWEEPS_PER_TIMEOUT)
            self._timers.every(interval_s, lambda: _end_stalled(group, grace_s))
        return group

    @property
    def is_behind(self) -> bool:
        """Whether so much is published and not dealt out yet that what feeds the handler should wait."""
        return any(group.pending_bytes > BEHIND_BYTES for group in self._groups)

    def timer(self, delay_s: float, data: Any) -> None:
        """As `Handler.timer`."""
        self._timers.after(delay_s, lambda: self._call("on_timer", None, self.handler.on_timer, (data,)))

    def post(self, data: Any) -> None:
        """As `Handler.post`."""
        try:
            self._watcher.post(lambda result: self._call("on_post", None, self.handler.on_post, (data,)))
        except WatcherClosed:
            pass  # the thread that posts cannot know

    def call_later(self, delay_s: float, action: Callable[[], None]) -> "_LaterCall":
        """As `Host.call_later`."""
        call = _LaterCall(self._watcher, self, action)
        call.begin(time.monotonic() + delay_s)
        return call

    def run(self, function: Callable[[], Any], threads_max: int) -> Any:
        """As `Host.run`."""
        if self._threads is None:
            from gaiod.handler.coroutines.threads import Threads  # late: most handlers have no function that blocks

            self._threads = Threads(f"gaiod-{self.name}", threads_max, self.call_soon)
        self._count("threads_calls")
        return self._threads.run(function)

    def call_soon(self, action: Callable[[], None]) -> None:
        """As `Host.call_soon`."""
        try:
            self._watcher.post(_LaterCall(self._watcher, self, action))
        except WatcherClosed:
            pass  # the thread that asks for it cannot know

    # -- completions ---------------------------------------------------------------------------------

    def on_completion(self, result: OpResult) -> None:
        """Take a completion other than a successful read or write, which go to the hooks directly."""
        conn = result.conn
        kind = result.kind
        if kind == ACCEPT:
            self._accepted(conn, result)
        elif kind == CLOSED:
            if conn.context is not _UNSEEN:
                self._closed(conn, result.buffer)
        elif kind == CONNECT:
            if conn.secure is not None:
                self._count_tls(conn, result.error)
            self._call("on_connect", conn, self.handler.on_connect, (conn, result))
        elif kind == HANDSHAKE:
            if self.is_client(conn):
                self._shaken(conn, result.error)
            else:
                self._shaken_with_server(conn, result.error)
        elif kind == RELAY and not isinstance(result.error, ConnClosed):
            self._note_tls(conn, result.error)
            self._call("on_relay", conn, self.handler.on_relay, (conn, result))
        elif conn.closed or isinstance(result.error, (ConnClosed, WatcherClosed)):
            pass  # by a hook that was called a moment ago, say: on_close tells
        elif isinstance(result.error, EOFError):
            self._call("on_eof", conn, self.handler.on_eof, (conn,))
        elif isinstance(result.error, DeadlineExceeded) or getattr(result.error, "errno", None) == errno.ECANCELED:
            self._call("on_error", conn, self.handler.on_error, (conn, result.operation, result.error))
        elif isinstance(result.error, OSError):
            self._note_tls(conn, result.error)
            self.end(conn, of_error(result.error, conn.fileno(), is_client=self.is_client(conn)), abort=True)

    def _shaken(self, conn: Conn, error: Exception | None) -> None:
        """Take the end of a handshake with a client that the handler has begun."""
        assert self._tls_wait is not None
        begun_s = self._tls_wait.ended(conn)
        if conn.closed or isinstance(error, (ConnClosed, WatcherClosed)):
            return  # on_close tells
        if error is None:
            self._tls_wait.succeeded(conn, begun_s)
            self._call("on_tls", conn, self.handler.on_tls, (conn,))
            return
        wrong, termination = self._tls_wait.failed_with(error)
        self._end_without_tls(conn, wrong, Termination("tls_error", *termination.key[1:]))

    def _shaken_with_server(self, conn: Conn, error: Exception | None) -> None:
        """Take the end of a handshake with a server that the handler has begun."""
        if conn.closed or isinstance(error, (ConnClosed, WatcherClosed)):
            return  # on_close tells
        if error is None:
            self._call("on_tls", conn, self.handler.on_tls, (conn,))
        elif isinstance(error, DeadlineExceeded):
            self._end_without_tls(conn, "its handshake was not done in time", LATE_SERVER)
        elif isinstance(error, TlsError):
            termination = of_error(error, conn.fileno(), is_client=False).in_phase(HANDSHAKE_PHASE)
            self._end_without_tls(conn, str(error.strerror), termination)
        else:
            self.end(conn, "handler")  # which has cancelled it

    def _end_without_tls(self, conn: Conn, wrong: str, termination: Termination) -> None:
        """Close a connection whose TLS could not begin; `wrong`: why, for the log; empty: nothing to log."""
        if wrong:
            where = f"{'from' if self.is_client(conn) else 'to'} {peer_text(conn.peer_address)}"
            self._tell(logging.WARNING, f"tls_{termination.cause}", "a connection %s is closed: %s", where, wrong)
        self.end(conn, termination)

    def hung_up(self, result: OpResult) -> None:
        """Take the report that a peer is gone."""
        self._call("on_hangup", result.conn, self.handler.on_hangup, (result.conn, result))

    def _call(self, name: str, conn: Conn | None, hook: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Call a hook; what it raises costs `conn`, and is counted and logged."""
        self._watch.note(self, name, conn)
        try:
            hook(*arguments)
        except BaseException:  # SystemExit, CancelledError: it must not end everybody's process
            self.failed(name, conn)
        if self._watch.lap():
            self.slow(name, conn, self._watch.took_ns)

    def call_hook(self, name: str, hook: Callable[[], None]) -> None:
        """Call what counts as a hook, for no connection."""
        self._call(name, None, hook, ())

    def slow(self, hook: str, conn: Conn | None, took_ns: int) -> None:
        """Count a hook that took too long, and log it."""
        self._count(f"slow_hook_{hook}")
        self._slow.is_over(*self.describe(hook, conn), took_ns)

    def describe(self, hook: str, conn: Conn | None) -> tuple[str, str, str]:
        """Return how log lines about a call of a hook name the listener and handler, the hook, and the connection."""
        where = f"listener {self.name}, handler {self.label}"
        return where, hook, "" if conn is None else f"; connection {self._name_of(conn)}"

    def _name_of(self, conn: Conn) -> str:
        return f"{self._names.of(conn)} ({peer_text(conn.peer_address)})"

    def failed(self, name: str, conn: Conn | None) -> None:
        """Deal with the exception that is being handled: a hook raised it. What is alike is logged now and then."""
        self._count(f"handler_error_{name}")
        error = sys.exception()
        assert error is not None
        kind = likeness_of(name, type(self.handler), error)
        what = "nothing was closed"
        if conn is not None:
            what = f"connection {self._name_of(conn)} is closed"
        self._tell(logging.ERROR, kind, "%s raised; %s", name, what, traceback=True)
        if conn is not None:
            self.end(conn, Termination("handler_error", "handler", "error", name), abort=True)
        if self.is_delayed and not self.is_starting:
            self.is_delayed = False
            self._started(failed_start(self.name, self.settings.handler, type(self.handler), error, hook=name))

    def _accepted(self, conn: Conn | None, result: OpResult) -> None:
        if result.error is not None:
            self._accept_failed(result.error)
            return
        assert conn is not None
        if conn.closed:  # between its being accepted and this: by a drain, say. No hook could do anything with it.
            self._ledger.rejected(conn, termination_of(conn.close_reason).in_phase("accept"))
            conn.context = _UNSEEN
            return
        if self._header_wait is None and not self._may_come(conn):
            conn.context = _UNSEEN
            conn.reset()
            return
        if self.active >= self.settings.connections_max:
            self._count("rejected_limit")
            limit = self.settings.connections_max
            self._tell(logging.WARNING, "limit", "connections_max=%d is reached; more are rejected", limit)
            self._ledger.rejected(conn, OVER_LIMIT)
            conn.context = _UNSEEN
            conn.abort()
            return
        if self._limits is not None and self._header_wait is None and not self._has_room(conn):
            conn.context = _UNSEEN
            conn.reset()
            return
        self.active += 1
        if self._header_wait is None:
            self._begin(conn)
        else:
            self._header_wait.expect(conn)

    def _begin(self, conn: Conn) -> None:
        """Let TLS begin on a connection, or the handler have it."""
        if self._tls_wait is None or self.offers_tls:
            self._admit(conn)
        else:
            self._tls_wait.expect(conn)

    def _admit(self, conn: Conn) -> None:
        """Let the handler have a connection."""
        conn.context = self
        conn.traffic = self._row
        self._ledger.opened(conn)
        self._call("on_open", conn, self.handler.on_open, (conn,))

    def _may_come(self, conn: Conn) -> bool:
        """Tell whether bans and access rules let a client connect. One that is gone may, and a balancer's own check."""
        if self._common.bans.are_any and self._is_banned(conn):
            self._reject_banned(conn)
            return False
        if self._access is None:
            return True
        address = _client_of(conn)
        rule = None if address is None else self._access.refusal_of(address)
        if rule is None:
            return True
        self._count("rejected_access")
        self._tell(logging.INFO, "access", "a connection from %s is rejected by access: %s", peer_text(address), rule)
        self._ledger.rejected(conn, NO_ACCESS)
        return False

    def _is_banned(self, conn: Conn) -> bool:
        address = _client_of(conn)
        return address is not None and self._common.bans.has(address)

    def _reject_banned(self, conn: Conn) -> None:
        self._count("rejected_ban")
        self._tell(logging.INFO, "ban", "a connection from %s is rejected: it is banned", peer_text(_client_of(conn)))
        self._ledger.rejected(conn, BANNED)

    def end_banned(self) -> None:
        """Close the connections of who is banned, at once."""
        for conn in filter(self._is_banned, self.clients()):
            self.end(conn, "ban", abort=True)
        if self._tls_wait is not None:
            for conn in filter(self._is_banned, self._watcher.connections(context=self._tls_wait)):
                self._reject_banned(conn)
                conn.reset()

    def _has_room(self, conn: Conn) -> bool:
        """Tell whether the daemon and the address of a connection may have one more, and count it."""
        assert self._limits is not None
        refusal = self._limits.admit(conn.serial, _client_of(conn))
        if refusal is None:
            return True
        self._count(f"rejected_{refusal}")
        peer = peer_text(conn.peer_address)
        self._tell(logging.INFO, refusal, "a connection from %s is rejected: %s is reached", peer, refusal.cause)
        self._ledger.rejected(conn, refusal)
        return False

    def _announced(self, conn: Conn) -> None:
        """Go on with a connection whose PROXY header has come, if its client may connect."""
        if self._may_come(conn) and (self._limits is None or self._has_room(conn)):
            self._begin(conn)
        else:
            conn.reset()

    def _not_announced(self, conn: Conn, message: str, termination: Termination) -> None:
        self._count("rejected_proxy_protocol")
        if message:
            self._tell(logging.WARNING, "proxy_protocol", "%s", message)
            self._ledger.rejected(conn, termination)

    def _no_tls(self, conn: Conn, message: str, termination: Termination) -> None:
        self._count("rejected_tls")
        if message:
            self._tell(logging.WARNING, f"tls_{termination.cause}", "%s", message)
        self._ledger.rejected(conn, termination)

    def _unserved_closed(self, conn: Conn) -> None:
        self.active -= 1
        if self._limits is not None:
            self._limits.gone(conn.serial)

    def _count_tls(self, conn: Conn, error: Exception | None) -> None:
        """Count what came of a handshake with a server."""
        if error is None:
            facts = conn.tls
            self._count(f"upstream_tls_{'resumed' if facts.resumed else 'full'}_{facts.version}")
        elif isinstance(error, TlsError):
            self._count(f"upstream_tls_failed_{error.reason}")
        elif isinstance(error, DeadlineExceeded):
            self._count("upstream_tls_failed_timeout")

    def _note_tls(self, conn: Conn, error: Exception | None) -> None:
        """Count what a server does to TLS later: with TLS 1.3 it refuses a certificate after our handshake is done."""
        if isinstance(error, TlsError) and not self.is_client(conn):
            self._count_tls(conn, error)

    def _accept_failed(self, error: Exception) -> None:
        if isinstance(error, (ConnClosed, WatcherClosed)) or not self._sockets:
            return
        code = getattr(error, "errno", None)
        self._accept_pauses.failed(self._sockets, code)
        name = errno.errorcode.get(code or 0, "other")
        self._count(f"accept_error_{name if name in ACCEPT_ERRORS else 'other'}")
        self._tell(logging.WARNING, "accept", "accepting failed: %s; trying again", error)

    def _closed(self, conn: Conn, name: bytes | None) -> None:
        is_client = conn.traffic != self._upstream
        reason = conn.close_reason
        if type(reason) is not Termination:
            reason = termination_of(reason, at_eof=conn.at_eof, is_client=is_client)
        if is_client:
            self.active -= 1
            if self._limits is not None:
                self._limits.gone(conn.serial)
            reason = of_client(reason)
            if not reason.phase:
                reason = reason.in_phase(phase_at_end(self.handler, conn, reason))
            self._ledger.closed(conn, name, reason, server_of(self.handler, conn))
        if self._names.moved:
            self._names.forget(conn)
        self._call("on_close", None, self.handler.on_close, (conn, reason))

    # -- connections that go to another worker, or come from one ---------------------------------------

    @property
    def state_version(self) -> int | None:
        """As `Handler.state_version`."""
        return self.handler.state_version

    @property
    def hands_over(self) -> bool:
        """Whether its connections may go from one worker to another."""
        return self.settings.handover and self.handler.state_version is not None

    @property
    def versions(self) -> list[int]:
        """The versions of a handler's state that this one understands."""
        own = self.handler.state_version
        return [] if own is None else sorted({own, *self.handler.state_accepts})

    def traffic_of(self, is_client: bool) -> int:
        """Return the `Conn.traffic` of its connections."""
        return self._row if is_client else self._upstream

    def partner_of(self, conn: Conn) -> Conn | None:
        """Return the partner of a connection, as its handler has it; a question about one must not cost it."""
        try:
            partner = self.handler.partner_of(conn)
        except BaseException:
            return None
        return partner if isinstance(partner, Conn) else None

    def leave(self, conn: Conn) -> tuple[bytes | None, str]:
        """Return what the handler says of a connection that is to go; None: it stays, and why."""
        self._watch.note(self, "on_leave", conn)
        state: bytes | None = None
        reason = "not_quiet"
        try:
            state = self.handler.on_leave(conn)
            if state is not None and (not isinstance(state, bytes) or len(state) > STATE_MAX_BYTES):
                raise TypeError(f"on_leave must return bytes, at most {STATE_MAX_BYTES} of them, or None")
        except BaseException:
            self.failed("on_leave", None)
            state, reason = None, "hook_error"
        if self._watch.lap():
            self.slow("on_leave", conn, self._watch.took_ns)
        return state, reason

    def went(self, conns: list[Conn]) -> None:
        """Take note that another worker goes on with a client's connection, and with those tied to it."""
        for conn in conns:
            if self.is_client(conn):
                self.active -= 1
                self._count("moved_out")
                if self._limits is not None:
                    self._limits.gone(conn.serial)
                self._ledger.went(conn)
        self._end_here(conns, HANDED_OVER)

    def count_stayed(self, reason: str) -> None:
        """Count a connection that was not handed over, for one of `STAY_REASONS`."""
        self._count(f"stayed_{reason}")

    def lack_of_room(self, version: int) -> str:
        """Return why a connection of a handler of that version cannot come; empty: it can."""
        if version not in self.versions or not self._is_open:
            return "version"
        return "limit" if self.active >= self.settings.connections_max else ""

    def arrive(self, conns: list[Conn], states: list[bytes | None], version: int, partners: list[int | None]) -> str:
        """Let the handler have clients' connections that may come; return why they do not, empty: they do.

        Args:
            conns: them, and those tied to them.
            states: what `on_leave` has returned for each; None: it is no client's.
            version: of the states.
            partners: the number of each one's partner.
        """
        for conn in conns:
            conn.context = self
        for i in range(len(conns)):
            state, partner = states[i], partners[i]
            if state is not None:
                arrival = Arrival(state, version, None if partner is None else conns[partner])
                reason = self._arrive(conns[i], arrival)
                if reason:
                    self._end_here([conns[k] for k in range(i) if states[k] is not None], HANDED_BACK)
                    return reason
        self.active += sum(self.is_client(conn) for conn in conns)
        return ""

    def _arrive(self, conn: Conn, arrival: Arrival) -> str:
        self._watch.note(self, "on_arrive", conn)
        reason = ""
        try:
            self.handler.on_arrive(conn, arrival)
        except NotTaken:
            reason = "refused"
        except BaseException:
            self.failed("on_arrive", None)
            reason = "hook_error"
        if self._watch.lap():
            self.slow("on_arrive", conn, self._watch.took_ns)
        return reason

    def came(self, conns: list[Conn], paused_s: float) -> None:
        """Take note that connections which have arrived are this worker's; nobody moved their bytes for so long."""
        for conn in conns:
            self._names.came(conn)
            if self.is_client(conn):
                self._count("moved_in")
                if self._limits is not None:
                    self._limits.came(conn.serial, _client_of(conn))
                if self._common.bans.are_any and self._is_banned(conn):
                    self.end(conn, "ban", abort=True)
                self._count("handover_ns", int(paused_s * 1e9))
                self._cells[self._row + FIRST_HANDOVER + bucket_of(paused_s, HANDOVER_BOUNDS_S)] += 1
                self._ledger.came(conn, paused_s)

    def handed_back(self, conns: list[Conn]) -> None:
        """Take note that connections which had arrived stay with the other worker."""
        self.active -= sum(self.is_client(conn) for conn in conns)
        self._end_here(conns, HANDED_BACK)

    def _end_here(self, conns: list[Conn], reason: Termination) -> None:
        for conn in conns:
            conn.close_reason = reason
        for conn in conns:
            self._call("on_close", None, self.handler.on_close, (conn, reason))
            self._names.forget(conn)

    # -- time ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._call("on_tick", None, self.handler.on_tick, ())

    def _sweep(self) -> None:
        """Close who is idle, and count what cannot be counted as it happens."""
        self._accept_pauses.look(self._sockets)
        if self._threads is not None:
            self._look_at_threads(self._threads)
        since_s = time.monotonic() - self.settings.idle_timeout_s
        for conn in self._watcher.connections(context=self, idle_since_s=since_s):
            self.end(conn, "idle", abort=True)

    def _look_at_threads(self, threads: "Threads") -> None:
        self._cells[self._row + CELL["threads"]] = threads.size
        self._cells[self._row + CELL["threads_queued"]] = threads.queued
        self._cells[self._row + CELL["threads_oldest_ns"]] = int(threads.oldest_s * 1e9)

    # -- counting and logging --------------------------------------------------------------------------

    def _count(self, cell: str, amount: int = 1) -> None:
        self._cells[self._row + CELL[cell]] += amount


class _LaterCall:
    """A call that a handler's coroutines wait for."""

    __slots__ = ("_action", "_listener", "_timer", "_watcher")

    def __init__(self, watcher: Watcher, listener: Listener, action: Callable[[], None]) -> None:
        self._watcher = watcher
        self._listener = listener
        self._action: Callable[[], None] | None = action
        self._timer: OpResult | None = None

    def begin(self, deadline: float) -> None:
        """Call it at a time in `time.monotonic()` seconds."""
        self._timer = self._watcher.timer(deadline, context=self)

    def cancel(self) -> None:
        """Do not call it."""
        timer, self._timer, self._action = self._timer, None, None
        if timer is not None:
            with suppress(WatcherClosed):
                self._watcher.cancel(timer)

    def __call__(self, result: OpResult) -> None:
        """Call it now, if it was not cancelled."""
        action, self._timer, self._action = self._action, None, None
        if action is not None:
            self._listener.call_hook("handle", action)


def _nobody_waits(error: StartError | None) -> None:
    """Be ready, where nobody waits for that."""


def _nobody_to_tell(key: str, value: Any) -> None:
    """Share a value where no other worker serves the listener."""


def _end_stalled(group: Group, grace_s: float) -> None:
    group.disconnect_stalled(grace_s)


class _Unseen(Target):
    """The context of a connection that no hook has seen: nobody is told of its end."""

    def on_completion(self, result: OpResult) -> None:
        """Do nothing."""


_UNSEEN = _Unseen(None, None)


def _limits_of(settings: ListenerSettings, common: Common) -> Total | PerAddress | None:
    per_address = None
    if settings.per_address is not None and common.tallies is not None:
        per_address = PerAddress(settings.per_address, settings.name, common.tallies)
    return limits_of(per_address, common.connections_max, common.tallies)


def _client_of(conn: Conn) -> Any:
    """Return the address of a client, which a balancer may have announced; None: it is gone, or a balancer's own."""
    header = conn.proxy_header
    return conn.peer_address if header is None else header.source


def _keys_for(settings: ListenerSettings, keys: TicketKeys) -> list[bytes]:
    """Return the keys that are for a listener's tickets."""
    return [bytes.fromhex(key) for key in keys.get(scope_of(settings) or "", ())]
