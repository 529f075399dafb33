"""The handler API: what decides what to do with the bytes."""

from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, ClassVar, Protocol

from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.group import LIMIT, MEMORY_LIMIT, Group
from gaiod.core.operations import OpResult, OpType
from gaiod.handler.hooks import check_hook, check_methods
from gaiod.handler.server_stats import HandlerCounts, ServerStats
from gaiod.handler.source import Source
from gaiod.handler.termination import Termination
from gaiod.stats.cells import HOOKS

SocketOptions = Sequence[tuple[int, int, int | bytes]]
"""`(level, name, value)` each, as `socket.setsockopt` takes them."""

GRACE_S = 5.0
"""As long as a mobile client may be away without its user noticing; beyond, it had better connect again."""


CALLED = (
    *HOOKS, "servers_of", "buffer_limit_of", "notsent_lowat_of", "sources_of", "encode_message", "partner_of",
    "phase_of", "server_of", "notes_on",
)  # fmt: skip
"""The methods of a handler that others call. The rest are for the handler itself to call."""


class Host(Protocol):
    """What a handler serves through: a listener, or a script of `gaiod.testing`."""

    @property
    def name(self) -> str:
        """The listener's."""

    @property
    def counts(self) -> HandlerCounts:
        """What it counts."""

    def connect(self, address: Any, data: Any, deadline: float | None, options: SocketOptions) -> Conn:
        """Open a connection: `Handler.connect`."""

    def group(self, limit: int, policy: str, grace_s: float, memory_limit: int) -> Group:
        """Make a group: `Handler.group`."""

    def pause_accepting(self, error: Exception) -> None:
        """Accept nobody for a moment: `Handler.pause_accepting`."""

    def timer(self, delay_s: float, data: Any) -> None:
        """Call `on_timer` later: `Handler.timer`."""

    def post(self, data: Any) -> None:
        """Call `on_post` in the worker's thread: `Handler.post`."""


class Handler:
    """Answers the connections of one listener. One instance per listener and worker, one thread.

    A hook must not block: it starts operations on its connection (`conn.read()`, `conn.write(data)`,
    `conn.close()`, ...), and another hook is called when one completes. The defaults close the
    connection, so a handler says everything it does. What belongs to one connection goes into
    `conn.data`.

    What a client waits for may take its time without a byte moving. While a handler has a thread work for it, say,
    `conn.busy = True`: then the connection is not idle, and a drain waits for it for as long as `drain_timeout` allows.
    For a relayed one whose peer has spoken last a drain waits by itself.

    Whatever a hook raises, `SystemExit` included, closes that connection only; it is logged and counted. What
    `on_start` raises fails the start, or the reload.

    Which outcome of an operation reaches which hook, for a connection that has not closed meanwhile:

    | operation    | success          | end of the stream | deadline, cancel      | error of the network     |
    |--------------|------------------|-------------------|-----------------------|--------------------------|
    | `read...()`  | `on_read`        | `on_eof`          | `on_error`            | `on_close`               |
    | `write()`    | `on_write`       |                   | `on_error`            | `on_close`               |
    | `relay_to()` |                  | `on_relay`        | `on_relay`, `.error`  | `on_relay`, `.error`     |
    | `connect()`  | `on_connect`     |                   | `on_connect`, `.error`| `on_connect`, `.error`   |

    A peer that is gone while no read is pending: `on_hangup`. What the network ends is closed; the reason that
    `on_close` gets says who ended it, and how (`gaiod.Termination`).

    An operation that was pending when its connection closed reaches no hook but `on_connect`: `on_close` tells, once
    for each connection, and is the last.

    Attributes:
        Options: a dataclass, if the handler has options: it is the schema of `with:` in the
            configuration, and `self.options` an instance of it.
        tick_interval_s: seconds between calls of `on_tick`.
    """

    Options: ClassVar[type[Any] | None] = None
    tick_interval_s: ClassVar[float] = 1.0

    _host: Host | None = None

    def __init__(self, options: Any = None) -> None:
        """Make one. It serves nobody yet, and may never: `gaiod check` makes one, too, so this does no I/O.

        Args:
            options: an instance of `Options`; None without.
        """
        self.options = options

    def __init_subclass__(cls) -> None:
        """Refuse a hook that does not exist, is async, or cannot be called with its arguments; and endless ticks."""
        super().__init_subclass__()
        for name in vars(cls):
            check_hook(name, cls.__qualname__)
        check_methods(cls, Handler, CALLED)
        interval_s: Any = cls.tick_interval_s
        if isinstance(interval_s, int | float) and not 0 < interval_s < inf:
            raise TypeError(f"{cls.__qualname__}.tick_interval_s is {interval_s!r}; write seconds, more than 0")

    # -- what the configuration asks -----------------------------------------------------------------

    @classmethod
    def servers_of(cls, options: Any) -> tuple[str, ...]:
        """Return what metrics are to call the servers that a listener with these options connects to.

        One that is called by its address (`127.0.0.1:5432`, `unix:/run/db.sock`) must not be the listener itself.
        A `ValueError` that it raises is told the operator as what is wrong with the options.
        """
        return ()

    @classmethod
    def buffer_limit_of(cls, options: Any) -> int | None:
        """Return how many bytes one direction of a connection may hold at most with these options; None: unsaid."""
        return None

    @classmethod
    def notsent_lowat_of(cls, options: Any) -> int | None:
        """Return what `notsent_lowat` of a listener with these options is where it is not written, in bytes.

        None: the kernel takes as much ahead of what it has sent as its send buffer holds.
        """
        return None

    @classmethod
    def sources_of(cls, options: Any) -> Sequence[Source]:
        """Return the sources that feed a listener with these options: new ones, not started.

        The feeder runs them; a handler that has sources has `on_message`. A `ValueError` that it raises is told
        the operator as what is wrong with the options.
        """
        return ()

    @classmethod
    def encode_message(cls, options: Any, topic: str, data: bytes) -> bytes:
        """Return what `on_message` gets of a message: done once in the feeder, not in each worker.

        Called in whatever thread publishes. A `ValueError` refuses the message: its text says why.
        """
        return data

    # -- hooks ---------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Begin, before anybody is accepted. `connect()`, `timer()` and `group()` work from here on.

        Whatever it raises fails the start of the daemon, or the reload: then nothing has been replaced. Where a worker
        replaces one that died, it is tried again, less and less often.
        """

    def on_open(self, conn: Conn) -> None:
        """Take a new connection."""
        conn.close()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        """Take what a read brought: `result.buffer`, valid until this returns (copy what is kept)."""
        conn.close()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Go on after a write: the kernel has taken all of it."""
        conn.close()

    def on_eof(self, conn: Conn) -> None:
        """Go on after a read found the end of the stream: the peer sends no more, and may still receive."""
        conn.close()

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        """Go on after a read or a write that ended before its time. The connection is as usable as before.

        By default it is closed: once what is queued is sent, if a read ended; at once if a write did, because what is
        queued behind it would follow a hole.

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
        """Let go of what belongs to a connection that has closed, whatever the reason.

        The reason is a word, and a `gaiod.Termination`: `reason.who` ended it, `how`, for which `cause`. A handler that
        closes a connection says why beforehand, in `conn.close_reason`: a word of its own, or a `Termination`.
        """

    def on_tick(self) -> None:
        """Do what is to be done every `tick_interval_s`."""

    def on_timer(self, data: Any) -> None:
        """Do what `timer(..., data)` was for."""

    def on_post(self, data: Any) -> None:
        """Take what another thread gave to `post(data)`."""

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        """Go on after `connect()`: established, or failed with `result.error`."""
        conn.close()

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        """Go on after `conn.relay_to()`: the end of its stream was passed on, or it failed with `result.error`."""
        conn.close()

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        """Go on after a peer has gone while nothing was read of it: it gets nothing any more, whatever is written.

        It comes once, when the peer has reset the connection, or has closed it altogether (a unix socket; of TCP only
        a FIN is seen, which is half of that: the peer may still receive). A read that is pending tells instead.
        `result.error` says how it went, `result.size` how many bytes it had sent before and can still be read. The
        default closes the connection if there are none, and else leaves it to the next read.
        """
        if result.size == 0:
            error = result.error
            gone = Termination.of_error(error, conn) if isinstance(error, OSError) else "peer_eof"
            conn.close_reason = conn.close_reason or gone
            conn.abort()

    def on_message(self, topic: str, data: bytes) -> None:
        """Take a message that a source has published, as `encode_message` made it.

        A handler with this hook takes messages: it is fed by its sources, and by `gaiod publish`. Every worker
        gets every message, those of a source in order. It comes after `on_start`.
        """

    # -- what an operator asks -----------------------------------------------------------------------

    def partner_of(self, conn: Conn) -> Conn | None:
        """Return the connection that goes with one: `gaiod explain` tells of both.

        For a client's, that which this handler opened for it, and the other way round. A relay is seen without.
        """
        return None

    def phase_of(self, conn: Conn) -> str:
        """Return how far a client's connection is: a word for its line in the log, `gaiod connections` and `explain`.

        It is asked once more when the connection has closed, before `on_close`.
        """
        return "closing" if conn.at_eof else "data"

    def server_of(self, conn: Conn) -> str | None:
        """Return the server that a client's connection is with, as `servers_of` names it; None: none. As `phase_of`."""
        return None

    def notes_on(self, conn: Conn) -> Iterable[str]:
        """Return what `gaiod explain` is to say of a client's connection beside what the watcher knows: sentences."""
        return ()

    # -- what it may ask for -------------------------------------------------------------------------

    @property
    def listener(self) -> str:
        """The name of the listener that the handler serves: for its log, since others may have the same handler.

        Raises:
            RuntimeError: it serves none yet.
        """
        return self._serving("listener").name

    def connect(
        self, address: Any, *, data: Any = None, deadline: float | None = None, options: SocketOptions = ()
    ) -> Conn:
        """Open a connection of this handler's own; `on_connect` comes when it is established or failed.

        Args:
            address: `(host, port)` with a numeric host, or the path of a unix socket.
            data: goes into `conn.data`.
            deadline: in `time.monotonic()` seconds.
            options: socket options, set before the first packet is sent.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
            As `Watcher.connect`.
        """
        return self._serving("connect").connect(address, data, deadline, options)

    def pause_accepting(self, error: Exception) -> None:
        """Accept nobody for a tenth of a second, or until a connection of the worker closes; clients wait meanwhile.

        For a handler that finds that this machine has not what another client would take: a descriptor for a
        connection to a server, say. It counts as `gaiod_accept_paused_seconds_total`, and is logged.

        Args:
            error: what says so: an `OSError`, most likely.

        Raises:
            RuntimeError: the handler does not serve a listener yet.
        """
        self._serving("pause_accepting").pause_accepting(error)

    def group(
        self,
        *,
        limit: int = LIMIT,
        policy: str = "disconnect",
        grace_s: float = GRACE_S,
        memory_limit: int = MEMORY_LIMIT,
    ) -> Group:
        """Make a group of connections that get what is published, each through a bounded queue of its own.

        Have a read pending on each: it notices that a peer has ended (`on_eof`) where nothing is published, too.

        Args:
            limit: most bytes that wait for one connection beyond what the kernel took, and so the longest message.
            policy: what is done when one more does not fit: `disconnect` (reason `slow_consumer`), `drop_oldest`: the
                newest always waits, `drop_newest`, or `latest_only`: the newest of each topic waits, always, and
                nothing else. `limit` is then for each message, and not for all.
            grace_s: with `disconnect`, also close who has taken nothing for so long while something waited.
            memory_limit: most bytes of memory that the messages waiting for anybody take. Beyond, those who are
                furthest behind lose theirs; with `disconnect` and `latest_only` they are closed.

        Raises:
            RuntimeError: as `connect`.
            ValueError: no such policy, or a limit that is too small.
        """
        return self._serving("group").group(limit, policy, grace_s, memory_limit)

    def timer(self, delay_s: float, data: Any) -> None:
        """Have `on_timer(data)` called once, `delay_s` seconds from now.

        It is not if the listener accepts no more by then and has no connections left.

        Raises:
            RuntimeError: as `connect`.
            ValueError: the delay is no finite number.
        """
        self._serving("timer").timer(delay_s, data)

    def post(self, data: Any) -> None:
        """Have `on_post(data)` called in the worker's thread, soon. Any thread may call this; it never blocks.

        Once the worker ends, nothing happens.

        Raises:
            RuntimeError: as `connect`.
            TooManyOperations: 65,536 wait already.
        """
        self._serving("post").post(data)

    def server(self, label: str) -> ServerStats:
        """Return where to count what happens with a server.

        Raises:
            RuntimeError: as `connect`.
            ValueError: `servers_of` did not name it.
        """
        return self._serving("server").counts.server(label)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a number of the listener that metrics show.

        Args:
            name: `upstream_retries`, `upstream_queue_timeouts`, `upstream_unavailable` (clients closed because no
                server could be had), or `upstream_unavailable_CAUSE`, where it is one of these: `down`, `full`,
                `queue_timeout`, `unresolved`, `no_resources`, `connect_refused`, `connect_timeout`,
                `connect_unreachable`, `connect_reset`, `connect_other`; or `upstream_queued`, which goes down again:
                -1 for each +1.
            amount: how many more.

        Raises:
            RuntimeError: as `connect`.
            ValueError: another name.
        """
        self._serving("count").counts.count(name, amount)

    def _serving(self, name: str) -> Host:
        if self._host is None:
            raise RuntimeError(f"{name} works once the handler serves a listener: call it from a hook")
        return self._host
