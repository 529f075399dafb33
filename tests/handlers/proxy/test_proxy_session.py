"""What becomes of a client and its server: relayed both ways, half-closed, reset, too old, too idle."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import pattern, reset
from runtime.support.proxying import Backend, Proxying, closed_address, text_of

Start = Callable[..., Proxying]


def rests(proxy: Proxying) -> bool:
    """Tell whether nothing is left: no connection, and nobody remembered."""
    pool = proxy.handler.pool
    return (
        not proxy.watcher.connections()
        and not proxy.handler._half_closed
        and all(server.active == 0 and all(not each.active for each in server.endpoints) for server in pool.servers)
    )


def settle(proxy: Proxying) -> None:
    """Wait until nothing is left."""
    proxy.step_until(lambda: rests(proxy), "the end of every connection")
    assert proxy.count_of_all("connections") == proxy.count_of_all("closed")


def is_reset(proxy: Proxying, sock: socket.socket) -> bool:
    """Wait for the end of a connection; tell whether it was a reset."""
    try:
        assert proxy.receive(sock, 1) == b""
    except ConnectionResetError:
        return True
    return False


def test_bytes_go_both_ways(start: Start, backend: Backend) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"ping")
    proxy.carry(far, client, b"pong")
    client.close()
    assert proxy.receive(far, 1) == b""
    far.close()
    settle(proxy)
    assert proxy.closes() == {"peer_eof": 1}
    assert proxy.count_of_server("connections") == 1


@pytest.mark.parametrize("first", ["client", "server"])
def test_one_side_that_has_said_everything_still_receives(start: Start, backend: Backend, first: str) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    done, going_on = (client, far) if first == "client" else (far, client)
    done.sendall(b"request")
    done.shutdown(socket.SHUT_WR)
    assert proxy.receive(going_on, 100) == b"request"
    data = pattern(300_000)
    going_on.setblocking(False)
    sent = 0
    received = b""
    while len(received) < len(data):
        try:
            sent += going_on.send(data[sent:]) if sent < len(data) else 0
        except BlockingIOError:
            pass
        proxy.step()
        received += done.recv(1 << 20) if sent else b""
    assert received == data
    assert proxy.closes() == {}
    going_on.close()
    assert proxy.receive(done, 1) == b""
    settle(proxy)
    assert proxy.closes() == {"peer_eof": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_is_passed_on_as_a_reset(start: Start, backend: Backend, who: str) -> None:
    """An end in order would say that everything has arrived."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    dying, other = (client, far) if who == "client" else (far, client)
    reset(dying)
    assert is_reset(proxy, other)
    settle(proxy)
    assert proxy.closes() == {"peer_reset": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_what_was_sent_before_a_reset_arrives_before_it(start: Start, backend: Backend, who: str) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    dying, other = (client, far) if who == "client" else (far, client)
    dying.sendall(pattern(10_000))
    assert proxy.receive(other, 10_000) == pattern(10_000)
    reset(dying)
    assert is_reset(proxy, other)


@pytest.mark.parametrize("who", ["client", "server"])
def test_side_that_went_while_it_was_sent_to_still_has_its_last_words_delivered(
    start: Start, backend: Backend, who: str
) -> None:
    """It said something and closed, unread bytes in its queue: the kernel answers what is sent to it with a reset."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    leaving, other = (client, far) if who == "client" else (far, client)
    other.sendall(pattern(1000))
    server = proxy.server_of(client)
    proxy.step_until(lambda: 1000 in (server.bytes_sent, server.data.client.bytes_sent), "bytes that are not read")
    leaving.sendall(b"error: too long")
    leaving.close()
    assert proxy.receive(other, 15) == b"error: too long"
    assert is_reset(proxy, other)
    settle(proxy)
    assert proxy.closes() == {"peer_reset": 1}


def saturate(proxy: Proxying, source: socket.socket) -> int:
    """Send until nobody takes any more; return how many bytes."""
    source.setblocking(False)
    sent = still = 0
    while still < 10:
        try:
            sent += source.send(bytes(1 << 16))
            still = 0
        except BlockingIOError:
            still += 1
        proxy.step()
    return sent


def test_side_that_does_not_read_slows_the_other_down_and_the_other_direction_goes_on(
    start: Start, backend: Backend
) -> None:
    proxy = start(backend, buffer_limit=4096)
    client, far = proxy.pair(backend)
    server = proxy.server_of(client)
    saturate(proxy, client)
    assert 0 < server.pending_write_bytes <= 4096
    proxy.carry(far, client, b"the other way")


def test_connection_that_is_too_old_ends(start: Start, backend: Backend) -> None:
    """Within 80 to 100 % of max_age: those that began together must not end together."""
    proxy = start(backend, max_age=0.4)
    began_s = time.monotonic()
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    assert not is_reset(proxy, client)
    assert time.monotonic() - began_s >= 0.32
    assert proxy.receive(far, 1) == b""
    settle(proxy)
    assert proxy.closes() == {"max_age": 1}


def test_ages_differ(start: Start, backend: Backend) -> None:
    proxy = start(backend, max_age=100.0)
    ages = [proxy.handler.draw_age() for _ in range(1000)]
    assert 80.0 <= min(ages) < 81.0
    assert 99.0 < max(ages) <= 100.0


def test_connection_that_is_half_closed_gets_too_old_too(start: Start, backend: Backend) -> None:
    proxy = start(backend, max_age=0.4)
    client, far = proxy.pair(backend)
    client.shutdown(socket.SHUT_WR)
    assert proxy.receive(far, 1) == b""
    assert not is_reset(proxy, client)
    settle(proxy)
    assert proxy.closes() == {"max_age": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_half_closed_connection_on_which_nothing_moves_ends(start: Start, backend: Backend, who: str) -> None:
    proxy = start(backend, half_closed_timeout=0.1)
    client, far = proxy.pair(backend)
    done, other = (client, far) if who == "client" else (far, client)
    done.shutdown(socket.SHUT_WR)
    assert proxy.receive(other, 1) == b""
    assert proxy.is_ended(done)
    settle(proxy)
    assert proxy.closes() == {"idle": 1}


def test_half_closed_connection_that_had_been_quiet_before_gets_its_whole_time(start: Start, backend: Backend) -> None:
    proxy = start(backend, half_closed_timeout=5.0)
    client, far = proxy.pair(backend)
    for session in (proxy.server_of(client).data,):
        client.shutdown(socket.SHUT_WR)
        assert proxy.receive(far, 1) == b""
        since_s = proxy.handler._half_closed[session]
        session.look(since_s + 4.9, since_s)
        proxy.carry(far, client, b"still here")
        now_s = time.monotonic()
        session.look(now_s + 4.9, since_s)
        proxy.carry(far, client, b"and here")
        session.look(time.monotonic() + 5.1, since_s)
    assert proxy.is_ended(client)


def test_client_that_is_closed_ends_its_connection_to_the_server_in_order(start: Start, backend: Backend) -> None:
    proxy = start(backend)
    _, far = proxy.pair(backend)
    proxy.end_all("admin")
    assert not is_reset(proxy, far)
    settle(proxy)
    assert proxy.closes() == {"admin": 1}


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("how", ["drain", "max_age"])
def test_what_was_taken_is_delivered_when_the_proxy_ends_a_connection(
    start: Start, backend: Backend, who: str, how: str
) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    server = proxy.server_of(client)
    source, sink = (client, far) if who == "client" else (far, client)
    saturate(proxy, source)
    taken = server.data.client.bytes_received if who == "client" else server.bytes_received
    if how == "drain":
        proxy.stop()
    else:
        server.data.close("max_age")
    sink.setblocking(False)
    received = 0

    def is_over() -> bool:
        nonlocal received
        try:
            part = sink.recv(1 << 20)
        except BlockingIOError:
            return False
        received += len(part)
        return not part

    proxy.step_until(is_over, "the end")
    assert received == taken
    settle(proxy)


# -- connecting ----------------------------------------------------------------------------------------


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
    settle(proxy)
    assert proxy.closes() == {"no_server": 1}
    assert (proxy.count("upstream_retries"), proxy.count("upstream_unavailable")) == (1, 1)
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
    settle(proxy)
    tries = proxy.count_of_server("failed_refused")
    until_s = time.monotonic() + 0.2
    while time.monotonic() < until_s:
        proxy.step()
    assert proxy.count_of_server("failed_refused") == tries


@pytest.fixture
def black_hole() -> Any:
    """A listener whose queue is full: the kernel answers no further SYN."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=0)
    held = [socket.socket() for _ in range(4)]
    for each in held:
        each.setblocking(False)
        each.connect_ex(sock.getsockname())
    yield text_of(sock.getsockname())
    for each in (sock, *held):
        each.close()


def test_server_that_does_not_answer_is_given_up_in_time(start: Start, black_hole: str, backend: Backend) -> None:
    proxy = start(black_hole, {"address": backend.address, "backup": True}, connect_timeout=0.1, retries=0)
    client = proxy.connect()
    assert proxy.is_ended(client)
    settle(proxy)
    assert proxy.count_of_server("failed_timeout") == 1
    assert proxy.closes() == {"no_server": 1}


def test_connect_is_given_up_when_its_client_goes(start: Start, black_hole: str) -> None:
    proxy = start(black_hole)
    proxy.connect()
    assert proxy.handler.pool.servers[0].active == 1
    proxy.end_all("admin")
    settle(proxy)
    assert proxy.closes() == {"admin": 1}
    assert proxy.count_of_all("failed_timeout") + proxy.count_of_all("failed_other") == 0
    assert proxy.count("upstream_unavailable") == 0


def test_lack_of_descriptors_is_not_the_servers_fault(start: Start, backend: Backend, monkeypatch: Any) -> None:
    proxy = start(backend, retries=0, passive={"failures": 1})

    def connect(*arguments: Any, **keywords: Any) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(proxy.handler, "connect", connect)
        client = proxy.connect()
        assert proxy.is_ended(client)
    assert proxy.count_of_server("failed_other") == 1
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
        assert sock.getsockopt(level, socket.TCP_USER_TIMEOUT) == 12_500
        assert sock.getsockopt(level, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
        assert sock.getsockopt(level, 25) == 16_384
    finally:
        sock.detach()
