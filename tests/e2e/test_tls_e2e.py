"""A daemon that speaks TLS: for echo, the proxy and push, and for whoever operates it."""

import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from core.support.sockets import receive
from core.support.tls import certificate, client
from core.support.waiting import LIMIT_S

from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from gaiod.core.engine import tls_library
from gaiod.tls_options import made_by


@pytest.fixture
def tls(tmp_path: Path) -> str:
    """The key of a listener that speaks TLS with a certificate for localhost."""
    made = certificate()
    (tmp_path / "app.pem").write_text(made.chain)
    key = tmp_path / "app.key"
    key.touch(0o600)
    key.write_text(made.key)
    return f"tls: {{certificates: [{{chain: {tmp_path}/app.pem, key: {tmp_path}/app.key}}]}}"


def config(tls: str) -> str:
    return f"""\
metrics: {{listen: "127.0.0.1:0"}}
log: {{connections: {{close: true}}}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, {tls}}}
"""


def connect(running: Daemon, listener: str = "echo") -> ssl.SSLSocket:
    host, _, port = running.address(listener).rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=LIMIT_S)
    return client().wrap_socket(sock, server_hostname="localhost")


def shown(running: Daemon) -> bytes | None:
    """Return the certificate that a new client is shown."""
    host, _, port = running.address("echo").rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection((host, int(port)), timeout=LIMIT_S)) as sock:
        assert exchange(sock, b"served") == b"served"
        return sock.getpeercert(True)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def test_client_is_echoed_and_operator_sees_what_was_agreed(daemon: Start, tls: str) -> None:
    running = daemon(config(tls))
    with connect(running) as sock:
        assert exchange(sock, b"ping" * 50_000) == b"ping" * 50_000
        (row,) = running.ask("connections")["connections"]
        told = running.ask("explain", connection=row["id"])
        assert told["sides"][0]["tls"]["server_name"] == "localhost"
        sock.unwrap()
    wait_until(lambda: "reason=peer_eof" in running.log(), "the line about the close")
    samples = running.scrape()
    assert samples.value("gaiod_tls_handshakes_total", listener="echo", result="full", version="1.3") == 1
    assert samples.value("gaiod_tls_handshake_seconds_count", listener="echo") == 1
    ((_, info),) = [key for key, _ in samples.items() if key[0] == "gaiod_tls_info"]
    assert dict(info) == dict(zip(("library", "layer"), tls_library(), strict=True))
    assert f"TLS is made by {made_by(tls_library())}" in running.log()
    assert samples.labels("gaiod_tls_certificate_not_after_seconds") == [{"listener": "echo", "name": "localhost"}]
    assert "PRIVATE KEY" not in running.log()


def test_openssl_is_echoed(daemon: Start, tls: str, tmp_path: Path) -> None:
    running = daemon(config(tls))
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", running.address("echo"), "-servername", "localhost", "-CAfile",
         tmp_path / "app.pem", "-verify_return_error", "-quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"
        process.kill()


def test_client_without_tls_is_counted_with_the_reason(daemon: Start, tls: str) -> None:
    running = daemon(config(tls))
    host, _, port = running.address("echo").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while sock.recv(100):
            pass
    wait_until(lambda: "the client speaks HTTP without TLS" in running.log(), "the line about the client")
    samples = running.scrape()
    assert samples.value("gaiod_tls_failures_total", listener="echo", reason="http") == 1
    assert samples.value("gaiod_connections_rejected_total", listener="echo", reason="tls") == 1


PROXY = """\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "unix:{folder}/echo.sock", handler: echo}}
  front: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["unix:{folder}/echo.sock"]}}, {tls}}}
"""


def test_proxy_decrypts_what_its_server_gets(daemon: Start, tls: str, tmp_path: Path) -> None:
    running = daemon(PROXY.format(folder=tmp_path, tls=tls))
    with connect(running, "front") as sock:
        assert exchange(sock, b"ping" * 50_000) == b"ping" * 50_000
        sock.unwrap()


PUSH = """\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  ticks:
    bind: "127.0.0.1:0"
    handler: push
    with: {{source: {{name: clock, every: 10ms, message: "tick {{sequence}}"}}}}
    {tls}
"""


def test_push_sends_encrypted_messages(daemon: Start, tls: str) -> None:
    running = daemon(PUSH.format(tls=tls))
    with connect(running, "ticks") as sock, sock.makefile("rb") as lines:
        first = int(next(lines).split()[1])
        assert [next(lines) for _ in range(3)] == [b"tick %d\n" % (first + number) for number in (1, 2, 3)]


def test_certificate_that_is_renewed_is_shown_after_a_reload_and_open_connections_stay(
    daemon: Start, tls: str, tmp_path: Path
) -> None:
    running = daemon(config(tls))
    with connect(running) as sock:
        assert exchange(sock, b"before") == b"before"
        renewed = certificate("localhost", 60)
        (tmp_path / "app.pem").write_text(renewed.chain)
        (tmp_path / "app.key").write_text(renewed.key)
        running.ask("reload")
        # Until the old workers have heard that the new ones accept, either may.
        wait_until(lambda: shown(running) == ssl.PEM_cert_to_DER_cert(renewed.chain), "the renewed certificate")
        assert exchange(sock, b"still") == b"still"
        stayed = "gaiod_handover_stayed_total"
        wait_until(lambda: running.scrape().value(stayed, listener="echo", reason="tls") >= 1, "its being told of")


def test_key_of_another_certificate_is_refused_with_its_place(daemon: Start, tls: str, tmp_path: Path) -> None:
    (tmp_path / "app.key").write_text(certificate("example.org").key)
    running = daemon(config(tls), ready=False)
    assert running.wait() == os.EX_CONFIG
    assert "listeners.echo.tls.certificates[0]: the key is not that of the chain's first certificate" in running.log()
