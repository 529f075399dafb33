"""Examples whose clients ask for TLS within the protocol, with the clients that people have."""

import re
import signal
import smtplib
import ssl
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.pki import Authority
from core.support.sockets import receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.postgres import PostgresServer, postgres, program
from e2e.support.programs import free_port
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"

SSL_REQUEST = struct.pack("!II", 8, 80877103)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Whom the clients believe."""
    return Authority()


def config(folder: Path, authority: Authority, handler: str, options: str) -> str:
    """Return a listener of an example, with a certificate for localhost."""
    made = authority.issue("localhost", names="DNS:localhost")
    (folder / "ca.pem").write_text(authority.chain)
    (folder / "app.pem").write_text(made.chain)
    (folder / "app.key").touch(0o600)
    (folder / "app.key").write_text(made.key)
    return f"""\
metrics: {{listen: "127.0.0.1:0"}}
log: {{connections: {{close: true}}}}
listeners:
  front:
    bind: 127.0.0.1:0
    handler: {EXAMPLES}/{handler}.py
    tls: {{start: handler, certificates: [{{chain: {folder}/app.pem, key: {folder}/app.key}}]}}
    with: {{{options}}}
"""


def port_of(running: Daemon) -> int:
    return int(running.address("front").rpartition(":")[2])


def wait_for_failure(running: Daemon, reason: str) -> None:
    def look() -> bool:
        return running.scrape().value("gaiod_tls_failures_total", listener="front", reason=reason) == 1

    wait_until(look, f"the failure {reason}")


# -- PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL without TLS, where a user `scram` needs a password."""
    with postgres() as server:
        server.psql("CREATE ROLE scram LOGIN PASSWORD 'secret'")
        lines = "('host all scram 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')"
        file = server.psql("SHOW hba_file").stdout.strip()
        server.psql(f"COPY (VALUES {lines}) TO '{file}'")
        server.psql("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def guarded(daemon: Start, tmp_path: Path, authority: Authority, database: PostgresServer) -> Daemon:
    """A daemon that speaks TLS for it."""
    return daemon(config(tmp_path, authority, "postgresql", f'server: "127.0.0.1:{database.port}"'))


def psql_command(port: int, folder: Path, words: str, sql: str) -> list[str]:
    where = f"host=localhost hostaddr=127.0.0.1 port={port} dbname=postgres connect_timeout=20 {words}"
    if "user=" not in words:
        where += " user=postgres"
    if "sslrootcert=" not in words:
        where += f" sslrootcert={folder}/ca.pem"
    return [program("psql"), where, "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", sql]


def psql(port: int, folder: Path, words: str, sql: str = "SELECT 1") -> subprocess.CompletedProcess[str]:
    command = psql_command(port, folder, words, sql)
    environment = {"PGPASSWORD": "secret", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, timeout=6 * LIMIT_S, check=False, env=environment)


def test_psql_verifies_the_server_and_its_session_is_encrypted(guarded: Daemon, tmp_path: Path) -> None:
    port = port_of(guarded)
    told = psql(port, tmp_path, "sslmode=verify-full", r"\conninfo")
    assert "SSL connection (protocol: TLSv1.3" in told.stdout, told
    large = psql(
        port, tmp_path, "sslmode=verify-full", "SELECT sum(length(repeat('x', 100))) FROM generate_series(1, 9)"
    )
    assert large.stdout == "900\n", large
    rows = psql(port, tmp_path, "sslmode=verify-full", "SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
    assert rows.stdout == ("x" * 1000 + "\n") * 5000
    told = psql(port, tmp_path, "sslmode=verify-full ssl_max_protocol_version=TLSv1.2", r"\conninfo")
    assert "SSL connection (protocol: TLSv1.2" in told.stdout, told
    wait_until(lambda: guarded.log().count("reason=") >= 4, "the lines about the closes")
    assert "tls_truncated" not in guarded.log()


@pytest.mark.parametrize("binding", ["disable", "prefer"])
def test_psql_proves_its_password_by_scram(guarded: Daemon, tmp_path: Path, binding: str) -> None:
    done = psql(port_of(guarded), tmp_path, f"sslmode=verify-full user=scram channel_binding={binding}", "SELECT 1")
    assert done.stdout == "1\n", done


def test_psql_that_wants_the_server_to_know_of_the_tls_fails(guarded: Daemon, tmp_path: Path) -> None:
    """Channel binding would tell the server which TLS it is, and the server has none."""
    done = psql(port_of(guarded), tmp_path, "sslmode=verify-full user=scram channel_binding=require")
    assert "channel binding" in done.stderr, done


def test_psql_without_tls_is_told_why_it_is_refused(guarded: Daemon, tmp_path: Path) -> None:
    done = psql(port_of(guarded), tmp_path, "sslmode=disable")
    assert (done.returncode, done.stdout) == (2, "")
    assert "FATAL:  connections without encryption are refused; use sslmode=verify-full" in done.stderr, done
    wait_until(lambda: "reason=unencrypted who=client how=error" in guarded.log(), "the line about the close")


def test_psql_that_does_not_believe_the_certificate_goes(guarded: Daemon, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text(Authority("Other CA").chain)
    done = psql(port_of(guarded), tmp_path, f"sslmode=verify-full sslrootcert={tmp_path}/other.pem")
    assert "certificate verify failed" in done.stderr, done
    wait_for_failure(guarded, "alert")


def test_psql_cancels_a_query(guarded: Daemon, tmp_path: Path, database: PostgresServer) -> None:
    command = psql_command(port_of(guarded), tmp_path, "sslmode=verify-full", "SELECT pg_sleep(3600) /* cancelled */")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(3600)%' AND pid <> pg_backend_pid()"
        wait_until(lambda: database.psql(running).stdout == "1\n", "the query")
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=6 * LIMIT_S)
    assert "canceling statement due to user request" in error


def test_transactions_of_many_clients_go_through(guarded: Daemon, tmp_path: Path, database: PostgresServer) -> None:
    database.pgbench("-i", "-q")
    environment = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": f"{tmp_path}/ca.pem", "HOME": str(tmp_path)}
    done = subprocess.run(
        [program("pgbench"), "-h", "localhost", "-p", str(port_of(guarded)), "-U", "postgres", "-n", "-C", "-c", "4",
         "-t", "20", "postgres"],
        capture_output=True, text=True, timeout=6 * LIMIT_S, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert "number of transactions actually processed: 80/80" in done.stdout
    counted = guarded.scrape()
    assert sum(
        counted.value("gaiod_tls_handshakes_total", listener="front", result=result, version="1.3") or 0
        for result in ("full", "resumed")
    ) >= 80  # fmt: skip


def test_startup_message_that_somebody_puts_behind_the_request_reaches_no_server(
    guarded: Daemon, database: PostgresServer
) -> None:
    parameters = b"user\0postgres\0application_name\0injected\0\0"
    startup = struct.pack("!II", 8 + len(parameters), 196608) + parameters
    with connect(guarded.address("front")) as sock:
        sock.sendall(SSL_REQUEST + startup)
        assert receive(sock, 1) == b"S"
        while not is_ended(sock):
            pass
    wait_until(lambda: "phase=handshake" in guarded.log(), "the line about the close")
    assert "reason=tls_error who=client how=error" in guarded.log()
    counted = guarded.scrape()
    assert counted.value("gaiod_tls_handshakes_total", listener="front", result="failed", version="") == 1


def test_client_of_a_server_that_is_away_is_told(
    daemon: Start, tmp_path: Path, authority: Authority, database: PostgresServer
) -> None:
    running = daemon(config(tmp_path, authority, "postgresql", f'server: "127.0.0.1:{free_port()}"'))
    done = psql(port_of(running), tmp_path, "sslmode=verify-full")
    assert "FATAL:  the database server cannot be reached" in done.stderr, done


# -- SMTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def sink(daemon: Start, tmp_path: Path, authority: Authority) -> Daemon:
    """A daemon that throws mail away."""
    return daemon(config(tmp_path, authority, "smtp", "message_max: 1MiB"))


def test_smtplib_sends_mail_by_starttls(sink: Daemon, tmp_path: Path) -> None:
    with smtplib.SMTP("localhost", port_of(sink), timeout=LIMIT_S) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        with pytest.raises(smtplib.SMTPSenderRefused, match="Must issue a STARTTLS command first"):
            client.sendmail("a@example.org", ["b@example.org"], "hello")
        client.starttls(context=ssl.create_default_context(cafile=f"{tmp_path}/ca.pem"))
        client.ehlo()
        assert not client.has_extn("starttls")
        assert client.sendmail("a@example.org", ["b@example.org"], "hello\n" * 100_000) == {}
        with pytest.raises(smtplib.SMTPDataError, match="too large"):
            client.sendmail("a@example.org", ["b@example.org"], "hello\n" * 200_000)
        (row,) = sink.ask("connections")["connections"]
        assert sink.ask("explain", connection=row["id"])["sides"][0]["tls"]["version"] == "1.3"


def test_openssl_speaks_with_it(sink: Daemon, tmp_path: Path) -> None:
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "smtp", "-connect", sink.address("front"), "-servername", "localhost",
         "-verify_hostname", "localhost", "-CAfile", f"{tmp_path}/ca.pem", "-verify_return_error", "-crlf", "-quiet"],
        input="NOOP\nQUIT\n", capture_output=True, text=True, timeout=6 * LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    assert done.stdout.replace("\r", "").endswith("250 2.0.0 Ok\n221 2.0.0 Bye\n"), done


def test_commands_that_somebody_puts_behind_starttls_close_the_connection(sink: Daemon) -> None:
    with connect(sink.address("front")) as sock:
        sock.sendall(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<somebody@example.org>\r\n")
        answers = b""
        while data := sock.recv(1000):
            answers += data
    assert re.findall(rb"^\d+[ -]", answers, re.MULTILINE) == [b"220 ", b"250-", b"250-", b"250 ", b"220 "]
    wait_for_failure(sink, "plaintext")
    assert "reason=tls_error who=client how=error cause=plaintext phase=handshake" in sink.log()
