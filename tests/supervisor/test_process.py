"""A worker process, seen from its supervisor."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from e2e.support.clients import echoes
from e2e.support.procfs import descriptors_of

from gaiod import Watcher
from gaiod.runtime.dispatch import dispatch
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.stats import Layout
from gaiod.supervisor.process import WorkerProcess
from gaiod.supervisor.slots import Slots
from supervisor.conftest import NewSlots

ECHO = "gaiod.handlers.echo:Echo"


class Starting:
    """A worker process with one listener, and the loop that its supervisor would run."""

    def __init__(self, watcher: Watcher, slots: Slots) -> None:
        self._watcher = watcher
        self.changes: list[tuple[bool, str | None]] = []
        self.slots = slots
        self.listener = listen()
        self.worker = WorkerProcess(0, watcher, lambda worker: self.changes.append((worker.ready, worker.failed)))

    def start(self, handler: str = ECHO) -> None:
        """Start it, with one listener of this handler."""
        settings = asdict(ListenerSettings(name="echo", bind="127.0.0.1:0", handler=handler))
        self.worker.start({"listeners": [settings], "slot": 0}, [self.listener], self.slots.fd)

    def run_until(self, look: Callable[[], object]) -> None:
        """Run the loop until `look()` is true."""
        until_s = time.monotonic() + LIMIT_S
        while not look():
            assert time.monotonic() < until_s, self.changes
            dispatch(self._watcher.wait_io(0.01))

    def run_until_ready(self) -> None:
        """Run the loop until it serves."""
        self.run_until(lambda: self.worker.ready)

    def run_until_ended(self) -> int:
        """Run the loop until it has ended, and return its exit status."""
        self.run_until(lambda: self.worker.exit_status() is not None)
        status = self.worker.exit_status()
        assert status is not None
        return status

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self.listener.getsockname()
        return f"{host}:{port}"

    def close(self) -> None:
        """End it."""
        if hasattr(self.worker, "_process"):
            self.worker.kill()
            self.run_until_ended()
        self.listener.close()


@pytest.fixture
def starting(watcher: Watcher, new_slots: NewSlots) -> Iterator[Starting]:
    """A worker process that is not started yet."""
    starting = Starting(watcher, new_slots(1, Layout(1)))
    yield starting
    starting.close()


def test_worker_is_ready_when_it_says_so_and_serves(starting: Starting) -> None:
    starting.start()
    assert not starting.worker.ready
    assert starting.worker.exit_status() is None
    starting.run_until_ready()
    assert starting.changes == [(True, None)]
    assert echoes(starting.address)


def test_worker_has_none_of_the_supervisors_other_descriptors(starting: Starting) -> None:
    """A foreign listener would outlive its owner."""
    with socket.socket() as foreign:
        os.set_inheritable(foreign.fileno(), True)
        target = os.readlink(f"/proc/self/fd/{foreign.fileno()}")
        starting.start()
        starting.run_until_ready()
        folder = f"/proc/{starting.worker.pid}/fd"
        assert target not in {os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}


def test_worker_ends_with_0_when_it_is_stopped(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.stop()
    assert starting.run_until_ended() == 0


def test_worker_ends_with_0_when_it_is_stopped_at_once(starting: Starting) -> None:
    """While Python starts: both messages wait for it."""
    starting.start()
    starting.worker.stop()
    assert starting.run_until_ended() == 0


def test_worker_that_is_killed_tells_the_signal(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.kill()
    assert starting.run_until_ended() == -signal.SIGKILL


def test_stop_and_kill_are_quiet_when_the_worker_is_gone(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.kill()
    starting.run_until_ended()
    starting.worker.stop()
    starting.worker.kill()
    assert starting.worker.exit_status() == -signal.SIGKILL


def test_worker_that_cannot_load_a_handler_says_why(starting: Starting) -> None:
    starting.start("/no/such/file.py")
    assert starting.run_until_ended() == 78
    starting.run_until(lambda: starting.changes)
    ((ready, why),) = starting.changes
    assert not ready
    assert why is not None
    assert "there is no file /no/such/file.py" in why


def test_usage_is_what_the_kernel_says(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    usage = starting.worker.usage()
    pid = str(starting.worker.pid)
    ps = subprocess.run(["ps", "-o", "rss=", "-p", pid], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert usage["open_fds"] == len(descriptors_of(starting.worker.pid))
    assert abs(usage["resident_bytes"] - 1024 * int(ps.stdout)) < 1 << 20
    assert 0 < usage["cpu_seconds"] < LIMIT_S
    assert usage["max_fds"] >= usage["open_fds"]


def test_usage_is_empty_when_the_worker_is_gone(starting: Starting) -> None:
    starting.start()
    starting.worker.kill()
    starting.run_until_ended()
    assert starting.worker.usage() == {}
