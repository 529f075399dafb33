"""Relays of two streams in a coroutine."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from core.support.sockets import listen
from worker.conftest import Serve
from worker.support.serving import Serving

from gaiod import Relayed, Stream
from handler.coroutines.support.handlers import Runs, reset


@contextmanager
def relayed(serve: Serve, first: bytes = b"") -> Iterator[tuple[Runs, Serving, socket.socket, socket.socket]]:
    """Serve a client by relaying it to a server that the test plays; yield both."""

    async def function(handler: Runs, conn: Stream) -> None:
        if first:
            await conn.read_exactly(1)
        server = await handler.connect(sock.getsockname())
        moved: Relayed = await conn.relay(server)
        handler.notes.append(moved)

    with listen() as sock:
        handler = Runs(function)
        serving = serve(handler)
        client = serving.connect()
        client.sendall(first)
        sock.setblocking(False)
        accepted: list[socket.socket] = []

        def look() -> bool:
            try:
                accepted.append(sock.accept()[0])
            except BlockingIOError:
                return False
            return True

        serving.step_until(look, "the server's client")
        with accepted[0] as server:
            yield handler, serving, client, server


def test_relay_moves_both_ways_what_was_not_read_first_and_tells_how_much(serve: Serve) -> None:
    with relayed(serve, b"!early ") as (handler, serving, client, server):
        client.sendall(b"late")
        assert serving.receive(server, 10) == b"early late"
        server.sendall(b"answer")
        assert serving.receive(client, 6) == b"answer"
        client.shutdown(socket.SHUT_WR)
        assert serving.is_ended(server)
        server.sendall(b"!")
        server.shutdown(socket.SHUT_WR)
        assert serving.receive(client, 2) == b"!"
        assert handler.end(serving) is None
        assert handler.notes == [Relayed(10, 7, None)]


def test_relay_ends_when_the_server_fails_and_tells_why(serve: Serve) -> None:
    with relayed(serve) as (handler, serving, client, server):
        client.sendall(b"abc")
        assert serving.receive(server, 3) == b"abc"
        reset(server)
        assert handler.end(serving) is None
        (moved,) = handler.notes
        assert moved.sent == 3
        assert isinstance(moved.error, OSError)


def test_relay_ends_when_the_client_is_gone(serve: Serve) -> None:
    with relayed(serve) as (handler, serving, client, server):
        reset(client)
        handler.end(serving)
        assert serving.is_ended(server)


def test_relay_ends_with_its_connection(serve: Serve) -> None:
    with relayed(serve) as (handler, serving, _, server):
        serving.end_all("admin")
        handler.end(serving)
        assert serving.is_ended(server)
