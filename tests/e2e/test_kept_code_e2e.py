"""A generation owns its code: what was checked is what workers and the feeder run, whenever they start."""

import os
import signal
import time
from pathlib import Path

import pytest
from core.support.sockets import receive

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.feeding import PUSHES, config, feeder_of, subscribers
from e2e.support.handlers import IMPORTS, beside
from e2e.support.procfs import session_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from gaiod.supervisor.processes.crash_loop import SETTLED_S

WORKERS = 4
ROUNDS = 5

SAYS = IMPORTS + (
    "import word\n"
    "class Says(gaiod.Handler):\n"
    "    def on_open(self, conn):\n"
    "        conn.write(word.WORD + b'!')\n"
    "    def on_write(self, conn, result):\n"
    "        conn.read()\n"
    "    def on_read(self, conn, result):\n"
    "        raise RuntimeError('told to')\n"
)


@pytest.fixture
def running(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon whose handler says a word that is in a module beside it."""
    (tmp_path / "mine.py").write_text(SAYS)
    (tmp_path / "word.py").write_text("WORD = b'checked'\n")
    return daemon(f"workers: {WORKERS}\n{beside()}", environment={"PYTHONPATH": str(tmp_path)})


def _said(running: Daemon) -> str:
    with connect(running.address("mine")) as sock:
        return receive(sock, len("checked!")).decode()


def _kill_all(running: Daemon) -> None:
    """Kill every worker, once it has served for a second: then it is replaced at once. Wait for the next ones."""
    wait_until(lambda: len(running.workers) == WORKERS, "all workers")
    served_s = time.monotonic() + SETTLED_S
    wait_until(lambda: time.monotonic() > served_s, "a second of service")
    before = running.workers
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: len(running.workers) == WORKERS and not {*before} & {*running.workers}, "a successor for each worker"
    )


def _break(folder: Path, how: int) -> None:
    """Make the files beside the configuration what cannot be served, or is another."""
    mine, word = folder / "mine.py", folder / "word.py"
    match how % 4:
        case 0:
            mine.write_text("class Mine(:\n")
        case 1:
            mine.unlink()
            word.unlink()
        case 2:
            mine.write_text("raise SystemExit(7)\n")
        case 3:
            mine.write_text(SAYS)
            word.write_text("WORD = b'another'\n")


def test_twenty_workers_die_while_the_file_is_broken_and_the_checked_version_is_served(
    running: Daemon, tmp_path: Path
) -> None:
    for round_ in range(ROUNDS):
        _break(tmp_path, round_)
        _kill_all(running)
        assert {_said(running) for _ in range(8)} == {"checked!"}
    samples = running.scrape()
    assert samples.total("gaiod_worker_restarts_total") >= WORKERS * ROUNDS  # a busy machine may add one that hung
    assert samples.value("gaiod_worker_code_changed", worker=0) == 0
    assert running.ask("status")["state"] == "serving"


def test_refused_reload_leaves_the_code_as_it_was_and_a_good_one_brings_the_new(
    running: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("class Mine(:\n")
    assert running.gaiod("reload").returncode == 78
    assert running.gaiod("workers", "restart").returncode == 0
    assert _said(running) == "checked!"
    (tmp_path / "mine.py").write_text(SAYS)
    (tmp_path / "word.py").write_text("WORD = b'further'\n")
    assert running.gaiod("workers", "restart").returncode == 0
    assert _said(running) == "checked!"
    assert running.gaiod("reload").returncode == 0
    assert _said(running) == "further!"


def test_upgraded_daemon_checks_for_itself(running: Daemon, tmp_path: Path) -> None:
    (tmp_path / "word.py").write_text("WORD = b'upgrade'\n")
    assert running.gaiod("upgrade").returncode == 0
    assert running.wait() == 0
    assert _said(running) == "upgrade!"
    os.kill(running.ask("status")["pid"], signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")


def test_traceback_in_the_log_shows_what_was_checked(running: Daemon, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("# another\n" * 100)
    _kill_all(running)
    with connect(running.address("mine")) as sock:
        receive(sock, len("checked!"))
        sock.sendall(b"x")
        running.wait_for("RuntimeError: told to")
    place = f'File "{tmp_path / "mine.py"}", line 15, in on_read'
    assert f"{place}\n        raise RuntimeError('told to')\n" in running.log()


def test_installed_package_that_was_replaced_is_served_logged_and_counted_until_a_reload(
    daemon: Start, tmp_path: Path
) -> None:
    library = tmp_path / "site-packages" / "word.py"
    library.parent.mkdir()
    library.write_text("WORD = b'checked'\n")
    (tmp_path / "mine.py").write_text(SAYS)
    running = daemon(beside(), environment={"PYTHONPATH": str(library.parent)})
    library.write_text("WORD = b'another'\n")
    os.kill(running.worker, signal.SIGKILL)
    running.wait_for("worker 0 serves again")
    assert _said(running) == "another!"
    assert f"this process has loaded {library}: not what the configuration was checked with; run gaiod" in running.log()
    assert running.scrape().value("gaiod_worker_code_changed", worker=0) == 1
    running.ask("reload")
    wait_until(lambda: running.scrape().value("gaiod_worker_code_changed", worker=0) == 0, "the old worker's end")


# -- the feeder ----------------------------------------------------------------------------------------------


def test_feeder_that_dies_runs_what_was_checked_and_after_a_reload_what_is_new(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PUSHES)
    running = daemon(config("clocks: [a]"))
    with subscribers(running, 1) as (one,):
        one.line()
        for broken in ("class Mine(:\n", None, PUSHES.replace("{self.name} ", "another ")):
            if broken is None:
                path.unlink()
            else:
                path.write_text(broken)
            feeder = feeder_of(running)
            os.kill(feeder, signal.SIGKILL)
            while not one.line().startswith("a 1"):  # it counts anew
                pass
            wait_until(lambda: running.scrape().value("gaiod_feeder_up") == 1, "the feeder")
        assert "another" not in running.log()
        feeder = feeder_of(running)
        running.ask("reload")
        with subscribers(running, 1) as (new,):
            wait_until(lambda: new.line().startswith("another "), "what the new code publishes")
        assert feeder_of(running) == feeder
    assert running.scrape().value("gaiod_feeder_code_changed") == 0
