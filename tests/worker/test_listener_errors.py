"""Whatever a hook raises costs its own connection, is counted, and is logged; different errors are told apart."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from core.support.sockets import listen
from core.support.tls import TlsPeer
from core.support.waiting import MOMENT_S

from gaiod import AdminState, Arrival, Conn, OpResult, OpType
from gaiod.handler.admin_state import admin_key
from gaiod.log import rate_limit
from gaiod.stats.cells import HOOKS
from worker.admission.test_tls_wait import settings
from worker.conftest import Serve
from worker.support.serving import Recorder

FOREVER_S = 1e9

ENDS = [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), MemoryError(), LookupError("x")]
"""Most are no `Exception`: whoever catches only those lets them end the process."""

OF_A_CONNECTION = {
    "on_open", "on_read", "on_write", "on_eof", "on_error", "on_connect", "on_relay", "on_tls", "on_hangup",
}  # fmt: skip


class Everything(Recorder):
    """An echo that has every hook called; the one that is chosen raises, once."""

    tick_interval_s = MOMENT_S

    def __init__(self, elsewhere: Any, hook: str, error: BaseException) -> None:
        super().__init__()
        self._elsewhere = elsewhere
        self._hook = hook
        self._error = error

    def _break(self, hook: str) -> None:
        if hook == self._hook:
            self._hook = ""
            raise self._error

    def on_open(self, conn: Conn) -> None:
        self._break("on_open")
        self.timer(0.0, None)
        self.post(None)
        conn.data = self.connect(self._elsewhere)
        conn.data.data = conn
        if self._hook == "on_tls":
            conn.start_tls(server=True, unread=b"")
        else:
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

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        self._break("on_connect")
        conn.relay_to(conn.data)
        conn.cancel()

    def on_tls(self, conn: Conn) -> None:
        self._break("on_tls")

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        self._break("on_relay")
        conn.read()
        conn.cancel()

    def on_hangup(self, conn: Conn, result: OpResult) -> None:
        self._break("on_hangup")

    def on_error(self, conn: Conn, operation: OpType, error: Exception) -> None:
        self._break("on_error")

    def on_close(self, conn: Conn, reason: str) -> None:
        super().on_close(conn, reason)
        conn.data = None
        self._break("on_close")

    def on_tick(self) -> None:
        self._break("on_tick")

    def on_timer(self, data: Any) -> None:
        self._break("on_timer")

    def on_post(self, data: Any) -> None:
        self._break("on_post")

    def on_message(self, topic: str, data: bytes) -> None:
        self._break("on_message")

    def on_share(self, key: str, value: Any) -> None:
        self._break("on_share")

    def on_leader(self, is_leader: bool) -> None:
        self._break("on_leader")

    def on_leave(self, conn: Conn) -> bytes:
        self._break("on_leave")
        return b""

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        self._break("on_arrive")

    def on_admin_state(self, server: str, state: AdminState) -> None:
        self._break("on_admin_state")


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """Somebody to connect to."""
    with listen() as sock:
        yield sock


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "on_start"])
def test_whatever_a_hook_raises_costs_its_own_connection(
    serve: Serve, elsewhere: socket.socket, caplog: pytest.LogCaptureFixture, hook: str, error: BaseException
) -> None:
    handler = Everything(elsewhere.getsockname(), "", error)
    serving = serve(handler, servers=("server",), tls=settings(starts_by_handler=True))
    good = serving.connect()
    assert serving.exchange(good, b"good") == b"good"
    handler._hook = hook
    bad = serving.dial()
    if hook == "on_tls":
        serving.step_until(TlsPeer(bad).step, "the handshake")
    else:
        bad.sendall(b"bad")
        bad.shutdown(socket.SHUT_WR)
    serving.listener.deliver(1, "topic", b"message")
    serving.listener.take_shared("key", "value", is_own=False)
    serving.listener.lead(False)
    serving.listener.take_shared(admin_key("server"), asdict(AdminState("drain")), is_own=False)
    if hook == "on_leave":
        assert serving.listener.leave(serving.listener.clients()[0]) == (None, "hook_error")
    if hook == "on_arrive":
        assert serving.listener.arrive(serving.listener.clients()[:1], [b""], 1, [None]) == "hook_error"
    if hook == "on_hangup":
        elsewhere.close()  # which resets the connections that wait there, of which nothing is read
    serving.step_until(lambda: serving.count(f"handler_error_{hook}"), "the hook raising")
    assert serving.exchange(good, b"still") == b"still"
    assert serving.count(f"handler_error_{hook}") == 1
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    what = "connection" if hook in OF_A_CONNECTION else "nothing"
    assert record.getMessage().startswith(f"listener front: {hook} raised; {what} ")


class Twice(Recorder):
    """Raises at two places, of which the second raises two kinds of errors, one of them in a library."""

    def on_read(self, conn: Conn, result: OpResult) -> None:
        match bytes(result.buffer):
            case b"a":
                raise LookupError("first place")
            case b"b":
                int("second place")
            case b"c":
                socket.inet_aton("third place")


@pytest.mark.parametrize(("interval_s", "messages"), [(FOREVER_S, 3), (0.0, 9)])
def test_errors_are_all_counted_and_one_of_each_kind_is_logged_in_a_while(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    interval_s: float,
    messages: int,
) -> None:
    monkeypatch.setattr(rate_limit, "LIMITED_INTERVAL_S", interval_s)
    serving = serve(Twice())
    for which in [b"a", b"b", b"c"] * 3:
        serving.connect().sendall(which)
        serving.step_until(lambda: not serving.listener.clients(), "the error")
    assert serving.count("handler_error_on_read") == 9
    assert len(caplog.records) == messages
    for text in ("first place", "second place", "illegal IP address"):
        assert text in caplog.text
