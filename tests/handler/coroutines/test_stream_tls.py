"""TLS in coroutines: on the connection of a client, and towards a server."""

import socket

from core.support.authority import authority
from core.support.tls import TlsPeer
from core.support.tls_servers import tls_server
from worker.admission.test_tls_begun_by_handler import settings
from worker.conftest import Serve
from worker.support.serving import Serving

from gaiod import ClientTls, Stream, TlsError, UsageError
from handler.coroutines.support.handlers import Runs

PLEASE = b"STARTTLS\r\n"


async def starts(handler: Runs, conn: Stream) -> None:
    """Begin TLS when asked to, and echo then."""
    assert await conn.read_until(b"\r\n") == PLEASE
    await conn.write(b"220 go on\r\n")
    await conn.start_tls()
    handler.notes.append(conn.tls.version)
    await conn.write(await conn.read())


def asked(serving: Serving, more: bytes = b"") -> socket.socket:
    sock = serving.connect()
    sock.sendall(PLEASE + more)
    assert serving.receive(sock, 11) == b"220 go on\r\n"
    return sock


def test_stream_goes_on_encrypted(serve: Serve) -> None:
    handler = Runs(starts)
    serving = serve(handler, tls=settings())
    peer = TlsPeer(asked(serving))
    serving.step_until(peer.step, "the handshake")
    peer.sendall(b"secret")
    assert serving.receive(peer, 6) == b"secret"  # type: ignore[arg-type]
    assert handler.end(serving) is None
    assert handler.notes == ["1.3"]


def test_bytes_that_came_in_front_of_the_handshake_end_the_connection(serve: Serve) -> None:
    handler = Runs(starts)
    serving = serve(handler, tls=settings())
    sock = asked(serving, b"MAIL FROM:<attacker>\r\n")
    assert serving.is_ended(sock)
    assert isinstance(handler.end(serving), ConnectionError)
    assert serving.closes() == {"tls_error": 1}
    assert serving.count("handler_error_handle") == 0


def test_handshake_that_fails_is_an_error_where_it_is_awaited(serve: Serve) -> None:
    handler = Runs(starts)
    serving = serve(handler, tls=settings())
    sock = asked(serving)
    sock.sendall(b"this is no ClientHello")
    assert isinstance(handler.end(serving), ConnectionError)
    assert handler.notes == []


def test_listener_without_such_tls_refuses(serve: Serve) -> None:
    handler = Runs(starts)
    serving = serve(handler)
    asked(serving)
    assert isinstance(handler.end(serving), UsageError)


def test_connection_goes_on_where_tls_was_refused(serve: Serve) -> None:
    async def function(handler: Runs, conn: Stream) -> None:
        try:
            await conn.start_tls()
        except UsageError:
            await conn.write(b"454 no TLS here\r\n")
        await handler.sleep(0.01)
        await conn.write(b"more\r\n")

    handler = Runs(function)
    serving = serve(handler)
    assert serving.receive(serving.connect(), 23) == b"454 no TLS here\r\nmore\r\n"
    assert handler.end(serving) is None


def test_nothing_is_written_or_read_while_tls_begins(serve: Serve) -> None:
    async def writes(conn: Stream) -> None:
        await conn.write(b"in the clear")

    async def function(handler: Runs, conn: Stream) -> None:
        await conn.read_until(b"\r\n")
        handler.spawn(starts_tls(conn))
        try:
            await handler.spawn(writes(conn))
        except UsageError:
            handler.notes.append("refused")

    async def starts_tls(conn: Stream) -> None:
        await conn.start_tls()

    handler = Runs(function)
    serving = serve(handler, tls=settings())
    serving.connect().sendall(PLEASE)
    handler.end(serving)
    assert handler.notes == ["refused"]


def test_server_is_asked_over_tls(serve: Serve) -> None:
    async def asks(handler: Runs, conn: Stream) -> None:
        tls = ClientTls("localhost", ca=authority().text)
        stream = await handler.connect(server.address, tls=tls, timeout=10)
        await stream.write(b"question")
        handler.notes.append((await stream.read(), stream.tls.is_verified))

    with tls_server() as server:
        handler = Runs(asks)
        serving = serve(handler)
        serving.connect()
        assert handler.end(serving) is None
        assert handler.notes == [(b"question", True)]


def test_server_that_is_not_believed_is_an_error_of_connect(serve: Serve) -> None:
    async def asks(handler: Runs, conn: Stream) -> None:
        await handler.connect(server.address, tls=ClientTls("elsewhere", ca=authority().text), timeout=10)

    with tls_server() as server:
        handler = Runs(asks)
        serving = serve(handler)
        serving.connect()
        error = handler.end(serving)
        assert isinstance(error, TlsError)
        assert error.reason == "wrong_name"
