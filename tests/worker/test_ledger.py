"""What is said of a connection when it ends: by its listener, and by its handler."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import reset

from gaiod import Conn, OpResult, Termination
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving

Told = dict[str, Any]


class Says(Recorder):
    """Says of its connections what the test wants."""

    def __init__(self, phase: str | None = None, server: str | None = None) -> None:
        super().__init__()
        self.phase = phase
        self.named = server
        self.conns: list[Conn] = []

    def on_open(self, conn: Conn) -> None:
        self.conns.append(conn)
        super().on_open(conn)

    def phase_of(self, conn: Conn) -> str:
        return super().phase_of(conn) if self.phase is None else self.phase

    def server_of(self, conn: Conn) -> str | None:
        return self.named


def _ended(serve: Serve, handler: Says, end: Callable[[Serving, socket.socket], object]) -> Told:
    """Return what is remembered of a connection that ended so."""
    serving = serve(handler)
    sock = serving.connect()
    end(serving, sock)
    serving.step_until(serving.closes, "the close being counted")
    found = serving.recent_closes.find(f"0-{handler.conns[0].serial}", 0.0)
    assert found is not None
    return {key: found[key] for key in ("reason", "who", "how", "cause", "phase", "server") if key in found}


WAYS: list[tuple[Callable[[Serving, socket.socket], object], Told]] = [
    (lambda serving, sock: sock.close(), {"reason": "peer_eof", "who": "client", "how": "fin", "phase": "data"}),
    (
        lambda serving, sock: reset(sock),
        {"reason": "peer_reset", "who": "client", "how": "reset", "cause": "ECONNRESET", "phase": "data"},
    ),
    (
        lambda serving, sock: serving.end_all("idle"),
        {"reason": "idle", "who": "gaiod", "how": "timeout", "cause": "idle_timeout", "phase": "data"},
    ),
    (lambda serving, sock: serving.stop(), {"reason": "drain", "who": "gaiod", "how": "drain", "phase": "data"}),
    (
        lambda serving, sock: serving.end_all("admin"),
        {"reason": "admin", "who": "gaiod", "how": "kill", "phase": "data"},
    ),
    (
        lambda serving, sock: serving.end_all(Termination("quota", "client", "limit", "bytes", "login")),
        {"reason": "quota", "who": "client", "how": "limit", "cause": "bytes", "phase": "login"},
    ),
]


@pytest.mark.parametrize(("end", "told"), WAYS, ids=[told["reason"] for _, told in WAYS])
def test_end_says_who_how_and_in_which_phase(
    serve: Serve, end: Callable[[Serving, socket.socket], object], told: Told
) -> None:
    assert _ended(serve, Says(), end) == {"server": None, **told}


def test_handler_says_phase_and_server_and_is_told_the_end(serve: Serve) -> None:
    handler = Says("login", "db:5432")
    told = _ended(serve, handler, lambda serving, sock: reset(sock))
    assert (told["phase"], told["server"]) == ("login", "db:5432")
    reason = handler.reasons[0]
    assert isinstance(reason, Termination)
    assert (reason, reason.who, reason.how, reason.phase) == ("peer_reset", "client", "reset", "login")


def test_half_closed_connection_ends_in_the_phase_closing(serve: Serve) -> None:
    class Keeps(Says):
        def on_eof(self, conn: Conn) -> None:
            """Goes on."""

    def end(serving: Serving, sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        serving.step_until(lambda: handler.conns[0].at_eof, "the end being read")
        serving.end_all("idle")

    handler = Keeps()
    told = _ended(serve, handler, end)
    assert (told["reason"], told["phase"]) == ("idle", "closing")


def test_hook_that_raised_is_the_cause(serve: Serve) -> None:
    class Raises(Says):
        def on_read(self, conn: Conn, result: OpResult) -> None:
            raise LookupError

    told = _ended(serve, Raises(), lambda serving, sock: sock.send(b"x"))
    assert (told["reason"], told["who"], told["how"], told["cause"]) == (
        "handler_error", "handler", "error", "on_read",
    )  # fmt: skip


def test_handler_that_cannot_say_does_not_cost_the_accounts(serve: Serve) -> None:
    class Raises(Says):
        def phase_of(self, conn: Conn) -> str:
            raise SystemExit

        def server_of(self, conn: Conn) -> str | None:
            raise LookupError

    told = _ended(serve, Raises(), lambda serving, sock: sock.close())
    assert (told["phase"], told["server"]) == ("data", None)


def test_peer_that_is_gone_while_nothing_is_read_of_it_says_how(serve: Serve) -> None:
    class Waits(Says):
        def on_open(self, conn: Conn) -> None:
            self.conns.append(conn)

    assert _ended(serve, Waits(), lambda serving, sock: reset(sock)) == {
        "reason": "peer_reset", "who": "client", "how": "reset", "cause": "ECONNRESET", "phase": "data", "server": None,
    }  # fmt: skip
