"""Handlers whose connections are served by one coroutine each."""

import errno
import inspect
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from types import CoroutineType
from typing import Any, ClassVar

from gaiod.addresses import parse_address
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import ClientTls
from gaiod.handler.arrival import Arrival
from gaiod.handler.coroutines.connecting import Attempts, Target, interleaved
from gaiod.handler.coroutines.stream import EndOfStream, LimitExceeded, Stream, arrived, deadline_of, error_for, written
from gaiod.handler.coroutines.tasks import Task, cancelled
from gaiod.handler.coroutines.waits import Wait, is_cancelled, running
from gaiod.handler.handler import CALLED, Handler, SocketOptions
from gaiod.handler.hooks import check_coroutine, check_methods
from gaiod.handler.termination import Termination

OF_CONNECTIONS = (
    "on_open", "on_read", "on_write", "on_eof", "on_error", "on_close", "on_connect", "on_relay", "on_tls",
    "on_hangup", "on_leave", "on_arrive",
)  # fmt: skip
"""Hooks that a coroutine handler has no use for: `handle` is told what they are told."""

CLEANUP_S = 5.0
"""What the `finally` of a coroutine may take whose connection is closed. Then it is ended where it waits."""

LEAVES_MAX_BYTES = 60 * 1024
"""Of a state, and of what was received and not read. With more, a connection stays where it is."""

PARTS = b"\n"
"""Between how long the state of a connection is and what follows."""


class CoroutineHandler(Handler):
    r"""Serves each connection with a coroutine: `handle`.

        class Greeter(CoroutineHandler):
            async def handle(self, conn: Stream) -> None:
                await conn.write(b"name? ")
                name = await conn.read_until(b"\n", limit=64, timeout=5)
                await conn.write(b"hello " + name)

    All of them run in the worker's one thread, and one that blocks stops everybody: `run` has threads. While `handle`
    waits for a server, for `run` or for a task, the connection is busy: a drain waits for it, and it is not idle. While
    it waits for its client, or in `sleep`, it is not.

    The hooks that belong to no connection are there as in `gaiod.Handler`; `on_start` may be `async`.

    Attributes:
        threads_max: how many threads `run` and `resolve` have at most.
        state_version: the version of what `leave` returns. None: a reload lets the connections drain; else those whose
            `handle` waits for bytes of the client are handed over to the workers that come after.
    """

    threads_max: ClassVar[int] = 8
    _called = tuple(name for name in CALLED if name not in (*OF_CONNECTIONS, "on_start"))

    def __init__(self, options: Any = None) -> None:
        """Make a handler. Do no I/O here: `gaiod check` makes one too, which never serves. See `on_start`."""
        super().__init__(options)
        if type(self).handle is CoroutineHandler.handle:
            raise TypeError(f"{type(self).__qualname__} has no handle; write async def handle(self, conn)")
        self._handled_by_us = self._handled
        self._connecting: dict[int, Callable[[Exception | None], None]] = {}
        self._tasks: set[Task] = set()
        self._start_error: BaseException | None = None

    def __init_subclass__(cls) -> None:
        """Refuse hooks of connections, a `handle` or `on_start` that cannot be awaited, and a state without `leave`."""
        super().__init_subclass__()
        for name in OF_CONNECTIONS:
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__qualname__}.{name}: a connection of a CoroutineHandler has one coroutine; "
                    "write what is to be done into handle"
                )
        check_methods(cls, CoroutineHandler, ("leave",))
        check_coroutine(cls, CoroutineHandler, "handle", must_be=True)
        check_coroutine(cls, CoroutineHandler, "on_start", must_be=False)
        most: Any = cls.threads_max
        if type(most) is int and not 1 <= most <= 1000:
            raise TypeError(f"{cls.__qualname__}.threads_max is {most}; write 1 to 1000")

    @classmethod
    def _check_versions(cls) -> None:
        super()._check_versions()
        if cls.state_version is not None and cls.leave is CoroutineHandler.leave:
            raise TypeError(f"{cls.__qualname__} has a state_version; define leave(self, conn), too")

    # -- what a handler defines ----------------------------------------------------------------------------

    async def handle(self, conn: Stream) -> None:
        """Serve a connection. When this returns, the connection is closed, once what was written is sent.

        An exception costs this connection, and nobody else; it is logged and counted. That the client has ended early,
        has not sent in time or too much (an `EndOfStream`, a `TimeoutError` or a `LimitExceeded` of `conn`) is the
        client's fault: it is only counted as the reason why the connection closed.

        With `conn.arrival`, another worker has served the connection until now.
        """
        raise NotImplementedError

    def on_start(self) -> Coroutine[Any, Any, None] | None:
        """Start, before the first client is accepted. It may be `async`: the worker is ready when it returns.

        An exception fails the start of the daemon, or the reload, as `Handler.on_start` says.
        """
        return None

    def leave(self, conn: Stream) -> bytes | None:
        """Describe a client's connection for the worker that goes on with it; None: it cannot leave now.

        Called only with a `state_version`, and while `handle` waits for bytes of the client and for nothing else: no
        task of `spawn` and no other connection belongs to it. The next worker calls `handle` anew, with
        `conn.arrival.state` being what this returns: at most 60 KiB. What was written and is not sent yet, and what was
        received and not read yet, goes with it. Change nothing: the connection may stay. If it goes, the coroutine here
        is closed: its `finally` runs, and cannot await.
        """
        return None

    # -- what it may await -----------------------------------------------------------------------------------

    async def connect(  # type: ignore[override]  # what it returns is awaited
        self, target: Target, *, timeout: float | None = None, options: SocketOptions = (), tls: ClientTls | None = None
    ) -> Stream:
        """Connect to a server.

        If the address is a name, all its addresses are tried, the next one when the one before has not answered for
        250 ms (RFC 8305). The connection is closed when `handle` ends, for which it was opened.

        Args:
            target: `"db.internal:5432"`, `"127.0.0.1:5432"`, `"[::1]:5432"`, `"unix:/run/db.sock"`, or what
                `gaiod.Handler.connect` takes.
            timeout: in seconds, for all of it.
            options: socket options, set before the first packet is sent.
            tls: who the server is, and what is shown to it (`gaiod.Handler.connect`); None: no TLS.

        Raises:
            TimeoutError: it took longer.
            OSError: no address could be connected to, or the name has none: `socket.gaierror`. With `tls`, a
                `gaiod.TlsError`: the server is not believed, say.
            ValueError: it is no address.
        """
        deadline = None if timeout is None else deadline_of(timeout)
        owner = self._owner()
        targets = await self._targets(target, timeout)
        attempts = Attempts(
            targets, partial(self._attempt, deadline, options, tls), self._serving("connect").call_later
        )
        attempts.begin()
        stream: Stream = await attempts.wait
        if owner is not None:
            if owner.is_over:
                stream.abort()
                raise ConnClosed("the coroutine for which this was opened has ended")
            stream.owner = owner
            owner.own(stream)
        return stream

    async def _targets(self, target: Target, timeout: float | None) -> list[Target]:
        if not isinstance(target, str) or target.startswith("/"):
            return [target]
        address = parse_address(target)
        if address.kind != "name":
            return [address.target]
        return interleaved(await self.resolve(address.host, address.port, timeout=timeout))

    def resolve(self, host: str, port: int, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Return the addresses of a name: `(host, port)` each, with a numeric host, in the system's order.

        Raises:
            socket.gaierror: there are none.
            TimeoutError: it took longer.
        """
        return self.run(_look_up, host, port, timeout=timeout)

    async def run(self, function: Callable[..., Any], *arguments: Any, timeout: float | None = None) -> Any:
        """Call a function that blocks, in a thread; return what it returns, or raise what it raises.

        There are `threads_max` threads; further calls wait for one.

        Args:
            function: it must not touch connections.
            arguments: what it is called with.
            timeout: in seconds. The function itself goes on to its end, and what it returns is dropped.

        Raises:
            TimeoutError: it took longer.
            TooManyOperations: 10,000 calls wait already.
        """
        host = self._serving("run")
        wait = host.run(partial(function, *arguments), self.threads_max)
        if timeout is None:
            return await wait
        name = getattr(function, "__name__", "the function")

        def expire() -> None:
            if wait.source is not None:
                wait.source.withdraw(wait)  # it is not called, if it has not begun
            wait.fail(TimeoutError(f"{name} took more than {timeout:g} s"))

        timer = host.call_later(deadline_of(timeout) - time.monotonic(), expire)
        try:
            return await wait
        finally:
            timer.cancel()

    def sleep(self, delay_s: float) -> Awaitable[None]:
        """Wait for some seconds, from 0 on. The connection is not busy meanwhile."""
        pause = _Pause()
        pause.timer = self._serving("sleep").call_later(deadline_of(delay_s) - time.monotonic(), pause.end)
        return pause.wait

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        """Run another coroutine beside this one. It begins when this one waits.

        One that is spawned in `handle` ends with it: it is cancelled then. One that is spawned in a hook, or in
        `on_start`, lasts as long as the handler.

        Returns:
            The task. `await` it for what the coroutine returns, or raises; `cancel()` it. An exception that nobody
            awaits costs the connection.
        """
        if not inspect.iscoroutine(coroutine):
            raise TypeError(f"spawn needs a coroutine, not {coroutine!r}; call the async function: spawn(f())")
        self._serving("spawn")
        owner = self._owner()
        task = Task(coroutine, self._spawned_ended, owner)
        if owner is None:
            self._tasks.add(task)
        else:
            owner.own(task)
        task.start_soon()
        return task

    # -- what an operator asks -----------------------------------------------------------------------------

    def notes_on(self, conn: Conn) -> Iterable[str]:
        """Return where the coroutine of a connection waits."""
        task = conn.data.task if isinstance(conn.data, Stream) else None
        return () if task is None else (f"its coroutine waits at {_place_of(task.coroutine)}",)

    # -- the hooks, which drive the coroutines ---------------------------------------------------------------

    on_read = staticmethod(arrived)  # a method would be one call more for each read
    on_write = staticmethod(written)

    def on_open(self, conn: Conn) -> None:
        """Serve a new connection."""
        self._serve(Stream(conn))

    def on_eof(self, conn: Conn) -> None:
        """Tell the coroutine that its client sends no more."""
        conn.data.eof()

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        """Tell the coroutine that a read has taken too long."""
        conn.data.expired(operation, error)

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        """Take the end of one direction of a relay."""
        relay = conn.data.relaying
        if relay is not None:
            relay.ended(conn, result)

    def on_tls(self, conn: Conn) -> None:
        """Tell the coroutine that its connection speaks TLS."""
        conn.data.secured()

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        """Tell who waits for a connection to a server."""
        ended = self._connecting.pop(conn.serial, None)
        if ended is not None:
            ended(result.error)

    def on_close(self, conn: Conn, reason: str) -> None:
        """Tell the coroutine that its connection is closed; if it has not ended after a while, end it."""
        stream = conn.data
        task = stream.task
        if reason in ("handed_over", "handed_back"):
            stream.error = ConnClosed(f"another worker goes on with the connection ({reason})")
            if task is not None:
                task.close()
            return
        error = _error_of(reason)
        is_told = task is not None and stream.waits_for(task.waits_for)
        stream.ended(error)
        if task is None or task.is_over or isinstance(error, ConnClosed):
            return  # who has closed it may go on with something else
        if not is_told:
            task.throw(error_for(error, is_own=True))
        self._end_later(task)

    def on_leave(self, conn: Conn) -> bytes | None:
        """Describe a connection, and what was received of it and not read."""
        stream = conn.data
        state = self.leave(stream) if stream.is_quiet() else None
        if state is None:
            return None
        if not isinstance(state, bytes):
            raise TypeError(f"leave must return bytes or None, not {state!r}")
        packed = b"%d%b%b%b" % (len(state), PARTS, state, stream.peek())
        return packed if len(packed) <= LEAVES_MAX_BYTES else None

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        """Serve a connection that another worker has served until now."""
        size, _, rest = arrival.state.partition(PARTS)
        state, received = rest[: int(size)], rest[int(size) :]
        stream = Stream(conn, Arrival(state, arrival.version, arrival.partner))
        if received:
            stream.feed(received)
        self._serve(stream)

    # -- tasks ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        starting = self.on_start()
        if starting is None:
            return
        self._serving("on_start").delay_ready()
        Task(starting, self._started).start()
        error, self._start_error = self._start_error, None
        if error is not None:
            raise error

    def _started(self, task: Task, error: BaseException | None) -> None:
        host = self._serving("on_start")
        if error is None:
            host.ready()
        elif host.is_starting:
            self._start_error = error
        else:
            host.failed("on_start", None)

    def _serve(self, stream: Stream) -> None:
        stream.conn.data = stream
        task = Task(self.handle(stream), self._handled_by_us, stream)
        stream.task = task
        task.start()

    def _handled(self, task: Task, error: BaseException | None) -> None:
        """Close the connection whose coroutine has ended, and whatever was opened for it."""
        stream: Stream = task.owner
        stream.task, stream.is_over = None, True
        others, stream.others = stream.others, None
        for other in others or ():
            if isinstance(other, Task):
                other.cancel()
                self._end_later(other)
            else:
                other.close()
        conn = stream.conn
        if stream.error is not None or conn.closed:
            if error is not None and not _is_end(error, stream.error):
                self._serving("handle").failed("handle", None)
        elif error is None:
            conn.close()
        elif error is stream.fault:
            conn.close_reason = conn.close_reason or _fault_of(error)
            conn.close()
        else:
            self._serving("handle").failed("handle", conn)

    def _end_later(self, task: Task) -> None:
        """End a task that was told to end, if it has not after a while."""
        if not task.is_over:
            self._serving("handle").call_later(CLEANUP_S, task.close)

    def _spawned_ended(self, task: Task, error: BaseException | None) -> None:
        owner: Stream | None = task.owner
        if owner is None:
            self._tasks.discard(task)
        elif owner.others is not None:
            owner.others.discard(task)
        if error is None or _is_end(error, None if owner is None else owner.error):
            return
        self._serving("spawn").failed("handle", None if owner is None or owner.closed else owner.conn)

    def _owner(self) -> Stream | None:
        """Return the stream of the client whose coroutine runs now."""
        task = running()
        return task.owner if isinstance(task, Task) else None

    def _attempt(
        self,
        deadline: float | None,
        options: SocketOptions,
        tls: ClientTls | None,
        target: Target,
        ended: Callable[[Stream, Exception | None], None],
    ) -> Stream:
        conn = self._serving("connect").connect(target, None, deadline, options, tls=tls, preface=b"")
        stream = Stream(conn, is_server=True)
        conn.data = stream
        self._connecting[conn.serial] = partial(ended, stream)
        return stream


class _Pause:
    """A wait for a time."""

    __slots__ = ("timer", "wait")

    def __init__(self) -> None:
        self.wait = Wait(self)
        self.timer: Any = None

    def end(self) -> None:
        self.wait.finish(None)

    def withdraw(self, wait: Wait) -> None:
        self.timer.cancel()


def _look_up(host: str, port: int) -> list[tuple[str, int]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))


def _error_of(reason: str) -> BaseException:
    """Return what a coroutine gets where it waits, when its connection has closed for a reason."""
    if isinstance(reason, Termination):
        if reason.who == "handler":
            return ConnClosed(f"the connection is closed ({reason})")
        if reason.who == "gaiod" and reason.how != "error":
            return cancelled(f"gaiod closes the connection ({reason})")
        if reason.how == "reset":
            return ConnectionResetError(errno.ECONNRESET, f"the connection was reset ({reason})")
    return ConnectionAbortedError(errno.ECONNABORTED, f"the connection has ended ({reason})")


def _fault_of(error: BaseException) -> str:
    """Return the reason for which a connection closes whose client was at fault."""
    if isinstance(error, EndOfStream):
        return "peer_eof"
    if isinstance(error, LimitExceeded):
        return Termination("handler", "client", "limit", "read_until")
    return "deadline"


def _is_end(error: BaseException, expected: BaseException | None) -> bool:
    """Tell whether an error is only that by which a coroutine was told to end."""
    is_same = expected is not None and type(error) is type(expected) and error.args == expected.args
    return is_same or is_cancelled(error) or isinstance(error, ConnClosed)


def _place_of(coroutine: Any) -> str:
    """Return where a coroutine waits: file, line and function of the innermost one."""
    while isinstance(coroutine.cr_await, CoroutineType):
        coroutine = coroutine.cr_await
    frame = coroutine.cr_frame
    if frame is None:
        return "its end"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {coroutine.__qualname__}"
