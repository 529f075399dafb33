"""A daemon behind a load balancer: everybody sees the client, and nobody the balancer."""

import re
import socket
from pathlib import Path

from core.support.sockets import receive

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.handlers import IMPORTS, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from gaiod import ProxyHeader

HEADER = ProxyHeader(("192.0.2.7", 56324), ("198.51.100.1", 443))
EXPECTED = b"('192.0.2.7', 56324) ('198.51.100.1', 443)\nping"
V6_HEADER = ProxyHeader(("2001:db8::7", 56324, 0, 0), ("2001:db8::1", 443, 0, 0))

TELLS = (
    IMPORTS
    + """
class Tells(gaiod.Handler):
    def on_open(self, conn):
        conn.write(f"{conn.peer_address} {conn.local_address}\\n".encode())
    def on_write(self, conn, result):
        conn.read()
    def on_read(self, conn, result):
        conn.write(result.buffer)
"""
)

LOGGED = "log: {connections: {open: true, close: true}}\n"


def start(daemon: Start, folder: Path, more: str) -> Daemon:
    (folder / "mine.py").write_text(TELLS)
    return daemon(LOGGED + beside(f"    proxy_protocol: {more}\n"))


def told(running: Daemon, header: bytes) -> bytes:
    """Return what the handler says to a connection that begins so, once it has echoed as well."""
    with connect(running.address("mine")) as sock:
        sock.sendall(header + b"ping")
        line = receive_until(sock, b"\n")
        return line + receive(sock, 4)


def test_handler_log_and_operator_see_the_client(daemon: Start, tmp_path: Path) -> None:
    running = start(daemon, tmp_path, "{from: [127.0.0.0/8]}")
    assert told(running, HEADER.encode_v1()) == EXPECTED
    assert told(running, HEADER.encode_v2()) == EXPECTED
    assert told(running, V6_HEADER.encode_v2()) == b"('2001:db8::7', 56324, 0, 0) ('2001:db8::1', 443, 0, 0)\nping"
    assert told(running, ProxyHeader(None, None).encode_v2()).startswith(b"('127.0.0.1', ")
    with connect(running.address("mine")) as sock:
        sock.sendall(HEADER.encode_v2() + b"ping")
        assert receive(sock, len(EXPECTED)) == EXPECTED
        (row,) = running.ask("connections")["connections"]
        assert row["peer"] == "192.0.2.7:56324"
    wait_until(lambda: running.log().count("connection closed") == 5, "the last line about each connection")
    running.stop()
    peers = re.findall(r"peer=(\S+)", running.log())
    assert peers.count("192.0.2.7:56324") == 6
    assert peers.count("[2001:db8::7]:56324") == 2
    assert len(peers) == 10


def test_rejected_connections_are_counted_and_told(daemon: Start, tmp_path: Path) -> None:
    running = start(daemon, tmp_path, "{from: [127.0.0.0/8], timeout: 100ms}")
    with connect(running.address("mine")) as silent, connect(running.address("mine")) as wrong:
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_ended(wrong)
        assert is_ended(silent)
    samples = running.scrape()
    assert samples.value("gaiod_connections_rejected_total", listener="mine", reason="proxy_protocol") == 2
    assert samples.total("gaiod_connections_accepted_total") == 0
    assert samples.total("gaiod_connections_active") == 0
    assert samples.total("gaiod_received_bytes_total") == 0
    assert "its PROXY header is wrong: it begins with b'GET / HTTP" in running.log()


def test_client_from_elsewhere_is_not_believed(daemon: Start, tmp_path: Path) -> None:
    running = start(daemon, tmp_path, "{from: [10.0.0.0/8]}")
    with connect(running.address("mine")) as sock:
        assert is_ended(sock)
    assert "proxy_protocol.from does not have it" in running.log()


def test_reload_changes_who_is_believed(daemon: Start, tmp_path: Path) -> None:
    running = start(daemon, tmp_path, "false")
    with connect(running.address("mine")) as before:
        assert receive(before, 1) == b"("
        file = tmp_path / "gaiod.yaml"
        file.write_text(file.read_text().replace("proxy_protocol: false", "proxy_protocol: {from: [127.0.0.1/32]}"))
        running.ask("reload")
        # The old worker may accept until it has read that it drains.
        wait_until(lambda: told(running, HEADER.encode_v1()) == EXPECTED, "the new worker")
        before.sendall(b"!")
        assert receive_until(before, b"!").startswith(b"'127.0.0.1', ")


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    received = bytearray()
    while not received.endswith(end):
        received += receive(sock, 1)
    return bytes(received)
