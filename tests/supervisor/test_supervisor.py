"""The supervisor, from its first line to its exit status. How it ends is in e2e/test_stop.py."""

import os
import re
import signal
from pathlib import Path

from core.support.sockets import listen
from e2e.support.clients import connect, echoes, exchange, request
from e2e.support.daemons import ECHO, SERVE
from e2e.support.procfs import children_of, is_stopped
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

SLOW_WORKER = """\
import sys
import gaiod.supervisor.processes.child as process
popen = process.subprocess.Popen
def start(command, **rest):
    code = "import os, sys, time\\nwhile not os.path.exists('leave'): time.sleep(0.005)\\n"
    code += "import runpy; runpy.run_module('gaiod.worker.process', run_name='__main__', alter_sys=True)"
    return popen([sys.executable, "-P", "-c", code, command[-1]], **rest)
process.subprocess.Popen = start
sys.argv[0] = "gaiod"
from gaiod.cli import main
main()
"""

NO_WORKER = """\
import sys
import gaiod.supervisor.processes.child as process
def start(command, **rest):
    raise OSError(12, "Cannot allocate memory")
process.subprocess.Popen = start
sys.argv[0] = "gaiod"
from gaiod.cli import main
main()
"""


def test_readiness_is_red_until_the_worker_serves(daemon: Start, tmp_path: Path) -> None:
    running = daemon(command=["-c", SLOW_WORKER, *SERVE[2:]], ready=False)
    running.wait_for("listener echo: echo on ")
    assert request(running.metrics, "/readyz").status == 503
    assert request(running.metrics, "/livez").status == 200
    assert running.scrape().value("gaiod_worker_up", worker=0) == 0
    (tmp_path / "daemon-0" / "leave").touch()
    running.wait_until_ready()
    assert request(running.metrics, "/readyz").status == 200
    assert running.scrape().value("gaiod_worker_up", worker=0) == 1


def test_connections_that_come_before_the_worker_are_served(daemon: Start, tmp_path: Path) -> None:
    """The listener is open as soon as the log says so: the kernel lets them wait."""
    running = daemon(command=["-c", SLOW_WORKER, *SERVE[2:]], ready=False)
    running.wait_for("listener echo: echo on ")
    address = running.address()
    (tmp_path / "daemon-0" / "leave").touch()
    assert echoes(address)


def test_ready_is_said_once_and_names_the_process(daemon: Start) -> None:
    running = daemon()
    assert echoes(running.address())
    assert running.log().count("ready:") == 1
    assert f"ready: 1 worker, process {running.worker}\n" in running.log()


def test_ready_counts_the_workers_and_names_their_processes(daemon: Start) -> None:
    running = daemon(f"workers: 3\n{ECHO}")
    found = re.search(r"ready: 3 workers, process (.*)$", running.log(), re.MULTILINE)
    assert found
    assert sorted(map(int, found[1].split(", "))) == sorted(children_of(running.pid))
    assert echoes(running.address())


def test_nothing_stays_behind_when_one_of_several_addresses_is_taken(daemon: Start, tmp_path: Path) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        running = daemon(
            f'metrics: {{listen: "unix:{tmp_path}/metrics.sock"}}\n'
            "listeners:\n"
            f'  first: {{bind: "unix:{tmp_path}/first.sock", handler: echo}}\n'
            f'  second: {{bind: "127.0.0.1:{port}", handler: echo}}\n',
            ready=False,
        )
        assert running.wait() == 71
    assert f"listener second: cannot listen on 127.0.0.1:{port}: Address already in use" in running.log()
    assert not (tmp_path / "first.sock").exists()
    assert not (tmp_path / "metrics.sock").exists()


def test_address_of_the_metrics_that_is_taken_is_told(daemon: Start) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        running = daemon(
            f'metrics: {{listen: "127.0.0.1:{port}"}}\nlisteners: {{echo: {{bind: "127.0.0.1:0", handler: echo}}}}\n',
            ready=False,
        )
        assert running.wait() == 71
    assert f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use" in running.log()


def test_status_is_71_and_the_reason_is_told_when_no_process_can_be_started(daemon: Start) -> None:
    running = daemon(command=["-c", NO_WORKER, *SERVE[2:]], ready=False)
    assert running.wait() == 71
    assert "Cannot allocate memory" in running.log()
    assert "Traceback" not in running.log()


def test_worker_that_ends_by_a_signal_is_replaced_and_the_log_says_how(daemon: Start) -> None:
    running = daemon()
    worker = running.worker
    os.kill(worker, signal.SIGSEGV)
    running.wait_for("worker 0 serves again")
    assert f"worker 0, process {worker}, ended by SIGSEGV\n" in running.log()
    assert "was here when it ended" in running.log()
    assert running.worker != worker
    assert echoes(running.address())


def test_worker_that_is_told_to_end_has_its_successor_at_once_and_keeps_its_connections(daemon: Start) -> None:
    """Its queue must not wait until its connections have ended."""
    running = daemon()
    worker = running.worker
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        os.kill(worker, signal.SIGTERM)
        running.wait_for("worker 0 serves again")
        assert f"worker 0, process {worker}, was asked to end; starting another one" in running.log()
        assert echoes(running.address())
        assert exchange(sock, b"still there") == b"still there"
    running.wait_for(f"worker 0, process {worker}, ended with exit status 0")


def test_supervisor_goes_on_when_its_worker_only_stands_still(daemon: Start) -> None:
    """SIGCHLD comes for that too."""
    running = daemon()
    worker = running.worker
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "the worker's stop")
    assert request(running.metrics, "/livez").status == 200
    os.kill(worker, signal.SIGCONT)
    assert echoes(running.address())
    assert running.scrape().value("gaiod_ready") == 1
