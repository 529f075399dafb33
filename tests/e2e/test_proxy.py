"""The proxy in a daemon: clients reach servers through it, and metrics tell what became of them."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import pattern, receive, reset
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.upstreams import accept, address_of, config, pair, until, upstreams
from gaiod import ProxyHeader


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    """A server."""
    with upstreams(1) as (made,):
        yield made


@pytest.fixture
def running(daemon: Start, upstream: socket.socket) -> Daemon:
    """A daemon whose proxy leads to the server."""
    return daemon(config(f"servers: [{address_of(upstream)}], half_closed_timeout: 2s"))


def test_large_messages_arrive_both_ways_and_the_ends_are_passed_on(running: Daemon, upstream: socket.socket) -> None:
    client, far = pair(running, upstream)
    with client, far:
        client.sendall(pattern(100_000))
        assert receive(far, 100_000) == pattern(100_000)
        client.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
        far.sendall(pattern(200_000, seed=1))
        assert receive(client, 200_000) == pattern(200_000, seed=1)
        far.close()
        assert client.recv(1) == b""
    scrape = until(running, 1, "connections_closed_total", listener="db", reason="peer_eof")
    server = address_of(upstream).strip("'")
    assert scrape.total("gaiod_received_bytes_total", side="upstream") == 200_000
    assert scrape.total("gaiod_sent_bytes_total", side="upstream") == 100_000
    assert scrape.value("gaiod_upstream_connections_total", upstream="db", server=server) == 1
    assert scrape.value("gaiod_upstream_connections_active", upstream="db", server=server) == 0
    assert scrape.value("gaiod_upstream_up", upstream="db", server=server) == 1


def test_server_that_ends_first_still_receives(running: Daemon, upstream: socket.socket) -> None:
    client, far = pair(running, upstream)
    with client, far:
        far.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        data = pattern(2_000_000)
        client.sendall(data)
        client.close()
        received = bytearray()
        while part := far.recv(1 << 20):
            received += part
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("who", ["client", "server"])
def test_one_that_resets_takes_its_partner_along_and_nobody_else(
    running: Daemon, upstream: socket.socket, who: str
) -> None:
    client, far = pair(running, upstream)
    other, other_far = pair(running, upstream)
    with other, other_far:
        client.sendall(b"ping")
        assert receive(far, 4) == b"ping"
        reset(client if who == "client" else far)
        with far if who == "client" else client as left, pytest.raises(ConnectionResetError):
            left.recv(1)
        other.sendall(b"ping")
        assert receive(other_far, 4) == b"ping"
    reason = "peer_reset" if who == "client" else "server_reset"
    until(running, 1, "connections_closed_total", listener="db", reason=reason)


def test_server_that_does_not_read_slows_its_client_down(running: Daemon, upstream: socket.socket) -> None:
    client, far = pair(running, upstream)
    with client, far:
        client.setblocking(False)
        sent = 0
        while running.scrape().total("gaiod_backpressure_pauses_total", side="upstream") == 0:
            try:
                sent += client.send(bytes(1 << 16))
            except BlockingIOError:
                continue
        taken = 0
        while taken < sent:
            taken += len(far.recv(1 << 20))
        pauses = running.scrape().total("gaiod_backpressure_pauses_total", side="upstream")
        scrape = until(running, pauses, "backpressure_resumes_total", side="upstream")
        assert scrape.total("gaiod_backpressure_paused_seconds_total", side="upstream") > 0


def test_half_closed_connection_on_which_nothing_moves_ends(daemon: Start, upstream: socket.socket) -> None:
    running = daemon(config(f"servers: [{address_of(upstream)}], half_closed_timeout: 100ms"))
    client, far = pair(running, upstream)
    with client, far:
        client.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
        assert is_ended(client)
    until(running, 1, "connections_closed_total", listener="db", reason="half_closed_timeout")


def test_connection_that_is_too_old_ends(daemon: Start, upstream: socket.socket) -> None:
    running = daemon(config(f"servers: [{address_of(upstream)}], max_age: 200ms"))
    client, far = pair(running, upstream)
    with client, far:
        assert client.recv(1) == b""
        assert far.recv(1) == b""
    until(running, 1, "connections_closed_total", listener="db", reason="max_age")


SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    conn, _ = listener.accept()
    conn.sendall(bytes(50_000))
"""


def test_server_that_is_killed_mid_stream_costs_its_connections_and_is_ejected(daemon: Start) -> None:
    with (
        subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process,
        upstreams(1) as (backup,),
        ExitStack() as held,
    ):
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        servers = f"servers: ['127.0.0.1:{port}', {{address: {address_of(backup)}, backup: true}}]"
        running = daemon(config(f"{servers}, passive: {{failures: 1}}"))
        with connect(running.address("db")) as client:
            assert receive(client, 50_000) == bytes(50_000)
            os.kill(process.pid, signal.SIGKILL)
            assert is_ended(client)
        process.wait()  # its listening socket may be closed after that of its client
        taken = held.enter_context(socket.socket())  # nobody else may get the port, and listen there
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(port)))
        for _ in range(3):
            client, far = pair(running, backup)
            with client, far:
                client.sendall(b"ping")
                assert receive(far, 4) == b"ping"
        scrape = until(running, 4, "connections_closed_total", listener="db")
        failures = scrape.total("gaiod_upstream_connect_failures_total", server=f"127.0.0.1:{port}", reason="refused")
        assert failures == scrape.total("gaiod_upstream_retries_total") == 1
        assert scrape.total("gaiod_upstream_up", server=f"127.0.0.1:{port}") == 0
        assert f"server 127.0.0.1:{port} is ejected for 10 s" in running.log()


def test_client_is_let_go_when_every_server_refuses(daemon: Start, upstream: socket.socket) -> None:
    address = address_of(upstream)
    upstream.close()
    running = daemon(config(f"servers: [{address}], retries: 1"))
    with connect(running.address("db")) as client:
        assert is_ended(client)
    scrape = until(running, 1, "connections_closed_total", listener="db", reason="no_server")
    assert scrape.total("gaiod_upstream_unavailable_total", upstream="db") == 1


def test_server_that_does_not_answer_is_given_up_in_time(daemon: Start) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as black_hole:
        held = [socket.socket() for _ in range(4)]
        for each in held:
            each.setblocking(False)
            each.connect_ex(black_hole.getsockname())
        with upstreams(1) as (upstream,):
            servers = f"servers: [{address_of(black_hole)}, {address_of(upstream)}], balance: least_connections"
            running = daemon(config(f"{servers}, connect_timeout: 100ms"))
            for _ in range(2):
                client, far = pair(running, upstream)
                with client, far:
                    client.sendall(b"ping")
                    assert receive(far, 4) == b"ping"
            failures = running.scrape().total("gaiod_upstream_connect_failures_total", reason="timeout")
            assert failures == running.scrape().total("gaiod_upstream_retries_total") >= 1
        for each in held:
            each.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_server_is_told_who_the_client_is(daemon: Start, upstream: socket.socket, version: str) -> None:
    running = daemon(config(f"servers: [{address_of(upstream)}], send_proxy: {version}"))
    client, far = pair(running, upstream)
    with client, far:
        header = ProxyHeader(client.getsockname(), client.getpeername())
        expected = header.encode_v1() if version == "v1" else header.encode_v2()
        client.sendall(b"hello")
        assert receive(far, len(expected) + 5) == expected + b"hello"


def test_client_that_a_balancer_announced_is_announced_to_the_server(daemon: Start, upstream: socket.socket) -> None:
    announced = ProxyHeader(("192.0.2.7", 56324), ("198.51.100.1", 443))
    believed = "proxy_protocol: {from: [127.0.0.0/8]},"
    running = daemon(config(f"servers: [{address_of(upstream)}], send_proxy: v1", more=believed))
    with connect(running.address("db")) as client:
        client.sendall(announced.encode_v2() + b"hello")
        with accept(upstream) as far:
            expected = announced.encode_v1() + b"hello"
            assert receive(far, len(expected)) == expected


def test_unix_socket_and_name_can_be_servers(daemon: Start, upstream: socket.socket, tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    port = upstream.getsockname()[1]
    with socket.create_server(path, family=socket.AF_UNIX) as unix:
        unix.settimeout(LIMIT_S)
        names = f"servers: ['localhost:{port}', 'unix:{path}'], balance: least_connections, retries: 5"
        running = daemon(config(names))
        running.wait_for(f"server localhost:{port}: it is now")
        with connect(running.address("db")) as first, connect(running.address("db")) as second:
            for client in (first, second):
                client.sendall(b"ping")
            for server in (unix, upstream):
                with accept(server) as far:
                    assert receive(far, 4) == b"ping"


def test_stop_waits_for_the_answer_to_a_request_and_not_for_who_asks_nothing(
    running: Daemon, upstream: socket.socket
) -> None:
    quiet, far_quiet = pair(running, upstream)
    asking, far_asking = pair(running, upstream)
    with quiet, far_quiet, asking, far_asking:
        for client, far in [(quiet, far_quiet), (asking, far_asking)]:
            client.sendall(b"question")
            assert receive(far, 8) == b"question"
            far.sendall(b"answer")
            assert receive(client, 6) == b"answer"
        asking.sendall(b"another")
        assert receive(far_asking, 7) == b"another"
        running.send(signal.SIGTERM)
        assert quiet.recv(1) == b"", "it has moved nothing for a second"
        far_asking.sendall(b"at last")
        assert receive(asking, 7) == b"at last"
        assert asking.recv(1) == b""
    assert running.wait() == 0
