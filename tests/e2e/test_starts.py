"""A handler that cannot begin: the start or the reload fails, and what works goes on."""

import os
import signal
from pathlib import Path

from e2e.support.clients import connect, exchange
from e2e.support.handlers import ECHOES, IMPORTS, beside
from e2e.support.starting import Start

DOWN = "    def on_start(self):\n        raise ConnectionError('database is down')\n"
WHILE_THERE = DOWN.replace("        raise", "        if os.path.exists('broken'):\n            raise")


def _where(path: Path) -> str:
    line = path.read_text().splitlines().index(DOWN.splitlines()[1]) + 1
    return f"listener mine, handler {path}: on_start at {path}:{line} raised ConnectionError: database is down"


def test_start_fails_with_70_and_says_why_when_on_start_raises(daemon: Start, tmp_path: Path) -> None:
    """Not with 78, which keeps systemd from trying again: what it needs may be there in a moment."""
    path = tmp_path / "mine.py"
    path.write_text(IMPORTS + ECHOES + DOWN)
    running = daemon(beside(), ready=False)
    assert running.wait() == 70
    assert _where(path) in running.log()
    assert "ready: 1 worker" not in running.log()


def test_reload_fails_and_touches_nobody_when_on_start_raises(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(IMPORTS + ECHOES)
    running = daemon(beside())
    workers = running.workers
    with connect(running.address("mine")) as before:
        assert exchange(before, b"before") == b"before"
        path.write_text(IMPORTS + ECHOES + DOWN)
        done = running.gaiod("reload")
        assert (done.returncode, done.stdout) == (70, "")
        assert _where(path) in done.stderr
        assert running.workers == workers
        assert exchange(before, b"still") == b"still"
        with connect(running.address("mine")) as after:
            assert exchange(after, b"after") == b"after"
    samples = running.scrape()
    assert samples.value("gaiod_config_last_reload_successful") == 0
    assert samples.value("gaiod_ready") == 1


def test_worker_is_started_again_with_pauses_when_on_start_raises_and_serves_once_it_does_not(
    daemon: Start, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(IMPORTS + ECHOES + WHILE_THERE)
    running = daemon(beside())
    broken = tmp_path / "daemon-0" / "broken"
    broken.touch()
    (worker,) = running.workers
    os.kill(worker, signal.SIGKILL)
    running.wait_for("worker 0: listener mine, handler ")
    running.wait_for("worker 0 is started again in ")
    broken.unlink()
    running.wait_for("worker 0 serves again")
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"again") == b"again"
