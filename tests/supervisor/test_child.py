"""A worker process, seen from its supervisor."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from e2e.support.clients import connect, echoes, exchange
from e2e.support.handlers import HANGS
from e2e.support.procfs import descriptors_of, targets_of

from gaiod import Watcher
from gaiod.process.dispatch import dispatch
from gaiod.settings import ListenerSettings, RecycleSettings, Settings
from gaiod.supervisor.processes.child import RECYCLE_SPREAD, Phase, WorkerProcess
from gaiod.supervisor.processes.generation import HEARTBEAT_INTERVAL_MAX_S, Generation
from gaiod.supervisor.processes.kept_closes import KeptCloses
from gaiod.supervisor.processes.slots import Memory
from gaiod.supervisor.sockets.listeners import OpenListener

ECHO = "gaiod.handlers.echo:Echo"


class Starting:
    """A worker process with one listener, and the loop that its supervisor would run."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.changes: list[tuple[bool, str | None, bool]] = []
        self.shared: list[dict[str, Any]] = []
        self.memory = Memory({("echo", "Echo"): ()})
        self.closes = KeptCloses()
        self.closes_fd = self.closes.open()
        self.listener = listen()
        self.worker = WorkerProcess(0, self.memory, watcher, self._take_change, self._take_share, instance=3)
        self.stack: str | None = None

    def _take_change(self, worker: WorkerProcess) -> None:
        self.changes.append((worker.ready_s is not None, worker.failed, worker.silent))

    def _take_share(self, worker: WorkerProcess, said: dict[str, Any]) -> None:
        self.shared.append(said)

    def start(self, handler: str = ECHO) -> None:
        """Start it, with one listener of this handler."""
        settings = Settings((ListenerSettings(name="echo", bind="127.0.0.1:0", handler=handler),))
        listener = OpenListener(self.address, [self.listener], shared=True)
        generation = Generation(1, settings, [listener])
        message = {**generation.message_to(0), "shared": {}, "closes": self.closes_fd}
        self.worker.start(message, generation.sockets_of(0, ()))

    def run_until(self, look: Callable[[], object]) -> None:
        """Run the loop until `look()` is true."""
        until_s = time.monotonic() + LIMIT_S
        while not look():
            assert time.monotonic() < until_s, self.changes
            dispatch(self._watcher.wait_io(0.01))

    def run_until_ready(self) -> None:
        """Run the loop until it can serve, and let it."""
        self.run_until(lambda: self.worker.ready_s is not None)
        self.worker.serve()
        dispatch(self._watcher.wait_io(0.01))

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

    def ask(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """Return its answer."""
        answers: list[dict[str, Any] | None] = []
        self.worker.ask(question, answers.append)
        self.run_until(lambda: answers)
        return answers[0]

    def collect(self) -> str:
        """Let go of it, once it has ended; return its stack."""
        if self.stack is None:
            self.run_until_ended()
            self.stack = self.worker.collect()
        return self.stack

    def close(self) -> None:
        """End it."""
        if hasattr(self.worker, "_process"):
            self.worker.kill()
            self.collect()
        self.memory.close()
        self.closes.retire(self.closes_fd)
        self.listener.close()


@pytest.fixture
def starting(watcher: Watcher) -> Iterator[Starting]:
    """A worker process that is not started yet."""
    starting = Starting(watcher)
    yield starting
    starting.close()


def test_worker_is_ready_when_it_says_so_and_serves(starting: Starting) -> None:
    starting.start()
    assert starting.worker.ready_s is None
    assert starting.worker.exit_status() is None
    starting.run_until_ready()
    assert starting.changes == [(True, None, False)]
    assert starting.worker.phase is Phase.STARTING, "its owner says when it serves"
    assert echoes(starting.address)


def test_worker_has_none_of_the_supervisors_other_descriptors(starting: Starting) -> None:
    """A foreign listener would outlive its owner."""
    with socket.socket() as foreign:
        os.set_inheritable(foreign.fileno(), True)
        target = os.readlink(f"/proc/self/fd/{foreign.fileno()}")
        starting.start()
        starting.run_until_ready()
        assert target not in targets_of(starting.worker.pid)


def test_worker_ends_with_0_when_it_is_drained(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.drain(LIMIT_S, eager=False)
    assert starting.worker.phase is Phase.DRAINING
    assert starting.run_until_ended() == 0


def test_worker_ends_with_0_when_it_is_drained_at_once(starting: Starting) -> None:
    """While Python starts: both messages wait for it."""
    starting.start()
    starting.worker.drain(LIMIT_S, eager=True)
    assert starting.run_until_ended() == 0


def test_draining_worker_serves_its_connections_until_they_end(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    with connect(starting.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        starting.worker.drain(LIMIT_S, eager=False)
        assert exchange(sock, b"still") == b"still"
        assert starting.worker.exit_status() is None
    assert starting.run_until_ended() == 0


def test_worker_that_is_killed_tells_the_signal(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.kill()
    assert starting.run_until_ended() == -signal.SIGKILL


def test_drain_and_kill_are_quiet_when_the_worker_is_gone(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.kill()
    starting.run_until_ended()
    starting.worker.drain(0, eager=True)
    starting.worker.drain_listener("echo", 0)
    starting.worker.kill()
    starting.worker.abort()
    assert starting.worker.exit_status() == -signal.SIGKILL


def test_worker_that_cannot_load_a_handler_says_why(starting: Starting) -> None:
    starting.start("/no/such/file.py")
    assert starting.run_until_ended() == 78
    starting.run_until(lambda: starting.worker.silent)
    (ready, why, _), *_ = starting.changes
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


def test_cpu_time_that_was_used_is_known_when_the_worker_is_gone(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    before_s = starting.worker.cpu_s()
    starting.worker.kill()
    starting.run_until_ended()
    after_s = starting.worker.cpu_s()
    assert 0 < before_s <= after_s
    assert starting.worker.cpu_s() == after_s


# -- questions -------------------------------------------------------------------------------------------


def test_question_is_answered(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    with connect(starting.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        answer = starting.ask({"verb": "connections", "listener": None, "sort": "age", "limit": 5})
    assert answer is not None
    assert answer["total"] == 1
    assert answer["connections"][0]["id"].startswith(f"{starting.worker.instance}-")


def test_question_is_answered_with_none_when_the_worker_ends_before(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    starting.worker.kill()
    answers: list[dict[str, Any] | None] = []
    starting.worker.ask({"verb": "kill", "connection": "3-1"}, answers.append)
    starting.collect()
    assert answers == [None]


# -- hanging, and wear -----------------------------------------------------------------------------------


def test_heartbeat_is_as_old_as_the_process_before_its_first(starting: Starting) -> None:
    starting.start()
    assert starting.worker.heartbeat_age_s(starting.worker.started_s + 5) == 5


def test_heartbeat_is_fresh_while_the_loop_comes_round(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    assert starting.worker.heartbeat_age_s(time.monotonic()) < LIMIT_S
    assert starting.memory.heartbeat_s >= starting.worker.started_s


def test_hung_worker_leaves_its_stack_behind_when_it_is_aborted(starting: Starting, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    starting.start(str(tmp_path / "mine.py"))
    starting.run_until_ready()
    with connect(starting.address) as sock:
        assert exchange(sock, b"hang me")
        starting.run_until(lambda: starting.worker.heartbeat_age_s(time.monotonic()) > 1.5 * HEARTBEAT_INTERVAL_MAX_S)
        starting.worker.abort()
        assert starting.run_until_ended() == -signal.SIGABRT
    assert "on_write" in starting.collect()


def test_worker_that_ends_in_order_leaves_no_stack(starting: Starting) -> None:
    starting.start()
    starting.worker.drain(0, eager=True)
    assert starting.collect() == ""


def test_stopped_worker_ends_when_it_is_aborted(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    os.kill(starting.worker.pid, signal.SIGSTOP)
    starting.worker.abort()
    assert starting.run_until_ended() == -signal.SIGABRT


@pytest.mark.parametrize(
    ("limits", "accepted", "age_s", "why"),
    [
        (RecycleSettings(), 10**9, 10**9, None),
        (RecycleSettings(age_s=100), 0, 100, "it is 100 s old"),
        (RecycleSettings(age_s=100), 0, 100 * (1 - RECYCLE_SPREAD) - 1, None),
        (RecycleSettings(connections=50), 50, 0, "it has accepted 50 connections"),
        (RecycleSettings(connections=50), 50 * (1 - RECYCLE_SPREAD) - 1, 0, None),
        (RecycleSettings(memory_bytes=1 << 40), 0, 0, None),
    ],
)
def test_worker_is_worn_when_it_has_reached_a_limit(
    starting: Starting, limits: RecycleSettings, accepted: int, age_s: float, why: str | None
) -> None:
    starting.worker.ready_s = 1000.0
    starting.start()
    assert starting.worker.is_worn(limits, int(accepted), 1000 + age_s) == why


def test_worker_is_worn_when_it_has_grown(starting: Starting) -> None:
    starting.start()
    starting.run_until_ready()
    why = starting.worker.is_worn(RecycleSettings(memory_bytes=1), 0, time.monotonic())
    assert why is not None
    assert why.endswith("MiB of memory")


def test_worker_is_not_worn_before_it_serves(starting: Starting) -> None:
    assert starting.worker.is_worn(RecycleSettings(age_s=1), 0, time.monotonic() + 1000) is None
