"""Servers that speak TLS, as a handler connects to them: hooks see plain bytes, and why there are none."""

from collections.abc import Callable
from typing import Any

import pytest
from core.support.authority import authority
from core.support.tls_servers import tls_server

from gaiod import Certificate, ClientTls, Conn, Handler, OpResult, TlsError, prepare_tls
from gaiod.worker import tls_clients
from gaiod.worker.tls_clients import TlsClients
from worker.support.serving import Serving

Serve = Callable[..., Serving]


def wanted(**options: Any) -> ClientTls:
    return ClientTls(**{"name": "localhost", "ca": authority().text, **options})


class Asks(Handler):
    """Asks a server what its client asks, and lets the client know what came of it."""

    def __init__(self, address: Any, tls: ClientTls) -> None:
        super().__init__()
        self.address, self.tls = address, tls
        self.answers: list[Any] = []

    def on_start(self) -> None:
        prepare_tls(self.tls)

    def on_open(self, conn: Conn) -> None:
        conn.data = self.connect(self.address, data=conn, tls=self.tls)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        if result.error is not None:
            self.answers.append(result.error)
            conn.data.close()
            conn.abort()
            return
        self.answers.append(conn.tls)
        conn.write(b"question")

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self.answers.append(bytes(result.buffer))
        conn.data.close()
        conn.close()


def ask(serving: Serving, handler: Asks) -> list[Any]:
    handler.answers.clear()
    assert serving.is_ended(serving.connect())
    serving.step_until(lambda: not serving.listener.active, "the end of all")
    return handler.answers


def test_hooks_see_plain_bytes_and_what_was_agreed(serve: Serve) -> None:
    with tls_server() as server:
        handler = Asks(server.address, wanted())
        facts, answer = ask(serve(handler), handler)
        assert (facts.server_name, facts.is_verified, answer) == ("localhost", True, b"question")
    assert server.failures == []


def test_newest_ticket_of_a_server_continues_its_session(serve: Serve) -> None:
    with tls_server() as server, tls_server() as other:
        handler = Asks(server.address, wanted())
        serving = serve(handler)
        assert [ask(serving, handler)[0].resumed for _ in range(3)] == [False, True, True]
        handler.address = other.address
        assert not ask(serving, handler)[0].resumed  # another server, of which there is no ticket yet
        handler.tls = wanted(name="localhost", alpn=("one",))
        assert not ask(serving, handler)[0].resumed  # another question


def test_failed_handshake_is_the_error_of_the_connect(serve: Serve) -> None:
    with tls_server(authority().sign("DNS:elsewhere")) as server:
        handler = Asks(server.address, wanted())
        (error,) = ask(serve(handler), handler)
        assert isinstance(error, TlsError)
        assert error.reason == "wrong_name"
        assert str(error.strerror).endswith("localhost")


def test_certificate_or_key_that_is_none_is_an_error_of_the_call() -> None:
    clients = TlsClients()
    good, other = authority().sign(), authority().sign("DNS:other")
    for options, why in (
        ({"ca": "nothing"}, "there is no certificate in it; write one in PEM"),
        ({"ca": good.chain.replace("M", "?")}, r"OpenSSL does not take it \(.+\); write another"),
        ({"certificate": Certificate("nothing", good.key)}, "there is no certificate in it; write one in PEM"),
        ({"certificate": Certificate(good.chain, "nothing")}, "there is no key in it .*; write one: openssl pkey"),
        ({"certificate": Certificate(good.chain, other.key)}, "the key is not that of the chain's first certificate"),
    ):
        with pytest.raises(ValueError, match=why):
            prepare_tls(wanted(**options))
        with pytest.raises(ValueError, match=why):
            clients.client_of(("127.0.0.1", 1), wanted(**options))
    assert len(clients._kept) == 0


def test_servers_that_were_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_clients, "KEPT_MAX", 2)
    clients, tls = TlsClients(), wanted()
    first, second = (clients.client_of(("127.0.0.1", port), tls) for port in (1, 2))
    assert clients.client_of(["127.0.0.1", 1], tls) is first
    third = clients.client_of("/run/third", tls)
    assert clients.client_of(("127.0.0.1", 1), tls) is first
    assert clients.client_of("/run/third", tls) is third
    assert clients.client_of(("127.0.0.1", 2), tls) is not second
