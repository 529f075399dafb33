"""Many workers: they share the work, and what one of them counted outlives it."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import receive

from e2e.support.clients import Samples, connect, echoes, exchange, is_ended
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import HANGS, IMPORTS, beside
from e2e.support.procfs import WORKER_MAX_KIB, is_stopped, private_kib
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

HEAVY = {"asyncio", "click", "h11", "importlib.metadata", "prometheus_client", "ssl", "yaml"}

TRAFFIC = {"listener": "echo", "handler": "echo"}

TELLS_MODULES = IMPORTS + (
    "import sys\n"
    "class Tells(gaiod.Handler):\n"
    "    def on_open(self, conn):\n"
    "        conn.write(' '.join(sys.modules).encode())\n"
    "        conn.close()\n"
)


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


def _served_for_a_second(running: Daemon) -> None:
    """Wait until a worker that dies is replaced at once. Its age counts its start too, which may take a second."""
    wait_until(lambda: all(row["age_s"] > 2.0 for row in running.ask("status")["workers"]), "a second")


def _closed(samples: Samples, reason: str) -> float:
    return samples.value("gaiod_connections_closed_total", listener="echo", reason=reason)


# -- sharing ---------------------------------------------------------------------------------------------


def test_connections_are_shared_about_evenly(daemon: Start, clients: ExitStack) -> None:
    """By a hash of the client's address and port: 200 throws of a coin, which are within 6 deviations."""
    running = daemon(f"workers: 2\n{ECHO}")
    for _ in range(200):
        sock = clients.enter_context(connect(running.address()))
        assert exchange(sock, b"x") == b"x"
    samples = running.scrape()
    active = [samples.value("gaiod_connections_active", **TRAFFIC, worker=worker) for worker in (0, 1)]
    assert sum(active) == 200
    assert min(active) > 50


def test_each_worker_has_its_cpu_when_they_are_pinned(daemon: Start) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    running = daemon(f"workers: 2\npin_workers: true\n{ECHO}")
    assert [os.sched_getaffinity(pid) for pid in running.workers] == [{cpus[worker % len(cpus)]} for worker in range(2)]
    assert os.sched_getaffinity(running.pid) == set(cpus)


def test_workers_may_use_every_cpu_when_they_are_not_pinned(daemon: Start) -> None:
    running = daemon()
    assert os.sched_getaffinity(running.worker) == os.sched_getaffinity(0)


def test_worker_has_nothing_in_it_that_only_the_supervisor_needs(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TELLS_MODULES)
    running = daemon(beside())
    with connect(running.address("mine")) as sock:
        modules = set(receive(sock, 1 << 20).decode().split())
    assert "gaiod.worker.process" in modules or "gaiod.worker.listener" in modules
    assert not HEAVY & modules


def test_worker_is_small(daemon: Start) -> None:
    running = daemon()
    assert echoes(running.address())
    assert private_kib(running.worker) < WORKER_MAX_KIB


# -- dying -----------------------------------------------------------------------------------------------


def test_counters_go_on_and_gauges_begin_anew_when_a_worker_is_killed(daemon: Start, clients: ExitStack) -> None:
    running = daemon()
    pending = "gaiod_operations_pending"
    assert echoes(running.address())
    wait_until(lambda: _closed(running.scrape(), "peer_eof") == 1, "the close being counted")
    idle = running.scrape().value(pending, worker=0, op="read")  # a worker that has just become ready is not idle yet
    for _ in range(3):
        sock = clients.enter_context(connect(running.address()))
        assert exchange(sock, bytes(1000)) == bytes(1000)
    before = running.scrape()
    os.kill(running.worker, signal.SIGKILL)
    running.wait_for("worker 0 serves again")
    after = running.scrape()
    for name in ("gaiod_connections_accepted_total", "gaiod_loop_iterations_total", "gaiod_conn_freed_total"):
        assert after.total(name) >= before.total(name) > 0, name
    for side in ("received", "sent"):
        name = f"gaiod_{side}_bytes_total"
        assert after.total(name) == before.total(name) == 3004
    assert after.value("gaiod_connections_active", **TRAFFIC, worker=0) == 0
    assert before.value(pending, worker=0, op="read") == idle + 3
    wait_until(lambda: running.scrape().value(pending, worker=0, op="read") == idle, "a successor that is idle")
    assert _closed(after, "worker_lost") == 3
    assert after.value("gaiod_worker_restarts_total", worker=0, reason="signal") == 1
    assert after.value("gaiod_worker_up", worker=0) == 1


def test_worker_that_had_settled_is_replaced_at_once(daemon: Start) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    _served_for_a_second(running)
    first, second = running.workers
    os.kill(first, signal.SIGKILL)
    running.wait_for("worker 0 serves again")
    assert "is started again in" not in running.log()
    assert running.workers[1] == second
    assert [row["restarts"] for row in running.ask("status")["workers"]] == [1, 0]


def test_clients_in_the_queue_of_a_dead_worker_are_served_by_its_successor(daemon: Start, clients: ExitStack) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    worker = running.workers[0]
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "the worker's stop")
    waiting = [clients.enter_context(connect(running.address())) for _ in range(30)]
    for sock in waiting:
        sock.sendall(b"patience")
    os.kill(worker, signal.SIGKILL)
    assert [receive(sock, 8) for sock in waiting] == [b"patience"] * 30


def test_other_workers_connections_go_on_when_one_is_killed(daemon: Start, clients: ExitStack) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    socks = [clients.enter_context(connect(running.address())) for _ in range(20)]
    for sock in socks:
        assert exchange(sock, b"x") == b"x"
    rows = running.ask("connections", limit=100)["connections"]
    lost = {row["peer"] for row in rows if row["worker"] == 0}
    assert 0 < len(lost) < 20
    os.kill(running.workers[0], signal.SIGKILL)
    for sock in socks:
        if "{}:{}".format(*sock.getsockname()) in lost:
            assert is_ended(sock)
        else:
            assert exchange(sock, b"still") == b"still"
    running.wait_for("worker 0 serves again")  # a stop before that would find a worker that was killed, and say so


def test_worker_that_hangs_is_replaced_and_its_stack_is_told(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    running = daemon(f"heartbeat_timeout: 2s\n{beside()}")
    worker = running.worker
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"hang me") == b"hanging"
        running.wait_for("worker 0 serves again")
        assert is_ended(sock)
    log = running.log()
    assert f"worker 0, process {worker}: its loop had completed no pass for " in log
    assert "mine.py" in log
    assert "in on_write" in log
    assert running.scrape().value("gaiod_worker_restarts_total", worker=0, reason="watchdog") == 1
    assert running.worker != worker


def test_daemon_ends_with_70_when_its_workers_die_again_and_again(daemon: Start, tmp_path: Path) -> None:
    """Whoever started it decides: systemd has a limit of its own, and somebody reads what it says."""
    (tmp_path / "mine.py").write_text(
        IMPORTS
        + "class Dies(gaiod.Handler):\n    tick_interval_s = 0.01\n    def on_tick(self):\n        os._exit(3)\n"
    )
    running = daemon(beside(), command=("-c", IMPATIENT, "serve", "--allow-root"))
    assert running.wait() == 70
    assert "5 times in 30 s: restarting does not help" in running.log()


IMPATIENT = """\
import sys
from gaiod.supervisor.processes import crash_loop
crash_loop.BACKOFF_FIRST_S = 0.01
sys.argv[0] = "gaiod"
from gaiod.cli import main
main()
"""
