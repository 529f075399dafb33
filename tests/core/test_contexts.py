"""What a server shows its clients, by their names and protocols, and what is agreed with them."""

import ssl
import subprocess
import threading
import time

import pytest

from core.support.pki import Authority
from core.support.processes import resident_bytes
from core.support.sockets import NewPair, listen
from core.support.tls import (
    LAYERS,
    TlsPeer,
    can_refuse_protocols,
    certificate,
    client,
    is_openssl,
    server,
    server_of,
    shake_hands,
    use_layer,
)
from core.support.waiting import LIMIT_S, assert_quiet, collect_one
from gaiod.core.connection import Conn
from gaiod.core.errors import TlsError
from gaiod.core.tls import TICKET_KEY_BYTES, Certificate, ServerTls
from gaiod.core.watcher import Watcher


@pytest.fixture(autouse=True, params=LAYERS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with all that can make sessions."""
    use_layer(request.param, monkeypatch)


def test_client_is_shown_the_certificate_for_the_server_that_it_names(watcher: Watcher, tcp_pair: NewPair) -> None:
    names = ["localhost", "example.org", "example.net"]
    made = [certificate(name) for name in names]
    tls = server_of(
        ServerTls(
            tuple(
                Certificate(each.chain, each.key, (name, f"*.{name}")) for each, name in zip(made, names, strict=True)
            )
        )
    )
    shown = {}
    for asked in (*names, "a.example.org", "A.Example.NET", "a.b.example.org", "elsewhere.test", None):
        near, far = tcp_pair()
        conn, peer = watcher.delegate(near), TlsPeer(far)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname=asked)
        shake_hands(watcher, conn, peer, [], tls)
        der = peer.object.getpeercert(True)
        shown[asked] = next(
            name for name, each in zip(names, made, strict=True) if ssl.PEM_cert_to_DER_cert(each.chain) == der
        )
        assert conn.tls.server_name == (None if asked is None else asked.lower())
        conn.abort()
    assert shown == {
        "localhost": "localhost", "example.org": "example.org", "example.net": "example.net",
        "a.example.org": "example.org", "A.Example.NET": "example.net", "a.b.example.org": "localhost",
        "elsewhere.test": "localhost", None: "localhost",
    }  # fmt: skip


@pytest.mark.parametrize(("offered", "chosen"), [(["two", "one"], "one"), (["two"], "two"), (None, None)])
def test_protocol_is_the_preferred_one_of_those_that_the_client_offers(
    watcher: Watcher, tcp_pair: NewPair, offered: list[str] | None, chosen: str | None
) -> None:
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    peer.object = _client_that_offers(offered).wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    result = shake_hands(watcher, conn, peer, [], server(alpn=("one", "two")))
    assert result.error is None
    assert conn.tls.alpn == peer.object.selected_alpn_protocol() == chosen


def _client_that_offers(protocols: list[str] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=certificate().chain)
    if protocols is not None:
        context.set_alpn_protocols(protocols)
    return context


def test_client_of_other_protocols_fails_with_the_reason(watcher: Watcher, tcp_pair: NewPair) -> None:
    """The standard library leaves its offer unanswered: it cannot do otherwise."""
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    peer.object = _client_that_offers(["three"]).wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    conn.start_tls(server(alpn=("one", "two")))
    peer.step()
    if can_refuse_protocols():
        error = collect_one(watcher).error
        assert isinstance(error, TlsError)
        assert error.reason == "alpn"
    else:
        assert_quiet(watcher)
        peer.step()
        assert collect_one(watcher).error is None
        assert conn.tls.alpn is None


@pytest.mark.parametrize("asked", ["elsewhere.test", None])
def test_client_of_an_unknown_server_is_refused_where_that_is_wanted(
    watcher: Watcher, tcp_pair: NewPair, asked: str | None
) -> None:
    tls = server_of(
        ServerTls((Certificate(certificate().chain, certificate().key, ("localhost",)),), refuses_unknown_names=True)
    )
    near, far = tcp_pair()
    assert shake_hands(watcher, watcher.delegate(near), TlsPeer(far), [], tls).error is None
    near, far = tcp_pair()
    peer = TlsPeer(far)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname=asked)
    watcher.delegate(near).start_tls(tls)
    peer.step()
    error = collect_one(watcher).error
    assert isinstance(error, TlsError)
    assert error.reason == "unknown_name"
    with pytest.raises(ssl.SSLError, match="unrecognized name"):
        peer.step()


def test_key_of_another_certificate_is_refused() -> None:
    with pytest.raises((ssl.SSLError, ValueError)):
        server_of(ServerTls((Certificate(certificate().chain, certificate("example.org").key),)))


def visit(
    watcher: Watcher,
    tcp_pair: NewPair,
    tls: object,
    session: ssl.SSLSession | None = None,
    version: str = "1.3",
    asked: str = "localhost",
) -> tuple[bool, ssl.SSLSession]:
    """Be a client that has a session; return whether that was resumed, and the session that it has then."""
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    peer.object = client(version).wrap_bio(peer.incoming, peer.outgoing, server_hostname=asked, session=session)
    shake_hands(watcher, conn, peer, [], tls)
    conn.write(b"a")
    collect_one(watcher)
    assert peer.recv(1) == b"a"
    resumed = conn.tls.resumed
    session = peer.object.session
    assert session is not None
    conn.abort()
    return resumed, session


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_resumes_its_session(watcher: Watcher, tcp_pair: NewPair, version: str) -> None:
    tls = server_of(ServerTls((certificate(),)))
    resumed, session = visit(watcher, tcp_pair, tls, None, version)
    assert not resumed
    assert visit(watcher, tcp_pair, tls, session, version)[0]


def key(number: int) -> bytes:
    return bytes([number]) * TICKET_KEY_BYTES


def with_keys(*numbers: int, **options: object) -> ServerTls:
    return ServerTls((certificate(),), ticket_keys=tuple(map(key, numbers)), **options)  # type: ignore[arg-type]


def shares_keys() -> bool:
    """Tell whether sessions use the keys that are theirs: the standard library's do not."""
    return can_refuse_protocols()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("names", [(), ("localhost",)])
def test_session_is_resumed_by_whoever_has_its_key_and_by_nobody_else(
    watcher: Watcher, tcp_pair: NewPair, version: str, names: tuple[str, ...]
) -> None:
    made = Certificate(certificate().chain, certificate().key, names)
    others = Certificate(certificate("example.org").chain, certificate("example.org").key, ("example.org",))

    def server_with(*numbers: int) -> object:
        # Those that are chosen by their name are not the first.
        certificates = (others, made) if names else (made,)
        return server_of(ServerTls(certificates, ticket_keys=tuple(map(key, numbers))))

    _, session = visit(watcher, tcp_pair, server_with(1), None, version)
    assert visit(watcher, tcp_pair, server_with(1), session, version)[0] == shares_keys()
    assert visit(watcher, tcp_pair, server_with(3, 2, 1), session, version)[0] == shares_keys()
    assert not visit(watcher, tcp_pair, server_with(4, 3, 2), session, version)[0]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_ticket_of_an_older_key_is_replaced_by_one_of_the_newest(
    watcher: Watcher, tcp_pair: NewPair, version: str
) -> None:
    if not shares_keys():
        pytest.skip("the standard library has keys of its own")
    tls = server_of(with_keys(1))
    _, session = visit(watcher, tcp_pair, tls, None, version)
    tls.set_ticket_keys([key(2), key(1)])
    resumed, session = visit(watcher, tcp_pair, tls, session, version)
    assert resumed
    tls.set_ticket_keys([key(4), key(3), key(2)])
    assert visit(watcher, tcp_pair, tls, session, version)[0]


def test_keys_that_are_none_are_refused_and_nothing_has_changed(watcher: Watcher, tcp_pair: NewPair) -> None:
    if not shares_keys():
        pytest.skip("the standard library has keys of its own")
    tls = server_of(with_keys(1))
    _, session = visit(watcher, tcp_pair, tls)
    for keys in ([], [b"short"], [key(2)] * 4):
        with pytest.raises(ValueError, match="80 bytes"):
            tls.set_ticket_keys(keys)
    assert visit(watcher, tcp_pair, tls, session)[0]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_ticket_is_good_for_its_lifetime(watcher: Watcher, tcp_pair: NewPair, version: str) -> None:
    if not shares_keys():
        pytest.skip("the standard library cannot be told it")
    tls = server_of(with_keys(1, ticket_lifetime_s=1))
    _, session = visit(watcher, tcp_pair, tls, None, version)
    assert session.ticket_lifetime_hint == 1
    assert visit(watcher, tcp_pair, tls, session, version)[0]
    time.sleep(2.1)  # OpenSSL counts in seconds
    assert not visit(watcher, tcp_pair, tls, session, version)[0]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_gets_no_ticket_where_there_are_none(watcher: Watcher, tcp_pair: NewPair, version: str) -> None:
    tls = server_of(ServerTls((certificate(),), ticket_lifetime_s=None))
    _, session = visit(watcher, tcp_pair, tls, None, version)
    assert not session.has_ticket
    assert not visit(watcher, tcp_pair, tls, session, version)[0]


def named(name: str, days: int = 30) -> Certificate:
    made = certificate(name, days)
    return Certificate(made.chain, made.key, (name,))


def look(watcher: Watcher, tcp_pair: NewPair, tls: object, asked: str) -> tuple[Conn, TlsPeer, bytes | None]:
    """Be a client that believes everybody; return the connection, the client, and the certificate that it is shown."""
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname=asked)
    assert shake_hands(watcher, conn, peer, [], tls).error is None
    return conn, peer, peer.object.getpeercert(True)


def der(made: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(made.chain)


def test_renewed_certificate_is_shown_to_who_comes_and_open_sessions_go_on(watcher: Watcher, tcp_pair: NewPair) -> None:
    first, second = named("localhost"), named("example.org")
    tls = server_of(ServerTls((first, second)))
    opened = [look(watcher, tcp_pair, tls, name) for name in ("localhost", "example.org")]
    assert [shown for _, _, shown in opened] == [der(first), der(second)]
    renewed = named("example.net")
    for now in ((named("localhost", 60), second), (named("localhost", 60), renewed)):
        tls.renew(ServerTls(now))
        for asked, wanted in (("localhost", now[0]), (now[1].names[0], now[1]), ("elsewhere.test", now[0])):
            conn, _, shown = look(watcher, tcp_pair, tls, asked)
            assert shown == der(wanted), asked
            conn.abort()
    assert look(watcher, tcp_pair, tls, "example.org")[2] == der(named("localhost", 60))  # nobody's any more
    for conn, peer, _ in opened:
        peer.sendall(b"still")
        conn.read()
        assert bytes(collect_one(watcher).buffer) == b"still"
        conn.write(b"here")
        assert collect_one(watcher).error is None
        assert peer.recv(4) == b"here"


def test_handshake_that_has_begun_ends_with_the_certificate_that_it_began_with(
    watcher: Watcher, tcp_pair: NewPair
) -> None:
    tls = server_of(ServerTls((named("localhost"),)))
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    conn.start_tls(tls)
    peer.step()  # its ClientHello
    assert_quiet(watcher)  # which is answered
    tls.renew(ServerTls((named("localhost", 60),)))
    while not peer.step():
        pass
    assert collect_one(watcher).error is None
    assert peer.object.getpeercert(True) == der(named("localhost"))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_session_is_resumed_after_its_certificate_was_renewed(
    watcher: Watcher, tcp_pair: NewPair, version: str
) -> None:
    if not shares_keys():
        pytest.skip("the standard library has a key of its own for each certificate")
    tls = server_of(with_keys(1))
    _, session = visit(watcher, tcp_pair, tls, None, version)
    tls.renew(ServerTls((Certificate(certificate().chain, certificate().key, ("localhost",)),)))
    assert visit(watcher, tcp_pair, tls, session, version)[0]
    tls.set_ticket_keys([key(2)])
    assert not visit(watcher, tcp_pair, tls, session, version)[0]


def test_certificate_that_cannot_be_shown_changes_nothing(watcher: Watcher, tcp_pair: NewPair) -> None:
    first, second = named("localhost"), named("example.org")
    tls = server_of(ServerTls((first, second)))
    for wrong in (Certificate(first.chain, second.key, ("wrong.test",)), Certificate("", "", ("wrong.test",))):
        with pytest.raises((ssl.SSLError, ValueError)):
            tls.renew(ServerTls((named("localhost", 60), wrong)))
    for asked, wanted in (("localhost", first), ("example.org", second), ("wrong.test", first)):
        assert look(watcher, tcp_pair, tls, asked)[2] == der(wanted)


def test_contexts_of_renewed_certificates_are_freed(watcher: Watcher, tcp_pair: NewPair) -> None:
    """10,000 of them would take 210 MB."""
    pair = (named("localhost"), named("localhost", 60))
    tls = server_of(ServerTls((pair[0],)))

    def renew(times: int) -> int:
        for number in range(times):
            tls.renew(ServerTls((pair[number % 2],)))
        return resident_bytes()

    before = renew(100)
    assert renew(300) - before < 300 * 21_000 / 4


NEWER, OLDER = "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.parametrize(("version", "suites"), [("1.3", (NEWER,)), ("1.2", (OLDER, "ECDHE-ECDSA-CHACHA20-POLY1305"))])
def test_suites_are_those_that_are_chosen_and_the_first_is_preferred(
    watcher: Watcher, tcp_pair: NewPair, version: str, suites: tuple[str, ...]
) -> None:
    if version == "1.3" and not is_openssl():
        pytest.skip("the standard library cannot choose them")
    for preferred in (suites, suites[::-1]):
        tls = server_of(ServerTls((certificate(),), suites=preferred))
        near, far = tcp_pair()
        conn, peer = watcher.delegate(near), TlsPeer(far, version)
        assert shake_hands(watcher, conn, peer, [], tls).error is None
        assert conn.tls.suite == preferred[0]
        conn.abort()


def test_version_of_which_no_suite_is_chosen_has_the_usual_ones(watcher: Watcher, tcp_pair: NewPair) -> None:
    tls = server_of(ServerTls((certificate(),), suites=(OLDER,)))
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    assert shake_hands(watcher, conn, TlsPeer(far), [], tls).error is None
    assert conn.tls.suite.startswith("TLS_")


def test_groups_are_those_that_are_chosen(watcher: Watcher, tcp_pair: NewPair) -> None:
    """A client of another curve fails: Python's offers one, if it is told so."""
    if not is_openssl():
        pytest.skip("the standard library cannot choose them")
    tls = server_of(ServerTls((certificate(),), groups=("P-384", "X25519")))
    for curve, is_served in (("secp384r1", True), ("prime256v1", False)):
        near, far = tcp_pair()
        conn, peer = watcher.delegate(near), TlsPeer(far)
        context = ssl.create_default_context(cadata=certificate().chain)
        context.set_ecdh_curve(curve)
        peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
        conn.start_tls(tls)
        peer.step()
        if is_served:
            assert_quiet(watcher)  # the first flight is answered
            while not peer.is_open:
                peer.step()
            assert collect_one(watcher).error is None
        else:
            assert isinstance(collect_one(watcher).error, TlsError)


@pytest.mark.parametrize("options", [{"suites": ("TLS_NO_SUCH",)}, {"groups": ("X25519", "nothing")}])
def test_what_openssl_does_not_know_or_python_cannot_choose_is_refused(options: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=r"it knows some of the|Python's ssl cannot choose"):
        server_of(ServerTls((certificate(),), **options))  # type: ignore[arg-type]


def stapled_to(port: int) -> str:
    """Return what a client of OpenSSL's that asks for it is told of the certificate: what it prints."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-status"],
        check=False, capture_output=True, input="", text=True, timeout=LIMIT_S,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("ends_in_s", [3600.0, -1.0])
def test_client_that_asks_is_told_what_the_authority_says_unless_that_has_ended(
    watcher: Watcher, ends_in_s: float
) -> None:
    if not is_openssl():
        pytest.skip("the standard library cannot tell it")
    own = Authority()
    made = own.issue("localhost", names="DNS:localhost")
    staple = own.ocsp(made)
    before = ServerTls((Certificate(made.chain, made.key, ("localhost",)),))
    tls = server_of(before)
    shown = Certificate(made.chain, made.key, ("localhost",), staple, time.time() + ends_in_s)
    for options, wanted in ((before, False), (ServerTls((shown,)), ends_in_s > 0), (before, False)):
        tls.renew(options)
        with listen() as sock:
            said: list[str] = []
            client = threading.Thread(target=lambda: said.append(stapled_to(sock.getsockname()[1])))  # noqa: B023
            client.start()
            near, _ = sock.accept()
            conn = watcher.delegate(near)
            conn.start_tls(tls)
            assert collect_one(watcher).error is None
            conn.read()
            collect_one(watcher)
            conn.close()
            client.join(LIMIT_S)
        assert ("OCSP Response Status: successful (0x0)" in said[0]) == wanted
