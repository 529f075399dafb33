"""relay_epoll forwards every byte and every end, whoever reads, and whoever does not."""

import random
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness.processes import running
from harness.proxies import free_port
from harness.runs import Bench

pytest_plugins = ("bench_fixtures",)

LIMIT_S = 20.0
STALL_S = 0.3
"""A relay that can move bytes does it at once: a sender that waits so long is held back."""
RESET = struct.pack("ii", 1, 0)


class Relay:
    """A relay and the server behind it, both ends of whose connections are the test's."""

    def __init__(self, bench: Bench, how: str, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self.server = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.server.settimeout(LIMIT_S)
        self.port = free_port()
        command = (str(bench.programs.relay_epoll), how, str(self.port), str(self.server.getsockname()[1]))
        child = cleanup.enter_context(running(how, command, bench.server_cpu))
        child.expect_connection(self.port, LIMIT_S)
        first, _ = self.server.accept()
        with first:
            first.settimeout(LIMIT_S)
            assert first.recv(1) == b""  # that connection has gone again, and this side is told

    def client(self) -> socket.socket:
        """Return a new client."""
        client = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        return self._cleanup.enter_context(client)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return a new client and its server."""
        client = self.client()
        server, _ = self.server.accept()
        server.settimeout(LIMIT_S)
        return client, self._cleanup.enter_context(server)


@pytest.fixture(params=["copy", "splice"])
def relay(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Relay]:
    """A relay of either kind."""
    with ExitStack() as cleanup:
        yield Relay(bench, request.param, cleanup)


def receive_all(sock: socket.socket) -> bytes:
    """Return all bytes up to the end of the stream."""
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)


def send_until_held_back(sock: socket.socket, payload: bytes) -> int:
    """Send until nobody takes any more; return how much was taken."""
    sock.setblocking(False)
    sent = 0
    while sent < len(payload) and select.select([], [sock], [], STALL_S)[1]:
        sent += sock.send(payload[sent : sent + 1_000_000])
    return sent


def exchange(one: socket.socket, other: socket.socket, payload: bytes, sent: int) -> bytes:
    """Send the rest of the payload and the end of the stream from one to the other; return all that came."""
    one.setblocking(False)
    received = bytearray()
    while True:
        readable, writable, _ = select.select([other], [one] if sent < len(payload) else [], [], LIMIT_S)
        assert readable or writable, f"nothing moved for {LIMIT_S} s: {sent} sent, {len(received)} received"
        if writable:
            sent += one.send(payload[sent : sent + 1_000_000])
            if sent == len(payload):
                one.shutdown(socket.SHUT_WR)
        if readable:
            data = other.recv(77_777)
            received += data
            if not data:
                return bytes(received)


@pytest.mark.parametrize("first", ["client", "server"])
def test_end_of_one_direction_is_passed_on_and_the_other_goes_on(relay: Relay, first: str) -> None:
    client, server = relay.pair()
    one, other = (client, server) if first == "client" else (server, client)
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert receive_all(other) == b"question"
    answer = random.Random(1).randbytes(1_000_000)
    assert exchange(other, one, answer, 0) == answer


@pytest.mark.parametrize("sender", ["client", "server"])
def test_nothing_is_lost_when_a_side_takes_no_bytes_for_a_while(relay: Relay, sender: str) -> None:
    client, server = relay.pair()
    one, other = (client, server) if sender == "client" else (server, client)
    payload = random.Random(2).randbytes(64_000_000)
    sent = send_until_held_back(one, payload)
    assert 0 < sent < len(payload)
    assert exchange(one, other, payload, sent) == payload
    other.sendall(b"thanks")
    one.settimeout(LIMIT_S)
    assert one.recv(16) == b"thanks"


def test_both_directions_move_at_once(relay: Relay) -> None:
    client, server = relay.pair()
    there, back = random.Random(3).randbytes(64_000_000), random.Random(4).randbytes(64_000_000)
    sent_there, sent_back = send_until_held_back(client, there), send_until_held_back(server, back)
    assert exchange(client, server, there, sent_there) == there
    assert exchange(server, client, back, sent_back) == back


@pytest.mark.parametrize("first", ["client", "server"])
def test_reset_ends_the_other_side(relay: Relay, first: str) -> None:
    client, server = relay.pair()
    one, other = (client, server) if first == "client" else (server, client)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()
    assert other.recv(1) == b""


def test_client_is_closed_when_the_server_refuses(relay: Relay) -> None:
    relay.server.close()
    assert relay.client().recv(1) == b""
    assert relay.client().recv(1) == b""
