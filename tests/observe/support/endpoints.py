"""The endpoint in this process, stepped by the test."""

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass

from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from worker.support.stepping import Stepped

from gaiod import Watcher
from gaiod.observe.http import Answer as Response
from gaiod.observe.http import Endpoint
from observe.support.slots import FakeDaemon

PAGE = Response(200, "<p>status</p>", {"content-type": "text/html"})


@dataclass(frozen=True)
class Answer:
    """An HTTP response, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


class EndpointUnderTest(Stepped):
    """An endpoint on a watcher of its own, and its clients."""

    def __init__(self, watcher: Watcher, clients: ExitStack) -> None:
        super().__init__(watcher)
        self._clients = clients
        self.daemon = FakeDaemon()
        clients.callback(self.daemon.close)
        self.endpoint = Endpoint(watcher, self.daemon.collector, lambda: self.daemon.is_ready, lambda: PAGE)
        with listen(backlog=1024) as sock:
            self.address = sock.getsockname()
            self.endpoint.open(sock)

    def connect(self) -> socket.socket:
        """Return a client, connected and not more."""
        sock = self._clients.enter_context(socket.create_connection(self.address, timeout=LIMIT_S))
        sock.setblocking(False)
        return sock

    def receive_all(self, sock: socket.socket) -> bytes:
        """Return what comes until the end of the stream, in order or not."""
        received = bytearray()
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            try:
                part = sock.recv(1 << 20)
            except BlockingIOError:
                self.step()
                continue
            except ConnectionError:
                return bytes(received)
            if not part:
                return bytes(received)
            received += part
        raise AssertionError(f"no end of the stream after {bytes(received)!r}")

    def is_open(self, sock: socket.socket) -> bool:
        """Tell whether a client that has got nothing is still connected."""
        try:
            return sock.recv(1) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def exchange(self, *parts: bytes) -> bytes:
        """Send parts of a request, a pass after each, and return all of the answer."""
        sock = self.connect()
        for part in parts:
            try:
                sock.sendall(part)
            except ConnectionError:
                break
            self.step()
        return self.receive_all(sock)

    def ask(self, target: str, *, method: str = "GET", **headers: str) -> Answer:
        """Make a request; headers with _ for -."""
        lines = [f"{method} {target} HTTP/1.1", "host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return answer_of(self.exchange("\r\n".join((*lines, "\r\n")).encode("latin-1")))


def answer_of(data: bytes) -> Answer:
    """Take a response apart; fail if it is none."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no HTTP response: {data!r}"
    status, *lines = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), data
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)
