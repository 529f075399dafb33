"""Listeners whose handler begins TLS, because its protocol begins without."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from core.support.sockets import listen, reset
from core.support.tls import TlsPeer, certificate
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Arrival, ClientTls, Conn, ConnClosed, OpResult, Termination, UsageError
from gaiod.console.explain import explanation_text
from gaiod.core.inspect import reading
from gaiod.core.tls import FAILURES
from gaiod.settings import TlsSettings
from gaiod.worker.drain import Drain
from gaiod.worker.inspect.questions import Questions
from gaiod.worker.names import Names
from worker.admission.test_tls_wait import failures
from worker.admission.test_tls_wait import settings as tls_settings
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving
from worker.test_giver_and_taker import Both

PLEASE = b"tls please\n"
GO_ON = b"go on\n"


def settings(**options: Any) -> TlsSettings:
    return tls_settings(**{"starts_by_handler": True, **options})


class Asks(Recorder):
    """An echo, which begins TLS when a client asks for it."""

    state_version = 1

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.facts: list[Any] = []

    def on_read(self, conn: Conn, result: OpResult) -> None:
        data = bytes(result.buffer)
        if data.startswith(PLEASE):
            conn.data = data.removeprefix(PLEASE)
            conn.write(GO_ON)
        else:
            super().on_read(conn, result)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data is None:
            super().on_write(conn, result)
        else:
            unread, conn.data = conn.data, None
            conn.start_tls(server=True, unread=unread)

    def on_tls(self, conn: Conn) -> None:
        self.calls.append("on_tls")
        self.facts.append((conn.tls.version, conn.tls.server_name))
        conn.read()

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        conn.read()


def asked(serving: Serving) -> socket.socket:
    """Return a client that is to begin."""
    sock = serving.connect()
    sock.sendall(PLEASE)
    assert serving.receive(sock, len(GO_ON)) == GO_ON
    return sock


def peer_of(serving: Serving) -> TlsPeer:
    """Return a client whose handshake is done."""
    peer = TlsPeer(asked(serving))
    serving.step_until(peer.step, "the handshake")
    return peer


def wait_until_closed(serving: Serving) -> None:
    serving.step_until(serving.closes, "the close being counted")


def test_connection_begins_without_tls_and_goes_on_with_it(serve: Serve) -> None:
    handler = Asks()
    serving = serve(handler, tls=settings())
    sock = serving.connect()
    assert serving.exchange(sock, b"plain") == b"plain"
    sock.sendall(PLEASE)
    assert serving.receive(sock, len(GO_ON)) == GO_ON
    peer = TlsPeer(sock)
    serving.step_until(peer.step, "the handshake")
    peer.sendall(b"secret")
    assert serving.receive(peer, 6) == b"secret"  # type: ignore[arg-type]
    assert handler.facts == [("1.3", "localhost")]
    assert serving.count("tls_full_1.3") == serving.count("accepted") == 1
    peer.close()
    wait_until_closed(serving)
    assert serving.closes() == {"peer_eof": 1}
    assert handler.calls[:4] == ["on_open", "on_read", "on_write", "on_tls"]
    assert failures(serving) == {}
    assert serving.count("rejected_tls") == 0


def test_what_came_with_the_request_closes_the_connection(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    handler = Asks()
    serving = serve(handler, tls=settings())
    sock = serving.connect()
    sock.sendall(PLEASE + b"delete everything\n")
    assert serving.receive(sock, 100) == GO_ON, "and the end"
    wait_until_closed(serving)
    assert serving.ends() == [("tls_error", "client", "error", "plaintext", "handshake", "-")]
    assert failures(serving) == {"plaintext": 1}
    assert "is closed: 18 bytes came unencrypted behind its request for TLS" in caplog.text
    assert handler.calls == ["on_open", "on_close"]


def test_what_comes_behind_the_request_and_was_not_read_is_taken_for_the_handshake(serve: Serve) -> None:
    handler = Asks()
    serving = serve(handler, tls=settings())
    sock = asked(serving)
    sock.sendall(b"delete everything\n")
    wait_until_closed(serving)
    assert serving.ends() == [("tls_error", "client", "error", "not_tls", "handshake", "-")]
    assert "on_read" not in handler.calls


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_client_that_goes_amid_the_handshake_is_counted_and_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    serving = serve(Asks(), tls=settings())
    sock = asked(serving)
    end: Callable[[socket.socket], object] = reset if how == "reset" else socket.socket.close
    end(sock)
    wait_until_closed(serving)
    ending = "reset" if how == "reset" else "fin"
    assert serving.ends() == [("tls_error", "client", ending, how, "handshake", "-")]
    assert failures(serving) == {how: 1}
    assert caplog.text == ""


def test_client_that_asks_and_then_is_silent_is_closed_in_time(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serving = serve(Asks(), tls=settings(handshake_timeout_s=2 * MOMENT_S))
    sock = asked(serving)
    assert serving.is_ended(sock)
    wait_until_closed(serving)
    assert serving.ends() == [("tls_error", "client", "timeout", "tls.handshake_timeout", "handshake", "-")]
    assert failures(serving) == {"timeout": 1}
    assert "is closed: its handshake was not done within" in caplog.text


def test_handshake_is_explained_and_ends_with_a_drain(serve: Serve) -> None:
    serving = serve(Asks(), tls=settings())
    sock = asked(serving)
    (conn,) = serving.listener.clients()
    told = Questions([serving.listener], serving.names).answer(
        {"verb": "explain", "connection": serving.names.of(conn)}
    )
    assert told["sides"][0]["reading"]["operation"] == "handshake"
    text = explanation_text({"id": "0-1", "worker": 0, **told})
    assert "Reading: the TLS handshake with the client is under way; that ends in " in text
    ended: list[int] = []
    Drain(serving.watcher, [serving.listener], 0.0, eager=True, done=lambda: ended.append(1))
    serving.step_until(lambda: ended, "the drain")
    assert serving.is_ended(sock)
    assert serving.closes() == {"drain": 1}
    assert failures(serving) == {}


def test_handshake_that_its_handler_cancels_ends_the_connection(serve: Serve) -> None:
    serving = serve(Asks(), tls=settings())
    sock = asked(serving)
    (conn,) = serving.listener.clients()
    conn.cancel()
    assert serving.is_ended(sock)
    wait_until_closed(serving)
    assert failures(serving) == {}


def test_hook_that_raises_once_tls_has_begun_costs_the_connection(serve: Serve) -> None:
    class Raises(Asks):
        def on_tls(self, conn: Conn) -> None:
            raise ValueError("no")

    serving = serve(Raises(), tls=settings())
    peer_of(serving)
    wait_until_closed(serving)
    assert serving.count("handler_error_on_tls") == 1


def test_handler_without_the_hook_closes_the_connection(serve: Serve) -> None:
    class Forgets(Recorder):
        def on_open(self, conn: Conn) -> None:
            conn.start_tls(server=True, unread=b"")

    serving = serve(Forgets(), tls=settings())
    peer = TlsPeer(serving.connect())
    serving.step_until(peer.step, "the handshake")
    wait_until_closed(serving)
    assert serving.closes() == {"handler": 1}


def one(serving: Serving) -> Conn:
    serving.connect()
    (conn,) = serving.listener.clients()
    conn.cancel()
    serving.step()
    return conn


class Patient(Recorder):
    """Leaves a connection open whose read was cancelled."""

    def on_error(self, conn: Conn, operation: Any, error: Exception) -> None:
        self.calls.append("on_error")


@pytest.mark.parametrize("tls", [None, settings(starts_by_handler=False)], ids=["none", "immediate"])
def test_listener_that_says_nothing_of_it_begins_no_tls(serve: Serve, tls: TlsSettings | None) -> None:
    handler = Patient()
    serving = serve(handler, tls=tls)
    assert not handler.offers_tls
    if tls is None:
        with pytest.raises(UsageError, match=r"front has no tls: \{start: handler, \.\.\.\}"):
            one(serving).start_tls(server=True, unread=b"")


def test_what_start_tls_is_not_given_or_is_given_twice_is_refused(serve: Serve) -> None:
    serving = serve(Patient(), tls=settings())
    conn = one(serving)
    with pytest.raises(UsageError, match="who this end is"):
        conn.start_tls()
    for who in ({"server": True}, {"tls": ClientTls("localhost")}):
        with pytest.raises(UsageError, match="needs unread"):
            conn.start_tls(**who)
    with pytest.raises(UsageError, match="is with a client, and not with a server"):
        conn.start_tls(ClientTls("localhost"), unread=b"")
    with pytest.raises(UsageError, match="has the tls, context and deadline"):
        conn.start_tls(server=True, unread=b"", deadline=time.monotonic() + LIMIT_S)
    conn.read()
    with pytest.raises(UsageError, match="operations pending"):
        conn.start_tls(server=True, unread=b"")


def test_connection_to_a_server_and_one_that_is_closed_begin_no_tls(serve: Serve) -> None:
    handler = Patient()
    serving = serve(handler, tls=settings())
    conn = one(serving)
    conn.abort()
    with pytest.raises(ConnClosed):
        conn.start_tls(server=True, unread=b"")
    upstream = handler.connect(serving.address)
    with pytest.raises(UsageError, match="is with a server"):
        upstream.start_tls(server=True, unread=b"")


@pytest.fixture
def both() -> Iterator[Both]:
    """Two workers with such a listener."""
    made = Both(Serving(Asks(), tls=settings(), names=Names(3)), Serving(Asks(), tls=settings(), names=Names(7)))
    yield made
    made.close()


def test_connection_is_handed_over_before_tls_and_begins_it_there(both: Both) -> None:
    sock = both.giver.connect()
    assert both.giver.exchange(sock, b"plain") == b"plain"
    both.hand_over()
    assert both.taker.count("moved_in") == 1
    sock.sendall(PLEASE)
    assert both.taker.receive(sock, len(GO_ON)) == GO_ON
    peer = TlsPeer(sock)
    both.taker.step_until(peer.step, "the handshake")
    peer.sendall(b"secret")
    assert both.taker.receive(peer, 6) == b"secret"  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["amid the handshake", "after it"])
def test_connection_that_has_begun_tls_stays(both: Both, when: str) -> None:
    peer = TlsPeer(asked(both.giver))
    if when == "after it":
        both.giver.step_until(peer.step, "the handshake")
        both.giver.step_until(lambda: both.giver.count("tls_full_1.3"), "its completion")
    (conn,) = both.giver.listener.clients()
    assert (reading(conn, time.monotonic()) or {})["operation"] == ("read" if when == "after it" else "handshake")
    both.hand_over(0.1)
    assert both.giver.count("stayed_tls" if when == "after it" else "stayed_not_quiet") == 1
    both.giver.step_until(peer.step, "the handshake")
    peer.sendall(b"secret")
    assert both.giver.receive(peer, 6) == b"secret"  # type: ignore[arg-type]


# -- with servers -----------------------------------------------------------------------------------------


class Delivers(Recorder):
    """Asks a server for TLS, and then sends it something."""

    def __init__(self, server: Any, tls: ClientTls, deadline_s: float = LIMIT_S) -> None:
        super().__init__()
        self.far = server
        self.tls = tls
        self.deadline_s = deadline_s
        self.answer = b""
        self.facts: list[Any] = []

    def on_open(self, conn: Conn) -> None:
        conn.read()  # which is all that happens to it
        self.connect(self.far, data="server")

    def on_close(self, conn: Conn, reason: str) -> None:
        if conn.data == "server":
            super().on_close(conn, reason)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        conn.write(PLEASE)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        if conn.tls is None:
            unread = bytes(result.buffer).removeprefix(GO_ON)
            conn.start_tls(self.tls, unread=unread, deadline=time.monotonic() + self.deadline_s)
        else:
            self.answer += bytes(result.buffer)

    def on_tls(self, conn: Conn) -> None:
        self.facts.append((conn.tls.version, conn.tls.server_name, conn.tls.resumed))
        conn.write(b"secret")


@pytest.fixture
def far() -> Iterator[Serving]:
    """A listener that the handler connects to."""
    made = Serving(Asks(), tls=settings())
    yield made
    made.close()


def step_both(near: Serving, far: Serving, look: Callable[[], object], what: str) -> None:
    def both() -> object:
        far.step()
        return look()

    near.step_until(both, what)


def believed() -> ClientTls:
    return ClientTls("localhost", certificate().chain)


def test_tls_begins_with_a_server_that_is_verified_and_its_ticket_is_kept(serve: Serve, far: Serving) -> None:
    handler = Delivers(far.address, believed())
    near = serve(handler)
    for number in (1, 2):
        near.connect()
        step_both(near, far, lambda number=number: handler.answer == b"secret" * number, "the answer")  # type: ignore[misc]
    assert [fact[:2] for fact in handler.facts] == [("1.3", "localhost")] * 2
    assert far.count("tls_full_1.3") + far.count("tls_resumed_1.3") == 2
    assert sum(near.count(f"tls_failed_{reason}") for reason in FAILURES) == 0


def test_server_that_is_not_believed_is_closed_and_the_reason_told(
    serve: Serve, far: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Delivers(far.address, ClientTls("example.org", certificate().chain))
    near = serve(handler)
    near.connect()
    step_both(near, far, lambda: handler.reasons, "the close")
    (reason,) = handler.reasons
    assert isinstance(reason, Termination)
    assert reason.key == ("tls_error", "server", "error", "wrong_name", "handshake")
    assert "a connection to 127.0.0.1:" in caplog.text
    assert "its certificate is " in caplog.text
    assert handler.facts == []


def plain_server(serve: Serve, deadline_s: float = LIMIT_S) -> tuple[Serving, Delivers, socket.socket]:
    """Return a listener whose handler has asked a server that the test plays."""
    with listen() as sock:
        handler = Delivers(sock.getsockname(), believed(), deadline_s)
        near = serve(handler)
        near.connect()
        server, _ = sock.accept()
    assert near.receive(server, len(PLEASE)) == PLEASE
    return near, handler, server


def ending(near: Serving, handler: Delivers) -> tuple[str, ...]:
    near.step_until(lambda: handler.reasons, "the close")
    (reason,) = handler.reasons
    assert isinstance(reason, Termination)
    return reason.key


def test_what_came_with_the_answer_of_a_server_closes_the_connection(serve: Serve) -> None:
    near, handler, server = plain_server(serve)
    with server:
        server.sendall(GO_ON + b"injected")
        assert ending(near, handler) == ("tls_error", "server", "error", "plaintext", "handshake")


def test_server_that_answers_and_then_is_silent_is_closed_in_time(serve: Serve) -> None:
    near, handler, server = plain_server(serve, MOMENT_S)
    with server:
        server.sendall(GO_ON)
        assert ending(near, handler) == ("deadline", "server", "timeout", "deadline", "handshake")


def test_server_that_does_not_speak_tls_is_found_out(serve: Serve) -> None:
    near, handler, server = plain_server(serve)
    with server:
        server.sendall(GO_ON)
        near.receive(server, 1)
        server.sendall(b"500 what?\r\n")
        assert ending(near, handler) == ("tls_error", "server", "error", "not_tls", "handshake")


def test_handshake_with_a_server_that_is_cancelled_ends_the_connection(serve: Serve) -> None:
    near, handler, server = plain_server(serve)
    with server:
        server.sendall(GO_ON)
        near.receive(server, 1)
        (conn,) = [conn for conn in near.watcher.connections() if not near.listener.is_client(conn)]
        conn.cancel()
        near.step_until(lambda: handler.reasons, "the close")
        assert handler.reasons == ["handler"]
