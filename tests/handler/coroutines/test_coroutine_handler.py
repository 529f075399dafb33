"""Coroutine handlers: their start, their connections' ends, and what they may ask for."""

import asyncio
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from worker.conftest import Serve
from worker.support.serving import Serving

from gaiod import Arrival, ConnClosed, CoroutineHandler, Stream, UsageError, Watcher
from gaiod.handler.failures import StartError
from gaiod.process.dispatch import dispatch
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener
from handler.coroutines.support.handlers import Runs, reset

# -- classes that could never work -------------------------------------------------------------------------


def make(**members: Any) -> type[CoroutineHandler]:
    return type("Mine", (CoroutineHandler,), members)


async def handle(self: Any, conn: Stream) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"handle": lambda self, conn: None},
            r"Mine\.handle at .*:\d+ is not async; write async def handle\(self, conn: Stream\) -> None",
        ),
        ({"handle": asyncio.coroutines.iscoroutine}, r"Mine\.handle .*is not async; write async def handle"),
        (
            {"handle": handle, "on_read": lambda self, conn, result: None},
            "Mine.on_read: a connection of a CoroutineHandler has one coroutine; write what is to be done into handle",
        ),
        ({"handle": handle, "on_tick": handle}, r"Mine\.on_tick at .*is async, and gaiod would not await it"),
        ({"handle": handle, "on_open_": None}, "is not a hook; did you mean on_open"),
        ({"handle": handle, "leave": handle}, r"Mine\.leave at .*is async"),
        ({"handle": handle, "on_start": lambda self, conn: None}, r"Mine\.on_start at .*takes \(self, conn\)"),
        ({"handle": handle, "threads_max": 0}, "Mine.threads_max is 0; write 1 to 1000"),
        ({"handle": handle, "state_version": 1}, r"Mine has a state_version; define leave\(self, conn\), too"),
    ],
)
def test_class_that_could_never_work_is_refused_where_it_is_made(members: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make(**members)


def test_handle_with_other_arguments_is_refused() -> None:
    async def wrong(self: Any) -> None:
        """Take no connection."""

    with pytest.raises(TypeError, match=re.escape("too many positional arguments; write async def handle(self, conn")):
        make(handle=wrong)


def test_handler_without_a_handle_is_refused_when_it_is_made() -> None:
    with pytest.raises(TypeError, match=re.escape("Mine has no handle; write async def handle(self, conn)")):
        make()()


# -- start -------------------------------------------------------------------------------------------------


class Starts(Runs):
    """Starts with a function of the test's."""

    def __init__(self, start: Callable[["Starts"], Any]) -> None:
        super().__init__(cast(Any, None))
        self._start_with = start

    async def on_start(self) -> None:
        await self._start_with(self)


def test_start_that_awaits_lets_the_worker_be_ready_when_it_is_over(serve: Serve) -> None:
    async def start(handler: Starts) -> None:
        await handler.sleep(0.01)
        handler.notes.append("started")

    handler = Starts(start)
    serving = serve(handler)
    assert serving.listener.is_delayed
    serving.step_until(lambda: not serving.listener.is_delayed, "the start")
    assert handler.notes == ["started"]


def test_start_that_awaits_nothing_is_over_at_once(serve: Serve) -> None:
    async def start(handler: Starts) -> None:
        handler.notes.append("started")

    handler = Starts(start)
    assert not serve(handler).listener.is_delayed
    assert handler.notes == ["started"]


def start(handler: CoroutineHandler, watcher: Watcher, told: list[StartError | None]) -> None:
    layout = Layout((0,))
    settings = ListenerSettings(name="front", bind="127.0.0.1:0", handler="test")
    cells = memoryview(bytearray(8 * layout.size)).cast("q")
    Listener(settings, handler, watcher, cells, layout, number=0, started=told.append).start()


def test_start_that_fails_at_once_fails_as_any_does() -> None:
    async def fail(handler: Starts) -> None:
        raise LookupError("no such table")

    told: list[StartError | None] = []
    with Watcher() as watcher, pytest.raises(StartError, match="no such table"):
        start(Starts(fail), watcher, told)
    assert told == []


def test_start_that_fails_later_is_told() -> None:
    async def fail(handler: Starts) -> None:
        await handler.sleep(0.01)
        raise LookupError("no such table")

    told: list[StartError | None] = []
    with Watcher() as watcher:
        start(Starts(fail), watcher, told)
        while not told:
            dispatch(watcher.wait_io(LIMIT_S))
    assert "no such table" in str(told[0])


# -- ends ----------------------------------------------------------------------------------------------------


def test_exception_costs_its_connection_and_nobody_else(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        if await conn.read() == b"raise":
            raise LookupError("broken")
        await conn.write(b"fine")

    serving = serve(Runs(function))
    first, second = serving.connect(), serving.connect()
    first.sendall(b"raise")
    assert serving.is_ended(first)
    second.sendall(b"other")
    assert serving.receive(second, 4) == b"fine"
    assert serving.count("handler_error_handle") == 1
    serving.step_until(lambda: serving.closes() == {"handler_error": 1, "handler": 1}, "both ends")


@pytest.mark.parametrize("reason", ["drain", "admin", "idle"])
def test_connection_that_gaiod_ends_cancels_its_coroutine(serve: Serve, reason: str) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    serving.end_all(reason)
    error = handler.end(serving)
    assert isinstance(error, asyncio.CancelledError)
    assert reason in str(error)
    assert serving.count("handler_error_handle") == 0


def test_cleanup_may_wait_when_its_connection_is_closed(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read()
        finally:
            await handler.sleep(0.01)
            handler.notes.append("cleaned up")

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    assert isinstance(handler.end(serving), ConnectionResetError)
    assert handler.notes == ["cleaned up"]


def test_cleanup_that_takes_too_long_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaiod.handler.coroutines.coroutine_handler.CLEANUP_S", 0.02)

    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read()
        finally:
            await handler.sleep(100)
            handler.notes.append("never")

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    assert isinstance(handler.end(serving), GeneratorExit)
    assert handler.notes == []


def test_error_in_a_cleanup_is_counted(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.read()
        finally:
            raise LookupError("broken")

    handler = Runs(function)
    serving = serve(handler)
    reset(serving.connect())
    handler.end(serving)
    serving.step_until(lambda: serving.count("handler_error_handle") == 1, "the error")


# -- what it may await -----------------------------------------------------------------------------------------


def test_sleep_takes_its_time_and_is_no_work(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        before_s = time.monotonic()
        await handler.sleep(0.05)
        handler.notes.append(time.monotonic() - before_s)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert not serving.listener.clients()[0].busy
    assert handler.end(serving) is None
    assert handler.notes[0] >= 0.05


def test_function_runs_in_a_thread_while_the_connection_is_busy(serve: Serve) -> None:
    release = threading.Event()

    def block(value: int) -> tuple[int, str]:
        release.wait()
        return value, threading.current_thread().name

    async def function(handler: Runs, conn: Stream) -> None:
        handler.notes.append(await handler.run(block, 7))
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    (conn,) = serving.listener.clients()
    assert conn.busy
    release.set()
    serving.step_until(lambda: handler.notes, "the result")
    assert handler.notes == [(7, "gaiod-front-1")]
    assert not conn.busy
    assert serving.count("threads_calls") == 1


def test_function_that_raises_raises_where_it_is_awaited(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await handler.run(int, "text")

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert isinstance(handler.end(serving), ValueError)
    assert serving.count("handler_error_handle") == 1


def test_function_that_takes_too_long_is_waited_for_no_longer(serve: Serve) -> None:
    release = threading.Event()

    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await handler.run(release.wait, timeout=0.01)
        except TimeoutError as error:
            handler.notes.append(str(error))

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert handler.end(serving) is None
    release.set()
    assert handler.notes == ["wait took more than 0.01 s"]


def test_foreign_awaitable_is_refused_with_what_it_is(serve: Serve) -> None:
    class Foreign:
        def __await__(self) -> Any:
            yield "foreign"

    async def function(handler: Runs, conn: Stream) -> None:
        await Foreign()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    error = handler.end(serving)
    assert isinstance(error, UsageError)
    assert str(error) == "a coroutine handler cannot await 'foreign'; await what gaiod gives it"


def test_spawned_coroutine_runs_beside_and_ends_with_its_connection(serve: Serve) -> None:
    async def beside(handler: Runs, conn: Stream) -> None:
        try:
            await conn.write(b"beside ")
            await handler.sleep(100)
        except asyncio.CancelledError:
            handler.notes.append("cancelled")
            raise

    async def function(handler: Runs, conn: Stream) -> None:
        handler.spawn(beside(handler, conn))
        await conn.write(b"here ")
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    sock = serving.connect()
    assert serving.receive(sock, 12) == b"here beside "
    sock.sendall(b"x")
    assert handler.end(serving) is None
    assert handler.notes == ["cancelled"]
    assert serving.count("handler_error_handle") == 0


def test_spawned_coroutine_can_be_awaited_and_cancelled(serve: Serve) -> None:
    async def gives(handler: Runs) -> int:
        await handler.sleep(0.01)
        return 7

    async def hangs(handler: Runs) -> None:
        await handler.sleep(100)

    async def function(handler: Runs, conn: Stream) -> None:
        handler.notes.append(await handler.spawn(gives(handler)))
        task = handler.spawn(hangs(handler))
        task.cancel()
        await task
        handler.notes.append(task.is_over)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert handler.end(serving) is None
    assert handler.notes == [7, True]


def test_exception_of_a_spawned_coroutine_costs_its_connection(serve: Serve) -> None:
    async def breaks() -> None:
        raise LookupError("broken")

    async def function(handler: Runs, conn: Stream) -> None:
        handler.spawn(breaks())
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    assert serving.is_ended(serving.connect())
    handler.end(serving)
    assert serving.count("handler_error_handle") == 1
    assert serving.closes() == {"handler_error": 1}


def test_connection_is_busy_while_any_of_its_tasks_works(serve: Serve) -> None:
    async def works(handler: Runs, release: threading.Event) -> None:
        await handler.run(release.wait)

    async def function(handler: Runs, conn: Stream) -> None:
        for release in releases:
            handler.spawn(works(handler, release))
        await conn.read()

    releases = [threading.Event(), threading.Event()]
    serving = serve(Runs(function))
    serving.connect()
    (conn,) = serving.listener.clients()
    assert conn.busy
    releases[0].set()
    for _ in range(10):
        serving.step()
    assert conn.busy
    releases[1].set()
    serving.step_until(lambda: not conn.busy, "the end of the work")


def test_spawned_coroutine_that_does_not_end_is_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaiod.handler.coroutines.coroutine_handler.CLEANUP_S", 0.02)

    async def stays(handler: Runs) -> None:
        try:
            await handler.sleep(100)
        finally:
            try:
                await handler.sleep(100)
            except GeneratorExit:
                handler.notes.append("ended")
                raise

    async def function(handler: Runs, conn: Stream) -> None:
        handler.spawn(stays(handler))
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect().sendall(b"x")
    serving.step_until(lambda: handler.notes, "its end")
    assert handler.notes == ["ended"]


def test_coroutine_goes_on_when_it_has_closed_its_connection_itself(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        conn.close()
        handler.notes.append(await handler.run(time.sleep, 0.02))
        try:
            await conn.read()
        except ConnClosed:
            handler.notes.append("closed")

    handler = Runs(function)
    serving = serve(handler)
    assert serving.is_ended(serving.connect())
    assert handler.end(serving) is None
    assert handler.notes == [None, "closed"]


def test_many_tasks_of_a_connection_are_no_matter(serve: Serve) -> None:
    async def stays(handler: Runs) -> None:
        await handler.sleep(100)

    async def function(handler: Runs, conn: Stream) -> None:
        for _ in range(5000):
            handler.spawn(stays(handler))
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect().sendall(b"x")
    assert handler.end(serving) is None


@pytest.mark.parametrize("delay_s", [-1.0, float("nan"), float("inf")])
def test_sleep_takes_a_time(serve: Serve, delay_s: float) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await handler.sleep(delay_s)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert isinstance(handler.end(serving), ValueError)


def test_what_is_no_coroutine_cannot_be_spawned(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        handler.spawn(cast(Any, function))

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    assert "call the async function: spawn(f())" in str(handler.end(serving))


# -- servers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_server_is_connected_to_by_number_and_by_name(serve: Serve, host: str) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        server = await handler.connect(f"{host}:{port}", timeout=10)
        await server.write(await conn.read())
        await conn.write(await server.read_exactly(4))

    with listen() as sock:
        port = sock.getsockname()[1]
        handler = Runs(function)
        serving = serve(handler)
        client = serving.connect()
        client.sendall(b"ping")
        serving.step_until(lambda: _has_client(sock), "the server's client")
        server, _ = sock.accept()
        with server:
            assert serving.receive(server, 4) == b"ping"
            server.sendall(b"PONG")
            assert serving.receive(client, 5) == b"PONG"
            assert handler.end(serving) is None
            assert serving.is_ended(server), "it is closed when handle ends"


def _has_client(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_server_that_refuses_is_an_error_that_can_be_caught(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await handler.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            await conn.write(b"down")

    with listen() as sock:
        port = sock.getsockname()[1]
    serving = serve(Runs(function))
    assert serving.receive(serving.connect(), 5) == b"down"


@pytest.mark.parametrize("target", ["127.0.0.1", "127.0.0.1:0", "nowhere.invalid:80"])
def test_target_that_is_none_is_refused(serve: Serve, target: str) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await handler.connect(target)

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    error = handler.end(serving)
    assert isinstance(error, socket.gaierror if "invalid" in target else ValueError)


# -- what another worker is told ---------------------------------------------------------------------------------


class Counts(CoroutineHandler):
    """Counts lines, also over workers."""

    state_version = 3

    def leave(self, conn: Stream) -> bytes | None:
        return b"%d" % conn.data

    async def handle(self, conn: Stream) -> None:
        conn.data = 0 if conn.arrival is None else int(conn.arrival.state)
        async for _ in conn.lines():
            conn.data += 1
            await conn.write(b"%d\n" % conn.data)


def step(serving: Serving, times: int = 5) -> None:
    for _ in range(times):
        serving.step()


def test_state_goes_with_what_was_received_and_not_read(serve: Serve) -> None:
    serving, other = serve(Counts()), serve(Counts())
    sock = serving.connect()
    sock.sendall(b"a\nb\nha")
    assert serving.receive(sock, 4) == b"1\n2\n"
    (conn,) = serving.listener.clients()
    state, _ = serving.listener.leave(conn)
    assert state == b"1\n2ha"
    arrived = other.connect()
    (taker,) = other.listener.clients()
    other.listener.handler.on_arrive(taker, Arrival(state, 3, None))
    arrived.sendall(b"lf\n")
    assert other.receive(arrived, 2) == b"3\n"


def test_connection_that_is_at_work_does_not_leave(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await handler.sleep(100)

    serving = serve(Runs(function))
    serving.connect()
    (conn,) = serving.listener.clients()
    assert serving.listener.leave(conn)[0] is None


def test_connection_with_much_that_was_not_read_does_not_leave(serve: Serve) -> None:
    class Waits(CoroutineHandler):
        state_version = 1

        def leave(self, conn: Stream) -> bytes:
            return b"state"

        async def handle(self, conn: Stream) -> None:
            await conn.read_exactly(1_000_000)

    serving = serve(Waits())
    serving.connect().sendall(bytes(100_000))
    (conn,) = serving.listener.clients()
    serving.step_until(lambda: conn.bytes_received == 100_000, "the bytes")
    assert serving.listener.leave(conn) == (None, "not_quiet")


def test_connection_that_went_closes_its_coroutine(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read()

    handler = Runs(function)
    serving = serve(handler)
    serving.connect()
    serving.listener.went(serving.listener.clients())
    assert isinstance(handler.end(serving), GeneratorExit)
    assert serving.count("handler_error_handle") == 0


# -- what an operator sees -----------------------------------------------------------------------------------------


def test_explain_says_where_a_coroutine_waits(serve: Serve) -> None:
    async def inner(conn: Stream) -> None:
        await conn.read()

    async def function(handler: Runs, conn: Stream) -> None:
        await inner(conn)

    serving = serve(Runs(function))
    serving.connect()
    (conn,) = serving.listener.clients()
    (note,) = serving.listener.handler.notes_on(conn)
    line = inner.__code__.co_firstlineno + 1
    name = "test_explain_says_where_a_coroutine_waits.<locals>.inner"
    assert note == f"its coroutine waits at {__file__}:{line}, in {name}"
