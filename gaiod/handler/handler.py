"""The handler API: handlers decide what to do with the bytes, sources bring messages to them."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from math import inf
from typing import Any, ClassVar, Protocol

from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.group import LIMIT, MEMORY_LIMIT, Group
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import ClientTls
from gaiod.handler.admin_state import AdminState
from gaiod.handler.arrival import Arrival
from gaiod.handler.hooks import check_hook, check_methods
from gaiod.handler.server_stats import HandlerCounts, ServerStats
from gaiod.handler.shared_values import RESERVED
from gaiod.handler.termination import Termination
from gaiod.stats.cells import HOOKS

SocketOptions = Sequence[tuple[int, int, int | bytes]]
"""`(level, name, value)` each, as `socket.setsockopt` takes them."""

GRACE_S = 5.0
"""A mobile client may be away for this long without its user noticing. After that, it should connect again."""

IDLE_TIMEOUT_S = 60.0
"""For who asks and is answered. One who sends now and then needs more."""

PUBLISH = "publish"
"""The name of the source that every listener which takes messages has: `gaiod publish`."""

CALLED = (
    *HOOKS, "servers_of", "buffer_limit_of", "notsent_lowat_of", "sources_of", "encode_message", "wants_last",
    "partner_of", "phase_of", "server_of", "notes_on",
)  # fmt: skip
"""The methods of a handler that gaiod calls. The handler itself calls the others."""


class Call(Protocol):
    """Something that is to be called later."""

    def cancel(self) -> None:
        """Do not call it."""


class Host(Protocol):
    """Gives a handler access to its worker: a listener, or a script of `gaiod.testing`."""

    @property
    def name(self) -> str:
        """The name of the listener."""

    @property
    def counts(self) -> HandlerCounts:
        """The counters of the handler."""

    @property
    def is_leader(self) -> bool:
        """Whether this worker leads: `Handler.is_leader`."""

    @property
    def shared(self) -> Mapping[str, Any]:
        """What the workers of the listener share: `Handler.shared`."""

    def share(self, key: str, value: Any) -> None:
        """Share a value with the other workers: `Handler.share`."""

    @property
    def offers_tls(self) -> bool:
        """Whether the handler begins TLS: `Handler.offers_tls`."""

    def connect(
        self, address: Any, data: Any, deadline: float | None, options: SocketOptions, *,
        tls: ClientTls | None, preface: bytes,
    ) -> Conn:  # fmt: skip
        """Open a connection: `Handler.connect`."""

    def group(self, limit: int, policy: str, grace_s: float, memory_limit: int) -> Group:
        """Make a group: `Handler.group`."""

    def pause_accepting(self, error: Exception) -> None:
        """Stop accepting for a moment: `Handler.pause_accepting`."""

    def delay_ready(self) -> None:
        """Let the worker not be ready yet: `Handler.delay_ready`."""

    def ready(self) -> None:
        """Let the worker be ready: `Handler.ready`."""

    def timer(self, delay_s: float, data: Any) -> None:
        """Call `on_timer` later: `Handler.timer`."""

    def post(self, data: Any) -> None:
        """Call `on_post` in the worker's thread: `Handler.post`."""

    @property
    def is_starting(self) -> bool:
        """Whether `on_start` is being called."""

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Call:
        """Call something after some seconds, whoever is left by then."""

    def call_soon(self, action: Callable[[], None]) -> None:
        """Call something in the worker's thread, soon. Any thread may ask for it."""

    def run(self, function: Callable[[], Any], threads_max: int) -> Any:
        """Call a function in one of so many threads; return the `Wait` for what it returns."""

    def failed(self, name: str, conn: Conn | None) -> None:
        """Deal with the exception that is being handled, as with one of a hook: it costs the connection."""


VERSION_END = 1 << 63
"""Versions of a handler's state are below it."""


class Handler:
    """Serves the connections of one listener. There is one instance per listener and worker, in one thread.

    A hook must not block. It starts operations on its connection (`conn.read()`, `conn.write(data)`, `conn.close()`,
    ...) and returns. When an operation completes, gaiod calls another hook. Hooks that a handler does not define close
    the connection. Keep the state of a connection in `conn.data`.

    Set `conn.busy = True` while a client waits for an answer without a byte moving, for example while a thread computes
    it. Then the connection is not idle, and a drain waits for it for up to `drain_timeout`. For a relayed connection
    whose peer was the last to send, a drain waits without that.

    An exception in a hook, even `SystemExit`, closes that connection only; it is logged and counted. An exception in
    `on_start` fails the start or the reload.

    Each outcome of an operation calls one hook, if the connection has not closed meanwhile:

    | operation    | success          | end of the stream | deadline, cancel      | error of the network     |
    |--------------|------------------|-------------------|-----------------------|--------------------------|
    | `read...()`  | `on_read`        | `on_eof`          | `on_error`            | `on_close`               |
    | `write()`    | `on_write`       |                   | `on_error`            | `on_close`               |
    | `relay_to()` |                  | `on_relay`        | `on_relay`, `.error`  | `on_relay`, `.error`     |
    | `connect()`  | `on_connect`     |                   | `on_connect`, `.error`| `on_connect`, `.error`   |
    | `start_tls()`| `on_tls`         | `on_close`        | `on_close`            | `on_close`               |

    `on_hangup` reports a peer that is gone while no read is pending. A connection that the network ends is closed. The
    reason that `on_close` gets says who ended it, and how (`gaiod.Termination`).

    If a connection closes, its pending operations call no hook except `on_connect`. `on_close` is called once for each
    connection, as the last hook.

    Attributes:
        Options: a dataclass, if the handler has options. It is the schema of `with:` in the configuration, and
            `self.options` is an instance of it.
        tick_interval_s: seconds between calls of `on_tick`.
        state_version: the version of what `on_leave` returns. None: a reload lets the connections drain; else they are
            handed over to the workers that come after (`on_leave`, `on_arrive`).
        state_accepts: older versions that `on_arrive` understands, too.
    """

    Options: ClassVar[type[Any] | None] = None
    tick_interval_s: ClassVar[float] = 1.0
    state_version: ClassVar[int | None] = None
    state_accepts: ClassVar[frozenset[int]] = frozenset()

    _called: ClassVar[tuple[str, ...]] = CALLED
    _host: Host | None = None

    def __init__(self, options: Any = None) -> None:
        """Make a handler. Do no I/O here: `gaiod check` makes one too, which never serves. See `on_start`.

        Args:
            options: an instance of `Options`; None if the handler has none.
        """
        self.options = options

    def __init_subclass__(cls) -> None:
        """Refuse hooks that do not exist, are async, or cannot be called with their arguments; and endless ticks."""
        super().__init_subclass__()
        for name in vars(cls):
            check_hook(name, cls.__qualname__)
        check_methods(cls, Handler, cls._called)
        cls._check_versions()
        interval_s: Any = cls.tick_interval_s
        if isinstance(interval_s, int | float) and not 0 < interval_s < inf:
            raise TypeError(f"{cls.__qualname__}.tick_interval_s is {interval_s!r}; write seconds, more than 0")

    @classmethod
    def _check_versions(cls) -> None:
        """Refuse versions of the state that are none: workers compare them when they hand connections over."""
        version: Any = cls.state_version
        accepts: Any = cls.state_accepts
        if version is not None and not _is_version(version):
            raise TypeError(f"{cls.__qualname__}.state_version is {version!r}; write a whole number from 0 on, or None")
        if not isinstance(accepts, frozenset | set) or not all(map(_is_version, accepts)):
            raise TypeError(f"{cls.__qualname__}.state_accepts is {accepts!r}; write a set of versions: {{1, 2}}")
        if version is not None and cls.on_arrive is Handler.on_arrive:
            raise TypeError(f"{cls.__qualname__} has a state_version; define on_arrive(self, conn, arrival), too")

    # -- what the configuration asks -----------------------------------------------------------------

    @classmethod
    def servers_of(cls, options: Any) -> tuple[str, ...]:
        """Return the names in metrics of the servers that a listener with these options connects to.

        A server whose name is its address (`127.0.0.1:5432`, `unix:/run/db.sock`) must not be the listener itself.
        Raise a `ValueError` to refuse the options: the operator sees its text.
        """
        return ()

    @classmethod
    def buffer_limit_of(cls, options: Any) -> int | None:
        """Return the most bytes that one direction of a connection may hold with these options; None: unknown."""
        return None

    @classmethod
    def notsent_lowat_of(cls, options: Any) -> int | None:
        """Return the default of `notsent_lowat` for a listener with these options, in bytes.

        None: the kernel buffers as many unsent bytes as its send buffer holds.
        """
        return None

    @classmethod
    def sources_of(cls, options: Any) -> Sequence["Source"]:
        """Return the sources that feed a listener with these options: new ones, not started.

        The feeder runs them. A handler with sources needs `on_message`. Raise a `ValueError` to refuse the options: the
        operator sees its text.
        """
        return ()

    @classmethod
    def encode_message(cls, options: Any, topic: str, data: bytes) -> bytes:
        """Encode a message for `on_message`. This happens once in the feeder, not in each worker.

        Called in the thread that publishes. Raise a `ValueError` to refuse the message: its text says why.
        """
        return data

    @classmethod
    def wants_last(cls, options: Any) -> bool:
        """Tell whether a new worker gets the last message of each topic, through `on_message`, before it serves.

        They come in the order in which they were published. The feeder keeps 32 MiB of them, for all listeners
        together; the topics published longest ago are forgotten first.
        """
        return False

    # -- hooks ---------------------------------------------------------------------------------------

    def on_start(self) -> Coroutine[Any, Any, None] | None:
        """Start, before the first client is accepted. `connect()`, `timer()` and `group()` work from here on.

        Only a `gaiod.CoroutineHandler` may have an `async` one.

        An exception fails the start of the daemon, or the reload, which then replaces nothing. In a worker that
        replaces a dead one, `on_start` is tried again, with a back-off.
        """
        return None

    def on_open(self, conn: Conn) -> None:
        """Handle a new connection."""
        conn.close()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        """Handle the bytes of a read: `result.buffer`. It is valid until this returns; copy what you keep."""
        conn.close()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Handle the completion of a write: the kernel has taken all of its bytes."""
        conn.close()

    def on_eof(self, conn: Conn) -> None:
        """Handle the end of the stream, found by a read: the peer sends no more, but may still receive."""
        conn.close()

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        """Handle a read or write that has expired or was cancelled. The connection stays usable.

        The default closes it: after a read once the queued writes are sent; after a write at once, because the writes
        queued behind it would follow a gap.

        Args:
            conn: the connection.
            operation: `OpType.READ` or `OpType.WRITE`. Of a write some, all or none of the bytes may have been sent.
            error: `DeadlineExceeded`, or after `conn.cancel()` an `OSError` with `errno.ECANCELED`.
        """
        if isinstance(error, DeadlineExceeded):
            conn.close_reason = conn.close_reason or "deadline"
        if operation is OpType.WRITE:
            conn.abort()
        else:
            conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        """Release what belongs to a connection that has closed, for whatever reason.

        The reason is a word, and a `gaiod.Termination`: `reason.who` ended it, `reason.how`, and for which
        `reason.cause`. Before a handler closes a connection it may set its own reason in `conn.close_reason`: a word
        or a `Termination`.
        """

    def on_tick(self) -> None:
        """Do periodic work, every `tick_interval_s` seconds."""

    def on_timer(self, data: Any) -> None:
        """Handle a timer that was set with `timer(delay_s, data)`."""

    def on_post(self, data: Any) -> None:
        """Handle what another thread passed to `post(data)`."""

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        """Handle the outcome of `connect()`: established, or failed with `result.error`."""
        conn.close()

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        """Handle the end of `conn.relay_to()`: it passed on the end of the stream, or failed with `result.error`."""
        conn.close()

    def on_tls(self, conn: Conn) -> None:
        """Go on with a connection that speaks TLS from now on, as `conn.start_tls()` has asked: `conn.tls` says how."""
        conn.close()

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        """Handle a peer that is gone while no read was pending: it will receive nothing any more.

        Called once, when the peer has reset the connection, or has closed a unix socket. (Over TCP, a peer that closes
        only sends a FIN, and may still receive: that is no hang-up.) A pending read reports it instead. `result.error`
        says how the peer left, `result.size` how many bytes can still be read. The default closes the connection if
        there are none. Otherwise it leaves it to the next read.
        """
        if result.size == 0:
            error = result.error
            gone = Termination.of_error(error, conn) if isinstance(error, OSError) else "peer_eof"
            conn.close_reason = conn.close_reason or gone
            conn.abort()

    def on_message(self, topic: str, data: bytes) -> None:
        """Handle a published message, as `encode_message` returned it.

        Define this hook to receive messages of your sources and of `gaiod publish`. Every worker gets every message;
        those of one source arrive in order. Never called before `on_start`.
        """

    def on_share(self, key: str, value: Any) -> None:
        """Handle a value that another worker of the listener has shared; None: it takes the value back.

        Not called for what was shared before this worker started: `on_start` finds that in `self.shared`.
        """

    def on_admin_state(self, server: str, state: AdminState) -> None:
        """Handle what an operator wants of a server (`gaiod server`), one of those that `servers_of` names.

        Define this hook to let operators drain servers. Called for each change, and once after `on_start` for each
        server that an operator has set earlier: it outlives workers, reloads and upgrades.
        """

    def on_leader(self, is_leader: bool) -> None:
        """Begin, or end, what one worker does for all workers of the listener.

        The supervisor names the leader: the worker of the lowest number that serves. Another one takes over when it
        ends. While one generation takes over from another there may be two for a moment. Never called before
        `on_start`.
        """

    def on_leave(self, conn: Conn) -> bytes | None:
        """Describe a client's connection for the worker that goes on with it; None: it cannot leave now.

        Called only with a `state_version`, at a reload, an upgrade, or when the worker is replaced. Return what
        `on_arrive` needs to make `conn.data` anew: JSON, say, and at most 64 KiB. The bytes that are pending to be
        written, its relays and its groups' messages are carried without you. That it is in a group is not: tell its
        topics, and `on_arrive` adds it again. Nor is a pending read: nothing was consumed. Clients that are relayed to
        each other go together, and each is described. Change nothing and start nothing: the connection may stay. If it
        goes, `on_close` is called with the reason "handed_over"; if not, it is asked for again, until the time of the
        hand-over is up.
        """
        return b""

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        """Go on with a connection that another worker has served until now, instead of `on_open`.

        Make `conn.data` of `arrival.state`, add it to its groups again (`group.add(conn)`; messages that wait for it
        follow by themselves), and start what `on_open` would: a read, unless a write is pending whose `on_write` reads.
        A connection for which nothing was started is closed with the reason "forgotten". Operations begin once it is
        really here; if it then stays where it was, `on_close` is called with the reason "handed_back".

        The options may be others than where it came from. Raise `gaiod.NotTaken` if it cannot go on with these: its
        topic is gone, say, or messages are encoded in another way than its client was promised.
        """
        raise NotImplementedError

    # -- what an operator asks -----------------------------------------------------------------------

    def partner_of(self, conn: Conn) -> Conn | None:
        """Return the partner of a connection, so that `gaiod explain` describes both.

        For the connection of a client: the one that this handler opened for it, and vice versa. Relays are known
        without this method.
        """
        return None

    def phase_of(self, conn: Conn) -> str:
        """Return the phase of a client's connection: a word for the log, `gaiod connections` and `gaiod explain`.

        Called once more when the connection has closed, before `on_close`, unless its reason has a phase.
        """
        return "closing" if conn.at_eof else "data"

    def server_of(self, conn: Conn) -> str | None:
        """Return the server of a client's connection, as `servers_of` names it; None: none. Called like `phase_of`."""
        return None

    def notes_on(self, conn: Conn) -> Iterable[str]:
        """Return further sentences for `gaiod explain` about a client's connection."""
        return ()

    # -- what it may ask for -------------------------------------------------------------------------

    @property
    def listener(self) -> str:
        """The name of the listener that the handler serves, for log lines: several listeners may have the same handler.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
        """
        return self._serving("listener").name

    @property
    def offers_tls(self) -> bool:
        """Whether clients may ask for TLS: the listener has `tls: {start: handler}`.

        Raises:
            RuntimeError: as `listener`.
        """
        return self._serving("offers_tls").offers_tls

    def connect(
        self, address: Any, *, data: Any = None, deadline: float | None = None, options: SocketOptions = (),
        tls: ClientTls | None = None, preface: bytes = b"",
    ) -> Conn:  # fmt: skip
        """Open a connection. gaiod calls `on_connect` when it is established or has failed.

        With `tls` it is established once its handshake is done. Hooks see plain bytes, and `conn.tls` says what was
        agreed. `result.error` is a `gaiod.TlsError` if the server is not believed, does not believe us, or does not
        speak TLS: its `reason` is a word for it, and its `strerror` says it. The newest ticket of each address
        continues its session. Keep a `ClientTls`, and use it again: `gaiod.prepare_tls` it in `on_start`.

        Args:
            address: `(host, port)` with a numeric host, or the path of a unix socket: what `target` is of a
                `gaiod.parse_address(text)`, unless the text is a name.
            data: becomes `conn.data`.
            deadline: in `time.monotonic()` seconds.
            options: socket options, set before the first packet is sent.
            tls: who the server is, and what is shown to it; None: no TLS.
            preface: with `tls`: what is sent before the handshake, unencrypted: a PROXY header, say. No hook is told.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
            ValueError: also, as `gaiod.prepare_tls`; or a preface without TLS, which `write` does.
            As `Watcher.connect`.
        """
        if preface and tls is None:
            raise ValueError("a preface comes before a handshake, and there is none; write it")
        host = self._host or self._serving("connect")
        return host.connect(address, data, deadline, options, tls=tls, preface=preface)

    def pause_accepting(self, error: Exception) -> None:
        """Stop accepting for a tenth of a second, or until a connection of the worker closes. Clients wait meanwhile.

        For a handler that has run out of something that the next client would need, such as descriptors for connections
        to servers. It is logged, and counted in `gaiod_accept_paused_seconds_total`.

        Args:
            error: the failure, usually an `OSError`.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
        """
        self._serving("pause_accepting").pause_accepting(error)

    def delay_ready(self) -> None:
        """Let the worker accept no client until `ready()` is called, for a start that takes longer than `on_start` may.

        Call it in `on_start`, and set a timer: a worker that is not ready within 30 s is killed. Until `ready()`, an
        exception in any hook fails the start or the reload, as one in `on_start` does.

        Raises:
            RuntimeError: not in `on_start`.
        """
        self._serving("delay_ready").delay_ready()

    def ready(self) -> None:
        """Let the worker accept clients: what `delay_ready()` waits for is there. More calls have no effect.

        Raises:
            RuntimeError: as `connect`.
        """
        self._serving("ready").ready()

    def group(
        self,
        *,
        limit: int = LIMIT,
        policy: str = "disconnect",
        grace_s: float = GRACE_S,
        memory_limit: int = MEMORY_LIMIT,
    ) -> Group:
        """Make a group: connections that get what is published, each through a bounded queue of its own.

        Keep a read pending on each member. It notices that the peer has ended (`on_eof`) even if nothing is published.

        Args:
            limit: the most bytes that wait for one member, besides those in the kernel. So also the longest message.
            policy: what to do if a message exceeds the limit: `disconnect` (reason `slow_consumer`), `drop_oldest` (but
                never the newest message), `drop_newest`, or `latest_only` (only the newest message of each topic waits,
                and `limit` applies to each message).
            grace_s: seconds. With `disconnect`, also close a member that has taken nothing for this long while messages
                waited.
            memory_limit: the most bytes of memory that waiting messages take. Beyond that, the members furthest behind
                lose messages; with `disconnect` and `latest_only` they are closed.

        Raises:
            RuntimeError: as `connect`.
            ValueError: no such policy, or a limit that is too small.
        """
        return self._serving("group").group(limit, policy, grace_s, memory_limit)

    def timer(self, delay_s: float, data: Any) -> None:
        """Call `on_timer(data)` once, `delay_s` seconds from now.

        The call is omitted if the listener has stopped accepting by then and has no connections left.

        Raises:
            RuntimeError: as `connect`.
            ValueError: the delay is no finite number.
        """
        self._serving("timer").timer(delay_s, data)

    def post(self, data: Any) -> None:
        """Call `on_post(data)` in the worker's thread, soon. Any thread may call this. It never blocks.

        While the worker ends, calls have no effect.

        Raises:
            RuntimeError: as `connect`.
            TooManyOperations: 65,536 calls are waiting.
        """
        self._serving("post").post(data)

    def share(self, key: str, value: Any) -> None:
        """Share a value with the other workers of the listener, which get it by `on_share`, and with later ones.

        The supervisor keeps the last value of each key. So it outlives this worker, a reload that keeps the listener's
        name and handler, and `gaiod upgrade`, but not a stop. If two workers share a value for one key, all end up with
        the same one. What is shared faster than 100 values a second is delayed; only the last value of each key is
        passed on then, which is logged and counted.

        Times in `time.monotonic()` mean the same in every worker.

        Args:
            key: 1 to 512 printable characters; `gaiod:` is how gaiod's own begin.
            value: what JSON can hold, at most 16 KiB as JSON. None takes the value of the key back.

        Raises:
            RuntimeError: as `connect`.
            ValueError: no such key, not JSON, too long; or more than 1 MiB for all values of the listener.
        """
        if isinstance(key, str) and key.startswith(RESERVED):
            raise ValueError(f"{key!r}: keys that begin with {RESERVED} are gaiod's own; choose another")
        self._serving("share").share(key, value)

    @property
    def shared(self) -> Mapping[str, Any]:
        """What the workers of the listener have shared: the last value of each key. Read it only.

        Raises:
            RuntimeError: as `connect`.
        """
        return self._serving("shared").shared

    @property
    def is_leader(self) -> bool:
        """Whether this worker does what one worker does for all: `on_leader`.

        Raises:
            RuntimeError: as `connect`.
        """
        return self._serving("is_leader").is_leader

    def server(self, label: str) -> ServerStats:
        """Return the counters of a server.

        Raises:
            RuntimeError: as `connect`.
            ValueError: `servers_of` did not name it.
        """
        return self._serving("server").counts.server(label)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of the listener that metrics show.

        Args:
            name: `upstream_retries`, `upstream_queue_timeouts`, `upstream_unavailable` (clients closed because no
                server could be had), or `upstream_unavailable_CAUSE`, where it is one of these: `down`, `full`,
                `queue_timeout`, `unresolved`, `no_resources`, `connect_refused`, `connect_timeout`,
                `connect_unreachable`, `connect_reset`, `connect_tls`, `connect_other`, `no_route`; or
                `upstream_route_RESULT` (`sni`, `alpn`, `unknown_name`, `no_name`, `http`, `not_tls`, `malformed`,
                `timeout`); or `upstream_queued`, which goes down again: -1 for each +1.
            amount: how many more.

        Raises:
            RuntimeError: as `connect`.
            ValueError: another name.
        """
        self._serving("count").counts.count(name, amount)

    def _start(self) -> None:
        """Be started by the host."""
        self.on_start()

    def _serving(self, name: str) -> Host:
        if self._host is None:
            raise RuntimeError(f"{name} works once the handler serves a listener: call it from a hook")
        return self._host


# -- where messages come from -----------------------------------------------------------------------


class Outlet(Protocol):
    """What a source publishes through, and what it may ask for. It does nothing more once the source is stopped.

    A *position* is how far a source has read, and it outlives the source, the feeder and the daemon (in an upgrade):
    a text of the source's own, kept under another text, its origin, which says what is read (a path; a URL and the
    name of a stream). It is kept in the same step as the message it comes with, and each worker gets that message
    once, whoever is killed in between. So a source that begins behind its position loses nothing and doubles nothing.
    A listener has its positions for itself, whatever its options are.
    """

    def publish(self, data: bytes, topic: str, position: tuple[str, str] | None = None) -> None:
        """Give a message to every worker. Any thread may call this.

        In a thread of the source's own it waits while `is_behind`, but no longer than until the source is
        stopped; in the loop's thread it never waits.

        Args:
            data: the message.
            topic: its topic.
            position: `(origin, text)`, behind this message: at most 4 KiB each. None: none is kept.

        Raises:
            ValueError: the handler refuses the message (`Handler.encode_message`), or it is empty or too long. The
                text says why; it was counted as refused, and went to nobody. Its position was kept all the same.
        """

    def position(self, origin: str) -> str | None:
        """Return the position that was kept last; None: none was. Any thread may call this."""

    def keep(self, origin: str, text: str) -> None:
        """Keep a position without a message, behind those that were published. Any thread may call this.

        Of a source that begins at the end of something: keep where that is before the first message.

        Raises:
            ValueError: one of the texts has more than 4 KiB, or the origin has nothing.
        """

    @property
    def is_behind(self) -> bool:
        """Whether workers have not taken much of what was published: in the loop's thread, read no more for now."""

    @property
    def up(self) -> bool:
        """Whether the source gets what it is to publish. True from before `start` on, until it is set to False.

        Any thread may look, and set it: metrics show it.
        """

    @up.setter
    def up(self, is_up: bool) -> None: ...

    def reconnected(self) -> None:
        """Count that the source was cut off, and no longer is. Any thread may call this."""

    def gap(self, reason: str) -> None:
        """Count that messages may be missing here, one or many, and log why. Any thread may call this.

        Args:
            reason: a sentence for the log, which has one of them a second at most.
        """

    def reset(self, kind: str, reason: str) -> None:
        """Count a gap, because what the source reads is not what it was; log why. Any thread may call this.

        Args:
            kind: `restored`, to what it was earlier, or made `anew`.
            reason: as for `gap`.
        """

    def timer(self, delay_s: float, action: Callable[[], None]) -> None:
        """Have `action()` called once in the loop's thread, `delay_s` seconds from now. Call it in that thread."""

    def post(self, action: Callable[[], None]) -> None:
        """Have `action()` called in the loop's thread, soon. Any thread may call this; it never blocks.

        Raises:
            TooManyOperations: 65,536 wait already.
        """

    def serve(self, bind: str, handler: Handler, *, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        """Answer who connects to an address, with a handler. Call it in the loop's thread. It ends with the source.

        The daemon has the socket open before the source starts, and keeps it open when the feeder is replaced, in a
        reload and in an upgrade. Clients that connect meanwhile wait. At most 8,192 connections.

        Args:
            bind: one of the source's `listens_on`.
            handler: an instance of its own; it may hold the source and the outlet.
            idle_timeout_s: a connection that has moved nothing for so long is closed.

        Raises:
            ValueError: it is none of these.
            OSError: the feeder has no descriptor left for it.
        """


class Source:
    """Takes messages in from somewhere, and publishes them: where the messages of a listener come from.

        class Clock(Source):
            name = "clock"

            def start(self, outlet: Outlet) -> None:
                self._outlet = outlet
                self._tick()

            def _tick(self) -> None:
                self._outlet.publish(b"tick", "time")
                self._outlet.timer(1.0, self._tick)

    A handler names its sources (`Handler.sources_of`). They run once per daemon, in the feeder, a process of its
    own; what they publish reaches the handler in every worker (`Handler.on_message`).

    One that reads something which can be read again from a certain point goes on where it was, in another feeder too
    (`Outlet.position`):

            def start(self, outlet: Outlet) -> None:
                self._number = int(outlet.position("numbers") or 0)

            def _tick(self) -> None:
                self._number += 1
                self._outlet.publish(b"%d" % self._number, "numbers", ("numbers", str(self._number)))

    A reload of other options of its listener makes sources anew. One that equals a source that runs, by `==` and of the
    same class, does not start: the one that runs goes on, with its connections. So define `__eq__` (a dataclass has
    it) for a source that depends on nothing but what it compares.

    Making one does no I/O: `gaiod check` does it, too.

    Attributes:
        name: what metrics call it: unique in its listener, and not `publish`.
        listens_on: the addresses that it serves (`Outlet.serve`): `127.0.0.1:PORT`, `[::1]:PORT` or
            `unix:/absolute/path`. The daemon opens them, and a start or a reload fails if one cannot be had.
    """

    name: str = ""
    listens_on: Sequence[str] = ()

    def __init_subclass__(cls) -> None:
        """Refuse a method that is async, or cannot be called with its arguments."""
        super().__init_subclass__()
        check_methods(cls, Source, ("start", "stop"))

    def start(self, outlet: Outlet) -> None:
        """Begin to publish. In the loop's thread of the feeder: it must not block.

        An exception is logged, the source is down, and this is called again after a while with another outlet;
        `stop` is not called in between.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Take nothing in any more, and end the threads it started. In the loop's thread; return soon.

        Timers, posts and sockets of the outlet have ended by then.
        """


def _is_version(value: Any) -> bool:
    return type(value) is int and 0 <= value < VERSION_END
