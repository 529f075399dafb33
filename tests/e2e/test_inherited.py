"""A daemon does not depend on who started it: its parent's signals, streams, umask, limits and working directory."""

import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from e2e.support.clients import connect, echoes, exchange
from e2e.support.daemons import ECHO, SERVE
from e2e.support.handlers import ECHOES, IMPORTS
from e2e.support.procfs import session_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

UNIX = 'metrics: {listen: "127.0.0.1:0"}\nlisteners: {echo: {bind: "unix:%s", handler: echo}}\n'


def after(code: str) -> list[str]:
    """Return a command that starts the daemon as a parent would who has done something before."""
    again = f"import os, signal, sys; {code}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return ["-c", again, *SERVE]


@pytest.mark.parametrize(
    "code",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 10, 12, 15, 17)]",
        "os.close(0)",
        "os.close(1)",
        "[os.close(fd) for fd in range(3)]",
        "signal.setitimer(signal.ITIMER_REAL, 1)",
    ],
    ids=["blocked", "ignored", "no stdin", "no stdout", "no stream", "timer"],
)
def test_daemon_serves_reloads_and_stops_whatever_its_parent_left(daemon: Start, tmp_path: Path, code: str) -> None:
    log = tmp_path / "log"
    running = daemon(f"log: {{file: {log}}}\n{ECHO}", command=after(code), ready=False)
    wait_until(lambda: log.exists() and "ready:" in log.read_text(), "readiness")
    running.send(signal.SIGHUP)
    wait_until(lambda: "reloaded: generation 2" in log.read_text(), "the reload")
    assert echoes(running.ask("status")["listeners"][0]["bind"])
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def test_mode_of_a_socket_does_not_depend_on_the_umask(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    running = daemon(UNIX % path, command=after("os.umask(0)"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE(Path(running.control).stat().st_mode) == 0o600


def test_worker_has_as_many_descriptors_as_the_hard_limit_allows(daemon: Start) -> None:
    running = daemon(command=after("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 1024))"))
    assert running.scrape().total("gaiod_worker_max_fds") == 1024


def test_stop_while_handlers_are_imported_ends_in_order(daemon: Start, tmp_path: Path) -> None:
    slow = IMPORTS + "open('imports', 'w').close()\ntime.sleep(3600)\n" + ECHOES
    config = 'listeners: {mine: {bind: "127.0.0.1:0", handler: ./mine.py}}\n'
    (tmp_path / "mine.py").write_text(slow)
    running = daemon(config, ready=False)
    wait_until((running.folder / "imports").exists, "the import")
    running.send(signal.SIGTERM)
    assert running.wait() == 0, running.log()
    wait_until(lambda: not session_of(running.pid), "the end of the process that imports")


# -- the working directory -------------------------------------------------------------------------------


@pytest.mark.parametrize("becomes", ["removed", "swapped"])
def test_daemon_that_was_started_with_a_relative_path_goes_on_whatever_becomes_of_its_folder(
    daemon: Start, tmp_path: Path, becomes: str
) -> None:
    """A release folder is removed or replaced by the next one, under the daemon's feet."""
    release = tmp_path / "release"
    release.mkdir()
    (release / "gaiod.yaml").write_text(ECHO)
    code = f"os.chdir({str(release)!r})"
    running = daemon(None, command=[*after(code), "--config", "gaiod.yaml"])
    release.rename(tmp_path / "old")
    if becomes == "removed":
        shutil.rmtree(tmp_path / "old")
    assert running.ask("status")["config"] == str(release / "gaiod.yaml")
    assert running.gaiod("health").returncode == 0
    release.mkdir()
    (release / "gaiod.yaml").write_text("workers: 2\n" + ECHO)
    assert running.gaiod("reload").returncode == 0, running.log()
    assert running.ask("status")["generation"] == 2
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
    upgraded = running.gaiod("upgrade")
    assert upgraded.returncode == 0, running.log()
    assert running.ask("status")["config"] == str(release / "gaiod.yaml")
    os.kill(running.ask("status")["pid"], signal.SIGTERM)
    assert running.wait() == 0
    wait_until(lambda: not session_of(running.pid), "the end of the upgraded daemon")


def test_folder_that_is_gone_when_the_daemon_starts_is_said_to_be(daemon: Start, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    running = daemon(
        None, command=[*after(f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})"), "-c", "a.yaml"], ready=False
    )
    assert running.wait() == 78
    assert "a.yaml: the working directory was removed; give the absolute path" in running.log()
    assert "Traceback" not in running.log()
