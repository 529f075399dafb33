"""Coroutine handlers of tests."""

import socket
from collections.abc import Awaitable, Callable
from typing import Any

from worker.support.serving import Serving

from gaiod import CoroutineHandler, Stream

Served = Callable[["Runs", Stream], Awaitable[None]]


class Runs(CoroutineHandler):
    """Serves each connection with a function of the test's, and notes how that ended.

    Attributes:
        ends: what each raised; None: it returned.
    """

    def __init__(self, function: Served) -> None:
        super().__init__()
        self._function = function
        self.ends: list[BaseException | None] = []
        self.notes: list[Any] = []

    async def handle(self, conn: Stream) -> None:
        try:
            await self._function(self, conn)
        except BaseException as error:
            self.ends.append(error)
            raise
        self.ends.append(None)

    def end(self, serving: Serving) -> BaseException | None:
        """Return how the first one has ended, once it has."""
        serving.step_until(lambda: self.ends, "the end of handle")
        return self.ends[0]


def reset(sock: socket.socket) -> None:
    """Close a connection so that its peer gets a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
