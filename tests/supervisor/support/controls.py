"""Both ends of the control socket, each with the other end played by the test."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S
from worker.support.stepping import Stepped

from gaiod import Watcher
from gaiod.supervisor.operators.server import Control, Reply, open_control_socket

STATUS = {"verb": "status"}
STATUS_LINE = b'{"verb": "status"}\n'


class ControlUnderTest(Stepped):
    """A control socket on a watcher of its own, stepped by the test, and its clients.

    Requests are answered with `{"echo": request}`, unless `answer` is another callable.
    """

    def __init__(self, watcher: Watcher, clients: ExitStack, path: Path) -> None:
        super().__init__(watcher)
        self._clients = clients
        self.path = path
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any], Reply], None] = _echo
        self.control = Control(watcher, self._take)
        self._listener = clients.enter_context(open_control_socket(f"unix:{path}"))
        self.control.open(self._listener.dup())

    def _take(self, request: dict[str, Any], reply: Reply) -> None:
        self.requests.append(request)
        self.answer(request, reply)

    def connect(self) -> socket.socket:
        """Return a client, connected and not more."""
        sock = self._clients.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(self.path))
        sock.setblocking(False)
        return sock

    def receive_line(self, sock: socket.socket) -> dict[str, Any]:
        """Return the next answer."""
        received = bytearray()
        until_s = time.monotonic() + LIMIT_S
        while not received.endswith(b"\n"):
            assert time.monotonic() < until_s, f"no answer; received {bytes(received[:200])!r}"
            try:
                part = sock.recv(1)  # no byte of the answer behind it
            except BlockingIOError:
                self.step()
                continue
            assert part, f"the connection ended after {bytes(received[:200])!r}"
            received += part
        answer: dict[str, Any] = json.loads(received)
        return answer

    def ask(self, request: object, sock: socket.socket | None = None) -> dict[str, Any]:
        """Make a request, over a connection of its own if none is given, and return its answer."""
        sock = sock or self.connect()
        sock.sendall(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")
        return self.receive_line(sock)

    def is_open(self, sock: socket.socket) -> bool:
        """Tell whether a client that has got nothing is still connected."""
        try:
            return sock.recv(1) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def wait_for_end(self, sock: socket.socket) -> None:
        """Pass until the connection is closed."""
        self.step_until(lambda: not self.is_open(sock), "the end of the connection")


def hold(control: ControlUnderTest) -> list[Reply]:
    """Let requests wait; return where their replies come to be."""
    replies: list[Reply] = []
    control.answer = lambda request, reply: replies.append(reply)
    return replies


def _echo(request: dict[str, Any], reply: Reply) -> None:
    reply({"ok": True, "result": {"echo": request}})


class PlayedDaemon:
    """A daemon that says what it is told to, to one client after the other.

    Attributes:
        requests: the lines it got.
    """

    def __init__(self, listener: socket.socket, answers: tuple[bytes, ...]) -> None:
        self.requests: list[bytes] = []
        self._listener = listener
        self._commands = answers

    def run(self) -> None:
        """Answer each client with the next answer."""
        for answer in self._commands:
            with self._listener.accept()[0] as client, client.makefile("rb") as file:
                self.requests.append(file.readline())
                client.sendall(answer)


@contextmanager
def played_daemon(path: Path, *answers: bytes | dict[str, Any]) -> Iterator[PlayedDaemon]:
    """Play a daemon in a thread. An answer is the bytes it sends, or what it sends as a line of JSON."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(LIMIT_S)
        lines = tuple(json.dumps(answer).encode() + b"\n" if isinstance(answer, dict) else answer for answer in answers)
        daemon = PlayedDaemon(listener, lines)
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield daemon
        finally:
            thread.join(LIMIT_S)
        assert not thread.is_alive(), "the daemon was asked too little"
