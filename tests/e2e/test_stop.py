"""How a daemon ends: asked to, killed, half-dead, or while it starts."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT

from e2e.support.clients import connect, echoes, exchange, is_ended, request
from e2e.support.daemons import Daemon
from e2e.support.handlers import FLOODS, HANGS, beside
from e2e.support.procfs import is_alive, is_stopped
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from gaiod.worker.drain import QUIET_S


def _take_address_again(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
        sock.listen()


def test_worker_that_is_killed_is_replaced_and_its_address_is_served_on(daemon: Start) -> None:
    running = daemon()
    worker = running.worker
    os.kill(worker, signal.SIGKILL)
    assert echoes(running.address()), "who comes before the next worker waits in the queue"
    assert f"worker 0, process {worker}, ended by SIGKILL\n" in running.log()
    assert "Traceback" not in running.log()
    assert running.worker != worker
    running.stop()


@pytest.mark.quiet
def test_worker_ends_within_a_second_and_frees_the_port_when_the_supervisor_is_killed(daemon: Start) -> None:
    running = daemon()
    worker, address = running.worker, running.address()
    with connect(address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        running.send(signal.SIGKILL)
        wait_until(lambda: not is_alive(worker), "the worker's end", limit_s=TIME_UNIT)
        assert sock.recv(1) == b""
    assert running.wait() == -signal.SIGKILL
    _take_address_again(address)


@pytest.mark.quiet
def test_worker_ends_within_a_second_when_the_supervisor_is_killed_and_a_client_does_not_read(
    daemon: Start, tmp_path: Path
) -> None:
    """Nobody is left who could kill a worker that waits for such a client: it must not wait long."""
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside())
    worker = running.worker
    with connect(running.address("mine")) as sock:
        assert sock.recv(1) == b"\0"
        running.send(signal.SIGKILL)
        running.wait()
        wait_until(lambda: not is_alive(worker), "the worker's end", limit_s=TIME_UNIT)


def test_worker_ends_when_the_supervisor_is_killed_while_a_hook_hangs(daemon: Start, tmp_path: Path) -> None:
    """A worker that is not in its loop sees no end of a channel: the kernel has to end it (PR_SET_PDEATHSIG)."""
    (tmp_path / "mine.py").write_text(HANGS)
    running = daemon(beside())
    worker = running.worker
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"hang me")
        running.send(signal.SIGKILL)
        running.wait()
        wait_until(lambda: not is_alive(worker), "the worker's end")


def test_daemon_ends_with_70_when_its_worker_hangs_and_it_is_stopped(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    running = daemon(f"drain_timeout: 0s\n{beside()}")
    worker = running.worker
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"hang me")
        running.send(signal.SIGTERM)
        assert running.wait() == 70
        assert f"worker 0, process {worker}, ended by SIGKILL (it did not end in time)" in running.log()
        assert is_ended(sock)


def test_daemon_ends_at_once_when_it_is_told_twice(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    running = daemon(beside())
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"hang me")
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: stopping")
        running.send(signal.SIGTERM)
        running.wait()
        assert "SIGTERM again: stopping now" in running.log()
        assert is_ended(sock)


def test_readiness_is_red_and_nothing_is_accepted_while_the_daemon_stops(daemon: Start, tmp_path: Path) -> None:
    """The worker sends what it has written before it ends; a load balancer must know at once."""
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside())
    with connect(running.address("mine")) as sock:
        assert sock.recv(1) == b"\0"
        assert request(running.metrics, "/readyz").status == 200
        running.send(signal.SIGTERM)
        running.wait_for("SIGTERM: stopping")
        assert request(running.metrics, "/readyz").status == 503
        assert request(running.metrics, "/livez").status == 200
        assert running.scrape().value("gaiod_ready") == 0
        received = 1
        while part := sock.recv(1 << 20):
            received += len(part)
        assert received == 64 << 20, "what the handler had written was cut off"
    assert running.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_ends_with_0_and_without_a_traceback_when_it_is_stopped_while_it_starts(
    daemon: Start, number: signal.Signals
) -> None:
    """SIGTERM goes to the supervisor, as from systemctl; SIGINT to all of them, as from a terminal."""
    running = daemon(ready=False)
    running.wait_for("listener echo: echo on ")
    (running.send if number == signal.SIGTERM else running.send_to_group)(number)
    assert running.wait() == 0, running.log()
    assert "Traceback" not in running.log()


@pytest.mark.parametrize("send", [Daemon.send_to_group, Daemon.send_to_all], ids=["group", "all"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_ends_in_order_when_a_signal_goes_to_its_group_or_to_all_its_processes(
    daemon: Start, send: Callable[[Daemon, signal.Signals], None], number: signal.Signals
) -> None:
    """A terminal signals the group, systemd the whole control group."""
    running = daemon()
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        send(running, number)
        assert sock.recv(1) == b""
    assert running.wait() == 0, running.log()
    assert "Traceback" not in running.log()


@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGTERM, {0}), (signal.SIGKILL, {0, 70})], ids=["obeyed", "died"]
)
def test_daemon_ends_when_its_worker_has_ended_just_before_it_is_told_to_stop(
    daemon: Start, number: signal.Signals, statuses: set[int]
) -> None:
    """The kernel delivers SIGCHLD first and SIGTERM second to a process that did not run meanwhile.

    So it is when systemd signals all processes, and the worker is the first to get a CPU.
    """
    running = daemon()
    worker = running.worker
    running.send(signal.SIGSTOP)
    wait_until(lambda: is_stopped(running.pid), "the supervisor's stop")
    os.kill(worker, number)
    wait_until(lambda: not is_alive(worker), "the worker's end")
    running.send(signal.SIGTERM)
    running.send(signal.SIGCONT)
    assert running.wait() in statuses, running.log()


@pytest.mark.quiet
def test_idle_clients_do_not_delay_the_end(daemon: Start) -> None:
    """Who has moved nothing for a second is not in the middle of anything."""
    running = daemon()
    socks = [connect(running.address()) for _ in range(100)]
    try:
        for sock in socks:
            assert exchange(sock, b"ping") == b"ping"
        running.send(signal.SIGTERM)
        assert running.wait(QUIET_S + 2 * TIME_UNIT) == 0
        assert all(sock.recv(1) == b"" for sock in socks)
    finally:
        for sock in socks:
            sock.close()


def test_stopped_worker_costs_no_queued_connection(daemon: Start) -> None:
    """A worker that stands still for a while: who connects meanwhile waits, and is served after."""
    running = daemon()
    worker = running.worker
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "the worker's stop")
    with connect(running.address()) as sock:
        sock.sendall(b"patience")
        os.kill(worker, signal.SIGCONT)
        assert sock.recv(64) == b"patience"
    assert echoes(running.address())
