"""How proxied connections end: who ended them, how, for which cause, in which phase, and with which server."""

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import reset
from gaiod.handlers.proxy import NO_SERVER
from gaiod.handlers.proxy.names import Answer
from worker.support.proxying import Backend, Proxying, closed_address, text_of

from gaiod.stats.cells import UNAVAILABLE_CAUSES

Start = Callable[..., Proxying]
End = Callable[[Proxying, socket.socket, socket.socket], object]
"""Ends a session: the proxy, the client, the server's end."""


def _finish(proxy: Proxying, first: socket.socket, second: socket.socket) -> None:
    first.shutdown(socket.SHUT_WR)
    assert proxy.receive(second, 1) == b""
    second.close()


def _half_close(proxy: Proxying, first: socket.socket, second: socket.socket) -> None:
    first.shutdown(socket.SHUT_WR)
    assert proxy.receive(second, 1) == b""


def _half_close_then_reset(proxy: Proxying, first: socket.socket, second: socket.socket) -> None:
    _half_close(proxy, first, second)
    reset(second)


def _leave_unread(proxy: Proxying, leaving: socket.socket, other: socket.socket) -> None:
    """Close with bytes unread, and have the other go on sending: that is answered with a reset."""
    other.sendall(b"unread")
    conns = proxy.watcher.connections()
    proxy.step_until(lambda: any(conn.bytes_sent == 11 for conn in conns), "bytes that are not read")
    leaving.close()


ENDS: list[tuple[str, dict[str, Any], End, tuple[str, ...]]] = [
    ("client FIN", {}, _finish, ("peer_eof", "client", "fin", "-", "data")),
    ("server FIN", {}, lambda p, c, s: _finish(p, s, c), ("server_eof", "server", "fin", "-", "data")),
    ("client reset", {}, lambda p, c, s: reset(c), ("peer_reset", "client", "reset", "ECONNRESET", "data")),
    ("server reset", {}, lambda p, c, s: reset(s), ("server_reset", "server", "reset", "ECONNRESET", "data")),
    (
        "server reset after the client's FIN", {}, _half_close_then_reset,
        ("server_reset", "server", "reset", "ECONNRESET", "closing"),
    ),
    (
        "client reset after the server's FIN", {}, lambda p, c, s: _half_close_then_reset(p, s, c),
        ("peer_reset", "client", "reset", "ECONNRESET", "closing"),
    ),
    (
        "server leaves bytes unread", {}, lambda p, c, s: _leave_unread(p, s, c),
        ("server_reset", "server", "reset", "ECONNRESET", "data"),
    ),
    (
        "half_closed_timeout, the client's FIN", {"half_closed_timeout": 0.1}, _half_close,
        ("half_closed_timeout", "gaiod", "timeout", "half_closed_timeout", "closing"),
    ),
    (
        "half_closed_timeout, the server's FIN", {"half_closed_timeout": 0.1}, lambda p, c, s: _half_close(p, s, c),
        ("half_closed_timeout", "gaiod", "timeout", "half_closed_timeout", "closing"),
    ),
    ("max_age", {"max_age": 0.2}, lambda p, c, s: None, ("max_age", "gaiod", "timeout", "max_age", "data")),
    ("drain", {}, lambda p, c, s: p.stop(), ("drain", "gaiod", "drain", "-", "data")),
    ("kill", {}, lambda p, c, s: p.end_all("admin"), ("admin", "gaiod", "kill", "-", "data")),
    ("idle", {}, lambda p, c, s: p.end_all("idle"), ("idle", "gaiod", "timeout", "idle_timeout", "data")),
    (
        "server down", {"on_down": "close"},
        lambda p, c, s: p.handler.set_down(p.handler.pool.servers[0].endpoints[0], "told to"),
        ("server_down", "server", "error", "-", "data"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("options", "end", "told"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_end_of_a_session_says_who_how_where_and_with_which_server(
    start: Start, backend: Backend, options: dict[str, Any], end: End, told: tuple[str, ...]
) -> None:
    proxy = start(backend, **options)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    end(proxy, client, far)
    proxy.settle()
    assert proxy.ends() == [(*told, backend.address)]
    assert proxy.closes() == {told[0]: 1}


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ETIMEDOUT, ("user_timeout", "server", "timeout")),
        (errno.EHOSTUNREACH, ("unreachable", "server", "timeout")),
        (errno.EPIPE, ("server_reset", "server", "reset")),
        (errno.EIO, ("error", "gaiod", "error")),
    ],
)
def test_what_the_kernel_says_of_a_server_is_told_of_its_client(
    start: Start, backend: Backend, number: int, told: tuple[str, ...]
) -> None:
    proxy = start(backend)
    client, _ = proxy.pair(backend)
    server = proxy.server_of(client)
    server.data._blame(server, OSError(number, "told to"))
    proxy.end_all("admin")
    proxy.settle()
    (found,) = proxy.ends()
    if number == errno.ETIMEDOUT:
        told = ("keepalive", *told[1:])  # nothing that was sent waits for an acknowledgement
    assert found[:3] == told


# -- no server -------------------------------------------------------------------------------------------


def test_every_cause_is_told_by_a_termination() -> None:
    assert set(NO_SERVER) == set(UNAVAILABLE_CAUSES)


def _refused(start: Start, backend: Backend) -> Proxying:
    proxy = start(text_of(closed_address()), retries=1)
    proxy.is_ended(proxy.connect())
    return proxy


def _down(start: Start, backend: Backend) -> Proxying:
    proxy = start(backend)
    proxy.handler.set_down(proxy.handler.pool.servers[0].endpoints[0], "told to")
    proxy.is_ended(proxy.connect())
    return proxy


def _full(start: Start, backend: Backend) -> Proxying:
    proxy = start({"address": backend.address, "connections_max": 1}, queue={"length": 0})
    proxy.pair(backend)
    proxy.is_ended(proxy.connect())
    return proxy


def _queue_timeout(start: Start, backend: Backend) -> Proxying:
    proxy = start({"address": backend.address, "connections_max": 1}, queue={"timeout": 0.05})
    proxy.pair(backend)
    proxy.is_ended(proxy.connect())
    return proxy


def _unresolved(start: Start, backend: Backend) -> Proxying:
    proxy = start("no-such-name.invalid:80", queue={"timeout": 0.05})
    proxy.handler.post(Answer("no-such-name.invalid", (), "no such name"))
    proxy.is_ended(proxy.connect())
    return proxy


def _fails_with(number: int) -> Callable[[Start, Backend], Proxying]:
    def run(start: Start, backend: Backend) -> Proxying:
        def connect(*arguments: Any, **keywords: Any) -> None:
            raise OSError(number, "told to")

        proxy = start(backend, retries=0)
        proxy.handler.connect = connect
        proxy.is_ended(proxy.connect())
        return proxy

    return run


NONE: list[tuple[Callable[[Start, Backend], Proxying], tuple[str, ...]]] = [
    (_down, ("down", "server", "error", "queue")),
    (_full, ("full", "gaiod", "limit", "queue")),
    (_queue_timeout, ("queue_timeout", "gaiod", "timeout", "queue")),
    (_unresolved, ("unresolved", "server", "error", "queue")),
    (_fails_with(errno.EMFILE), ("no_resources", "gaiod", "limit", "connect")),
    (_fails_with(errno.EADDRNOTAVAIL), ("no_resources", "gaiod", "limit", "connect")),
    (_refused, ("connect_refused", "server", "error", "connect")),
    (_fails_with(errno.ETIMEDOUT), ("connect_timeout", "server", "timeout", "connect")),
    (_fails_with(errno.EHOSTUNREACH), ("connect_unreachable", "server", "error", "connect")),
    (_fails_with(errno.ECONNRESET), ("connect_reset", "server", "reset", "connect")),
    (_fails_with(errno.EACCES), ("connect_other", "server", "error", "connect")),
]


@pytest.mark.parametrize(("run", "told"), NONE, ids=[told[0] for _, told in NONE])
def test_client_without_a_server_is_told_why(
    start: Start, backend: Backend, run: Callable[[Start, Backend], Proxying], told: tuple[str, ...]
) -> None:
    proxy = run(start, backend)
    cause, who, how, phase = told
    (found,) = proxy.ends()
    assert found[:5] == ("no_server", who, how, cause, phase)
    assert proxy.unavailable() == {cause: 1}
    is_tried = phase == "connect"
    assert (found[5] != "-") == is_tried, "the server that was tried last is named"


def test_server_that_does_not_answer_is_a_timeout_of_the_connect(start: Start, black_hole: str) -> None:
    proxy = start(black_hole, connect_timeout=0.1, retries=0)
    assert proxy.is_ended(proxy.connect())
    assert proxy.ends() == [("no_server", "server", "timeout", "connect_timeout", "connect", black_hole)]


def test_client_that_is_ended_while_it_waits_says_so(start: Start, backend: Backend, black_hole: str) -> None:
    for servers, phase, server in (
        ({"address": backend.address, "connections_max": 1}, "queue", "-"),
        (black_hole, "connect", black_hole),
    ):
        proxy = start(servers)
        if phase == "queue":
            proxy.pair(backend)
        client = proxy.connect()
        conn = next(each for each in proxy.listener.clients() if each.peer_address == client.getsockname())
        assert proxy.handler.phase_of(conn) == phase
        proxy.listener.end(conn, "admin", abort=True)
        proxy.step_until(proxy.ends, "its end")
        assert proxy.ends() == [("admin", "gaiod", "kill", "-", phase, server)]
