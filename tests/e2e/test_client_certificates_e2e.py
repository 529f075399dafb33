"""A daemon that asks its clients for certificates: who is served, and who is refused for what."""

import socket
import ssl
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
from gaiod.core.contexts import load
from gaiod.core.engine import shares_tickets
from gaiod.core.tls import Certificate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a certificate for localhost."""
    made = certificate()
    (tmp_path / "app.pem").write_text(made.chain)
    (tmp_path / "app.key").touch(0o600)
    (tmp_path / "app.key").write_text(made.key)
    return tmp_path


def config(folder: Path, clients: str) -> str:
    return f"""\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo:
    bind: 127.0.0.1:0
    handler: echo
    tls:
      certificates: [{{chain: {folder}/app.pem, key: {folder}/app.key}}]
      clients: {clients.replace("FOLDER", str(folder))}
"""


def client_with(shown: Certificate | None, version: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificate().chain)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    if shown is not None:
        load(context, shown)
    return context


def dial(running: Daemon, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Be a client whose message is echoed."""
    host, _, port = running.address().rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=LIMIT_S)
    secure = context.wrap_socket(sock, server_hostname="localhost", session=session)
    secure.sendall(b"ping")
    assert receive(secure, 4) == b"ping"
    return secure


def connect(running: Daemon, shown: Certificate | None) -> ssl.SSLSocket:
    """Be a client with a certificate. With TLS 1.2 it knows at the end of the handshake whether it is refused."""
    return dial(running, client_with(shown, "1.2"))


def refuse(running: Daemon, shown: Certificate | None, why: str) -> None:
    """Have a client refused, which is counted, until the log says why: it has a line a second."""

    def is_logged() -> bool:
        before = failures(running)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(running, shown)
        wait_until(lambda: failures(running) == before + 1, "the failure")
        return why in running.log()

    wait_until(is_logged, f"{why!r} in the log")


def failures(running: Daemon) -> float:
    return running.scrape().value("gaiod_tls_failures_total", listener="echo", reason="client_certificate")


def test_clients_are_known_by_their_certificates_and_others_are_refused(daemon: Start, folder: Path) -> None:
    own = Authority()
    (folder / "ca.pem").write_text(own.certificate)
    bad = own.issue("gate 8")
    own.revoke(bad)
    (folder / "ca.crl").write_text(own.revocations())
    running = daemon(config(folder, "{ca: FOLDER/ca.pem, crl: FOLDER/ca.crl}"))
    with connect(running, own.issue("gate 7")):
        (row,) = running.ask("connections")["connections"]
        said = running.gaiod("explain", row["id"]).stdout
        assert "client certificate CN=gate 7,O=Example" in said
    refused = "the client's certificate is refused: "
    refuse(running, bad, f"{refused}it, or one of its chain, is revoked")
    for shown, why in (
        (None, "the client shows no certificate"),
        (Authority("Other CA").issue("gate 9"), f"{refused}its authority is none of clients.ca"),
        (own.issue("gate 9", days=-1), f"{refused}it, or one of its chain, has ended"),
    ):
        refuse(running, shown, why)


def test_client_without_a_certificate_is_served_where_it_is_optional(daemon: Start, folder: Path) -> None:
    own = Authority()
    (folder / "ca.pem").write_text(own.certificate)
    running = daemon(config(folder, "{ca: FOLDER/ca.pem, verify: optional}"))
    for shown, subject in ((None, None), (own.issue("gate 7"), "CN=gate 7,O=Example")):
        with connect(running, shown):
            rows = running.ask("connections")["connections"]
            told = running.ask("explain", connection=rows[-1]["id"])
            assert told["sides"][0]["tls"]["subject"] == subject
        wait_until(lambda: not running.ask("connections")["connections"], "its end")
    refuse(running, Authority("Other CA").issue("gate 9"), "its authority is none of clients.ca")


@pytest.mark.skipif(not shares_tickets(), reason="the standard library counts no depth")
def test_chain_that_is_too_long_is_refused(daemon: Start, folder: Path) -> None:
    root = Authority("Root CA")
    (folder / "ca.pem").write_text(root.certificate)
    running = daemon(config(folder, "{ca: FOLDER/ca.pem, depth: 0}"))
    with connect(running, root.issue("gate 7")):
        pass
    refuse(running, Authority("Between CA", root).issue("gate 8"), "its chain is too long")


def is_new(running: Daemon, before: list[int]) -> bool:
    return not {*before} & {*running.workers}


@pytest.mark.skipif(not shares_tickets(), reason="the standard library has keys of its own")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_session_is_not_resumed_once_clients_are_asked_for_more(daemon: Start, folder: Path, version: str) -> None:
    """Its verdict is of other authorities, and other lists (CVE-2025-23419)."""
    own = Authority()
    shown = own.issue("gate 7")
    (folder / "ca.pem").write_text(own.certificate)
    (folder / "ca.crl").write_text(own.revocations())
    running = daemon(config(folder, "{ca: FOLDER/ca.pem, verify: optional}"))
    context = client_with(shown, version)

    def visit(session: ssl.SSLSession | None) -> tuple[bool, ssl.SSLSession | None]:
        with dial(running, context, session) as sock:
            return bool(sock.session_reused), sock.session

    _, session = visit(None)
    assert visit(session)[0]
    for demands in ("{ca: FOLDER/ca.pem}", "{ca: FOLDER/ca.pem, crl: FOLDER/ca.crl}"):
        (folder / "gaiod.yaml").write_text(config(folder, demands))
        before = running.workers
        running.ask("reload")
        wait_until(partial(is_new, running, before), "the end of the old worker")
        is_resumed, session = visit(session)
        assert not is_resumed
        assert visit(session)[0]
