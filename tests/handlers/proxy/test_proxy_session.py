"""What becomes of a client and its server: relayed both ways, half-closed, reset, too old, too idle."""

import socket
import time
from collections.abc import Callable

import pytest
from core.support.sockets import pattern, reset
from gaiod.handlers.proxy.sockets import unsent_bytes
from worker.support.proxying import Backend, Proxying

from gaiod import Conn, Termination

Start = Callable[..., Proxying]


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
    proxy.settle()
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
    proxy.settle()
    assert proxy.closes() == {"peer_eof" if first == "client" else "server_eof": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_is_passed_on_as_a_reset(start: Start, backend: Backend, who: str) -> None:
    """An end in order would say that everything has arrived."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    dying, other = (client, far) if who == "client" else (far, client)
    reset(dying)
    assert is_reset(proxy, other)
    proxy.settle()
    assert proxy.closes() == {"peer_reset" if who == "client" else "server_reset": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_what_was_sent_before_a_reset_arrives_before_it(start: Start, backend: Backend, who: str) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    dying, other = (client, far) if who == "client" else (far, client)
    dying.sendall(pattern(10_000))
    assert proxy.receive(other, 10_000) == pattern(10_000)
    reset(dying)
    assert is_reset(proxy, other)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Termination("peer_reset", "server", "reset"), True),
        (Termination("keepalive", "server", "timeout"), True),
        (Termination("idle", "gaiod", "timeout"), False),
    ],
)
def test_server_that_failed_while_no_relay_could_tell_resets_the_client(
    start: Start, backend: Backend, reason: Termination, expected: bool
) -> None:
    """A PROXY header that could not be sent, say."""
    proxy = start(backend)
    client, _ = proxy.pair(backend)
    proxy.listener.end(proxy.server_of(client), reason, abort=True)
    assert is_reset(proxy, client) == expected


@pytest.mark.parametrize("uploaded", [1, 100_000, 0])
def test_answer_that_a_reset_cuts_while_the_client_uploads_does_not_end_in_order(
    start: Start, backend: Backend, uploaded: int
) -> None:
    """The kernel tells of a reset once: here it tells whoever sends, and who receives sees the end of the stream."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    if uploaded:
        client.sendall(pattern(10_000))
    else:
        saturate(proxy, client)
        client.setblocking(True)
    server = proxy.server_of(client)
    proxy.step_until(lambda: server.bytes_sent >= 10_000, "bytes that are not read")
    far.sendall(b"the begi")
    far.close()
    if uploaded:
        client.sendall(pattern(uploaded))
    assert proxy.receive(client, 8) == b"the begi"
    client.settimeout(0.0)
    with pytest.raises(ConnectionResetError):
        while True:
            proxy.step()
            try:
                end = client.recv(100)
            except BlockingIOError:
                continue
            assert end, "an end in order"
    proxy.settle()
    assert proxy.closes() == {"server_reset": 1}


def test_client_that_had_said_all_and_is_reset_lets_its_server_go_at_once(start: Start, backend: Backend) -> None:
    """Nothing is read of it any more: nobody would notice before the answer."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    assert proxy.receive(far, 8) == b"request"
    reset(client)
    proxy.settle()


def send_more_than_is_taken(proxy: Proxying, source: socket.socket, sink: Conn) -> int:
    """Send until the proxy's kernel holds some that the other side does not take; return how many bytes."""
    sent = 0

    def is_more() -> bool:
        nonlocal sent
        if sink.bytes_sent == sent:
            source.sendall(bytes(1 << 16))
            sent += 1 << 16
        return bool(unsent_bytes(sink.fileno()))

    proxy.step_until(is_more, "bytes that are not taken")
    proxy.step_until(lambda: sink.bytes_sent == sent, "the kernel having taken all")
    return sent


@pytest.mark.parametrize("who", ["client", "server"])
def test_slow_reader_is_sent_everything_before_it_is_reset(start: Start, backend: Backend, who: str) -> None:
    """A reset makes the kernel forget what it has not sent: it has to wait."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    dying, other = (client, far) if who == "client" else (far, client)
    server = proxy.server_of(client)
    sink = server if who == "client" else server.data.client
    sent = send_more_than_is_taken(proxy, dying, sink)
    reset(dying)
    proxy.step_until(lambda: len(proxy.watcher.connections()) == 1, "the end of one side")
    assert unsent_bytes(sink.fileno()) > 0
    assert proxy.receive(other, sent) == bytes(sent)
    assert is_reset(proxy, other)
    proxy.settle()
    assert proxy.closes() == {"peer_reset" if who == "client" else "server_reset": 1}


def test_reader_that_never_reads_is_reset_in_the_end(start: Start, backend: Backend) -> None:
    proxy = start(backend, half_closed_timeout=0.3)
    client, far = proxy.pair(backend)
    sink = proxy.server_of(client).data.client
    send_more_than_is_taken(proxy, far, sink)
    reset(far)
    proxy.settle()
    assert proxy.closes() == {"server_reset": 1}


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
    proxy.settle()
    assert proxy.closes() == {"peer_reset" if who == "client" else "server_reset": 1}


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
    proxy = start(backend, max_age=1.0)
    began_s = time.monotonic()
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    assert not is_reset(proxy, client)
    assert time.monotonic() - began_s >= 0.8
    assert proxy.receive(far, 1) == b""
    proxy.settle()
    assert proxy.closes() == {"max_age": 1}


def test_ages_differ(start: Start, backend: Backend) -> None:
    proxy = start(backend, max_age=100.0)
    ages = [proxy.handler.draw_age() for _ in range(1000)]
    assert 80.0 <= min(ages) < 81.0
    assert 99.0 < max(ages) <= 100.0


def test_connection_that_is_half_closed_gets_too_old_too(start: Start, backend: Backend) -> None:
    proxy = start(backend, max_age=1.0)
    client, far = proxy.pair(backend)
    client.shutdown(socket.SHUT_WR)
    assert proxy.receive(far, 1) == b""
    assert not is_reset(proxy, client)
    proxy.settle()
    assert proxy.closes() == {"max_age": 1}


@pytest.mark.parametrize("who", ["client", "server"])
def test_half_closed_connection_on_which_nothing_moves_ends(start: Start, backend: Backend, who: str) -> None:
    proxy = start(backend, half_closed_timeout=0.1)
    client, far = proxy.pair(backend)
    done, other = (client, far) if who == "client" else (far, client)
    done.shutdown(socket.SHUT_WR)
    assert proxy.receive(other, 1) == b""
    assert proxy.is_ended(done)
    proxy.settle()
    assert proxy.closes() == {"half_closed_timeout": 1}


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
    proxy.settle()
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
    proxy.settle()
