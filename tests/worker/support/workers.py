"""A worker as a process, its supervisor being the test."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.support.sockets import listen
from process.support.children import ChildUnderTest

from gaiod.settings import ListenerSettings, LogSettings
from gaiod.stats import closes
from gaiod.stats.cells import CELL, HEARTBEAT, Layout

ECHO = "gaiod.handlers.echo:Echo"
HEARTBEAT_INTERVAL_S = 0.02
MODULE = ("-m", "gaiod.worker.process")
NOW = {"drain": {"timeout_s": 0, "eager": True}}
"""The message that has a worker end at once, in order."""


class WorkerUnderTest(ChildUnderTest):
    """A worker with listeners of its own, all on 127.0.0.1.

    Attributes:
        feeder: the address of the feeder that it is told of.
        slow_hook_s: how long its hooks may take; None: as long as they like.
        feed_keys: of the listeners that take messages.
        shared: what the listeners' workers share already.
    """

    feeder = ""
    slow_hook_s: float | None = None
    feed_keys: Mapping[str, str] = MappingProxyType({})
    shared: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    def __init__(self, folder: Path, command: tuple[str, ...], sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        super().__init__(command, folder / "worker.log", [sock.fileno() for sock in sockets])

    def settings(self, *handlers: str, **more: Any) -> bytes:
        """Return the line that tells it what to serve: a listener for each handler."""
        listeners = [
            asdict(ListenerSettings(name=f"listener-{number}", bind="127.0.0.1:0", handler=handler, **more))
            for number, handler in enumerate(handlers)
        ]
        self._layout = Layout(tuple(len(listener["servers"]) for listener in listeners))
        os.ftruncate(self._stats, 8 * self._layout.size)
        os.ftruncate(self._closes, closes.FILE_BYTES)
        message = {
            "worker": 0,
            "generation": 1,
            "instance": 7,
            "listeners": listeners,
            "fds": [[sock.fileno()] for sock in self.sockets[: len(listeners)]],
            "later_fds": self._later_fds,
            "stats": self._stats,
            "code": self._code,
            "closes": self._closes,
            "dump": self._dump,
            "cpu": None,
            "heartbeat_interval_s": HEARTBEAT_INTERVAL_S,
            "slow_hook_s": self.slow_hook_s,
            "drain_timeout_s": 0.0,
            "feed": {"address": self.feeder, "keys": dict(self.feed_keys)},
            "log": asdict(LogSettings()),
            "shared": dict(self.shared),
        }
        return json.dumps(message).encode() + b"\n"

    def closed(self, name: str) -> dict[str, Any] | None:
        """Return what is remembered of a connection that closed."""
        return closes.find(os.pread(self._closes, closes.FILE_BYTES, 0), name, time.monotonic())

    def serve(self, *handlers: str, **more: Any) -> None:
        """Tell it what to serve, and wait until it does."""
        self.channel.sendall(self.settings(*(handlers or (ECHO,)), **more))
        assert self.receive()["ready"] is True
        self.send({"serve": True})

    def pass_socket(self, listener: int, sock: socket.socket) -> None:
        """Have it serve another socket instead of that of a listener."""
        socket.send_fds(self._handing, [b"s"], [sock.fileno()])
        self.send({"socket": listener})

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
        """Return when its loop last completed a pass."""
        return self._cell(self._layout.worker(HEARTBEAT))

    def clean_up(self) -> None:
        """End it, and close everything."""
        super().clean_up()
        self.forget_listeners()


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
