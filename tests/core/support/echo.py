"""An echo server on a watcher, and loads for it: both ends in one process and one thread."""

import select
import socket
from typing import Any

from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from gaiod.core.connection import Conn
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


class EchoServer:
    """Accepts, and sends every byte back; closes when the peer does.

    Attributes:
        conns: the connections that are open, if it keeps them; else nobody does, but their operations.
    """

    def __init__(self, watcher: Watcher, *, keeps: bool = True, drops: bool = False) -> None:
        self.watcher = watcher
        self.keeps = keeps
        self.drops = drops
        self.conns: set[Conn] = set()
        self.accepted = 0
        self.ended = 0
        self.errors: list[Exception] = []
        listener = listen(backlog=4096)
        self.address: Any = listener.getsockname()
        self.listener = watcher.accept(listener)

    def serve(self, timeout: float = 0.0) -> int:
        """Pass once; return how many operations completed."""
        done = self.watcher.wait_io(timeout)
        for result in done:
            conn = result.conn
            if conn is None or result.error is not None:
                self.end(conn, result.error)
            elif result.operation is OpType.READ:
                conn.write(result.buffer)
            else:
                if result.operation is OpType.ACCEPT:
                    self.accepted += 1
                    if self.keeps:
                        self.conns.add(conn)
                conn.read()
        return len(done)

    def end(self, conn: Conn | None, error: Exception | None) -> None:
        """A connection is over: close it, or drop it where that is what the test is about."""
        if error is not None and not isinstance(error, EOFError):
            self.errors.append(error)
        if conn is None:
            return
        self.ended += 1
        self.conns.discard(conn)
        if not self.drops:
            conn.close()


class Crowd:
    """Many clients that each send one message and expect it back."""

    def __init__(self, server: EchoServer, messages: list[bytes]) -> None:
        self.server = server
        self.messages = messages
        self.clients: dict[int, socket.socket] = {}
        self.numbers: dict[int, int] = {}
        self.received: list[bytearray] = [bytearray() for _ in messages]

    def connect(self) -> None:
        """Connect one by one; the server accepts in between, so that no backlog overflows."""
        for number in range(len(self.messages)):
            client = socket.create_connection(self.server.address, timeout=LIMIT_S)
            client.setblocking(False)
            self.clients[client.fileno()] = client
            self.numbers[client.fileno()] = number
            if number % 64 == 0:
                self.server.serve()
        while self.server.accepted < len(self.messages):
            assert self.server.serve(LIMIT_S), "not all were accepted"

    def exchange(self) -> None:
        """Send all messages, and receive until everything came back."""
        poll = select.epoll()
        try:
            for fd, client in self.clients.items():
                assert client.send(self.messages[self.numbers[fd]]) == len(self.messages[self.numbers[fd]])
                poll.register(fd, select.EPOLLIN)
            missing = sum(map(len, self.messages))
            while missing > 0:
                served = self.server.serve()
                events = poll.poll(0 if served else LIMIT_S)
                assert events or served, f"{missing} bytes did not come back"
                for fd, _ in events:
                    part = self.clients[fd].recv(65536)
                    assert part, "the server closed"
                    self.received[self.numbers[fd]] += part
                    missing -= len(part)
        finally:
            poll.close()

    def close(self) -> None:
        """Close the clients, and let the server see it."""
        ended = self.server.ended + len(self.clients)
        for client in self.clients.values():
            client.close()
        self.clients.clear()
        while self.server.ended < ended:
            assert self.server.serve(LIMIT_S), "not every end was seen"
