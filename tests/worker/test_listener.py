"""A listener: its limits, its handler's mistakes, and how it ends."""

import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.descriptors import descriptors_limited_to
from core.support.sockets import listen, reset
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Conn, Handler, OpResult
from gaiod.log import rate_limit
from gaiod.process.dispatch import dispatch
from gaiod.settings import ConnectionLogSettings, ProxyProtocolSettings
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.names import Names
from worker.conftest import Serve
from worker.support.serving import Recorder

FOREVER_S = 1e9


class Breaks(Recorder):
    """Raises in one hook, if the connection has said so or that hook is on_open, on_close or on_tick."""

    tick_interval_s = MOMENT_S

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.hook = hook

    def _break(self, hook: str) -> None:
        if hook == self.hook:
            raise LookupError(f"broken {hook}")

    def on_open(self, conn: Conn) -> None:
        self._break("on_open")
        super().on_open(conn)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self._break("on_read")
        super().on_read(conn, result)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        self._break("on_write")
        super().on_write(conn, result)

    def on_eof(self, conn: Conn) -> None:
        self._break("on_eof")
        super().on_eof(conn)

    def on_close(self, conn: Conn, reason: str) -> None:
        super().on_close(conn, reason)
        self._break("on_close")

    def on_tick(self) -> None:
        self._break("on_tick")


def _does(on_open: Callable[[Conn], Any]) -> Recorder:
    """Return a handler that does this when a connection opens."""

    class Does(Recorder):
        def on_open(self, conn: Conn) -> None:
            on_open(conn)

    return Does()


# -- limits ------------------------------------------------------------------------------------------


def test_connection_is_rejected_and_counted_when_it_is_one_too_many(serve: Serve) -> None:
    handler = Recorder()
    serving = serve(handler, connections_max=2)
    clients = [serving.connect() for _ in range(5)]
    assert all(serving.is_ended(sock) for sock in clients[2:])
    assert (serving.count("accepted"), serving.count("rejected_limit"), serving.listener.active) == (2, 3, 2)
    assert [serving.exchange(sock, b"in") for sock in clients[:2]] == [b"in", b"in"]
    assert handler.calls.count("on_open") == 2
    assert "on_close" not in handler.calls
    clients[0].close()
    serving.step_until(lambda: serving.listener.active == 1, "room")
    assert serving.exchange(serving.connect(), b"next") == b"next"


def test_rejections_are_logged_once_in_a_while(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "LIMITED_INTERVAL_S", FOREVER_S)
    serving = serve(Recorder(), connections_max=1)
    for _ in range(5):
        serving.connect()
    assert [record.getMessage() for record in caplog.records] == [
        "listener front: connections_max=1 is reached; more are rejected"
    ]


@pytest.mark.parametrize(
    "proxy_protocol", [None, ProxyProtocolSettings(networks=("127.0.0.0/8",), timeout_s=FOREVER_S)]
)
def test_connection_that_a_drain_meets_before_its_handler_does_is_no_concern_of_that(
    serve: Serve, caplog: pytest.LogCaptureFixture, proxy_protocol: ProxyProtocolSettings | None
) -> None:
    handler = Recorder()
    log = ConnectionLog(ConnectionLogSettings(closed=True), Names(1), lambda lines: None)
    serving = serve(handler, proxy_protocol=proxy_protocol, connection_log=log)
    client = serving.dial()
    accepted = serving.watcher.wait_io(LIMIT_S)
    serving.listener.close_all(abort=True)
    with caplog.at_level(logging.INFO, "gaiod.connections"):
        dispatch(accepted)
        assert serving.is_ended(client)
        serving.step_until(lambda: not serving.clients(), "its end")
    assert (handler.calls, serving.listener.active, serving.count("accepted")) == ([], 0, 0)
    (told,) = (vars(record)["gaiod_fields"] for record in caplog.records)
    assert (told["reason"], told["who"], told["phase"]) == ("drain", "gaiod", "accept")


def test_idle_connection_is_closed_and_an_active_one_is_not(serve: Serve) -> None:
    timeout_s = 20 * MOMENT_S
    serving = serve(Recorder(), idle_timeout_s=timeout_s)
    silent, busy = serving.connect(), serving.connect()
    began_s = time.monotonic()
    while not serving.closes():
        assert time.monotonic() < began_s + LIMIT_S
        assert serving.exchange(busy, b"busy") == b"busy"
    assert time.monotonic() - began_s > timeout_s - 0.5 * MOMENT_S
    assert serving.closes() == {"idle": 1}
    assert serving.is_ended(silent)
    assert serving.exchange(busy, b"still") == b"still"


def test_idle_connection_is_closed_when_it_waits_for_a_client_that_does_not_read(serve: Serve) -> None:
    serving = serve(_does(lambda conn: conn.write(bytes(64 << 20))), idle_timeout_s=3 * MOMENT_S)
    serving.connect()
    serving.step_until(serving.closes, "the end of the connection")
    assert serving.closes() == {"idle": 1}


def test_idle_is_why_a_half_closed_connection_closes_when_nothing_moves(serve: Serve) -> None:
    """Its end was not the peer's doing: the handler kept it open after the end of the stream."""

    class Keeps(Recorder):
        def on_eof(self, conn: Conn) -> None:
            self.kept = conn

    serving = serve(Keeps(), idle_timeout_s=3 * MOMENT_S)
    sock = serving.connect()
    sock.shutdown(socket.SHUT_WR)
    serving.step_until(serving.closes, "the end of the connection")
    assert serving.closes() == {"idle": 1}


def test_accept_failures_are_counted_by_errno_and_overcome(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serving = serve(Recorder())
    before = serving.connect()
    with socket.socket() as late:
        with descriptors_limited_to(0):
            late.connect(serving.address)
            serving.step_until(lambda: serving.count("accept_error_EMFILE") >= 2, "accept() failing and tried again")
            assert serving.exchange(before, b"before") == b"before"
        assert serving.exchange(late, b"late") == b"late"
    assert "listener front: accepting failed: [Errno 24]" in caplog.text
    assert serving.count("accepted") == 2


def test_handler_can_let_clients_wait_for_lack_of_something_and_that_is_counted(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Pauses(Recorder):
        def on_read(self, conn: Conn, result: OpResult) -> None:
            self.pause_accepting(OSError(errno.EMFILE, "Too many open files"))
            super().on_read(conn, result)

    serving = serve(Pauses())
    assert serving.exchange(serving.connect(), b"pause") == b"pause"
    with socket.socket() as late:
        late.connect(serving.address)
        assert serving.count("accepted") == 1
        assert serving.exchange(late, b"late") == b"late"
    serving.listener.stop_accepting()
    assert serving.count("accept_paused_fd_ns") >= 0.05e9
    assert "listener front: there is no room for another client: [Errno 24]" in caplog.text


# -- a handler's mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_open", "on_read", "on_write", "on_eof"])
def test_connection_alone_is_closed_when_a_hook_raises(
    serve: Serve, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    handler = Breaks("")
    serving = serve(handler)
    good = serving.connect()
    assert serving.exchange(good, b"good") == b"good"
    handler.hook = hook
    bad = serving.connect()
    if hook != "on_open":
        bad.sendall(b"bad")
    if hook == "on_eof":
        assert serving.receive(bad, 3) == b"bad"
        bad.shutdown(socket.SHUT_WR)
    if hook == "on_write":
        assert serving.receive(bad, 3) == b"bad"
    assert serving.is_ended(bad)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"handler_error": 1}
    assert serving.count(f"handler_error_{hook}") == 1
    assert handler.reasons == ["handler_error"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"listener front: {hook} raised; connection ")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == f"broken {hook}"
    handler.hook = ""
    assert serving.exchange(good, b"still") == b"still"


@pytest.mark.parametrize("hook", ["on_close", "on_tick"])
def test_nothing_is_closed_when_a_hook_without_a_connection_raises(
    serve: Serve, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    serving = serve(Breaks(hook))
    sock = serving.connect()
    if hook == "on_close":
        serving.connect().close()
    serving.step_until(lambda: serving.count(f"handler_error_{hook}"), "the hook being called")
    assert serving.exchange(sock, b"still") == b"still"
    assert f"listener front: {hook} raised; nothing was closed" in caplog.text


def test_tick_goes_on_when_it_has_raised(serve: Serve) -> None:
    serving = serve(Breaks("on_tick"))
    serving.step_until(lambda: serving.count("handler_error_on_tick") >= 3, "three ticks")


def test_connection_that_a_hook_closed_before_it_raised_is_closed_once(serve: Serve) -> None:
    class Both(Recorder):
        def on_open(self, conn: Conn) -> None:
            conn.abort()
            raise LookupError

    handler = Both()
    serving = serve(handler)
    assert serving.is_ended(serving.connect())
    serving.step_until(serving.closes, "the close being counted")
    assert len(handler.reasons) == sum(serving.closes().values()) == 1


# -- the end -------------------------------------------------------------------------------------------


def test_stop_sends_what_was_written_and_accepts_no_more(serve: Serve) -> None:
    size = 8 << 20
    handler = _does(lambda conn: conn.write(bytes(size)))
    serving = serve(handler)
    sock = serving.connect()
    serving.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(serving.address, timeout=LIMIT_S).close()
    assert len(serving.receive(sock, size + 1)) == size
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"drain": 1}
    assert serving.listener.active == 0


def test_abort_closes_what_stop_could_not(serve: Serve) -> None:
    serving = serve(_does(lambda conn: conn.write(bytes(64 << 20))))
    serving.connect()
    serving.stop()
    serving.step(MOMENT_S)
    assert serving.listener.active == 1
    serving.listener.close_all(abort=True)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"drain": 1}


def test_tick_is_called_until_the_listener_stops(serve: Serve) -> None:
    class Ticks(Handler):
        tick_interval_s = MOMENT_S
        ticks = 0

        def on_tick(self) -> None:
            self.ticks += 1

    handler = Ticks()
    serving = serve(handler)
    began_s = time.monotonic()
    serving.step_until(lambda: handler.ticks == 3, "three ticks")
    assert time.monotonic() - began_s > 2.9 * MOMENT_S
    serving.stop()
    until_s = time.monotonic() + 3 * MOMENT_S
    while time.monotonic() < until_s:
        serving.step()
    assert handler.ticks == 3


def test_connection_is_reset_when_its_client_resets_while_it_is_written_to(serve: Serve) -> None:
    serving = serve(_does(lambda conn: conn.write(bytes(64 << 20))))
    reset(serving.connect())
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"peer_reset": 1}


class Ticking(Recorder):
    """Ticks all the time."""

    tick_interval_s = MOMENT_S / 3

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0

    def on_tick(self) -> None:
        self.ticks += 1


def test_listener_whose_socket_was_made_anew_goes_on_ticking_without_clients(serve: Serve) -> None:
    handler = Ticking()
    serving = serve(handler)
    with listen() as sock:
        serving.listener.serve_instead([sock.dup()])
        serving.address = sock.getsockname()
        before = handler.ticks
        serving.step_until(lambda: handler.ticks > before + 3, "ticks")
        assert serving.exchange(serving.connect(), b"hello") == b"hello"
