"""Which outcome of an operation reaches which hook: the table in `gaiod.Handler`, row by row."""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import listen, reset
from core.support.waiting import MOMENT_S, soon

from gaiod import Conn, DeadlineExceeded, Handler, OpResult, OpType
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving

LARGE = 8 * 1024 * 1024
"""More than the kernel takes for a client that does not read."""


class Outcomes(Recorder):
    """Does something when a connection opens, and notes what became of it."""

    def __init__(self, does: Callable[["Outcomes", Conn], object]) -> None:
        super().__init__()
        self._does = does
        self.errors: list[tuple[OpType, Exception]] = []
        self.outcomes: list[Exception | None] = []

    def on_open(self, conn: Conn) -> None:
        self._does(self, conn)

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        self.errors.append((operation, error))
        super().on_error(conn, operation, error)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        self.outcomes.append(result.error)

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        self.outcomes.append(result.error)


def _cancel(conn: Conn, operation: OpType) -> None:
    conn.cancel(operation)


ENDS: dict[str, tuple[dict[str, Any], Callable[[Conn, OpType], None]]] = {
    "deadline": ({"deadline": 0.0}, lambda conn, operation: None),
    "cancel": ({}, _cancel),
}
"""How an operation ends before its time: what it is given, and what is done then."""


def _is_end(error: Exception | None, end: str) -> bool:
    if end == "deadline":
        return isinstance(error, DeadlineExceeded)
    return isinstance(error, OSError) and error.errno == errno.ECANCELED


def _received(serving: Serving, sock: socket.socket) -> int:
    """Return how many bytes come until the end."""
    return len(serving.receive(sock, LARGE + 1))


@pytest.mark.parametrize("end", ENDS)
def test_read_that_ends_before_its_time_closes_after_what_is_queued(serve: Serve, end: str) -> None:
    """A client that reads slowly has everything that was written to it before."""
    keywords, then = ENDS[end]

    def write_and_read(handler: Outcomes, conn: Conn) -> None:
        conn.write(bytes(LARGE))
        conn.read(**keywords)
        then(conn, OpType.READ)

    handler = Outcomes(write_and_read)
    serving = serve(handler)
    sock = serving.connect()
    serving.step_until(lambda: handler.errors, "the error")
    assert _received(serving, sock) == LARGE
    ((operation, error),) = handler.errors
    assert operation is OpType.READ
    assert _is_end(error, end)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"deadline" if end == "deadline" else "handler": 1}


@pytest.mark.parametrize("end", ENDS)
def test_write_that_ends_before_its_time_closes_at_once(serve: Serve, end: str) -> None:
    """What is queued behind it would follow a hole."""
    keywords, then = ENDS[end]

    def write_twice(handler: Outcomes, conn: Conn) -> None:
        conn.write(bytes(LARGE), **keywords)
        conn.write(b"behind the hole")
        then(conn, OpType.WRITE)

    handler = Outcomes(write_twice)
    serving = serve(handler)
    sock = serving.connect()
    serving.step_until(serving.closes, "the close being counted")
    assert b"hole" not in serving.receive(sock, LARGE + 1)
    assert [operation for operation, _ in handler.errors] == [OpType.WRITE], "what is closed then is told of no more"
    assert _is_end(handler.errors[0][1], end)


@pytest.mark.parametrize("end", ENDS)
def test_connection_stays_usable_when_an_operation_ended_before_its_time(serve: Serve, end: str) -> None:
    class Asks(Outcomes):
        def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
            conn.write(b"408 too late\n")

    keywords, then = ENDS[end]

    def read(handler: Outcomes, conn: Conn) -> None:
        conn.read(**keywords)
        then(conn, OpType.READ)

    serving = serve(Asks(read))
    sock = serving.connect()
    assert serving.receive(sock, 13) == b"408 too late\n"
    assert serving.exchange(sock, b"and on") == b"and on"
    assert serving.closes() == {}


@pytest.mark.parametrize("end", ENDS)
def test_relay_that_ends_before_its_time_reaches_on_relay(serve: Serve, end: str) -> None:
    """Whatever context the handler has given it: that is the handler's own."""
    keywords, then = ENDS[end]

    def relay(handler: Outcomes, conn: Conn) -> None:
        conn.data = handler.connect(elsewhere.getsockname())
        conn.relay_to(conn.data, context="mine", **keywords)
        then(conn, OpType.RELAY)

    with listen() as elsewhere:
        handler = Outcomes(relay)
        serving = serve(handler)
        serving.connect()
        serving.step_until(lambda: len(handler.outcomes) == 2, "the connect and the relay")
        assert sum(_is_end(outcome, end) for outcome in handler.outcomes) == 1
        assert not handler.errors


def test_connect_that_takes_too_long_reaches_on_connect(serve: Serve) -> None:
    def connect(handler: Outcomes, conn: Conn) -> None:
        handler.connect(("192.0.2.1", 9), deadline=time.monotonic())

    handler = Outcomes(connect)
    serving = serve(handler)
    serving.connect()
    serving.step_until(lambda: handler.outcomes, "the outcome")
    assert handler.outcomes[0] is not None
    assert not handler.errors


def test_error_of_the_network_reaches_on_close_only(serve: Serve) -> None:
    handler = Outcomes(lambda handler, conn: conn.read())
    serving = serve(handler)
    reset(serving.connect())
    serving.step_until(serving.closes, "the close being counted")
    assert (handler.reasons, handler.errors, serving.closes()) == (["peer_reset"], [], {"peer_reset": 1})


def test_operation_that_was_pending_when_its_connection_closed_reaches_no_hook(serve: Serve) -> None:
    def close_early(handler: Outcomes, conn: Conn) -> None:
        conn.read(deadline=soon())
        conn.write(b"x", deadline=soon())
        conn.abort()

    handler = Outcomes(close_early)
    serving = serve(handler)
    assert serving.is_ended(serving.connect())
    serving.step_until(serving.closes, "the close being counted")
    serving.step(2 * MOMENT_S)
    assert (handler.calls, handler.errors) == (["on_close"], [])


# -- a peer that is gone while nothing is read of it ---------------------------------------------------------------


class Silent(Handler):
    """Reads nothing, and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, Exception | None]] = []
        self.reasons: list[str] = []
        self.held: list[Conn] = []  # nobody else refers to a connection on which nothing is pending

    def on_open(self, conn: Conn) -> None:
        self.held.append(conn)

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        self.told.append((result.size, result.error))
        super().on_hangup(conn, result)

    def on_close(self, conn: Conn, reason: str) -> None:
        self.reasons.append(reason)


def test_client_that_resets_is_noticed_though_nothing_is_read(serve: Serve) -> None:
    handler = Silent()
    serving = serve(handler)
    client = serving.connect()
    reset(client)
    serving.step_until(lambda: bool(handler.reasons), "the end of the connection")
    assert [(size, type(error)) for size, error in handler.told] == [(0, ConnectionResetError)]
    assert handler.reasons == ["peer_reset"]


def test_what_a_client_sent_before_it_was_gone_is_left_to_the_handler(serve: Serve) -> None:
    handler = Silent()
    serving = serve(handler)
    client = serving.connect()
    client.sendall(b"last words")
    reset(client)
    serving.step_until(lambda: bool(handler.told), "the report")
    assert [(size, type(error)) for size, error in handler.told] == [(10, ConnectionResetError)]
    conn = serving.listener.clients()[0]
    conn.read()
    serving.step_until(lambda: bool(handler.reasons), "the end of the connection")
    assert conn.bytes_received == 10
