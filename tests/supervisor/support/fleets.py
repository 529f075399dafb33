"""A fleet of real workers, in a loop like their supervisor's."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from core.support.waiting import LIMIT_S
from e2e.support.clients import connect, exchange

from gaiod import Watcher
from gaiod.process.dispatch import dispatch
from gaiod.settings import HandoverSettings, ListenerSettings, Settings
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Failure, Generation
from gaiod.supervisor.sockets.listeners import Listeners, Prepared

ECHO = "gaiod.handlers.echo:Echo"


class FleetUnderTest:
    """A fleet, what it serves, and what it has said.

    Attributes:
        crash_looping: how often it gave up.
        outcomes: of the launches so far.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.crash_looping = 0
        self.outcomes: list[Failure | None] = []
        self.listeners = Listeners()
        self.fleet = Fleet(watcher, crash_looping=self._give_up, changed=lambda: None)

    def _give_up(self) -> None:
        self.crash_looping += 1

    def prepare(
        self, workers: int = 1, handler: str = ECHO, *, handover: bool = False, allowed: bool = True, **more: Any
    ) -> tuple[Prepared, Generation]:
        """Open what a generation with one listener needs."""
        own = {"handover": handover, "has_state": True}
        listener = ListenerSettings(name="echo", bind="127.0.0.1:0", handler=handler, **own)  # type: ignore[arg-type]
        more = {"metrics_listen": "127.0.0.1:0", "handover": HandoverSettings(enabled=allowed), **more}
        prepared = self.listeners.prepare(Settings((listener,), workers, **more))
        number = 1 if self.fleet.generation is None else self.fleet.generation.number + 1
        return prepared, Generation(number, prepared.settings, prepared.listeners)

    def launch(self, generation: Generation) -> Failure | None:
        """Launch a generation; return how that went."""
        before = len(self.outcomes)
        self.fleet.launch(generation, self.outcomes.append)
        self.run_until(lambda: len(self.outcomes) > before)
        return self.outcomes[-1]

    def serve(self, workers: int = 1, handler: str = ECHO, **more: Any) -> Generation:
        """Let a new generation serve."""
        prepared, generation = self.prepare(workers, handler, **more)

        def adopt(failure: Failure | None) -> None:
            self.outcomes.append(failure)
            if failure is None:
                self.listeners.commit(prepared)
                self.fleet.adopt(generation)

        before = len(self.outcomes)
        self.fleet.launch(generation, adopt)
        self.run_until(lambda: len(self.outcomes) > before)
        assert self.outcomes[-1] is None
        self.address = prepared.listeners[0].address
        return generation

    def pid(self, slot: int = 0) -> int:
        """Return the process of the worker that serves."""
        return self.fleet.serving[slot].process.pid

    def run_until(self, look: Callable[[], object]) -> None:
        """Run the loop until `look()` is true."""
        until_s = time.monotonic() + LIMIT_S
        while not look():
            assert time.monotonic() < until_s, list(self.fleet)
            self.run_once()
            self.fleet.reap()
        self.run_once()  # what was said last is sent

    def run_once(self) -> None:
        """Run one pass of the loop."""
        dispatch(self.watcher.wait_io(0.01))

    def close(self) -> None:
        """End it."""
        self.fleet.kill()
        self.run_until(lambda: self.fleet.is_over)
        self.listeners.close()


@contextmanager
def skewed(fleet: FleetUnderTest, count: int) -> Iterator[list[socket.socket]]:
    """Give clients of which worker 0 has all."""
    clients: list[socket.socket] = []
    try:
        while len(clients) < count:
            before = _connections(fleet, 0)
            sock = connect(fleet.address)
            assert exchange(sock, b"ping") == b"ping"
            if _connections(fleet, 0) > before:
                clients.append(sock)
                continue
            sock.close()
            fleet.run_until(lambda: _connections(fleet, 1) == 0)
        yield clients
    finally:
        for sock in clients:
            sock.close()


def _connections(fleet: FleetUnderTest, slot: int) -> int:
    return fleet.fleet.serving[slot].process.memory.connections
