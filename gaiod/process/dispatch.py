"""From completions to whoever they concern. Compiled with the core: it is in every message's way."""

from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.engine import Stopwatch
from gaiod.core.errors import UsageError
from gaiod.core.results import OpResult
from gaiod.core.tls import ClientTls
from gaiod.core.watcher import Watcher

READ, WRITE, RELAY, TIMER, POST, HANGUP = 0, 1, 4, 6, 7, 9  # values of OpType


class Target:
    """What the `context` of a connection has to be.

    Attributes:
        on_read, on_write: called with (conn, result) for a read or a write that succeeded.
    """

    def __init__(self, on_read: Any, on_write: Any) -> None:
        self.on_read = on_read
        self.on_write = on_write

    def on_completion(self, result: OpResult) -> None:
        """Take every other completion: an error, the end of the stream, an accept, a connect, a close."""
        raise NotImplementedError

    def hung_up(self, result: OpResult) -> None:
        """Take the report that a peer is gone, while nothing is being read of it: the next read will tell, too."""

    def start_tls(self, conn: Conn, unread: bytes, tls: ClientTls | None, deadline: float | None) -> None:
        """Begin TLS on a connection: `Conn.start_tls`; `tls` None: as its server. A `UsageError`: it cannot be."""
        raise UsageError(f"{conn!r} is of no listener, which would have certificates; give it tls of open_tls")

    def failed(self, hook: str, conn: Conn | None) -> None:
        """Deal with the exception being handled, which `on_read` or `on_write` raised. The daemon's own: a bug."""
        raise  # noqa: PLE0704 - called from the except clause below

    def slow(self, hook: str, conn: Conn | None, took_ns: int) -> None:
        """Take note that `on_read` or `on_write` took longer than it should. The daemon's own do not matter."""


UNWATCHED = Stopwatch(0)


class Dispatcher:
    """Waits for completions and hands them over, until it is told to end. In C from pass to pass.

    Args:
        watcher: whose completions.
        watch: times each hook; None: nobody wants to know.

    Attributes:
        ended: no pass begins any more.
        after_pass: called once, when the completions of this pass are handed over; None: nothing is.
    """

    def __init__(self, watcher: Watcher, watch: Stopwatch | None = None) -> None:
        self.watcher = watcher
        self.watch = UNWATCHED if watch is None else watch
        self.ended = False
        self.after_pass: Any = None

    def run(self) -> None:
        """Serve until `ended`.

        Raises:
            WatcherClosed, OSError: as `Watcher.wait_io`.
        """
        while not self.ended:
            dispatch(self.watcher.wait_io(), self.watch)
            if self.after_pass is not None:
                call, self.after_pass = self.after_pass, None
                call()


def dispatch(results: list[OpResult], watch: Stopwatch | None = None) -> None:
    """Hand every completion over. A timer's or a post's context is called with the completion.

    What succeeded on a connection that has closed since is nobody's any more. `watch` times each hook; those that
    a target calls by itself, in `on_completion` or for a timer, it has to time.
    """
    if watch is None:
        watch = UNWATCHED
    watch.begin(results)
    for result in results:
        _hand_over(result, watch)
        watch.step()
    watch.end()


def _hand_over(result: OpResult, watch: Stopwatch) -> None:
    kind = result.kind
    if kind == READ or kind == WRITE:
        conn = result.conn
        target = conn.context
        if result.error is not None:
            target.on_completion(result)
        elif not conn.closed:  # else by a hook that was called a moment ago: there is nothing to go on with
            try:
                if kind == READ:
                    target.on_read(conn, result)
                else:
                    target.on_write(conn, result)
            except BaseException:  # SystemExit, CancelledError: it must not end everybody's process
                target.failed("on_read" if kind == READ else "on_write", conn)
            if watch.lap():
                target.slow("on_read" if kind == READ else "on_write", conn, watch.took_ns)
            return
    elif kind == TIMER or kind == POST:
        if result.error is None:
            result.context(result)
    elif kind == RELAY:
        result.conn.context.on_completion(result)  # not its own context, which may be anything that a handler gave it
    elif kind == HANGUP:
        if not result.conn.closed:
            result.conn.context.hung_up(result)
    else:
        result.context.on_completion(result)
    watch.lap()
