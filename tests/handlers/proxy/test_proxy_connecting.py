"""Finding a server for a client: tries that fail, time that runs out, and the sockets to servers."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import reset
from worker.support.proxying import Backend, Proxying, closed_address, text_of

Start = Callable[..., Proxying]


def test_client_is_sent_to_the_next_server_when_one_refuses(start: Start, backend: Backend) -> None:
    proxy = start(text_of(closed_address()), backend, passive={"failures": 1000})
    for _ in range(4):
        client, far = proxy.pair(backend)
        proxy.carry(client, far, b"hello")
    assert proxy.count_of_server("failed_refused", 0) == proxy.count("upstream_retries") > 0
    assert proxy.count_of_server("connections", 1) == 4


def test_client_gets_what_it_has_sent_to_the_server_that_took_it_in_the_end(start: Start, backend: Backend) -> None:
    """Nothing is read of a client before, so nothing has to be repeated."""
    proxy = start(text_of(closed_address()), backend, balance="source_hash")
    for _ in range(3):
        client = proxy.connect()
        client.sendall(b"hello")
        assert proxy.receive(proxy.accepted_by(backend), 5) == b"hello"


def test_client_is_let_go_when_all_tries_fail(start: Start) -> None:
    proxy = start(text_of(closed_address()), text_of(closed_address()), retries=1)
    client = proxy.connect()
    assert proxy.is_ended(client)
    proxy.settle()
    assert proxy.closes() == {"no_server": 1}
    assert (proxy.count("upstream_retries"), proxy.unavailable()) == (1, {"connect_refused": 1})
    assert proxy.count_of_all("failed_refused") == 2


def test_same_server_is_tried_again_after_a_while(start: Start) -> None:
    address = closed_address()
    proxy = start(text_of(address), retries=5, passive={"failures": 1000})
    client = proxy.connect()
    proxy.step_until(lambda: proxy.count_of_server("failed_refused") >= 2, "a second try")
    backend = Backend(socket.create_server(address))
    far = proxy.accepted_by(backend)
    proxy.carry(client, far, b"patience")
    backend.close()


def test_client_that_goes_while_it_waits_for_its_next_try_is_forgotten(start: Start) -> None:
    proxy = start(text_of(closed_address()), retries=50, passive={"failures": 1000})
    proxy.connect()
    proxy.step_until(lambda: proxy.count_of_server("failed_refused") >= 1, "a first try")
    proxy.end_all("admin")
    proxy.settle()
    tries = proxy.count_of_server("failed_refused")
    until_s = time.monotonic() + 0.2
    while time.monotonic() < until_s:
        proxy.step()
    assert proxy.count_of_server("failed_refused") == tries


def test_server_that_does_not_answer_is_given_up_in_time(start: Start, black_hole: str, backend: Backend) -> None:
    proxy = start(black_hole, {"address": backend.address, "backup": True}, connect_timeout=0.1, retries=0)
    client = proxy.connect()
    assert proxy.is_ended(client)
    proxy.settle()
    assert proxy.count_of_server("failed_timeout") == 1
    assert proxy.closes() == {"no_server": 1}


def test_client_that_is_being_connected_is_not_idle_and_the_server_that_does_not_answer_is_ejected(
    start: Start, black_hole: str, backend: Backend
) -> None:
    proxy = start(black_hole, backend, connect_timeout=0.4, idle_timeout_s=0.1, passive={"failures": 1})
    clients = [proxy.connect() for _ in range(2)]
    proxy.step_until(lambda: proxy.count_of_server("connections", 1) == 2, "both clients being connected")
    assert proxy.count_of_server("failed_timeout", 0) == 1
    assert not proxy.handler.pool.servers[0].stats.up
    proxy.settle()
    assert proxy.closes() == {"idle": 2}, "they are, once they are connected"
    assert all(proxy.is_ended(client) for client in clients)


def test_connect_is_given_up_when_its_client_is_reset(start: Start, black_hole: str) -> None:
    proxy = start(black_hole)
    client = proxy.connect()
    client.sendall(b"dead")
    assert proxy.handler.pool.servers[0].active == 1
    reset(client)
    proxy.settle()
    assert proxy.closes() == {"peer_reset": 1}
    assert proxy.count_of_all("failed_timeout") + proxy.count_of_all("failed_other") == 0


def test_client_that_is_reset_between_two_tries_is_never_connected(start: Start) -> None:
    address = closed_address()
    proxy = start(text_of(address), retries=50, passive={"failures": 1000})
    client = proxy.connect()
    client.sendall(b"dead")
    proxy.step_until(lambda: proxy.count_of_server("failed_refused") >= 1, "a first try")
    reset(client)
    proxy.step_until(proxy.closes, "the end of the client")
    backend = Backend(socket.create_server(address))
    until_s = time.monotonic() + 0.2
    proxy.step_until(lambda: time.monotonic() > until_s, "the time of the next try")
    assert not backend.waiting()
    backend.close()


def test_connect_is_given_up_when_its_client_goes(start: Start, black_hole: str) -> None:
    proxy = start(black_hole)
    proxy.connect()
    assert proxy.handler.pool.servers[0].active == 1
    proxy.end_all("admin")
    proxy.settle()
    assert proxy.closes() == {"admin": 1}
    assert proxy.count_of_all("failed_timeout") + proxy.count_of_all("failed_other") == 0
    assert proxy.unavailable() == {}


def test_lack_of_descriptors_is_not_the_servers_fault(start: Start, backend: Backend, monkeypatch: Any) -> None:
    proxy = start(backend, retries=0, passive={"failures": 1})

    def connect(*arguments: Any, **keywords: Any) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(proxy.handler, "connect", connect)
        client = proxy.connect()
        assert proxy.is_ended(client)
    assert proxy.count_of_server("failed_other") == 0
    assert proxy.closes() == {"no_server": 1}
    assert proxy.handler.pool.servers[0].stats.up
    proxy.pair(backend)


def test_unix_socket_can_be_a_server(start: Start, tmp_path: Any) -> None:
    path = str(tmp_path / "server.sock")
    backend = Backend(socket.create_server(path, family=socket.AF_UNIX))
    proxy = start(backend)
    client = proxy.connect()
    far = proxy.accepted_by(backend)
    proxy.carry(client, far, b"hello")
    proxy.carry(far, client, b"hello yourself")
    backend.close()
    with proxy.connect() as late:
        assert proxy.is_ended(late)
    assert proxy.count_of_server("failed_refused") > 0


@pytest.fixture
def full_unix(tmp_path: Any) -> Any:
    """A server at a unix socket whose backlog is full."""
    path = str(tmp_path / "full.sock")
    backend = Backend(socket.create_server(path, family=socket.AF_UNIX, backlog=1))
    held = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        held.append(sock)
        if sock.connect_ex(path):
            break
    yield backend
    for each in held:
        each.close()
    backend.close()


def test_unix_server_whose_backlog_is_full_is_ejected_and_the_log_says_why(
    start: Start, full_unix: Backend, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = start(full_unix, backend, passive={"failures": 2})
    for _ in range(4):
        proxy.pair(backend)
    assert proxy.count_of_server("failed_refused", 0) == 2
    assert not proxy.handler.pool.servers[0].stats.up
    assert caplog.messages[-1].endswith("is ejected for 10 s: it could not be connected to; its backlog is full")


def test_client_waits_for_a_place_in_the_backlog_of_the_only_server(start: Start, full_unix: Backend) -> None:
    """A unix socket refuses at once what TCP would try again by itself."""
    proxy = start(full_unix)
    began_s = time.monotonic()
    client = proxy.connect()
    proxy.step_until(lambda: proxy.count_of_server("failed_refused") == 2, "a second try")
    assert time.monotonic() - began_s >= 0.25
    full_unix.waiting()
    client.sendall(b"patience")
    assert proxy.receive(proxy.accepted_by(full_unix), 8) == b"patience"


def test_options_of_sockets_to_servers_are_set(start: Start, backend: Backend) -> None:
    tcp = {"nodelay": True, "keepalive": 77.0, "user_timeout": 12.5, "congestion": "reno", "notsent_lowat": 16384}
    proxy = start(backend, tcp=tcp)
    client, _ = proxy.pair(backend)
    sock = socket.socket(fileno=proxy.server_of(client).fileno())
    level = socket.IPPROTO_TCP
    try:
        assert sock.getsockopt(level, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(level, socket.TCP_KEEPIDLE) == 77
        assert sock.getsockopt(level, socket.TCP_KEEPINTVL) == 12
        assert sock.getsockopt(level, socket.TCP_KEEPCNT) == 6
        assert sock.getsockopt(level, socket.TCP_USER_TIMEOUT) == 12_500
        assert sock.getsockopt(level, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
        assert sock.getsockopt(level, 25) == 16_384
    finally:
        sock.detach()
