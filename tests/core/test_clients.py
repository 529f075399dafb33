"""Clients: whom they believe, what they ask for, and the words for why they do not go on."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core.support.authority import authority
from core.support.sockets import NewPair, listen, receive
from core.support.tls import LAYERS, client_of, use_layer
from core.support.tls_servers import context_of, tls_server
from core.support.waiting import LIMIT_S, collect, collect_one, contexts, later, soon
from gaiod.core import ENGINE
from gaiod.core.connection import Conn
from gaiod.core.counters import OUTCOME_COUNT, SIZE
from gaiod.core.errors import ConnClosed, DeadlineExceeded, TlsError
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import ClientTls
from gaiod.core.watcher import Watcher


@pytest.fixture(autouse=True, params=LAYERS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with all that can make sessions."""
    use_layer(request.param, monkeypatch)
    return str(request.param)


def wanted(**options: Any) -> Any:
    """Return what `connect` takes, for localhost by the test's authority unless `options` say otherwise."""
    return client_of(ClientTls(**{"name": "localhost", "ca": authority().text, **options}))


def outcome(watcher: Watcher, address: Any, tls: Any, **more: Any) -> OpResult:
    """Connect, and return what came of it."""
    conn = watcher.connect(address, tls=tls, deadline=later(), **more)
    result = collect_one(watcher)
    assert result.conn is conn
    assert result.operation is OpType.CONNECT
    return result


def failure(watcher: Watcher, address: Any, tls: Any) -> tuple[str, str]:
    """Connect in vain, and return why that failed."""
    error = outcome(watcher, address, tls).error
    assert isinstance(error, TlsError)
    return error.reason, str(error.strerror)


def echoed(watcher: Watcher, conn: Conn, data: bytes) -> bytes:
    """Return what a server sends back."""
    conn.write(data)
    buffer = bytearray(len(data))
    conn.read_full(buffer)
    assert all(result.error is None for result in collect(watcher, 2))
    return bytes(buffer)


# -- it works ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_connect_completes_once_the_handshake_is_done(watcher: Watcher, version: str) -> None:
    with tls_server() as server:
        conn = watcher.connect(server.address, tls=wanted(versions=(version,)), context="connect", deadline=later())
        conn.read(context="read")
        conn.write(b"early", context="write")
        before = conn.tls
        assert before is None
        done = collect(watcher, 3)
        assert contexts(done)[:2] == ["connect", "write"]
        assert bytes(done[2].buffer) == b"early"
        assert [result.error for result in done] == [None, None, None]
        assert (conn.tls.version, conn.tls.server_name, conn.tls.resumed) == (version, "localhost", False)
        assert echoed(watcher, conn, b"x" * 100_000) == b"x" * 100_000
        conn.close()
        watcher.wait_io(0)
    assert server.names == ["localhost"]
    assert server.failures == []


def test_connection_that_is_there_begins_to_speak_tls_as_a_client(watcher: Watcher) -> None:
    with tls_server() as server:
        conn = watcher.connect(server.address)
        collect_one(watcher)
        conn.start_tls(wanted())
        result = collect_one(watcher)
        assert (result.operation, result.error) == (OpType.HANDSHAKE, None)
        assert echoed(watcher, conn, b"hello") == b"hello"
        conn.abort()


def test_ended_stream_and_ours_are_told(watcher: Watcher) -> None:
    with tls_server() as server:
        conn = outcome(watcher, server.address, wanted()).conn
        conn.write(b"last")
        conn.shutdown_write()
        buffer = bytearray(4)
        conn.read_full(buffer)
        conn.read()
        done = collect(watcher, 3)
        assert bytes(buffer) == b"last"
        assert isinstance(done[-1].error, EOFError)
        conn.abort()
    assert server.failures == []


class Prefaced:
    """What a client is made from that says something before its handshake."""

    def __init__(self, client: Any, preface: bytes) -> None:
        self._client, self._preface = client, preface

    def session(self) -> Any:
        return self._client.session(self._preface)


@pytest.mark.parametrize("size", [1, 107, 3_000_000])
def test_preface_comes_before_the_handshake_as_it_is(watcher: Watcher, size: int) -> None:
    """Also one that the kernel does not take at once."""
    preface = bytes(range(256)) * (size // 256 + 1)
    with listen() as sock:
        sock.settimeout(LIMIT_S)
        conn = watcher.connect(sock.getsockname(), tls=Prefaced(wanted(), preface), context="connect", deadline=later())
        conn.write(b"hello", context="write")
        far, _ = sock.accept()
        secured: list[Any] = []

        def serve() -> None:
            far.settimeout(LIMIT_S)
            assert receive(far, len(preface)) == preface
            tls = context_of(authority().sign()).wrap_socket(far, server_side=True)
            secured.append(receive(tls, 5))
            tls.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert contexts(collect(watcher, 2)) == ["connect", "write"]
        thread.join(LIMIT_S)
        assert secured == [b"hello"]
        conn.abort()


def test_address_is_verified_and_never_asked_for(watcher: Watcher) -> None:
    for names, name in (("IP:127.0.0.1", "127.0.0.1"), ("IP:::1", "::1")):
        with tls_server(authority().sign(names)) as server:
            good = outcome(watcher, server.address, wanted(name=name))
            assert good.error is None
            good.conn.abort()
            reason, words = failure(watcher, server.address, wanted(name="192.0.2.7"))
            assert reason == "wrong_name"
            assert words.endswith("192.0.2.7")
        assert server.names == [None, None]


def test_wildcard_stands_for_a_whole_label(watcher: Watcher) -> None:
    with tls_server(authority().sign("DNS:*.example.org")) as server:
        good = outcome(watcher, server.address, wanted(name="a.example.org"))
        assert good.error is None
        good.conn.abort()
        assert failure(watcher, server.address, wanted(name="a.b.example.org"))[0] == "wrong_name"


def test_protocol_is_agreed(watcher: Watcher) -> None:
    with tls_server() as server:
        server._context.set_alpn_protocols(["two", "three"])
        assert outcome(watcher, server.address, wanted(alpn=("one", "two"))).conn.tls.alpn == "two"
        assert outcome(watcher, server.address, wanted()).conn.tls.alpn is None


def test_certificate_is_shown_to_a_server_that_wants_one(watcher: Watcher) -> None:
    ours = authority("Of Clients").sign("DNS:gate", usage="clientAuth")
    seen: list[Any] = []

    def serve(sock: Any) -> None:
        seen.append(sock.getpeercert()["subject"])

    with tls_server(serve=serve) as server:
        server._context.load_verify_locations(cadata=authority("Of Clients").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        conn = outcome(watcher, server.address, wanted(certificate=ours)).conn
        conn.read()
        collect_one(watcher)
    assert seen == [((("commonName", "gate"),),)]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_next_session_continues_the_one_before(watcher: Watcher, version: str) -> None:
    tls, other = wanted(versions=(version,)), wanted(versions=(version,))
    with tls_server() as server:
        for client in (tls, tls, tls, other):
            conn = outcome(watcher, server.address, client).conn
            assert echoed(watcher, conn, b"hello") == b"hello"  # a ticket comes before the first byte
            conn.close()
            watcher.wait_io(0)
    assert server.resumed == [False, True, True, False]  # another client's are its own


def test_ticket_that_a_server_has_forgotten_costs_a_whole_handshake_only(watcher: Watcher) -> None:
    tls = wanted()
    for _ in range(2):
        with tls_server() as server:
            conn = outcome(watcher, server.address, tls).conn
            assert echoed(watcher, conn, b"hello") == b"hello"
            conn.close()
            watcher.wait_io(0)
        assert server.resumed == [False]


def test_whoever_answers_is_believed_where_nothing_is_verified(watcher: Watcher) -> None:
    with tls_server(authority("Nobody").sign("DNS:other", days=-1)) as server:
        for options in ({}, {"name": ""}):
            result = outcome(watcher, server.address, wanted(ca=None, verify=False, **options))
            assert result.error is None
            assert result.conn.tls.peer_certificate is not None
            assert not result.conn.tls.is_verified
            result.conn.abort()
        assert server.names == ["localhost", None]


# -- it does not ---------------------------------------------------------------------------------------------


def test_certificate_for_another_name_is_refused_with_both_names(watcher: Watcher, layer: str) -> None:
    with tls_server(authority().sign("DNS:other.example,DNS:more.example")) as server:
        reason, words = failure(watcher, server.address, wanted(name="db.example"))
    assert reason == "wrong_name"
    knows = ENGINE == "compiled" and layer == "usual"
    assert words == "TLS failed: its certificate is " + (
        "for other.example, more.example, not db.example" if knows else "not for db.example"
    )


def test_certificate_that_has_ended_is_refused(watcher: Watcher) -> None:
    with tls_server(authority().sign(days=-1)) as server:
        reason, words = failure(watcher, server.address, wanted())
    assert reason == "certificate_expired"
    assert words.startswith("TLS failed: its certificate has ended")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_certificate_of_an_unknown_authority_is_refused(watcher: Watcher, version: str) -> None:
    with tls_server(authority("Nobody").sign()) as server:
        for ca in (authority().text, None):
            reason, words = failure(watcher, server.address, wanted(ca=ca, versions=(version,)))
            assert reason == "unknown_authority"
            assert words.startswith("TLS failed: its certificate is signed by nobody that we believe (unable to get")


def test_certificate_that_is_for_no_server_is_refused(watcher: Watcher) -> None:
    with tls_server(authority().sign(usage="clientAuth")) as server:
        reason, words = failure(watcher, server.address, wanted())
    assert reason == "certificate"
    assert "purpose" in words


def test_server_that_wants_a_certificate_and_gets_none_says_so(watcher: Watcher) -> None:
    with tls_server() as server:
        server._context.load_verify_locations(cadata=authority("Of Clients").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        assert failure(watcher, server.address, wanted(versions=("1.2",)))[0] in ("alert", "certificate_wanted")
        conn = outcome(watcher, server.address, wanted()).conn  # with 1.3 a client is done before the server is
        conn.read()
        error = collect_one(watcher).error
        assert isinstance(error, TlsError)
        assert error.reason == "certificate_wanted"
        assert error.strerror == "TLS failed: it wants a certificate of ours, and has got none"


def test_server_that_does_not_believe_our_certificate_says_so(watcher: Watcher) -> None:
    with tls_server() as server:
        server._context.load_verify_locations(cadata=authority("Of Clients").text)
        server._context.verify_mode = ssl.CERT_REQUIRED
        ours = authority("Nobody").sign("DNS:gate", usage="clientAuth")
        reason, words = failure(watcher, server.address, wanted(certificate=ours, versions=("1.2",)))
    assert (reason, words) == ("certificate_refused", "TLS failed: it does not know who has signed our certificate")


@contextmanager
def saying(text: bytes) -> Iterator[Any]:
    """Give the address of a server that says something at once, and then nothing."""
    listener = listen()
    with listener:
        yield listener.getsockname()[:2], lambda: answer(listener, text)


def answer(listener: socket.socket, text: bytes) -> socket.socket:
    listener.settimeout(LIMIT_S)
    sock, _ = listener.accept()
    sock.sendall(text)
    return sock


@pytest.mark.parametrize("text", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(30)])
def test_server_that_does_not_speak_tls_is_found_out(watcher: Watcher, text: bytes) -> None:
    with saying(text) as (address, go):
        watcher.connect(address, tls=wanted(), deadline=later())
        sock = go()
        error = collect_one(watcher).error
        sock.close()
    assert isinstance(error, TlsError)
    assert (error.reason, error.strerror) == ("not_tls", "TLS failed: it does not speak TLS")


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_server_that_goes_amid_the_handshake_is_gone(watcher: Watcher, end: str) -> None:
    with saying(b"") as (address, go):
        watcher.connect(address, tls=wanted(), deadline=later())
        sock = go()
        assert watcher.wait_io(0.05) == []
        if end == "fin":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        error = collect_one(watcher).error
        sock.close()
    assert isinstance(error, TlsError)
    assert error.reason == {"fin": "closed", "reset": "reset"}[end]


def test_deadline_of_a_connect_is_that_of_its_handshake(watcher: Watcher) -> None:
    with saying(b"") as (address, go):
        conn = watcher.connect(address, tls=wanted(), deadline=soon(), context="connect")
        conn.read(context="read")
        conn.write(b"in vain", context="write")
        sock = go()
        began_s = time.monotonic()
        done = collect(watcher, 3)
        assert time.monotonic() - began_s < LIMIT_S
        assert sorted(map(str, contexts(done))) == ["connect", "read", "write"]
        assert all(isinstance(result.error, DeadlineExceeded) for result in done)
        sock.close()
    conn.read()
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)  # it stays of no use


@pytest.mark.parametrize("end", ["abort", "close", "cancel", "watcher"])
def test_connect_that_is_ended_amid_the_handshake_completes_once(watcher: Watcher, end: str) -> None:
    with saying(b"") as (address, go):
        conn = watcher.connect(address, tls=wanted())
        sock = go()
        assert watcher.wait_io(0.05) == []
        (watcher if end == "watcher" else conn).close() if end in ("close", "watcher") else getattr(conn, end)()
        result = collect_one(watcher)
        assert (result.operation, result.conn) == (OpType.CONNECT, conn)
        assert result.error is not None
        assert isinstance(result.error, ConnClosed) == (end in ("abort", "close"))
        sock.close()


def test_connect_that_is_refused_fails_as_without_tls(watcher: Watcher) -> None:
    with listen() as listener:
        address = listener.getsockname()[:2]
    error = outcome(watcher, address, wanted()).error
    assert isinstance(error, ConnectionRefusedError)


def test_counters_agree_when_all_is_over() -> None:
    cells = memoryview(bytearray(8 * SIZE)).cast("q")
    with Watcher(counters=cells) as watcher, tls_server() as server, saying(b"no TLS") as (address, go):
        outcome(watcher, server.address, wanted()).conn.abort()
        conn = watcher.connect(address, tls=wanted())
        sock = go()
        collect_one(watcher)
        conn.abort()
        sock.close()
    for kind in (OpType.CONNECT, OpType.HANDSHAKE):
        first = int(kind) * OUTCOME_COUNT
        submitted, *ended = cells[first : first + OUTCOME_COUNT].tolist()
        assert submitted == sum(ended) == 2


def test_what_says_nothing_that_can_be_used_is_refused() -> None:
    for options, words in (
        ({"name": ""}, "has no name to verify"),
        ({"name": "bücher.example"}, "is no name of a server"),
        ({"name": "two words"}, "is no name of a server"),
        ({"name": "x" * 256}, "is no name of a server"),
        ({"ca": "nothing"}, "no certificate of an authority|no start line|not enough data"),
    ):
        with pytest.raises((ValueError, ssl.SSLError), match=words):
            wanted(**options)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_server_of_openssl_is_spoken_to(watcher: Watcher, version: str, tmp_path: Any) -> None:
    shown = authority().sign()
    (tmp_path / "chain").write_text(shown.chain)
    (tmp_path / "key").write_text(shown.key)
    with listen() as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", tmp_path / "chain", "-key", tmp_path / "key",
         version, "-rev", "-naccept", "1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert b"ACCEPT\n" in iter(process.stdout.readline, b"")
        conn = outcome(watcher, ("127.0.0.1", port), wanted()).conn
        conn.write(b"drawer\n")
        buffer = bytearray(7)
        conn.read_full(buffer)
        collect(watcher, 2)
        assert bytes(buffer) == b"reward\n"
        conn.close()
        watcher.wait_io(0)
        process.terminate()


def test_relay_from_a_plain_client_to_a_server_with_tls_passes_on_both_ends(
    watcher: Watcher, tcp_pair: NewPair
) -> None:
    near, far = tcp_pair()
    client = watcher.delegate(near)
    with tls_server() as server:
        upstream = outcome(watcher, server.address, wanted()).conn
        client.relay_to(upstream)
        upstream.relay_to(client)
        data = bytes(range(256)) * 8
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        assert [result.error for result in collect(watcher, 2)] == [None, None]
        far.settimeout(LIMIT_S)
        received = b""
        while part := far.recv(65536):
            received += part
            watcher.wait_io(0)
            if len(received) == len(data):
                break
        assert received == data
    assert server.failures == []
