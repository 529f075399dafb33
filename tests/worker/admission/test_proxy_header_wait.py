"""Listeners behind a load balancer: a header first, from those who are believed, or nothing at all."""

import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from core.support.sockets import reset, unix_listener
from core.support.waiting import MOMENT_S

from gaiod import Conn, OpResult, ProxyHeader
from gaiod.log import rate_limit
from gaiod.settings import ProxyProtocolSettings
from gaiod.worker.drain import Drain
from gaiod.worker.inspect.questions import Questions
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving

LOOPBACK = ProxyProtocolSettings(("127.0.0.0/8",))
SHORT = ProxyProtocolSettings(("127.0.0.0/8",), timeout_s=4 * MOMENT_S)
LONG_S = 1000.0

CLIENT = ("192.0.2.7", 56324)
V4 = ProxyHeader(CLIENT, ("198.51.100.1", 443), ((0x02, b"example.com"),))
V6 = ProxyHeader(("2001:db8::7", 56324, 0, 0), ("2001:db8::1", 443, 0, 0))


class Notes(Recorder):
    """An echo that notes whom its connections are from."""

    def __init__(self) -> None:
        super().__init__()
        self.conns: list[Conn] = []
        self.peers: list[Any] = []
        self.locals: list[Any] = []
        self.data: list[Any] = []

    def on_open(self, conn: Conn) -> None:
        self.conns.append(conn)
        self.peers.append(conn.peer_address)
        self.locals.append(conn.local_address)
        self.data.append(conn.data)
        super().on_open(conn)


def rejected(serving: Serving) -> int:
    return serving.count("rejected_proxy_protocol")


def wait_until_rejected(serving: Serving, number: int = 1) -> None:
    serving.step_until(lambda: rejected(serving) >= number and not serving.listener.active, "a rejection")


# -- who is believed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoded", [V4.encode_v1(), V4.encode_v2()], ids=["v1", "v2"])
def test_connection_is_the_clients_that_its_header_announces(serve: Serve, encoded: bytes) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(encoded + b"ping")
    assert serving.receive(sock, 4) == b"ping"
    assert handler.peers == [V4.source]
    assert handler.locals == [V4.destination]
    assert handler.data == [None]
    (conn,) = handler.conns
    assert conn.proxy_header == (V4 if encoded == V4.encode_v2() else ProxyHeader(V4.source, V4.destination))
    sock.close()
    serving.step_until(serving.closes, "the close being counted")
    assert conn.peer_address is None


def test_header_is_no_traffic(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(V4.encode_v2() + b"ping")
    assert serving.receive(sock, 4) == b"ping"
    assert serving.count("downstream_received_bytes") == serving.count("downstream_sent_bytes") == 4
    (conn,) = handler.conns
    assert (conn.bytes_received, conn.bytes_sent) == (4, 4)


@pytest.mark.parametrize("encoded", [b"PROXY UNKNOWN\r\n", ProxyHeader(None, None).encode_v2()], ids=["v1", "v2"])
def test_connection_has_its_own_addresses_when_the_balancer_announces_nobody(serve: Serve, encoded: bytes) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(encoded)
    assert serving.exchange(sock, b"ping") == b"ping"
    assert handler.peers == [sock.getsockname()]
    assert handler.locals == [serving.address]
    assert handler.conns[0].proxy_header == ProxyHeader(None, None)


@pytest.mark.parametrize("encoded", [V6.encode_v1(), V4.encode_v2()], ids=["v1", "v2"])
def test_header_may_come_in_two_parts_wherever_it_is_cut(serve: Serve, encoded: bytes) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    stream = encoded + b"PROXY"
    for cut in range(1, len(stream)):
        sock = serving.dial()
        sock.sendall(stream[:cut])
        for _ in range(3):
            serving.step(0)
        assert cut >= len(encoded) or len(handler.peers) == cut - 1
        sock.sendall(stream[cut:])
        assert serving.receive(sock, 5) == b"PROXY"
        sock.close()
    assert set(handler.peers) <= {V4.source, V6.source}
    assert not rejected(serving)


def test_listener_without_the_key_takes_a_header_for_what_it_is(serve: Serve) -> None:
    """Bytes of the client: it is not asked for, so nobody vouches for it."""
    handler = Notes()
    serving = serve(handler)
    sock = serving.connect()
    assert serving.exchange(sock, V4.encode_v1()) == V4.encode_v1()
    assert handler.peers == [sock.getsockname()]
    assert handler.conns[0].proxy_header is None


@pytest.mark.parametrize(("networks", "is_believed"), [(("unix:",), True), (("0.0.0.0/0", "::/0"), False)])
def test_peer_of_a_unix_socket_is_believed_if_unix_is_listed(
    serve: Serve, networks: tuple[str, ...], is_believed: bool
) -> None:
    handler = Notes()
    with unix_listener() as sock:
        serving = serve(handler, sock=sock, proxy_protocol=ProxyProtocolSettings(networks))
        client = serving.dial()
        client.sendall(V6.encode_v2() + b"ping")
        assert (serving.is_ended(client), rejected(serving)) == ((False, 0) if is_believed else (True, 1))
        assert handler.peers == ([V6.source] if is_believed else [])


def test_ipv4_peer_of_an_ipv6_socket_is_believed_as_what_it_is(serve: Serve) -> None:
    """As systemd opens them by default: BindIPv6Only=default."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no socket for both families")
    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = sock.getsockname()[1]
    serving = serve(Notes(), sock=sock, proxy_protocol=LOOPBACK)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(V4.encode_v2() + b"ping")
        assert serving.receive(client, 4) == b"ping"


# -- who is not -----------------------------------------------------------------------------------------


def test_connection_from_elsewhere_is_closed_at_once(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=ProxyProtocolSettings(("127.0.0.0/32", "::/0")))
    sock = serving.dial()
    assert serving.is_ended(sock)
    wait_until_rejected(serving)
    host, port = sock.getsockname()
    assert caplog.messages == [
        f"listener front: a connection from {host}:{port} is rejected: proxy_protocol.from does not have it, so what "
        "it says is not believed"
    ]
    assert (serving.count("accepted"), serving.closes(), handler.calls) == (0, {}, [])


def test_connection_without_a_header_is_closed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert serving.is_ended(sock)
    wait_until_rejected(serving)
    assert "its PROXY header is wrong: it begins with b'GET / HTTP/1.1\\r', not with a PROXY header" in caplog.text
    assert (serving.count("accepted"), serving.closes(), handler.calls) == (0, {}, [])


@pytest.mark.parametrize("sent", [b"", V4.encode_v1()[:20], V4.encode_v2()[:-1]], ids=["silent", "v1", "v2"])
def test_connection_whose_header_is_late_is_closed_at_its_deadline(
    serve: Serve, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    serving = serve(Notes(), proxy_protocol=SHORT)
    began_s = time.monotonic()
    sock = serving.dial()
    sock.sendall(sent)
    wait_until_rejected(serving)
    assert time.monotonic() - began_s > SHORT.timeout_s - 0.01
    assert serving.is_ended(sock)
    assert f"no complete PROXY header came within {SHORT.timeout_s:g} s" in caplog.text


def test_deadline_does_not_move_when_the_header_comes_drop_by_drop(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=SHORT)
    sock = serving.dial()
    for byte in V6.encode_v1()[:-1]:
        sock.send(bytes((byte,)))
        serving.step(SHORT.timeout_s / 20)
        if rejected(serving):
            break
    assert rejected(serving) == 1


@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["fin", "rst"])
def test_connection_that_ends_in_its_header_is_rejected(
    serve: Serve, caplog: pytest.LogCaptureFixture, close: Any
) -> None:
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(V4.encode_v2()[:20])
    serving.step_until(lambda: serving.listener.active, "the accept")
    for _ in range(3):
        serving.step(0)
    close(sock)
    wait_until_rejected(serving)
    assert "it ended before its PROXY header was complete" in caplog.text


@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["fin", "rst"])
def test_balancer_that_only_looks_whether_the_port_is_open_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, close: Any
) -> None:
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    close(serving.dial())
    wait_until_rejected(serving)
    assert not caplog.messages


def test_rejections_are_all_counted_and_logged_once_in_a_while(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "LIMITED_INTERVAL_S", 1e9)
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    for number in range(1, 6):
        serving.dial().sendall(b"GET / HTTP/1.1\r\n\r\n")
        wait_until_rejected(serving, number)
    assert len(caplog.messages) == 1


def test_exception_of_a_hook_is_the_handlers_as_ever(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(Recorder):
        def on_open(self, conn: Conn) -> None:
            raise LookupError

    serving = serve(Breaks(), proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(V4.encode_v2())
    assert serving.is_ended(sock)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"handler_error": 1}
    assert "(192.0.2.7:56324) is closed" in caplog.text


# -- those that wait ------------------------------------------------------------------------------------


def test_handler_sees_nothing_until_the_header_is_complete(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler, proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(V4.encode_v2()[:-1])
    serving.step_until(lambda: serving.listener.active, "the accept")
    time.sleep(2 * MOMENT_S)
    serving.step(MOMENT_S)
    assert (handler.calls, serving.count("accepted"), serving.listener.clients()) == ([], 0, [])
    before_s = time.monotonic() - MOMENT_S
    sock.sendall(V4.encode_v2()[-1:])
    serving.step_until(lambda: handler.calls, "on_open")
    assert (serving.count("accepted"), serving.listener.active) == (1, 1)
    assert before_s < handler.conns[0].opened_s <= handler.conns[0].active_s


def test_connections_that_wait_for_their_header_count_towards_the_limit(serve: Serve) -> None:
    patient = replace(SHORT, timeout_s=30 * MOMENT_S)
    serving = serve(Notes(), proxy_protocol=patient, connections_max=2)
    waiting, served = serving.dial(), serving.dial()
    served.sendall(V4.encode_v2())
    assert serving.exchange(served, b"ping") == b"ping"
    serving.step_until(lambda: serving.listener.active == 2, "both")
    late = serving.dial()
    assert serving.is_ended(late)
    assert (serving.count("rejected_limit"), rejected(serving)) == (1, 0)
    assert serving.is_ended(waiting)
    serving.step_until(lambda: serving.listener.active == 1, "room")
    again = serving.dial()
    again.sendall(V4.encode_v2())
    assert serving.exchange(again, b"ping") == b"ping"


def test_idle_timeout_is_that_of_the_time_after_the_header(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=LOOPBACK, idle_timeout_s=4 * MOMENT_S)
    sock = serving.dial()
    sock.sendall(V4.encode_v2())
    serving.step_until(serving.closes, "the end of the connection")
    assert serving.closes() == {"idle": 1}
    assert not rejected(serving)


def test_operator_sees_the_clients_and_not_the_balancers(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    sock = serving.dial()
    sock.sendall(V6.encode_v2())
    assert serving.exchange(sock, b"ping") == b"ping"
    question = {"verb": "connections", "listener": None, "sort": "age", "limit": 9}
    (row,) = Questions([serving.listener], serving.names).answer(question)["connections"]
    assert (row["peer"], row["received_bytes"]) == ("[2001:db8::7]:56324", 4)


class Draining:
    """A drain of a listener."""

    def __init__(self, serving: Serving, timeout_s: float, *, eager: bool = False) -> None:
        self.is_done = False
        Drain(serving.watcher, [serving.listener], timeout_s, eager=eager, done=self._done)

    def _done(self) -> None:
        self.is_done = True


@pytest.mark.parametrize("eager", [False, True])
def test_connection_is_served_when_its_header_comes_while_the_listener_drains(serve: Serve, eager: bool) -> None:
    """The kernel had accepted it: it is not forgotten, nor is what comes behind its header."""
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    sock = serving.dial()
    serving.step_until(lambda: serving.listener.active, "the accept")
    draining = Draining(serving, LONG_S, eager=eager)
    for _ in range(5):
        serving.step(MOMENT_S)
    assert not draining.is_done
    sock.sendall(V4.encode_v2() + b"ping")
    assert serving.receive(sock, 4) == b"ping"
    sock.close()
    serving.step_until(lambda: draining.is_done, "the end of the drain")
    assert serving.closes() == {"peer_eof": 1}


def test_drain_is_done_when_the_last_that_waits_has_had_its_time(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=SHORT)
    sock = serving.dial()
    serving.step_until(lambda: serving.listener.active, "the accept")
    draining = Draining(serving, LONG_S)
    serving.step_until(lambda: draining.is_done, "the end of the drain")
    assert rejected(serving) == 1
    assert serving.is_ended(sock)


def test_drain_ends_those_that_wait_when_its_time_is_over(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=ProxyProtocolSettings(("127.0.0.0/8",), timeout_s=LONG_S))
    sock = serving.dial()
    serving.step_until(lambda: serving.listener.active, "the accept")
    draining = Draining(serving, 2 * MOMENT_S)
    serving.step_until(lambda: draining.is_done, "the end of the drain")
    assert (rejected(serving), serving.listener.active) == (1, 0)
    assert serving.is_ended(sock)


def test_end_of_the_watcher_is_no_rejection(serve: Serve) -> None:
    serving = serve(Notes(), proxy_protocol=LOOPBACK)
    serving.dial()
    serving.step_until(lambda: serving.listener.active, "the accept")
    serving.close()
    assert rejected(serving) == 0


def test_reads_of_the_handler_are_its_own(serve: Serve) -> None:
    """The deadline of the header does not ring into a read that the handler started."""

    class Waits(Recorder):
        def on_open(self, conn: Conn) -> None:
            conn.read(deadline=time.monotonic() + LONG_S)

        def on_read(self, conn: Conn, result: OpResult) -> None:
            conn.write(bytes(result.buffer) + b"!")

    serving = serve(Waits(), proxy_protocol=SHORT)
    sock = serving.dial()
    sock.sendall(V4.encode_v2())
    until_s = time.monotonic() + 1.5 * SHORT.timeout_s
    while time.monotonic() < until_s:
        serving.step()
    sock.sendall(b"late")
    assert serving.receive(sock, 5) == b"late!"
