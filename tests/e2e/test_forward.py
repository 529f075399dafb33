"""The example that relays: a client reaches a server through it, and neither notices."""

import socket
from pathlib import Path

import pytest
from core.support.sockets import listen, pattern, receive, reset

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

FORWARD = (Path(__file__).parents[2] / "config" / "examples" / "forward.py").read_text()


@pytest.fixture
def server() -> socket.socket:
    """A listener that the test itself serves."""
    return listen()


@pytest.fixture
def forward(daemon: Start, server: socket.socket, tmp_path: Path) -> Daemon:
    """A daemon whose listener forwards to the server."""
    (tmp_path / "forward.py").write_text(FORWARD)
    port = server.getsockname()[1]
    listener = f'{{bind: "127.0.0.1:0", handler: ./forward.py, with: {{port: {port}}}}}'
    return daemon(f'metrics: {{listen: "127.0.0.1:0"}}\ndrain_timeout: 1s\nlisteners: {{forward: {listener}}}\n')


def _both(forward: Daemon, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = connect(forward.address("forward"))
    far, _ = server.accept()
    far.settimeout(client.gettimeout())
    return client, far


def test_large_messages_arrive_both_ways_and_the_end_is_passed_on(forward: Daemon, server: socket.socket) -> None:
    client, far = _both(forward, server)
    with client, far, server:
        client.sendall(pattern(100_000))
        assert receive(far, 100_000) == pattern(100_000)
        client.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
        far.sendall(pattern(200_000, seed=1))
        assert receive(client, 200_000) == pattern(200_000, seed=1)
        far.close()
        assert client.recv(1) == b""
    wait_until(
        lambda: (
            forward.scrape().value("gaiod_connections_active", listener="forward", handler="forward", worker=0) == 0
        ),
        "the end",
    )
    scrape = forward.scrape()
    assert scrape.total("gaiod_received_bytes_total", side="upstream") == 200_000
    assert scrape.total("gaiod_sent_bytes_total", side="upstream") == 100_000


def test_client_is_let_go_when_the_server_refuses(daemon: Start, forward: Daemon, server: socket.socket) -> None:
    server.close()
    with connect(forward.address("forward")) as client:
        assert is_ended(client)


@pytest.mark.parametrize("who", ["client", "server"])
def test_one_that_resets_takes_its_partner_along_and_nobody_else(
    forward: Daemon, server: socket.socket, who: str
) -> None:
    client, far = _both(forward, server)
    other, other_far = _both(forward, server)
    with server, other, other_far:
        reset(client if who == "client" else far)
        with far if who == "client" else client as left:
            assert is_ended(left)
        other.sendall(b"ping")
        assert receive(other_far, 4) == b"ping"


def test_server_that_does_not_read_slows_its_client_down(forward: Daemon, server: socket.socket) -> None:
    client, far = _both(forward, server)
    with client, far, server:
        client.setblocking(False)
        sent = 0

        def is_full() -> bool:
            nonlocal sent
            try:
                while True:
                    sent += client.send(bytes(1 << 16))
            except BlockingIOError:
                return forward.scrape().total("gaiod_backpressure_pauses_total", side="upstream") > 0

        wait_until(is_full, "a pause")
        taken = 0
        while taken < sent:
            taken += len(far.recv(1 << 20))
        scrape = forward.scrape()
        pauses = scrape.total("gaiod_backpressure_pauses_total", side="upstream")
        assert pauses == scrape.total("gaiod_backpressure_resumes_total", side="upstream")
        assert scrape.total("gaiod_backpressure_paused_seconds_total", side="upstream") > 0
