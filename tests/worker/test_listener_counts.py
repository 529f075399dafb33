"""What a listener counts: why connections close, how long they were open, the handler's own ones."""

import gc
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import listen, reset
from core.support.waiting import LIMIT_S, soon

from gaiod import Conn, DeadlineExceeded, Handler, OpResult, Termination
from gaiod.stats.cells import CLOSE_REASONS, WORKER_LOST
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving


class Closes(Recorder):
    """Opens as it is told."""

    def __init__(self, on_open: Callable[[Conn], Any]) -> None:
        super().__init__()
        self._on_open = on_open

    def on_open(self, conn: Conn) -> None:
        self._on_open(conn)


def _says(reason: str) -> Callable[[Conn], None]:
    def close(conn: Conn) -> None:
        conn.close_reason = reason
        conn.close()

    return close


def _raises(conn: Conn) -> None:
    raise LookupError


WAYS = [
    ("peer_eof", lambda conn: conn.read(), lambda serving, sock: sock.shutdown(socket.SHUT_WR)),
    ("peer_reset", lambda conn: conn.read(), lambda serving, sock: reset(sock)),
    ("handler", lambda conn: conn.close(), None),
    ("handler", lambda conn: conn.abort(), None),
    ("handler", _says("a reason of its own"), None),
    *(
        (reason, _says(reason), None)
        for reason in CLOSE_REASONS
        if reason
        not in ("peer_eof", "peer_reset", "handler", "deadline", "drain", "admin", "handler_error", "forgotten")
        and reason != WORKER_LOST  # it cannot count them itself
    ),
    ("deadline", lambda conn: conn.read(deadline=soon()), None),
    ("drain", lambda conn: conn.read(), lambda serving, sock: serving.stop()),
    ("admin", lambda conn: conn.read(), lambda serving, sock: serving.end_all("admin")),
    ("handler_error", _raises, None),
    ("forgotten", lambda conn: None, None),
]


@pytest.mark.parametrize(("reason", "opens", "then"), WAYS)
def test_close_is_counted_once_by_its_reason(
    serve: Serve, reason: str, opens: Callable[[Conn], Any], then: Callable[[Serving, socket.socket], None] | None
) -> None:
    handler = Closes(opens)
    serving = serve(handler)
    sock = serving.connect()
    if then is not None:
        then(serving, sock)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {reason: 1}
    assert serving.listener.active == 0
    assert len(handler.reasons) == 1
    assert (serving.count("accepted"), sum(serving.durations())) == (1, 1)


def test_handler_is_told_the_reason_it_gave_itself(serve: Serve) -> None:
    handler = Closes(_says("quota"))
    serving = serve(handler)
    serving.connect()
    serving.step_until(lambda: handler.reasons, "on_close")
    assert handler.reasons == ["quota"]


def test_forgotten_connection_is_closed_and_found(serve: Serve) -> None:
    """A handler that starts nothing on a connection and does not keep it has dropped it."""
    serving = serve(Closes(lambda conn: None))
    sock = serving.connect()
    assert serving.is_ended(sock)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"forgotten": 1}
    assert serving.watcher.get_gc() == (1, 1)


def test_connection_in_a_reference_cycle_is_forgotten_when_the_garbage_is_collected(serve: Serve) -> None:
    def keep_in_a_cycle(conn: Conn) -> None:
        conn.data = [conn]

    serving = serve(Closes(keep_in_a_cycle))
    sock = serving.connect()
    assert not serving.closes()
    gc.collect()
    assert serving.is_ended(sock)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"forgotten": 1}


def test_kept_connection_is_not_forgotten(serve: Serve) -> None:
    kept: list[Conn] = []
    serving = serve(Closes(kept.append))
    serving.connect()
    gc.collect()
    serving.step()
    assert (serving.closes(), serving.listener.active) == ({}, 1)


@pytest.mark.parametrize(("age_s", "bucket"), [(0.0, 0), (0.05, 1), (5.0, 3), (200.0, 5), (7200.0, 8)])
def test_duration_goes_into_its_bucket_when_a_connection_closes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, age_s: float, bucket: int
) -> None:
    class Clock:
        """Time, seen from later."""

        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + age_s

    serving = serve(Recorder())
    sock = serving.connect()
    monkeypatch.setattr("gaiod.worker.ledger.time", Clock)
    sock.shutdown(socket.SHUT_WR)
    serving.step_until(serving.closes, "the close being counted")
    durations = serving.durations()
    assert durations.index(1) in (bucket, bucket + (age_s == 0.0))  # a slow machine: over 10 ms
    assert sum(durations) == 1
    assert age_s <= serving.count("duration_ns") / 1e9 <= age_s + LIMIT_S


def test_bytes_are_counted_as_they_move(serve: Serve) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    for _ in range(3):
        serving.exchange(sock, bytes(1000))
    assert (serving.count("downstream_received_bytes"), serving.count("downstream_sent_bytes")) == (3000, 3000)
    assert (serving.count("upstream_received_bytes"), serving.count("upstream_sent_bytes")) == (0, 0)


# -- connections of the handler's own ---------------------------------------------------------------


class Dials(Handler):
    """Opens a connection of its own for each client, and tells the client what came of it."""

    def __init__(self, address: Any, deadline: float | None = None) -> None:
        super().__init__()
        self._address = address
        self._deadline = deadline
        self.closed: list[str] = []

    def on_open(self, conn: Conn) -> None:
        conn.read()
        self.connect(self._address, data=conn, deadline=self._deadline)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        conn.data.write(repr(type(result.error).__name__).encode())
        if result.error is None:
            conn.write(b"hello upstream")
            conn.read()
        else:
            conn.abort()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Nothing is to be done."""

    def on_close(self, conn: Conn, reason: str) -> None:
        self.closed.append(reason)


def test_connection_of_the_handlers_own_is_counted_as_upstream_and_not_as_accepted(serve: Serve) -> None:
    with listen() as upstream:
        handler = Dials(upstream.getsockname())
        serving = serve(handler, connections_max=1)
        client = serving.connect()
        assert serving.receive(client, 10) == b"'NoneType'"
        with upstream.accept()[0] as server:
            assert serving.receive(server, 14) == b"hello upstream"
            server.sendall(b"welcome")
            serving.step_until(lambda: serving.count("upstream_received_bytes") == 7, "bytes from upstream")
            assert serving.count("upstream_sent_bytes") == 14
            assert serving.count("downstream_sent_bytes") == 10
            assert (serving.count("accepted"), serving.listener.active) == (1, 1)
        serving.step_until(lambda: handler.closed, "the end of the upstream connection")
    assert handler.closed == ["peer_eof"]
    assert [(each.who, each.how) for each in handler.closed if isinstance(each, Termination)] == [("server", "fin")]
    assert (serving.closes(), serving.listener.active, serving.durations()) == ({}, 1, [0] * 9)


def test_connect_hook_is_told_when_nobody_listens(serve: Serve) -> None:
    with listen() as sock:
        address = sock.getsockname()
    serving = serve(Dials(address))
    assert serving.receive(serving.connect(), 24) == b"'ConnectionRefusedError'"


def test_connect_hook_is_told_when_the_deadline_passes(serve: Serve) -> None:
    """A listener whose queue is full answers no SYN."""
    with listen(backlog=0) as full:
        queued = [socket.socket() for _ in range(3)]
        try:
            for sock in queued:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            serving = serve(Dials(full.getsockname(), deadline=soon()))
            name = repr(DeadlineExceeded.__name__).encode()
            assert serving.receive(serving.connect(), len(name)) == name
        finally:
            for sock in queued:
                sock.close()


def test_connections_of_the_handlers_own_are_closed_when_the_listener_stops(serve: Serve) -> None:
    with listen() as upstream:
        handler = Dials(upstream.getsockname())
        serving = serve(handler)
        serving.receive(serving.connect(), 10)
        with upstream.accept()[0] as server:
            serving.receive(server, 14)
            serving.stop()
            assert serving.is_ended(server)
    serving.step_until(lambda: len(handler.closed) == 2, "both ends")
    assert handler.closed == ["drain", "drain"]
