"""Certificates that are renewed while the daemon serves: no worker is replaced, and no connection touched."""

import os
import signal
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from core.support.pki import Authority
from core.support.sockets import receive
from core.support.tls import certificate
from core.support.waiting import LIMIT_S

from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from e2e.test_upgrade import upgraded
from gaiod.core.contexts import load
from gaiod.core.engine import shares_tickets
from gaiod.core.tls import Certificate

WORKERS = 2
VISITS = 6
"""Of two workers: that one has all of them is one case of 32, and then a test sees less and passes."""


def write(folder: Path, made: Certificate) -> None:
    """Write a certificate and its key, as programs do: the one, and then the other."""
    (folder / "app.pem").write_text(made.chain)
    (folder / "app.key").touch(0o600)
    (folder / "app.key").write_text(made.key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a certificate and its key."""
    write(tmp_path, certificate())
    return tmp_path


def config(folder: Path, more: str = "") -> str:
    return f"""\
workers: {WORKERS}
drain_timeout: 2s
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo:
    bind: 127.0.0.1:0
    handler: echo
    tls: {{certificates: [{{chain: {folder}/app.pem, key: {folder}/app.key}}]{more}}}
"""


def dial(running: Daemon, shown: Certificate | None = None) -> ssl.SSLSocket:
    """Be a client that believes everybody, and is echoed."""
    host, _, port = running.address("echo").rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if shown is not None:
        load(context, shown)
    with ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((host, int(port)), timeout=LIMIT_S))
        sock = stack.enter_context(context.wrap_socket(plain))
        assert exchange(sock, b"ping") == b"ping"
        stack.pop_all()  # it is its owner's now
        return sock


def exchange(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def shown(running: Daemon) -> str:
    """Return the certificate that a new client is shown."""
    with dial(running) as sock:
        return ssl.DER_cert_to_PEM_cert(sock.getpeercert(True) or b"")


def wait_until_shown(running: Daemon, made: Certificate) -> None:
    wait_until(lambda: all(shown(running) == made.chain for _ in range(VISITS)), "the renewed certificate")


def ok(running: Daemon, folder: Path) -> float:
    return running.scrape().value("gaiod_watched_file_ok", kind="certificate", file=f"{folder}/app.pem")


def read_again(running: Daemon, folder: Path, result: str) -> float:
    labels = {"kind": "certificate", "file": f"{folder}/app.pem", "result": result}
    return running.scrape().value("gaiod_watched_file_reads_total", **labels)


def test_renewed_certificate_is_shown_by_all_workers_and_touches_no_connection(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    workers = running.workers
    with dial(running) as established:
        renewed = certificate("localhost", 60)
        write(folder, renewed)
        wait_until_shown(running, renewed)
        assert exchange(established, b"after") == b"after"
    assert running.workers == workers
    assert running.ask("status")["generation"] == 1
    assert f"certificate file {folder}/app.pem was read again: what it has is in force" in running.log()
    ends_s = running.scrape().total("gaiod_tls_certificate_not_after_seconds", listener="echo")
    assert ends_s == ssl.cert_time_to_seconds(_end_of(renewed))
    assert "PRIVATE KEY" not in running.log()


def _end_of(made: Certificate) -> str:
    context = ssl.create_default_context(cadata=made.chain)
    return str(context.get_ca_certs()[0]["notAfter"])


def test_pair_that_is_wrong_keeps_the_last_good_one_and_is_seen_everywhere(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    wait_until(lambda: read_again(running, folder, "success") == 1, "its being looked at")
    (folder / "app.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    wait_until(lambda: ok(running, folder) == 0, "the metric")
    assert shown(running) == certificate().chain
    assert "stays in force" in running.log()
    told = running.gaiod("status").stdout
    assert "broken" in told
    assert "OpenSSL does not take the chain and the key" in told
    assert running.gaiod("reload").returncode == os.EX_CONFIG
    write(folder, certificate("localhost", 60))
    wait_until_shown(running, certificate("localhost", 60))
    assert ok(running, folder) == 1


def test_certificate_and_key_that_are_written_one_after_the_other_settle_by_themselves(
    daemon: Start, folder: Path
) -> None:
    running = daemon(config(folder))
    wait_until(lambda: read_again(running, folder, "success") == 1, "its being looked at")
    renewed = certificate("localhost", 60)
    (folder / "app.pem").write_text(renewed.chain)
    running.wait_for("if that was half of a change")
    assert shown(running) == certificate().chain
    (folder / "app.key").write_text(renewed.key)
    wait_until_shown(running, renewed)
    assert read_again(running, folder, "failure") == 0


def test_worker_and_daemon_that_come_later_show_the_renewed_certificate(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    renewed = certificate("localhost", 60)
    write(folder, renewed)
    wait_until_shown(running, renewed)
    victims = running.workers
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(running.workers) == WORKERS and not {*victims} & {*running.workers}, "other workers")
    wait_until_shown(running, renewed)
    with upgraded(running, running.ask("upgrade")["pid"]):
        wait_until_shown(running, renewed)


def test_reload_of_a_renewed_certificate_leaves_connections_where_they_are(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    with dial(running) as established:
        renewed = certificate("localhost", 60)
        write(folder, renewed)
        changes = running.ask("reload")["changes"]
        # Whoever reads it first: by itself, or because of the reload.
        assert changes in ([], [f"certificate file {folder}/app.pem: what it has is in force"])
        wait_until_shown(running, renewed)
        wait_until(lambda: kept_by(running) == [1], "the end of the visits")
        assert exchange(established, b"after") == b"after"


def kept_by(running: Daemon) -> list[int]:
    """Return the generations of workers that keep connections of earlier ones."""
    rows = running.ask("status")["workers"]
    return [row["generation"] for row in rows if row["state"] == "keeping" and row["connections"]]


def test_clients_are_asked_for_certificates_of_the_authorities_that_there_are_now(daemon: Start, folder: Path) -> None:
    own, other = Authority(), Authority("Other CA")
    (folder / "ca.pem").write_text(own.certificate)
    (folder / "ca.crl").write_text(own.revocations())
    running = daemon(config(folder, f", clients: {{ca: {folder}/ca.pem, crl: {folder}/ca.crl}}"))
    workers = running.workers

    def is_served(by: Certificate) -> bool:
        try:
            dial(running, by).close()
        except (ssl.SSLError, ConnectionError, AssertionError):
            return False
        return True

    first, second = own.issue("gate 7"), other.issue("gate 8")
    with dial(running, first) as established:
        assert not is_served(second)
        own.revoke(first)
        (folder / "ca.crl").write_text(own.revocations() + other.revocations())
        (folder / "ca.pem").write_text(own.certificate + other.certificate)
        wait_until(lambda: all(is_served(second) for _ in range(VISITS)), "the other authority being believed")
        wait_until(lambda: not any(is_served(first) for _ in range(VISITS)), "the first one's being revoked")
        assert exchange(established, b"after") == b"after"
    assert running.workers == workers


RENEWALS = 10


class Crowd:
    """Clients that come all the time, each with a handshake of its own."""

    def __init__(self, running: Daemon) -> None:
        self._running = running
        self._is_over = False
        self.visits = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def has_come_again(self, visits: int) -> bool:
        """Tell whether somebody was served since there were so many visits, or was not."""
        return self.visits > visits or bool(self.failures)

    def _run(self) -> None:
        while not self._is_over:
            try:
                dial(self._running).close()
                self.visits += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join(LIMIT_S)


def test_ten_renewals_fail_no_handshake_of_clients_that_come_all_the_time(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    with Crowd(running) as crowd:
        for number in range(RENEWALS):
            renewed = certificate("localhost", 60 if number % 2 == 0 else 30)
            before = crowd.visits
            write(folder, renewed)
            wait_until_shown(running, renewed)
            wait_until(partial(crowd.has_come_again, before), "clients")
    assert crowd.failures == []
    samples = running.scrape()
    assert samples.value("gaiod_tls_handshakes_total", listener="echo", result="failed", version="") == 0
    assert read_again(running, folder, "failure") == 0


def test_operator_sees_certificates_and_has_them_read_now(daemon: Start, folder: Path) -> None:
    running = daemon(config(folder))
    told = running.gaiod("certificates")
    assert told.returncode == 0
    assert f"  {_date(certificate())}         29  in force  " in told.stdout
    (before,) = running.ask("certificates")["certificates"]
    renewed = certificate("localhost", 60)
    write(folder, renewed)
    told = running.gaiod("certificates", "reload")
    # By itself it reads what has changed when that is left alone for a second.
    assert told.stdout in (f"{folder}/app.pem: renewed\n", f"{folder}/app.pem: unchanged\n")
    assert told.returncode == 0
    (after,) = running.ask("certificates")["certificates"]
    assert (before["days_left"], after["days_left"]) == (29, 59)
    assert after["since"] > before["since"]
    assert after["fingerprint"] != before["fingerprint"]
    wait_until_shown(running, renewed)
    (folder / "app.key").write_text(certificate("example.org").key)
    told = running.gaiod("certificates", "reload")
    assert told.returncode == os.EX_CONFIG
    assert told.stdout.startswith(
        f"{folder}/app.pem: refused\n  what it had before stays in force: {folder}/app.pem: the"
    )
    (row,) = running.ask("certificates")["certificates"]
    assert (row["ok"], row["fingerprint"]) == (False, after["fingerprint"])


def _date(made: Certificate) -> str:
    return f"{datetime.fromtimestamp(ssl.cert_time_to_seconds(_end_of(made)), UTC):%Y-%m-%d %H:%M}"


@pytest.mark.skipif(not shares_tickets(), reason="the standard library cannot send OCSP responses")
def test_client_is_told_what_the_authority_says_of_the_certificate_now(daemon: Start, folder: Path) -> None:
    own = Authority()
    made = own.issue("localhost", names="DNS:localhost")
    write(folder, made)
    (folder / "app.ocsp").write_bytes(own.ocsp(made))
    running = daemon(config(folder).replace("app.key}", f"app.key, ocsp: {folder}/app.ocsp}}"))

    def told() -> str:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", running.address("echo"), "-servername", "localhost", "-status"],
            check=False, capture_output=True, input="", text=True, timeout=LIMIT_S,
        )  # fmt: skip
        return done.stdout

    assert "Cert Status: good" in told()
    ends = "gaiod_tls_ocsp_not_after_seconds"
    before_s = running.scrape().total(ends, listener="echo")
    (folder / "app.ocsp").write_bytes(own.ocsp(made, minutes=120))
    wait_until(lambda: running.scrape().total(ends, listener="echo") > before_s, "the response being read again")
    assert "Cert Status: good" in told()
    (folder / "app.ocsp").write_bytes(own.ocsp(made, good=False))
    wait_until(lambda: ok(running, folder) == 0, "its being called broken")
    assert "Cert Status: good" in told()
