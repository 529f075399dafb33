"""Servers that speak TLS: what the options mean, whom the proxy believes, and what becomes of clients."""

import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core.support.authority import authority
from core.support.sockets import receive
from core.support.tls_servers import TlsServer, tls_server
from core.support.waiting import LIMIT_S
from gaiod.handlers.proxy import Proxy
from gaiod.handlers.proxy.options import ProxyOptions
from gaiod.handlers.proxy.tls import ServerTls, TlsOptions
from worker.support.proxying import Proxying, text_of

from gaiod import ClientTls, PemFile, ProxyHeader, TlsFacts, parse_address, shown
from gaiod.config import ConfigErrors, loads
from gaiod.core.engine import shares_tickets
from gaiod.plugins import build_options
from gaiod.testing import ScriptedConn

Start = Callable[..., Proxying]

WRONG_NAME = f"its certificate is {'for elsewhere, not' if shares_tickets() else 'not for'} localhost"
"""Python's `ssl` does not show a certificate that is not believed."""

CA = {"path": "/etc/ca.pem", "text": ""}


@pytest.fixture
def server() -> Iterator[TlsServer]:
    """A server that is localhost."""
    with tls_server() as server:
        yield server


def to(server: TlsServer, **tls: Any) -> dict[str, Any]:
    """Return one of `servers:`, as plain values."""
    return {
        "address": text_of(server.address),
        "tls": {"ca": {**CA, "text": authority().text}, "name": "localhost", **tls},
    }


def echoed(proxy: Proxying, data: bytes) -> bytes:
    """Return what a new client's server sends back."""
    return proxy.exchange(proxy.connect(), data)


# -- what is carried -----------------------------------------------------------------------------------------------


def test_bytes_are_carried_both_ways_and_ends_passed_on(start: Start, server: TlsServer) -> None:
    proxy = start(to(server))
    client = proxy.connect()
    assert proxy.exchange(client, b"x" * 100_000) == b"x" * 100_000
    conn = proxy.server_of(client)
    assert (conn.tls.server_name, conn.tls.is_verified) == ("localhost", True)
    client.shutdown(socket.SHUT_WR)
    assert proxy.is_ended(client)
    proxy.settle()
    assert (server.failures, proxy.closes()) == ([], {"peer_eof": 1})


def test_session_is_continued_and_handshakes_are_counted(start: Start, server: TlsServer) -> None:
    proxy = start(to(server))
    for _ in range(3):
        client = proxy.connect()
        assert proxy.exchange(client, b"hello") == b"hello"
        client.close()
        proxy.settle()
    assert (proxy.count("upstream_tls_full_1.3"), proxy.count("upstream_tls_resumed_1.3")) == (1, 2)
    assert server.resumed == [False, True, True]


def test_certificate_and_protocols_are_shown(start: Start) -> None:
    ours = authority("Of Proxies").sign("DNS:gate", usage="clientAuth")
    shown_by: list[Any] = []

    def serve(sock: Any) -> None:
        shown_by.append((sock.getpeercert()["subjectAltName"], sock.selected_alpn_protocol()))
        sock.sendall(sock.recv(10))

    with tls_server(serve=serve) as server:
        server._context.load_verify_locations(cadata=authority("Of Proxies").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        server._context.set_alpn_protocols(["two"])
        files = {"chain": {"path": "a", "text": ours.chain}, "key": {"path": "b", "text": ours.key}}
        assert echoed(start(to(server, certificate=files, alpn=["one", "two"])), b"hello") == b"hello"
    assert shown_by == [((("DNS", "gate"),), "two")]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_proxy_header_comes_before_the_handshake(start: Start, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(LIMIT_S)
        address = text_of(sock.getsockname())
        tls = {"ca": {**CA, "text": authority().text}, "name": "localhost"}
        proxy = start({"address": address, "tls": tls}, send_proxy=version)
        client = proxy.connect()
        far, _ = sock.accept()
        with far:
            header = ProxyHeader(client.getsockname(), client.getpeername())
            wanted = header.encode_v1() if version == "v1" else header.encode_v2()
            assert proxy.receive(far, len(wanted)) == wanted
            assert proxy.receive(far, 3) == b"\x16\x03\x01"  # a ClientHello


def test_stream_that_is_cut_off_resets_the_client_unless_that_is_accepted(start: Start) -> None:
    def cut_off(sock: Any) -> None:
        sock.sendall(sock.recv(10))
        sock.shutdown(socket.SHUT_WR)

    for options, reason in (({}, "tls_truncated"), ({"truncation": "accept"}, "server_eof")):
        with tls_server(serve=cut_off) as server:
            proxy = start(to(server, **options))
            client = proxy.connect()
            assert proxy.exchange(client, b"hello") == b"hello"
            assert proxy.is_ended(client)
            client.close()
            proxy.settle()
            assert proxy.closes() == {reason: 1}


# -- what is not ---------------------------------------------------------------------------------------------------


def test_client_gets_nothing_of_a_server_that_is_not_believed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with tls_server(authority().sign("DNS:elsewhere")) as server, tls_server() as good, caplog.at_level(logging.INFO):
        proxy = start(to(server), {**to(good), "backup": True}, retries=0, passive={"failures": 2})
        address = text_of(server.address)
        said = f"server {address}: TLS failed: {WRONG_NAME}"
        for _ in range(2):
            assert proxy.is_ended(proxy.connect())
            proxy.settle()
        assert caplog.text.count(said) == 1  # not for each client
        assert (
            f"{address} is ejected for 10 s: it could not be connected to; TLS failed: its certificate" in caplog.text
        )
        assert proxy.unavailable() == {"connect_tls": 2}
        assert proxy.ends()[0] == ("no_server", "server", "error", "connect_tls", "connect", address)
        assert (proxy.count_of_server("failed_tls"), proxy.count("upstream_tls_failed_wrong_name")) == (2, 2)
        assert echoed(proxy, b"hello") == b"hello"


def test_server_that_wants_a_certificate_and_gets_none_says_so_later(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """With TLS 1.3, once our handshake is done; so the connection is there already, and its client is reset."""
    with tls_server() as server, caplog.at_level(logging.INFO):
        server._context.load_verify_locations(cadata=authority("Of Proxies").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        check = {"interval": 0.05, "expect": "hello"}
        proxy = start(to(server), check=check, passive={"failures": 1000})
        assert proxy.is_ended(proxy.connect())
        proxy.step_until(lambda: proxy.count_of_server("down"), "the server going down")
        proxy.step_until(proxy.ends, "the end")
        said = "TLS failed: it wants a certificate of ours, and has got none"
        assert f"server {text_of(server.address)}: {said}" in caplog.text
        assert 'its checks fail; expect: expected "hello", got nothing; TLS failed: certificate_wanted' in caplog.text
        assert proxy.count("upstream_tls_failed_certificate_wanted") >= 2
        assert proxy.ends()[0][:4] == ("tls_error", "server", "error", "certificate_wanted")


def test_client_that_waits_is_explained_why(start: Start) -> None:
    with tls_server(authority().sign("DNS:elsewhere")) as server:
        proxy = start(to(server), retries=100, passive={"failures": 1000})
        client = proxy.connect()
        proxy.step_until(lambda: proxy.count_of_server("failed_tls"), "a failure")
        (conn,) = proxy.listener.clients()
        address = text_of(server.address)
        notes = list(proxy.handler.notes_on(conn))
        assert f"{address}: TLS failed: {WRONG_NAME}." in notes
        client.close()


def test_server_that_says_nothing_is_given_up_in_time(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.INFO):
        server = {"address": text_of(silent.getsockname()), "tls": {"verify": False}}
        proxy = start(server, connect_timeout=0.1, retries=0, passive={"failures": 1})
        assert proxy.is_ended(proxy.connect())
        proxy.settle()
        assert (proxy.unavailable(), proxy.count("upstream_tls_failed_timeout")) == ({"connect_timeout": 1}, 1)
        assert "it could not be connected to; its TLS handshake was not done in time" in caplog.text


def test_whoever_answers_is_believed_where_that_is_written(start: Start) -> None:
    with tls_server(authority("Of nobody").sign("DNS:elsewhere")) as server:
        proxy = start({"address": text_of(server.address), "tls": {"verify": False}})
        client = proxy.connect()
        assert proxy.exchange(client, b"hello") == b"hello"
        assert not proxy.server_of(client).tls.is_verified


# -- checks --------------------------------------------------------------------------------------------------------


def test_checks_speak_tls_and_find_what_clients_would(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    check = {"interval": 0.05, "send": "ping", "expect": "ping"}
    with tls_server() as good, tls_server(authority().sign("DNS:elsewhere")) as bad, caplog.at_level(logging.INFO):
        proxy = start(to(good), to(bad), check=check)
        proxy.step_until(lambda: proxy.count_of_server("down", 1), "the server going down")
        proxy.step_until(lambda: proxy.count_of_server("checks_passed", 0) >= 2, "checks that pass")
        assert f"its checks fail; connect: TLS failed: {WRONG_NAME}" in caplog.text
        assert not proxy.count_of_server("down", 0)


# -- options -------------------------------------------------------------------------------------------------------


def asked(options: TlsOptions, address: str, name: str | None = None) -> ClientTls:
    client: Any = ScriptedConn(tls=TlsFacts("1.3", "", None, name, resumed=False))
    made: ClientTls = ServerTls(options, parse_address(address)).ask_for(client)
    return made


def test_name_is_that_of_the_address_if_nothing_else_is_said() -> None:
    ca = PemFile("ca.pem", authority().text)
    for address, name in (("db.internal.:1", "db.internal"), ("10.0.0.1:1", "10.0.0.1"), ("[::1]:1", "::1")):
        assert asked(TlsOptions(ca=ca), address).name == name
    assert asked(TlsOptions(ca=ca, name="db"), "unix:/run/db.sock").name == "db"
    assert asked(TlsOptions(verify=False), "unix:/run/db.sock").name == ""


def test_name_can_be_what_the_client_has_asked_for() -> None:
    options = TlsOptions(ca=PemFile("ca.pem", authority().text), name="db", server_name="client")
    assert asked(options, "10.0.0.1:1", "a.example.org").name == "a.example.org"
    assert asked(options, "10.0.0.1:1", None).name == "db"
    assert asked(options, "10.0.0.1:1", "no name").name == "db"
    assert ServerTls(options, parse_address("10.0.0.1:1")).ask_for(None).name == "db"


def load(servers: str) -> ProxyOptions:
    text = f"listeners:\n  db:\n    bind: 127.0.0.1:5433\n    handler: proxy\n    with:\n      servers: {servers}\n"
    settings = loads(text).listeners[0]
    assert isinstance(settings.options, dict)
    options: ProxyOptions = build_options(Proxy, settings.options)
    return options


def test_files_are_read_with_the_configuration(tmp_path: Path) -> None:
    own = authority().sign()
    for name, text in (("ca", authority().text), ("chain", own.chain), ("key", own.key)):
        (tmp_path / name).write_text(text)
    certificate = f"{{chain: {tmp_path}/chain, key: {tmp_path}/key}}"
    options = load(f"[{{address: 'db:1', tls: {{ca: {tmp_path}/ca, certificate: {certificate}, alpn: [a]}}}}]")
    (entry,) = options.entries
    assert entry.asks is not None
    made = entry.asks.ask_for(None)
    assert (made.ca, made.name, made.alpn) == (authority().text, "db", ("a",))
    assert made.certificate == own
    assert own.key not in repr(options)


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        ("true", "with.servers[0].tls: is a boolean; write false or a mapping (key: value)"),
        ("{ca: F/none}", "servers[0].tls.ca: SHOWN: No such file or directory; write the absolute path of a PEM file"),
        ("{ca: F/key}", "servers[0].tls.ca: SHOWN: there is no certificate in it; write one in PEM"),
        ("{verify: none}", "servers[0].tls.verify: is text; write true or false"),
        ("{name: ''}", "servers[0].tls.name: is empty; write the name of the server, or leave it out"),
        (
            "{name: a b}",
            "servers[0].tls.name: 'a b' is no name of a server; write it as DNS has it, in ASCII (xn--...)",
        ),
        (
            "{alpn: [h2, '']}",
            'servers[0].tls.alpn: has "", which names no protocol; write names such as h2 or postgresql',
        ),
        ("{server_name: mine}", "servers[0].tls.server_name: not one of the choices; write fixed or client"),
        ("{certificate: {chain: F/chain}}", "certificate.key: missing; add key: the absolute path of a PEM file"),
        (
            "{certificate: {chain: F/chain, key: F/other}}",
            ": the key is not that of the chain's first certificate; write its own",
        ),
        (
            "{certificate: {chain: F/key, key: F/key}}",
            ": there is no certificate in it; write one in PEM",
        ),
        ("{}", "unix:/run/db.sock has tls without name, so its certificate cannot be verified; add name"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, tls: str, message: str) -> None:
    own, other = authority().sign(), authority().sign("DNS:other")
    for name, text in (("chain", own.chain), ("key", own.key), ("other", other.key)):
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigErrors) as errors:
        load(f"[{{address: 'unix:/run/db.sock', tls: {tls.replace('F/', f'{tmp_path}/')}}}]")
    path = tls.partition(": F/")[2].rstrip("}")
    assert str(errors.value.errors[0]).endswith(message.replace("SHOWN", shown(f"{tmp_path}/{path}")))
    assert len(errors.value.errors) == 1


def test_end_of_the_client_reaches_a_server_as_a_close_notify(start: Start) -> None:
    ends: list[bytes] = []

    def serve(sock: Any) -> None:
        ends.append(receive(sock, 5))
        ends.append(sock.recv(1))

    with tls_server(serve=serve) as server:
        proxy = start(to(server))
        client = proxy.connect()
        client.sendall(b"hello")
        client.close()
        proxy.settle()
    assert (ends, server.failures) == ([b"hello", b""], [])
