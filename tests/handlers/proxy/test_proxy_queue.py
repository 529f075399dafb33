"""Clients that wait for a server: in order, not too many, not too long."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import reset
from core.support.waiting import TIME_UNIT
from gaiod.handlers.proxy.names import Answer
from worker.support.proxying import Backend, Proxying

Start = Callable[..., Proxying]


def one_at_a_time(backend: Backend) -> dict[str, Any]:
    """Return the options of a server that takes one connection at once."""
    return {"address": backend.address, "connections_max": 1}


def queued(proxy: Proxying, n: int) -> list[socket.socket]:
    """Return clients that wait."""
    clients = [proxy.connect() for _ in range(n)]
    assert proxy.count("upstream_queued") == n
    return clients


def test_client_waits_until_the_server_takes_one_more(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend))
    client, far = proxy.pair(backend)
    first, second = queued(proxy, 2)
    first.sendall(b"first")
    second.sendall(b"second")
    client.close()
    far.close()
    far = proxy.accepted_by(backend)
    assert proxy.receive(far, 5) == b"first"
    assert proxy.count("upstream_queued") == 1
    first.close()
    far.close()
    assert proxy.receive(proxy.accepted_by(backend), 6) == b"second"
    assert proxy.count("upstream_queued") == 0
    assert proxy.unavailable() == {}


def test_client_that_waits_too_long_is_let_go(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend), queue={"timeout": 0.1})
    client, far = proxy.pair(backend)
    first, second = queued(proxy, 2)
    assert proxy.is_ended(first)
    assert proxy.is_ended(second)
    assert proxy.closes() == {"no_server": 2}
    assert (proxy.count("upstream_queue_timeouts"), proxy.unavailable()) == (2, {"queue_timeout": 2})
    assert proxy.count("upstream_queued") == 0
    proxy.carry(client, far, b"not disturbed")
    (third,) = queued(proxy, 1)
    assert proxy.is_ended(third), "the timer begins anew"


def test_client_that_waits_is_not_idle(start: Start, backend: Backend) -> None:
    idle_s = 0.5 * TIME_UNIT  # the other client stays busy, even if this process has to wait for its CPU
    proxy = start(one_at_a_time(backend), idle_timeout_s=idle_s, queue={"timeout": 3 * idle_s})
    client, far = proxy.pair(backend)
    (waiting,) = queued(proxy, 1)

    def is_over() -> bool:
        proxy.carry(client, far, b"not idle either")
        return bool(proxy.closes())

    proxy.step_until(is_over, "the end of its time")
    assert proxy.closes() == {"no_server": 1}
    assert proxy.is_ended(waiting)


def test_client_is_let_go_at_once_when_too_many_wait(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend), queue={"length": 1})
    proxy.pair(backend)
    queued(proxy, 1)
    late = proxy.connect()
    assert proxy.is_ended(late)
    assert proxy.closes() == {"no_server": 1}
    assert (proxy.unavailable(), proxy.count("upstream_queue_timeouts")) == ({"full": 1}, 0)


def test_nobody_waits_where_there_is_no_queue(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend), queue={"length": 0})
    proxy.pair(backend)
    late = proxy.connect()
    assert proxy.is_ended(late)


@pytest.mark.parametrize("how", ["closed", "hung up"])
def test_client_that_has_gone_meanwhile_costs_nobody_its_turn(start: Start, backend: Backend, how: str) -> None:
    proxy = start(one_at_a_time(backend))
    client, far = proxy.pair(backend)
    gone, second = queued(proxy, 2)
    if how == "closed":
        (waiting,) = [conn for conn in proxy.listener.clients() if conn.peer_address == gone.getsockname()]
        proxy.listener.end(waiting, "admin", abort=True)
        assert proxy.is_ended(gone)
    else:
        gone.close()
    second.sendall(b"second")
    client.close()
    far.close()
    far = proxy.accepted_by(backend)
    if how == "hung up":
        assert proxy.receive(far, 1) == b""  # noticed when its turn came
        far.close()
        far = proxy.accepted_by(backend)
    assert proxy.receive(far, 6) == b"second"
    assert proxy.count("upstream_queued") == 0


@pytest.mark.parametrize("said", [b"", b"dead"])
def test_client_that_was_reset_while_it_waits_leaves_at_once_with_what_it_has_sent(
    start: Start, backend: Backend, said: bytes
) -> None:
    proxy = start(one_at_a_time(backend), queue={"length": 2})
    client, far = proxy.pair(backend)
    gone, second = queued(proxy, 2)
    gone.sendall(said)
    reset(gone)
    proxy.step_until(lambda: proxy.count("upstream_queued") == 1, "its place being free")
    assert proxy.closes() == {"peer_reset": 1}
    third = proxy.connect()
    assert proxy.count("upstream_queued") == 2, "and somebody else's"
    second.sendall(b"second")
    third.sendall(b"third")
    client.close()
    far.close()
    far = proxy.accepted_by(backend)
    assert proxy.receive(far, 6) == b"second"


def test_client_that_has_only_ended_its_request_is_still_served(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend))
    client, far = proxy.pair(backend)
    (waiting,) = queued(proxy, 1)
    waiting.sendall(b"request")
    waiting.shutdown(socket.SHUT_WR)
    client.close()
    far.close()
    far = proxy.accepted_by(backend)
    assert proxy.receive(far, 8) == b"request"
    far.sendall(b"answer")
    assert proxy.receive(waiting, 6) == b"answer"


def test_client_of_a_unix_socket_that_closes_while_it_waits_leaves_at_once(
    start: Start, backend: Backend, tmp_path: Any
) -> None:
    sock = socket.create_server(str(tmp_path / "front.sock"), family=socket.AF_UNIX)
    proxy = start(one_at_a_time(backend), sock=sock)
    proxy.connect()
    proxy.accepted_by(backend)
    (gone,) = queued(proxy, 1)
    gone.sendall(b"dead")
    gone.close()
    proxy.step_until(lambda: proxy.count("upstream_queued") == 0, "its place being free")


def test_client_that_was_let_go_of_by_an_operator_is_no_timeout(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend), queue={"timeout": 0.1})
    proxy.pair(backend)
    queued(proxy, 1)
    (waiting,) = [conn for conn in proxy.listener.clients() if conn.data.server is None]
    proxy.listener.end(waiting, "admin", abort=True)
    proxy.step_until(proxy.closes, "the end of the connection")
    assert proxy.count("upstream_queued") == 0, "its place is free at once"
    until_s = time.monotonic() + 0.2
    proxy.step_until(lambda: time.monotonic() > until_s, "the end of its time")
    assert proxy.count("upstream_queue_timeouts") == 0
    assert proxy.closes() == {"admin": 1}


def test_queue_that_is_filled_and_emptied_has_one_timer(
    start: Start, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start(one_at_a_time(backend), queue={"timeout": 60.0})
    proxy.pair(backend)
    began: list[float] = []
    timer = proxy.handler.timer

    def count(delay_s: float, data: Any) -> None:
        began.append(delay_s)
        timer(delay_s, data)

    monkeypatch.setattr(proxy.handler, "timer", count)
    for number in range(5):
        queued(proxy, 1)
        (waiting,) = [conn for conn in proxy.listener.clients() if conn.data.server is None]
        proxy.listener.end(waiting, "admin", abort=True)
        proxy.step_until(lambda number=number: proxy.closes() == {"admin": number + 1}, "its end")  # type: ignore[misc]
    assert began == [60.0]


def test_nobody_overtakes_who_waits(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend))
    client, far = proxy.pair(backend)
    (first,) = queued(proxy, 1)
    first.sendall(b"first")
    client.close()
    far.close()
    late = proxy.connect()
    late.sendall(b"late")
    assert proxy.receive(proxy.accepted_by(backend), 5) == b"first"


def test_all_wait_for_a_name_and_are_served_when_it_is_known(
    start: Start, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaiod.handlers.proxy.Names.start", lambda self: None)
    port = backend.address.rpartition(":")[2]
    proxy = start(f"db.test:{port}")
    clients = queued(proxy, 3)
    for client in clients:
        client.sendall(b"hello")
    proxy.handler.post(Answer("db.test", (), "timed out"))
    proxy.step()
    assert proxy.count("upstream_queued") == 3
    proxy.handler.post(Answer("db.test", ("127.0.0.1",)))
    for _ in clients:
        assert proxy.receive(proxy.accepted_by(backend), 5) == b"hello"
    assert proxy.count("upstream_queued") == 0


def test_those_who_wait_are_let_go_when_every_server_goes_down(start: Start, backend: Backend) -> None:
    proxy = start(one_at_a_time(backend))
    proxy.pair(backend)
    (waiting,) = queued(proxy, 1)
    proxy.handler.set_down(proxy.handler.pool.servers[0].endpoints[0], "connect: refused")
    assert proxy.is_ended(waiting)
    assert proxy.closes() == {"no_server": 1}
    assert proxy.count("upstream_queued") == 0
