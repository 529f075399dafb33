"""Clients that resume their TLS sessions: with any worker of a daemon, and with those that come after."""

import os
import signal
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
from e2e.test_upgrade import upgraded
from gaiod.core.engine import shares_tickets

VISITS = 12
"""Of four workers: that one has all of them is one case of 4 million."""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Four workers, and two listeners that speak TLS with the same certificate."""
    made = certificate()
    (tmp_path / "app.pem").write_text(made.chain)
    key = tmp_path / "app.key"
    key.touch(0o600)
    key.write_text(made.key)
    tls = f"{{certificates: [{{chain: {tmp_path}/app.pem, key: {tmp_path}/app.key}}], tickets: TICKETS}}"
    return f"""\
workers: 4
drain_timeout: 2s
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, tls: {tls}}}
  other: {{bind: "127.0.0.1:0", handler: echo, tls: {tls}}}
"""


def visit(
    running: Daemon, session: ssl.SSLSession | None = None, listener: str = "echo", version: str = "1.3"
) -> tuple[bool, ssl.SSLSession]:
    """Be a client that has a session; return whether it was resumed, and the session that it has then."""
    host, _, port = running.address(listener).rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=LIMIT_S)
    with client(version).wrap_socket(sock, server_hostname="localhost", session=session) as secure:
        secure.sendall(b"ping")
        assert receive(secure, 4) == b"ping"
        assert secure.session is not None
        return bool(secure.session_reused), secure.session


def is_resumed_by_all(running: Daemon, session: ssl.SSLSession, version: str = "1.3") -> bool:
    return all(visit(running, session, version=version)[0] for _ in range(VISITS))


needs_shared_keys = pytest.mark.skipif(not shares_tickets(), reason="the standard library has keys of its own")


@needs_shared_keys
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_session_is_resumed_by_all_workers_and_their_successors_and_by_no_other_listener(
    daemon: Start, config: str, version: str
) -> None:
    running = daemon(config.replace("TICKETS", "{lifetime: 1h, rotate: 30m}"))
    _, session = visit(running, version=version)
    assert is_resumed_by_all(running, session, version)
    samples, accepted = running.scrape(), "gaiod_connections_accepted_total"
    assert sum(samples.value(accepted, listener="echo", handler="echo", worker=number) > 0 for number in range(4)) > 1
    assert not visit(running, session, "other", version)[0]
    victims = running.workers
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(running.workers) == 4 and not {*victims} & {*running.workers}, "other workers")
    assert is_resumed_by_all(running, session, version)
    running.ask("reload")
    assert is_resumed_by_all(running, session, version)
    new = running.ask("upgrade")["pid"]
    with upgraded(running, new):
        assert is_resumed_by_all(running, session, version)
        assert not visit(running, session, "other", version)[0]


@needs_shared_keys
def test_keys_are_replaced_and_tickets_of_the_last_two_are_good(daemon: Start, config: str) -> None:
    running = daemon(config.replace("TICKETS", "{lifetime: 4s, rotate: 2s}"))

    def has_a_new_key() -> bool:
        age_s = running.scrape().value("gaiod_tls_ticket_key_age_seconds", listener="echo")
        is_new, ages[0] = age_s < ages[0], age_s
        return is_new

    ages = [0.0]
    wait_until(has_a_new_key, "a first new key")
    _, session = visit(running)
    wait_until(has_a_new_key, "a second")
    assert is_resumed_by_all(running, session)
    resumed, renewed = visit(running, session)
    assert resumed
    for number in ("third", "fourth"):
        wait_until(has_a_new_key, f"a {number}")
    assert not visit(running, session)[0]
    assert is_resumed_by_all(running, renewed)


def test_client_gets_no_ticket_where_there_are_none(daemon: Start, config: str) -> None:
    running = daemon(config.replace("TICKETS", "false"))
    _, session = visit(running)
    assert not session.has_ticket
    assert not running.scrape().labels("gaiod_tls_ticket_key_age_seconds")


@needs_shared_keys
def test_openssl_resumes_its_session(daemon: Start, config: str, tmp_path: Path) -> None:
    running = daemon(config.replace("TICKETS", "{}"))
    command = ["openssl", "s_client", "-connect", running.address(), "-servername", "localhost"]
    for option, said in (("-sess_out", "New, TLSv1.3"), *[("-sess_in", "Reused, TLSv1.3")] * VISITS):
        with subprocess.Popen(
            [*command, option, tmp_path / "session"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("hello\n")
            process.stdin.flush()
            lines = iter(process.stdout.readline, "")
            assert any(line.startswith(said) for line in lines)
            assert any(line == "hello\n" for line in lines)  # the ticket comes before it
            process.stdin.write("Q\n")
            process.stdin.flush()
            process.wait(LIMIT_S)
