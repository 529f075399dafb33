"""Stopping while clients are in the middle of a message: they finish it, and nobody waits for longer than needed."""

import signal
import socket
import time
from pathlib import Path

import pytest
from core.support.sockets import receive
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect, is_ended, request
from e2e.support.daemons import Daemon
from e2e.support.starting import Start

from chaos.support.daemons import NAMED, many
from chaos.support.load import NAME_BYTES

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

PIECES = 8
PIECE_BYTES = 100

WHOLE = NAMED.replace(
    "        conn.write(result.buffer)",
    f"""        conn.data = (conn.data or b"") + bytes(result.buffer)
        if len(conn.data) < {PIECES * PIECE_BYTES}:
            conn.read()
        else:
            conn.write(conn.data)
            conn.data = None""",
)
"""Answers whole messages only: half a message is something that a stop must not cut off."""


def piece(client: int, number: int) -> bytes:
    """Return one of the pieces of a client's message."""
    return (b"%06d.%02d," % (client, number) * PIECE_BYTES)[:PIECE_BYTES]


def connect_many(running: Daemon, clients: int) -> list[socket.socket]:
    """Return clients that have been accepted, each with half a message sent."""
    socks = [connect(running.address("mine")) for _ in range(clients)]
    for number, sock in enumerate(socks):
        assert len(receive(sock, NAME_BYTES)) == NAME_BYTES
        for part in range(PIECES // 2):
            sock.sendall(piece(number, part))
    return socks


@pytest.mark.parametrize(
    "clients", [pytest.param(100, id="short"), pytest.param(500, marks=pytest.mark.slow, id="long")]
)
def test_clients_in_the_middle_of_a_message_finish_it_when_the_daemon_stops(
    daemon: Start, tmp_path: Path, clients: int
) -> None:
    """A piece every 0.4 s from each of them: none is quiet for so long that it looks finished."""
    running = daemon(many(tmp_path, handler=WHOLE, drain_timeout="10s"))
    socks = connect_many(running, clients)
    try:
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: stopping")
        assert request(running.metrics, "/readyz").status == 503
        for part in range(PIECES // 2, PIECES):
            time.sleep(0.4)  # the rhythm of the clients
            for number, sock in enumerate(socks):
                sock.sendall(piece(number, part))
        for number, sock in enumerate(socks):
            message = b"".join(piece(number, part) for part in range(PIECES))
            assert receive(sock, len(message)) == message
            sock.close()
        assert running.wait(1 + TIME_UNIT) == 0, "it waits for nobody"
    finally:
        for sock in socks:
            sock.close()
    assert "ERROR" not in running.log()


def test_drain_timeout_ends_clients_that_never_finish(daemon: Start, tmp_path: Path) -> None:
    """They go on sending: only the time that is up ends them, at most a second late."""
    running = daemon(many(tmp_path, handler=WHOLE, drain_timeout="2s"))
    socks = connect_many(running, 20)
    try:
        running.send(signal.SIGTERM)
        told_s = time.monotonic()
        for _ in range(3):
            time.sleep(0.4)
            for sock in socks:
                sock.sendall(b".")
        assert running.wait() == 0
        assert 1.5 < time.monotonic() - told_s < 2 + TIME_UNIT
        assert all(is_ended(sock) for sock in socks)
    finally:
        for sock in socks:
            sock.close()


def test_second_signal_ends_the_daemon_at_once(daemon: Start, tmp_path: Path) -> None:
    running = daemon(many(tmp_path, handler=WHOLE, drain_timeout="5m"))
    socks = connect_many(running, 100)
    try:
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: stopping")
        assert request(running.metrics, "/readyz").status == 503
        running.send(signal.SIGTERM)
        running.wait(TIME_UNIT)
        assert all(is_ended(sock) for sock in socks)
    finally:
        for sock in socks:
            sock.close()
