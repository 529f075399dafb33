"""A daemon does not depend on who started it: its parent's signals, streams, umask, limits and working directory."""

import os
import shutil
import signal
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

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
    (tmp_path / "gaiod.yaml").write_text((UNIX % path).replace("handler: echo", 'handler: echo, socket_mode: "0660"'))
    assert running.gaiod("reload").returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_worker_has_as_many_descriptors_as_the_hard_limit_allows(daemon: Start) -> None:
    running = daemon(command=after("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 1024))"))
    assert running.scrape().total("gaiod_worker_max_fds") == 1024


def test_limit_that_connections_max_does_not_fit_into_is_warned_of_at_the_start_and_at_a_reload(
    daemon: Start, tmp_path: Path
) -> None:
    few = after("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))")
    running = daemon(ECHO.replace("handler: echo", "handler: echo, connections_max: 400"), command=few)
    assert "descriptors, and needs" not in running.log()
    (tmp_path / "gaiod.yaml").write_text(ECHO)
    assert running.gaiod("reload").returncode == 0
    assert "a worker may have 512 descriptors, and needs 10034 for connections_max" in running.log()


def test_proxy_without_descriptors_lets_clients_wait_and_blames_no_server(daemon: Start) -> None:
    """Each client takes one, and that to its server another: the last ones that fit have none for their server."""
    few = after("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))")
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server, ExitStack() as stack:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        proxy = f'{{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["{address}"]}}}}'
        running = daemon(f'metrics: {{listen: "127.0.0.1:0"}}\nlisteners: {{echo: {proxy}}}\n', command=few)
        for _ in range(60):
            stack.enter_context(connect(running.address()))
        wait_until(lambda: running.scrape().total("gaiod_accept_paused_seconds_total") > 0, "accepting to rest")
        seen = running.scrape()
        assert seen.total("gaiod_upstream_connect_failures_total") == 0
        assert "is ejected" not in running.log()
        assert "[Errno 24]" in running.log(), "of a client, or of its server: whichever came first"
        assert seen.total("gaiod_upstream_up") == 1
        stack.close()
        with connect(running.address()) as late:
            late.sendall(b"ping")
            received = b""
            while received != b"ping":  # those that are gone come first
                with server.accept()[0] as conn:
                    conn.settimeout(LIMIT_S)
                    received = conn.recv(4)


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
