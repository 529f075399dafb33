"""Clients that show certificates, and those that are refused for it: with the reason, before anybody sees them."""

import ssl
import subprocess
from typing import Any

import pytest

from core.support.pki import Authority, authority
from core.support.sockets import NewPair, listen
from core.support.tls import LAYERS, TlsPeer, certificate, is_openssl, server_of, shake_hands, use_layer
from core.support.waiting import LIMIT_S, collect_one, spin
from gaiod.core.certificates import subject_of
from gaiod.core.connection import Conn
from gaiod.core.contexts import load
from gaiod.core.errors import TlsError
from gaiod.core.tls import Certificate, Clients, ServerTls
from gaiod.core.watcher import Watcher


@pytest.fixture(autouse=True, params=LAYERS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with all that can make sessions."""
    use_layer(request.param, monkeypatch)


def asking(clients: Clients, **options: Any) -> Any:
    return server_of(ServerTls((certificate(),), clients=clients, **options))


def client_with(shown: Certificate | None, version: str = "1.3") -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificate().chain)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    if shown is not None:
        load(context, shown)
    return context


def peer_with(far: Any, context: ssl.SSLContext, session: Any = None) -> TlsPeer:
    peer = TlsPeer(far)
    peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost", session=session)
    return peer


def shown_to(watcher: Watcher, new_pair: NewPair, tls: Any, context: ssl.SSLContext) -> tuple[Conn, TlsPeer]:
    near, far = new_pair()
    conn, peer = watcher.delegate(near), peer_with(far, context)
    assert shake_hands(watcher, conn, peer, [], tls).error is None
    return conn, peer


def refusal(watcher: Watcher, new_pair: NewPair, tls: Any, context: ssl.SSLContext) -> str:
    """Return why a client is refused, which must be for its certificate."""
    near, far = new_pair()
    conn, peer = watcher.delegate(near), peer_with(far, context)
    conn.start_tls(tls)
    done: list[Any] = []
    while not done:
        try:
            peer.step()
        except ssl.SSLError:
            pass  # the alert of TLS 1.2
        done = watcher.wait_io(0.001)
    (result,) = done
    assert isinstance(result.error, TlsError)
    assert result.error.reason == "client_certificate"
    assert conn.tls is None
    conn.abort()
    return str(result.error.strerror).removeprefix("TLS failed: ")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("are_required", [True, False])
def test_client_of_an_authority_is_known_by_its_certificate(
    watcher: Watcher, tcp_pair: NewPair, version: str, are_required: bool
) -> None:
    shown = authority().issue("gate 7")
    tls = asking(Clients(authority().certificate, are_required=are_required))
    conn, _ = shown_to(watcher, tcp_pair, tls, client_with(shown, version))
    facts = conn.tls
    assert facts.peer_certificate == ssl.PEM_cert_to_DER_cert(shown.chain)
    assert (facts.subject, facts.common_name, facts.is_verified) == ("CN=gate 7,O=Example", "gate 7", True)
    conn.abort()
    assert conn.tls is None or conn.tls == facts


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_without_a_certificate_is_refused_where_one_is_required(
    watcher: Watcher, tcp_pair: NewPair, version: str
) -> None:
    required = asking(Clients(authority().certificate))
    assert refusal(watcher, tcp_pair, required, client_with(None, version)) == "the client shows no certificate"
    conn, _ = shown_to(
        watcher, tcp_pair, asking(Clients(authority().certificate, are_required=False)), client_with(None, version)
    )
    assert (conn.tls.peer_certificate, conn.tls.subject, conn.tls.is_verified) == (None, None, False)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("are_required", [True, False])
def test_certificate_that_is_not_believed_is_refused_with_what_is_wrong(
    watcher: Watcher, tcp_pair: NewPair, version: str, are_required: bool
) -> None:
    own = authority()
    tls = asking(Clients(own.certificate, are_required=are_required))
    began = "the client's certificate is refused: "
    for shown, why in (
        (authority("Other CA").issue("gate 7"), "its authority is none of clients.ca"),
        (own.issue("gate 7", days=-1), "it, or one of its chain, has ended"),
        (own.issue("gate 7", usage="CA:false\nextendedKeyUsage = serverAuth"), "it is not for clients"),
    ):
        assert refusal(watcher, tcp_pair, tls, client_with(shown, version)) == began + why
    assert shown_to(watcher, tcp_pair, tls, client_with(own.issue("gate 8"), version))


def test_certificate_that_is_revoked_is_refused(watcher: Watcher, tcp_pair: NewPair) -> None:
    own = Authority()
    good, bad = own.issue("good"), own.issue("bad")
    own.revoke(bad)
    tls = asking(Clients(own.certificate, own.revocations()))
    assert shown_to(watcher, tcp_pair, tls, client_with(good))[0].tls.common_name == "good"
    began = "the client's certificate is refused: "
    assert refusal(watcher, tcp_pair, tls, client_with(bad)) == began + "it, or one of its chain, is revoked"
    ended = own.revocations("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z")
    late = asking(Clients(own.certificate, ended))
    assert refusal(watcher, tcp_pair, late, client_with(good)) == (
        began + "the list of its authority in clients.crl has ended"
    )
    other = authority("Other CA").revocations()
    assert refusal(watcher, tcp_pair, asking(Clients(own.certificate, other)), client_with(good)) == (
        began + "clients.crl has no list of its authority"
    )


def test_authority_between_is_asked_about_as_well(watcher: Watcher, tcp_pair: NewPair) -> None:
    """Whoever has taken an authority back has taken back all that it has issued."""
    root = Authority("Root CA")
    between = Authority("Between CA", root)
    shown = between.issue("gate 7")
    lists = root.revocations() + between.revocations()
    assert shown_to(watcher, tcp_pair, asking(Clients(root.certificate, lists)), client_with(shown))
    root.revoke(Certificate(between.certificate, ""))
    lists = root.revocations() + between.revocations()
    assert refusal(watcher, tcp_pair, asking(Clients(root.certificate, lists)), client_with(shown)).endswith(
        "is revoked"
    )


def test_chain_that_is_longer_than_wanted_is_refused(watcher: Watcher, tcp_pair: NewPair) -> None:
    root = authority("Root CA")
    shown = Authority("Between CA", root).issue("gate 7")
    if not is_openssl():
        with pytest.raises(ValueError, match="cannot limit the depth"):
            asking(Clients(root.certificate, depth=1))
        assert shown_to(watcher, tcp_pair, asking(Clients(root.certificate)), client_with(shown))
        return
    assert shown_to(watcher, tcp_pair, asking(Clients(root.certificate, depth=1)), client_with(shown))
    assert refusal(watcher, tcp_pair, asking(Clients(root.certificate, depth=0)), client_with(shown)) == (
        "the client's certificate is refused: its chain is too long"
    )


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_resumed_session_has_the_certificate_of_its_first_one(
    watcher: Watcher, tcp_pair: NewPair, version: str
) -> None:
    shown = authority().issue("gate 7")
    tls = asking(Clients(authority().certificate))
    context, session, resumed = client_with(shown, version), None, []
    for _ in range(2):
        near, far = tcp_pair()
        conn, peer = watcher.delegate(near), peer_with(far, context, session)
        assert shake_hands(watcher, conn, peer, [], tls).error is None
        conn.write(b"a")
        collect_one(watcher)
        assert peer.recv(1) == b"a"
        session = peer.object.session
        resumed.append((conn.tls.resumed, conn.tls.common_name, conn.tls.is_verified))
    assert resumed == [(False, "gate 7", True), (True, "gate 7", True)]


def test_every_certificate_of_the_server_asks_for_the_same(watcher: Watcher, tcp_pair: NewPair) -> None:
    own = authority()
    names = ("localhost", "example.org")
    tls = server_of(
        ServerTls(
            tuple(Certificate(certificate(name).chain, certificate(name).key, (name,)) for name in names),
            clients=Clients(own.certificate),
        )
    )
    for name in names:
        for issuer, is_believed in ((own, True), (authority("Other CA"), False)):
            near, far = tcp_pair()
            conn, peer = watcher.delegate(near), TlsPeer(far)
            context = ssl.create_default_context(cadata=certificate(name).chain)
            load(context, issuer.issue("gate 7"))
            peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname=name)
            conn.start_tls(tls)
            done: list[Any] = []
            while not done:
                peer.step()
                done = watcher.wait_io(0.001)
            assert (done[0].error is None) == is_believed


@pytest.mark.parametrize(("count", "are_sent"), [(2, True), (200, False)])
def test_clients_are_told_of_whom_certificates_are_believed_if_it_is_a_short_list(
    watcher: Watcher, count: int, are_sent: bool
) -> None:
    own = authority()
    listener = listen()
    host, port = listener.getsockname()
    watcher.accept(listener)
    more = authority("Other CA").certificate
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_3"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        conn = collect_one(watcher).conn
        conn.start_tls(asking(Clients(own.certificate + more * (count - 1), are_required=False)))
        assert collect_one(watcher).error is None
        conn.close()
        spin(watcher, lambda: conn.closed)
        said, _ = process.communicate(timeout=LIMIT_S)
    subject = subject_of(ssl.PEM_cert_to_DER_cert(own.certificate))
    assert subject == "CN=Gate CA,O=Example"
    assert ("Acceptable client certificate CA names" in said) == (are_sent and is_openssl())
    assert ("CN = Gate CA" in said or "CN=Gate CA" in said) == (are_sent and is_openssl())
