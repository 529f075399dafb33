"""Edges in time: what happens while the daemon starts, reloads, is upgraded or stops."""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT

from e2e.support.clients import connect, echoes, exchange, is_ended, refuses, request
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import ECHOES, IMPORTS
from e2e.support.procfs import children_of, is_alive, is_stopped
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

IN_WORKER = "if 'gaiod.worker.process' in ' '.join(sys.orig_argv):\n"
SLOW = IMPORTS + "import sys\n" + IN_WORKER + "    while os.path.exists('wait'):\n        time.sleep(0.005)\n" + ECHOES
FAILING = IMPORTS + "import sys\n" + IN_WORKER + "    assert not os.path.exists('fail')\n" + ECHOES

TOP = 'metrics: {listen: "127.0.0.1:0"}\ndrain_timeout: 5s\n'
MINE = 'listeners: {mine: {bind: "127.0.0.1:0", handler: ./mine.py}}\n'


def _home(tmp_path: Path) -> Path:
    return tmp_path / "daemon-0"


# -- while it starts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_for_a_daemon_that_serves_does_not_end_one_that_starts(daemon: Start, number: signal.Signals) -> None:
    running = daemon(ready=False)
    wait_until(lambda: _ignores(running.pid, number), "the command to begin")
    running.send(number)
    running.wait_until_ready()
    assert echoes(running.address())


def _ignores(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_daemon_that_is_told_to_stop_while_it_starts_ends_in_spite_of_a_grace(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    running = daemon(f"stop_grace: 1h\n{TOP}{MINE}", files={"wait": ""}, ready=False)
    running.wait_for("listener mine: ")
    running.send(signal.SIGTERM)
    assert running.wait() == 0, running.log()


# -- while a reload is under way -------------------------------------------------------------------------


def test_nobody_is_reset_when_a_reload_with_more_workers_fails(daemon: Start, tmp_path: Path) -> None:
    """The sockets of workers that never came about must not have taken clients."""
    (tmp_path / "mine.py").write_text(FAILING)
    running = daemon(f"workers: 1\n{TOP}{MINE}")
    address = running.address("mine")
    (_home(tmp_path) / "fail").touch()
    (tmp_path / "gaiod.yaml").write_text(f"workers: 3\n{TOP}{MINE}")
    running.send(signal.SIGHUP)
    served = 0
    while "the reload failed" not in running.log():
        assert echoes(address)
        served += 1
    assert served > 0
    for _ in range(20):
        assert echoes(address)


def test_drain_is_refused_while_a_reload_is_under_way(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    running = daemon(TOP + MINE)
    (_home(tmp_path) / "wait").touch()
    running.send(signal.SIGHUP)
    wait_until(lambda: len(children_of(running.pid)) == 2, "the new worker")
    refused = running.gaiod("drain", "mine")
    assert refused.returncode == 75
    assert "a reload or an upgrade is under way" in refused.stderr
    (_home(tmp_path) / "wait").unlink()
    running.wait_for("reloaded: generation 2 serves")
    assert echoes(running.address("mine"))


def _port_of_nobody() -> int:
    """Return a free port below those that the kernel gives away: on another address somebody may get one of them."""
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port
    raise AssertionError("no port is free")


def test_listener_moves_from_one_host_to_every_host(daemon: Start, tmp_path: Path) -> None:
    """The daemon itself listens there: that is no reason to refuse."""
    port = _port_of_nobody()
    running = daemon(f'{TOP}listeners: {{echo: {{bind: "127.0.0.1:{port}", handler: echo}}}}\n')
    for bind in (f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"127.0.0.1:{port}"):
        (tmp_path / "gaiod.yaml").write_text(f'{TOP}listeners: {{echo: {{bind: "{bind}", handler: echo}}}}\n')
        assert running.gaiod("reload").returncode == 0, running.log()
        assert echoes(f"127.0.0.1:{port}")


# -- while it is upgraded --------------------------------------------------------------------------------


def test_old_daemon_alone_answers_until_the_new_one_serves(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    running = daemon(TOP + MINE)
    (_home(tmp_path) / "wait").touch()
    running.send(signal.SIGUSR2)
    running.wait_for("upgrading")
    wait_until(lambda: running.log().count("listener mine: ") == 2, "the new daemon")
    for _ in range(20):
        assert request(running.metrics, "/readyz").status == 200
        assert running.ask("status")["pid"] == running.pid
    refused = running.gaiod("reload")
    assert (refused.returncode, "an upgrade is under way" in refused.stderr) == (75, True)
    (_home(tmp_path) / "wait").unlink()
    running.wait_for("upgraded: process ")
    assert running.wait() == 0
    new = running.ask("status")["pid"]
    assert new != running.pid
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not is_alive(new), "the new daemon's end")


# -- while it stops --------------------------------------------------------------------------------------


def _stop_beside(running: Daemon, sock: socket.socket) -> None:
    assert exchange(sock, b"ping") == b"ping"
    running.send(signal.SIGTERM)
    running.wait_for("draining 1 connections")


def test_new_clients_are_refused_while_others_finish(daemon: Start) -> None:
    """They look elsewhere at once, instead of waiting where nobody serves them."""
    running = daemon(f"drain_timeout: 5s\n{ECHO}")
    with connect(running.address()) as sock:
        _stop_beside(running, sock)
        wait_until(lambda: refuses(running.address()), "a refusal")
        assert exchange(sock, b"still there") == b"still there"
    assert running.wait() == 0


def test_metrics_are_told_until_the_last_worker_has_ended(daemon: Start) -> None:
    running = daemon(f"workers: 2\ndrain_timeout: 5s\n{ECHO}")
    with connect(running.address()) as sock:
        _stop_beside(running, sock)
        wait_until(lambda: len(children_of(running.pid)) == 1, "the end of the idle worker")
        scrape = running.scrape()
        assert scrape.value("gaiod_draining") == 1
        assert scrape.total("gaiod_connections_active") == 1
        assert scrape.total("gaiod_worker_up") == 1
    assert running.wait() == 0
    assert "Traceback" not in running.log()


# -- what a worker may do --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_that_goes_to_all_processes_ends_no_worker(daemon: Start, number: signal.Signals) -> None:
    running = daemon()
    worker = running.worker
    with connect(running.address()) as sock:
        os.kill(worker, number)
        assert exchange(sock, b"still there") == b"still there"
    assert running.worker == worker


def test_restart_whose_successor_fails_says_so_and_the_worker_goes_on(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    running = daemon(TOP + MINE)
    worker = running.worker
    (_home(tmp_path) / "fail").touch()
    failed = running.gaiod("workers", "restart")
    assert failed.returncode == 70
    assert "did not become ready, so the old ones continue: 0" in failed.stderr
    assert running.worker == worker
    assert echoes(running.address("mine"))


def test_connections_are_shown_though_a_worker_does_not_answer(daemon: Start) -> None:
    running = daemon(f"workers: 2\nheartbeat_timeout: 1m\n{ECHO}")
    hung = running.workers[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(hung), "the worker's stop")
        result = running.ask("connections", listener=None, sort="age", limit=10)
        assert len(result["silent_workers"]) == 1
        assert "without those of workers that did not answer" in running.gaiod("connections").stdout
    finally:
        os.kill(hung, signal.SIGCONT)


def test_sums_do_not_fall_when_there_are_fewer_workers(daemon: Start, tmp_path: Path) -> None:
    """Prometheus would take it for a new beginning, and add everything once more."""
    running = daemon(f"workers: 3\n{TOP}listeners: {{echo: {{bind: '127.0.0.1:0', handler: echo}}}}\n")
    for _ in range(30):
        assert echoes(running.address())
    wait_until(lambda: running.scrape().total("gaiod_connections_closed_total") == 30, "the ends to be counted")
    (tmp_path / "gaiod.yaml").write_text(f"{TOP}listeners: {{echo: {{bind: '127.0.0.1:0', handler: echo}}}}\n")
    assert running.gaiod("reload").returncode == 0
    wait_until(lambda: len(running.workers) == 1, "the end of the surplus workers", limit_s=10 * TIME_UNIT)
    assert running.scrape().total("gaiod_connections_closed_total") == 30


def test_error_names_the_connection_as_everything_else_does(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(IMPORTS + ECHOES.replace("conn.write(result.buffer)", "raise LookupError"))
    running = daemon(TOP + MINE)
    with connect(running.address("mine")) as sock:
        (row,) = wait_until(
            lambda: running.ask("connections", listener=None, sort="age", limit=10)["connections"], "a connection"
        )
        sock.sendall(b"ping")
        assert is_ended(sock)
    running.wait_for(f"on_read raised; connection {row['id']} ({row['peer']}) is closed")
