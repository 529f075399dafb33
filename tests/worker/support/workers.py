"""A worker as a process, its supervisor being the test."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.support.sockets import listen
from core.support.waiting import LIMIT_S

from gaiod.settings import ListenerSettings, LogSettings
from gaiod.stats.cells import CELL, HEARTBEAT, Layout

ECHO = "gaiod.handlers.echo:Echo"
HEARTBEAT_INTERVAL_S = 0.02
MODULE = ("-m", "gaiod.worker.process")
NOW = {"drain": {"timeout_s": 0, "eager": True}}
"""The message that has a worker end at once, in order."""


class WorkerUnderTest:
    """A worker with listeners of its own, all on 127.0.0.1.

    Attributes:
        feeder: the address of the feeder that it is told of.
        slow_hook_s: how long its hooks may take; None: as long as they like.
        feed_keys: of the listeners that take messages.
    """

    feeder = ""
    slow_hook_s: float | None = None
    feed_keys: Mapping[str, str] = MappingProxyType({})

    def __init__(self, folder: Path, command: tuple[str, ...], sockets: list[socket.socket]) -> None:
        self._log = folder / "worker.log"
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(LIMIT_S)
        self._lines = self.channel.makefile("r", encoding="utf-8")
        self.sockets = sockets
        self._stats = os.memfd_create("stats")
        self._dump = os.memfd_create("dump")
        self._handing, later = socket.socketpair()
        self._later_fds = later.fileno()
        with theirs, later, self._log.open("wb") as log:
            own = [theirs.fileno(), later.fileno(), self._stats, self._dump]
            fds = [*own, *(sock.fileno() for sock in self.sockets)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", *command, str(theirs.fileno())], pass_fds=fds, stdout=log, stderr=log
            )
        self.pid = self._process.pid

    def settings(self, *handlers: str, **more: Any) -> bytes:
        """Return the line that tells it what to serve: a listener for each handler."""
        listeners = [
            asdict(ListenerSettings(name=f"listener-{number}", bind="127.0.0.1:0", handler=handler, **more))
            for number, handler in enumerate(handlers)
        ]
        self._layout = Layout(tuple(len(listener["servers"]) for listener in listeners))
        os.ftruncate(self._stats, 8 * self._layout.size)
        message = {
            "worker": 0,
            "instance": 7,
            "listeners": listeners,
            "fds": [[sock.fileno()] for sock in self.sockets[: len(listeners)]],
            "later_fds": self._later_fds,
            "stats": self._stats,
            "dump": self._dump,
            "cpu": None,
            "heartbeat_interval_s": HEARTBEAT_INTERVAL_S,
            "slow_hook_s": self.slow_hook_s,
            "drain_timeout_s": 0.0,
            "feed": {"address": self.feeder, "keys": dict(self.feed_keys)},
            "log": asdict(LogSettings()),
        }
        return json.dumps(message).encode() + b"\n"

    def serve(self, *handlers: str, **more: Any) -> None:
        """Tell it what to serve, and wait until it does."""
        self.channel.sendall(self.settings(*(handlers or (ECHO,)), **more))
        assert self.receive() == {"ready": True}
        self.send({"serve": True})

    def receive(self) -> Any:
        """Return its next message; None if it is gone."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def pass_socket(self, listener: int, sock: socket.socket) -> None:
        """Have it serve another socket instead of that of a listener."""
        socket.send_fds(self._handing, [b"s"], [sock.fileno()])
        self.send({"socket": listener})

    def hang_up(self) -> None:
        """Close the channel."""
        self._lines.close()
        self.channel.close()
        self._handing.close()

    def address(self, listener: int = 0) -> str:
        """Return where a listener listens."""
        host, port = self.sockets[listener].getsockname()
        return f"{host}:{port}"

    def forget_listeners(self) -> None:
        """Close this side's copies, so that nobody listens when the worker does not."""
        for sock in self.sockets:
            sock.close()

    def count(self, cell: str, listener: int = 0) -> int:
        """Return one of a listener's cells."""
        return self._cell(self._layout.row(listener) + CELL[cell])

    def heartbeat_ns(self) -> int:
        """Return when its loop last came round."""
        return self._cell(self._layout.worker(HEARTBEAT))

    def _cell(self, index: int) -> int:
        return int.from_bytes(os.pread(self._stats, 8, 8 * index), sys.byteorder, signed=True)

    def stack(self) -> str:
        """Return what it left behind when it crashed."""
        return os.pread(self._dump, 1 << 16, 0).decode()

    def kill(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def log(self) -> str:
        """Return everything it has said."""
        return self._log.read_text()

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Return its exit status."""
        return self._process.wait(limit_s)

    def clean_up(self) -> None:
        """End it, and close everything."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(LIMIT_S)
        self.hang_up()
        self.forget_listeners()
        os.close(self._stats)
        os.close(self._dump)


@contextmanager
def started_worker(
    folder: Path, command: tuple[str, ...] = MODULE, *, sockets: list[socket.socket] | None = None
) -> Iterator[WorkerUnderTest]:
    """Give a worker that knows nothing yet; it is ended with the block.

    Args:
        folder: where its output goes.
        command: what Python runs.
        sockets: its listeners, two at least; None: new ones.
    """
    worker = WorkerUnderTest(folder, command, sockets or [listen(), listen()])
    try:
        yield worker
    finally:
        worker.clean_up()
