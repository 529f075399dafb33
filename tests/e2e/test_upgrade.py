"""Upgrading: the program is replaced, and nobody who connects or is connected sees more than that."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, echoes, exchange, request
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import ECHOES, IMPORTS, beside
from e2e.support.procfs import inodes_of, is_alive, session_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

QUICK = f"drain_timeout: 5s\n{ECHO}"

WAITS = f"{IMPORTS}while os.path.exists('wait'):\n    time.sleep(0.005)\n{ECHOES}"


SHARES = f"""{IMPORTS}while os.path.exists('wait'):
    time.sleep(0.005)


class Shares(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        word = bytes(result.buffer).decode()
        if word != "?":
            self.share("word", word)
        conn.write(self.shared.get("word", "-").encode())

    def on_write(self, conn, result):
        conn.read()
"""


@contextmanager
def upgraded(running: Daemon, new: int) -> Iterator[None]:
    """Wait for the old daemon's end in order, let the test look at the new one, and stop that."""
    assert running.wait() == 0, running.log()
    yield
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    assert "Traceback" not in running.log()


class Clients:
    """Somebody who connects all the time.

    Attributes:
        served: how often that worked.
        failures: how it did not.
    """

    def __init__(self, address: str) -> None:
        self.served = 0
        self.failures: list[Exception] = []
        self._address = address
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            try:
                assert echoes(self._address)
            except Exception as failure:
                self.failures.append(failure)
            self.served += 1

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(LIMIT_S)


def test_nobody_is_refused_and_connections_go_on_when_the_daemon_is_upgraded(daemon: Start) -> None:
    running = daemon(QUICK)
    address = running.address()
    with connect(address) as old:
        assert exchange(old, b"before") == b"before"
        with Clients(address) as clients:
            done = running.gaiod("upgrade")
            assert done.returncode == 0, done
            new = running.ask("status")["pid"]
            assert done.stdout == f"upgraded: process {new} serves\n"
            served = clients.served
            wait_until(lambda: clients.served > served + 20, "some more clients")
        assert clients.failures == []
        assert new != running.pid
        assert exchange(old, b"after") == b"after"
    with upgraded(running, new):
        assert echoes(address)
        assert request(running.metrics, "/readyz").status == 200
        assert running.scrape().value("gaiod_ready") == 1
        assert running.ask("status")["pid"] == new


def test_sigusr2_upgrades(daemon: Start) -> None:
    running = daemon(QUICK)
    address, metrics = running.address(), running.metrics
    sockets = inodes_of(running.pid, address)
    running.send(signal.SIGUSR2)
    running.wait_for("serves; draining")
    assert running.wait() == 0
    new = running.ask("status")["pid"]
    with upgraded(running, new):
        assert (running.address(), running.metrics) == (address, metrics)
        assert inodes_of(new, address) == sockets
        assert echoes(address)


def test_daemon_can_be_upgraded_again(daemon: Start) -> None:
    running = daemon(QUICK)
    second = running.ask("upgrade")["pid"]
    assert running.wait() == 0
    third = running.ask("upgrade")["pid"]
    assert third != second
    with upgraded(running, third):
        wait_until(lambda: not is_alive(second), "the second daemon's end")
        assert echoes(running.address())


def test_configuration_is_read_anew(daemon: Start, tmp_path: Path) -> None:
    running = daemon(QUICK)
    (tmp_path / "gaiod.yaml").write_text(f'workers: 2\n{QUICK}  more: {{bind: "127.0.0.1:0", handler: echo}}\n')
    with upgraded(running, running.ask("upgrade")["pid"]):
        assert len(running.workers) == 2
        assert echoes(running.address("more"))
        for _ in range(10):
            assert echoes(running.address("echo"))


def test_unix_sockets_and_their_files_survive(daemon: Start, tmp_path: Path) -> None:
    path, metrics = tmp_path / "echo.sock", tmp_path / "metrics.sock"
    running = daemon(
        f'metrics: {{listen: "unix:{metrics}"}}\nlisteners: {{a: {{bind: "unix:{path}", handler: echo}}}}\n'
    )
    before = path.stat().st_ino
    with upgraded(running, running.ask("upgrade")["pid"]):
        assert echoes(f"unix:{path}")
        assert path.stat().st_ino == before
        assert metrics.exists()
        assert Path(running.control).exists()
    assert not path.exists()
    assert not metrics.exists()
    assert not Path(running.control).exists()


# -- failures --------------------------------------------------------------------------------------------


def _assert_as_it_was(running: Daemon, status: int, why: str) -> None:
    done = running.gaiod("upgrade")
    assert (done.returncode, done.stdout) == (status, ""), done
    assert why in done.stderr
    assert "the upgrade failed, and everything stays as it was" in running.log()
    after = running.ask("status")
    assert (after["pid"], after["state"]) == (running.pid, "serving")
    assert running.scrape().value("gaiod_ready") == 1
    wait_until(lambda: len(session_of(running.pid)) == 2, "the new daemon's end")


def test_old_daemon_serves_on_when_the_new_one_refuses_the_configuration(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "more.sock"
    text = f'{ECHO}  more: {{bind: "unix:{path}", handler: echo}}\n'
    running = daemon(text)
    (tmp_path / "gaiod.yaml").write_text("listeners: {}\n")
    _assert_as_it_was(running, 78, "ended with exit status 78 before it served:\n")
    assert "gaiod.yaml:1:12: listeners" in running.gaiod("upgrade").stderr
    assert echoes(running.address("echo"))
    assert echoes(f"unix:{path}")


def test_old_daemon_serves_on_when_the_new_ones_worker_fails(daemon: Start, tmp_path: Path) -> None:
    """It has all the sockets already, and must not take their files along."""
    path = tmp_path / "more.sock"
    text = f'{ECHO}  more: {{bind: "unix:{path}", handler: echo}}\n'
    running = daemon(text)
    (tmp_path / "mine.py").write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def on_start(self):\n        raise LookupError('no key')\n"
    )
    (tmp_path / "gaiod.yaml").write_text(f'{ECHO}  mine: {{bind: "127.0.0.1:0", handler: ./mine.py}}\n')
    _assert_as_it_was(running, 70, "raised LookupError: no key")
    assert echoes(running.address("echo"))
    assert echoes(f"unix:{path}"), "the file of a socket that is served was removed"


def test_old_daemon_serves_on_when_the_new_one_finds_an_address_taken(daemon: Start, tmp_path: Path) -> None:
    running, other = daemon(), daemon(name="other.yaml")
    (tmp_path / "gaiod.yaml").write_text(f'{ECHO}  mine: {{bind: "{other.address()}", handler: echo}}\n')
    _assert_as_it_was(running, 71, f"cannot listen on {other.address()}: Address already in use")
    assert echoes(running.address())


def test_reason_of_an_upgrade_that_failed_is_in_the_log_where_that_is_a_file(daemon: Start, tmp_path: Path) -> None:
    file = tmp_path / "gaiod.log"
    running = daemon(f"log: {{format: json, file: {file}}}\n{ECHO}", ready=False)
    wait_until(lambda: file.exists() and "ready:" in file.read_text(), "readiness")
    (tmp_path / "gaiod.yaml").write_text("listeners: {}\n")
    assert running.gaiod("upgrade").returncode == 78
    (line,) = (line for line in map(json.loads, file.read_text().splitlines()) if "the upgrade failed" in str(line))
    assert "gaiod.yaml:1:12: listeners: has no listener" in line["message"]


def test_upgrade_works_after_one_that_failed(daemon: Start, tmp_path: Path) -> None:
    running = daemon(QUICK)
    (tmp_path / "gaiod.yaml").write_text("listeners: {}\n")
    assert running.gaiod("upgrade").returncode == 78
    (tmp_path / "gaiod.yaml").write_text(QUICK)
    with upgraded(running, running.ask("upgrade")["pid"]):
        assert echoes(running.address())


@pytest.fixture
def slow(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon whose next start waits until a file is gone, and which has been told to upgrade."""
    (tmp_path / "mine.py").write_text(WAITS)
    running = daemon(f"drain_timeout: 5s\n{beside()}")
    (running.folder / "wait").touch()
    running.send(signal.SIGUSR2)
    wait_until(lambda: len(session_of(running.pid)) == 4, "the new daemon, and its reading of the configuration")
    return running


def _go_on(running: Daemon) -> int:
    """Let the new daemon serve; return its process."""
    (running.folder / "wait").unlink()
    running.wait()
    pid: int = running.ask("status")["pid"]
    return pid


def test_upgrade_and_reload_are_refused_during_an_upgrade(slow: Daemon) -> None:
    for command in ("upgrade", "reload"):
        done = slow.gaiod(command)
        assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
        assert "an upgrade is under way" in done.stderr
    assert echoes(slow.address("mine"))
    with upgraded(slow, _go_on(slow)):
        assert echoes(slow.address("mine"))


def test_what_is_shared_during_an_upgrade_is_known_after_it(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHARES)
    running = daemon(f"drain_timeout: 5s\n{beside()}")
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"a") == b"a"
    (running.folder / "wait").touch()
    running.send(signal.SIGUSR2)
    wait_until(lambda: len(session_of(running.pid)) == 4, "the new daemon, and its reading of the configuration")
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"b") == b"b"
    with upgraded(running, _go_on(running)), connect(running.address("mine")) as sock:
        assert exchange(sock, b"?") == b"b"


def test_stop_during_an_upgrade_stops_both(slow: Daemon) -> None:
    slow.send(signal.SIGTERM)
    assert slow.wait() == 0
    wait_until(lambda: not session_of(slow.pid), "the end of both")


def test_new_daemon_serves_when_the_old_one_is_killed_before_it_is_told(slow: Daemon) -> None:
    """It has the sockets: nobody but it can serve them."""
    slow.send(signal.SIGKILL)
    assert slow.wait() == -signal.SIGKILL
    (slow.folder / "wait").unlink()
    wait_until(lambda: slow.log().count("ready:") == 2, "the new daemon")
    with connect(slow.address("mine")) as sock:
        assert exchange(sock, b"ping") == b"ping"
    os.kill(slow.ask("status")["pid"], signal.SIGTERM)
    wait_until(lambda: not session_of(slow.pid), "its end")
    assert "Traceback" not in slow.log()


def test_operators_and_scrapes_notice_nothing_of_upgrades(daemon: Start) -> None:
    """They connect all the time; whoever the old daemon has accepted is answered by it."""
    running = daemon(QUICK)
    failures: list[str] = []
    counts = {"status": 0, "readyz": 0}
    has_ended = threading.Event()

    def ask_on() -> None:
        while not has_ended.wait(0.002):  # a rhythm, not a wait
            try:
                running.ask("status")
                counts["status"] += 1
            except Exception as error:
                failures.append(repr(error))

    def probe_on() -> None:
        address = running.metrics
        while not has_ended.wait(0.002):  # a rhythm, not a wait
            try:
                reply = request(address, "/readyz")
                assert reply.status == 200, reply
                counts["readyz"] += 1
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=target) for target in (ask_on, ask_on, probe_on)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert running.gaiod("upgrade").returncode == 0
            before = dict(counts)
            wait_until(lambda before=before: all(counts[key] > before[key] + 5 for key in counts), "more answers")  # type: ignore[misc]
    finally:
        has_ended.set()
        for thread in threads:
            thread.join()
    assert not failures
    with upgraded(running, running.ask("status")["pid"]):
        pass
