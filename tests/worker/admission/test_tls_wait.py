"""Listeners that speak TLS: a handler sees connections whose handshake is done, and plain bytes."""

import socket
import ssl
from dataclasses import asdict, replace
from typing import Any

import pytest
from core.support.pki import Authority, authority
from core.support.sockets import reset
from core.support.tls import TlsPeer, certificate
from core.support.waiting import MOMENT_S

from gaiod import Conn, ProxyHeader
from gaiod.core.contexts import load
from gaiod.core.tls import FAILURES
from gaiod.settings import CertificateSettings, ClientCertificateSettings, ProxyProtocolSettings, TlsSettings
from gaiod.stats.cells import HANDSHAKE_BOUNDS_S
from gaiod.watched_files import KINDS
from gaiod.worker.drain import Drain
from gaiod.worker.inspect.questions import Questions
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving

PROXIED = ProxyProtocolSettings(("127.0.0.0/8",))


def settings(**options: Any) -> TlsSettings:
    made = certificate()
    return TlsSettings((CertificateSettings(made.chain, made.key, ("localhost",), 4e9),), **options)


class Notes(Recorder):
    """An echo that notes what its connections have agreed on when they open."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[Any] = []

    def on_open(self, conn: Conn) -> None:
        self.facts.append((conn.tls.version, conn.tls.server_name, conn.bytes_received))
        super().on_open(conn)


def peer_of(serving: Serving, first: bytes = b"", version: str = "1.3") -> TlsPeer:
    """Return a client whose handshake is done."""
    sock = serving.dial()
    sock.sendall(first)
    peer = TlsPeer(sock, version)
    serving.step_until(peer.step, "the handshake")
    return peer


def failures(serving: Serving) -> dict[str, int]:
    return {reason: n for reason in FAILURES if (n := serving.count(f"tls_failed_{reason}"))}


def wait_until_rejected(serving: Serving, number: int = 1) -> None:
    serving.step_until(lambda: serving.count("rejected_tls") >= number and not serving.listener.active, "a rejection")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_handler_gets_plain_bytes_and_is_told_after_the_handshake(serve: Serve, version: str) -> None:
    handler = Notes()
    serving = serve(handler, tls=settings())
    peer = peer_of(serving, version=version)
    peer.sendall(b"ping")
    assert serving.receive(peer, 4) == b"ping"  # type: ignore[arg-type]
    assert handler.facts == [(version, "localhost", 0)]
    assert serving.count(f"tls_full_{version}") == serving.count("accepted") == 1
    assert serving.count("downstream_received_bytes") == serving.count("downstream_sent_bytes") == 4
    peer.close()
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"peer_eof": 1}
    assert failures(serving) == {}


def test_proxy_header_comes_before_the_handshake(serve: Serve) -> None:
    handler = Notes()
    serving = serve(handler, tls=settings(), proxy_protocol=PROXIED)
    peer = peer_of(serving, ProxyHeader(("192.0.2.7", 56324), ("198.51.100.1", 443)).encode_v2())
    peer.sendall(b"ping")
    assert serving.receive(peer, 4) == b"ping"  # type: ignore[arg-type]
    (conn,) = serving.listener.clients()
    assert conn.peer_address == ("192.0.2.7", 56324)


def test_time_of_handshakes_that_are_done_is_counted(serve: Serve) -> None:
    serving = serve(Notes(), tls=settings())
    peer_of(serving)
    serving.step_until(lambda: serving.count("accepted"), "the connection being opened")
    reset(serving.dial())
    wait_until_rejected_once(serving)
    buckets = [f"tls_handshake_le_{bound}" for bound in (*HANDSHAKE_BOUNDS_S, "inf")]
    assert sum(serving.count(bucket) for bucket in buckets) == 1
    assert serving.count("tls_handshake_ns") > 0


def wait_until_rejected_once(serving: Serving) -> None:
    serving.step_until(lambda: serving.count("rejected_tls"), "a rejection")


def test_client_without_tls_is_rejected_and_no_hook_sees_it(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Notes()
    serving = serve(handler, tls=settings())
    sock = serving.dial()
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wait_until_rejected(serving)
    assert handler.calls == []
    assert failures(serving) == {"http": 1}
    assert "is rejected: its handshake failed: TLS failed: the client speaks HTTP without TLS" in caplog.text


def test_silent_client_is_rejected_in_time(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serving = serve(Notes(), tls=settings(handshake_timeout_s=2 * MOMENT_S))
    sock = serving.dial()
    wait_until_rejected(serving)
    assert serving.is_ended(sock)
    assert failures(serving) == {"timeout": 1}
    assert "was not done within" in caplog.text


def test_client_that_says_its_hello_byte_by_byte_has_no_longer_than_others(serve: Serve) -> None:
    """Each byte is progress, and none of it moves the deadline."""
    serving = serve(Notes(), tls=settings(handshake_timeout_s=2 * MOMENT_S))
    context, outgoing = ssl.create_default_context(), ssl.MemoryBIO()
    context.set_alpn_protocols([f"{number:0255}" for number in range(60)])  # 15 KB, which take longer than that
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = iter(outgoing.read()[:-1])
    sock = serving.dial()
    serving.step_until(lambda: serving.listener.active, "it being accepted")

    def say() -> bool:
        byte = next(hello, None)
        if byte is not None and not failures(serving):
            sock.send(bytes([byte]))
        return not serving.listener.active

    serving.step_until(say, "its end")
    assert failures(serving) == {"timeout": 1}


def test_client_that_only_looks_whether_the_port_is_open_is_counted_and_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serving = serve(Notes(), tls=settings())
    serving.dial().close()
    wait_until_rejected(serving)
    reset(serving.dial())
    wait_until_rejected(serving, 2)
    assert failures(serving) == {"closed": 1, "reset": 1}
    assert caplog.text == ""


def test_stream_that_is_cut_off_ends_for_that_reason(serve: Serve) -> None:
    serving = serve(Notes(), tls=settings())
    peer = peer_of(serving)
    peer.truncate()
    serving.step_until(serving.closes, "the close being counted")
    assert serving.ends() == [("tls_truncated", "client", "fin", "close_notify", "data", "-")]


def test_what_is_no_record_ends_the_connection_for_that_reason(serve: Serve) -> None:
    serving = serve(Notes(), tls=settings())
    peer = peer_of(serving)
    peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    serving.step_until(serving.closes, "the close being counted")
    assert serving.ends() == [("tls_error", "client", "error", "protocol", "data", "-")]


def test_connections_of_a_handshake_count_towards_the_limit_and_end_with_a_drain(serve: Serve) -> None:
    serving = serve(Notes(), tls=settings(), connections_max=1)
    waiting = serving.dial()
    serving.step_until(lambda: serving.listener.active, "the first being accepted")
    serving.dial()
    serving.step_until(lambda: serving.count("rejected_limit"), "the second being rejected")
    ended: list[int] = []
    Drain(serving.watcher, [serving.listener], 0.0, eager=True, done=lambda: ended.append(1))
    serving.step_until(lambda: ended, "the drain")
    assert serving.is_ended(waiting)
    assert failures(serving) == {}


def test_worker_says_in_an_explanation_what_was_agreed(serve: Serve) -> None:
    serving = serve(Notes(), tls=settings())
    peer = peer_of(serving)
    serving.step_until(lambda: serving.count("accepted"), "the connection being opened")
    (conn,) = serving.listener.clients()
    told = Questions([serving.listener], serving.names).answer(
        {"verb": "explain", "connection": serving.names.of(conn)}
    )
    (side,) = told["sides"]
    assert side["tls"] == {
        "version": "1.3", "suite": (peer.object.cipher() or [""])[0], "alpn": None,
        "server_name": "localhost", "resumed": False, "subject": None, "is_verified": False,
    }  # fmt: skip


def made(name: str = "localhost", days: int = 30) -> CertificateSettings:
    own = certificate(name, days)
    return CertificateSettings(own.chain, own.key, (name,), 4e9, files=(f"/{name}.pem", f"/{name}.key"))


def guileless(sock: socket.socket) -> TlsPeer:
    """Return a client that believes everybody, before its handshake."""
    peer = TlsPeer(sock)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    return peer


def shown(serving: Serving) -> str:
    """Return the certificate that a new client is shown."""
    peer = guileless(serving.dial())
    serving.step_until(peer.step, "the handshake")
    return ssl.DER_cert_to_PEM_cert(peer.object.getpeercert(True) or b"")


def renew(serving: Serving, kind: str, files: tuple[str, ...], content: dict[str, Any]) -> None:
    before = serving.listener.settings
    serving.listener.renew(KINDS[kind].renewed(before, files, content), {})


def test_renewed_certificate_is_shown_to_who_comes_and_open_connections_go_on(serve: Serve) -> None:
    serving = serve(Notes(), tls=TlsSettings((made(),)))
    peer = peer_of(serving)
    assert shown(serving) == made().chain
    waiting = serving.dial()
    serving.step_until(lambda: serving.listener.active == 3, "one that has said nothing yet")
    renew(
        serving, "certificate", ("/localhost.pem", "/localhost.key"), asdict(replace(made(days=60), files=made().files))
    )
    assert shown(serving) == made(days=60).chain
    late = guileless(waiting)
    serving.step_until(late.step, "the handshake of the one that has waited")
    for each in (peer, late):
        each.sendall(b"still")
        assert serving.receive(each, 5) == b"still"  # type: ignore[arg-type]
    assert serving.count("closed_tls_error") == 0


def test_clients_are_asked_what_the_files_have_now(serve: Serve) -> None:
    own, other = authority(), authority("Other CA")
    asked = ClientCertificateSettings(own.certificate, files=("/ca.pem",))
    serving = serve(Notes(), tls=TlsSettings((made(),), clients=asked))

    def is_served(by: Authority) -> bool:
        served, refused = serving.count("accepted"), serving.count("rejected_tls")
        peer = TlsPeer(serving.dial(), "1.2")
        context = ssl.create_default_context(cadata=certificate().chain)
        load(context, by.issue("gate 7"))
        peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")

        def is_decided() -> bool:
            try:
                peer.step()
            except (ssl.SSLError, OSError):
                pass  # the alert that refuses it
            return serving.count("accepted") + serving.count("rejected_tls") > served + refused

        serving.step_until(is_decided, "a decision")
        return serving.count("accepted") > served

    assert (is_served(own), is_served(other)) == (True, False)
    renew(serving, "clients", ("/ca.pem",), {"ca": other.certificate, "crl": ""})
    assert (is_served(own), is_served(other)) == (False, True)


def test_certificate_that_openssl_does_not_take_leaves_the_one_before(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    serving = serve(Notes(), tls=TlsSettings((made(),)))
    wrong = replace(made(days=60), key=made("example.org").key, files=made().files)
    renew(serving, "certificate", made().files, asdict(wrong))
    assert "what it had before stays in force: OpenSSL does not take it" in caplog.text
    assert shown(serving) == made().chain
    renew(serving, "certificate", made().files, asdict(replace(made(days=60), files=made().files)))
    assert shown(serving) == made(days=60).chain
