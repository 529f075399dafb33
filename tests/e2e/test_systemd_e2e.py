"""Under systemd: what it is told, and the sockets that it hands over."""

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.support.clients import connect, echoes, exchange
from e2e.support.daemons import ECHO, SERVE
from e2e.support.procfs import inodes_of, is_alive, session_of
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.waiting import wait_until


class Systemd:
    """The end that systemd has of the notification socket. `messages` are (process, lines).

    It takes what arrives at all times: the kernel holds few of such messages (net.unix.max_dgram_qlen, 10), and a
    daemon that is told to feed a watchdog each half of a second has sent as many in 5 s.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._take_all, daemon=True)
        self.messages: list[tuple[int, list[str]]] = []
        self._thread.start()

    def _take_all(self) -> None:
        while not self._is_over.wait(0.1):
            self.look()

    def close(self) -> None:
        """Take no more."""
        self._is_over.set()
        self._thread.join()

    def look(self) -> list[tuple[int, list[str]]]:
        """Take what has arrived, and return everything so far."""
        with self._lock:
            while True:
                try:
                    data, ancillary, _, _ = self._sock.recvmsg(4096, socket.CMSG_SPACE(12))
                except BlockingIOError:
                    return self.messages
                pid, _, _ = struct.unpack("iII", ancillary[0][2])
                self.messages.append((pid, data.decode().split("\n")))

    def said(self, line: str) -> list[int]:
        """Return who has said this."""
        return [pid for pid, lines in self.look() if line in lines]

    def wait_for(self, line: str, times: int = 1) -> None:
        """Wait until somebody has said this so often."""
        wait_until(lambda: len(self.said(line)) >= times, f"{line} x {times}; there is {self.messages}")


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """One that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.setblocking(False)
        sock.bind(str(tmp_path / "notify"))
        systemd = Systemd(sock)
        yield systemd
        systemd.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What systemd sets."""
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")}


# -- what it is told -------------------------------------------------------------------------------------


def test_ready_is_said_once_when_the_workers_serve_and_stopping_at_the_end(
    daemon: Start, systemd: Systemd, environment: dict[str, str]
) -> None:
    running = daemon(f"workers: 2\n{ECHO}", environment=environment)
    systemd.wait_for("READY=1")
    assert systemd.messages == [(running.pid, ["READY=1", "STATUS=generation 1, workers: 2, listeners: 1"])]
    running.stop()
    lines = [line for _, each in systemd.look()[1:] for line in each]
    assert lines[0] == "STOPPING=1"
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in lines)


def test_ready_is_not_said_by_a_daemon_that_does_not_get_so_far(
    daemon: Start, systemd: Systemd, environment: dict[str, str]
) -> None:
    running = daemon("listeners: {}\n", environment=environment, ready=False)
    assert running.wait() == 78
    assert systemd.look() == []


@pytest.mark.parametrize("text", [f"workers: 2\n{ECHO}", "listeners: {}\n"], ids=["works", "fails"])
def test_reloading_is_said_and_ready_after_it(
    daemon: Start, systemd: Systemd, environment: dict[str, str], tmp_path: Path, text: str
) -> None:
    """`ready` must follow, or systemd waits for it."""
    running = daemon(environment=environment)
    (tmp_path / "gaiod.yaml").write_text(text)
    running.send(signal.SIGHUP)
    systemd.wait_for("READY=1", times=2)
    _, (_, reloading), (_, ready) = systemd.messages
    assert reloading[0] == "RELOADING=1"
    assert reloading[1].startswith("MONOTONIC_USEC=")
    if "workers" in text:
        assert ready == ["READY=1", "STATUS=generation 2, workers: 2, listeners: 1"]
    else:
        assert ready == ["READY=1", "STATUS=generation 1, workers: 1, listeners: 1; the last reload failed"]


def test_watchdog_is_fed_and_goes_on_when_a_worker_that_hung_was_replaced(
    daemon: Start, systemd: Systemd, environment: dict[str, str]
) -> None:
    running = daemon(f"heartbeat_timeout: 2s\n{ECHO}", environment={**environment, "WATCHDOG_USEC": "1000000"})
    systemd.wait_for("WATCHDOG=1", times=2)
    os.kill(running.worker, signal.SIGSTOP)
    running.wait_for("worker 0 serves again")
    fed = len(systemd.said("WATCHDOG=1"))
    systemd.wait_for("WATCHDOG=1", times=fed + 2)
    assert set(systemd.said("WATCHDOG=1")) == {running.pid}


def test_workers_do_not_know_of_systemd(daemon: Start, systemd: Systemd, environment: dict[str, str]) -> None:
    """A handler's library must not report in the daemon's name."""
    running = daemon(environment={**environment, "WATCHDOG_USEC": "60000000"})
    variables = Path(f"/proc/{running.worker}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in variables
    assert b"WATCHDOG" not in variables


def test_main_process_is_the_new_one_after_an_upgrade(
    daemon: Start, systemd: Systemd, environment: dict[str, str]
) -> None:
    top = "drain_timeout: 5s\nhandover: {enabled: false}\n"
    running = daemon(f"{top}{ECHO}", environment={**environment, "WATCHDOG_USEC": "1000000"})
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        new = running.ask("upgrade")["pid"]
        assert systemd.said(f"MAINPID={new}") == [running.pid]
        told = systemd.messages.index((running.pid, [f"MAINPID={new}"]))
        fed = systemd.said("WATCHDOG=1").count(new)
        wait_until(lambda: systemd.said("WATCHDOG=1").count(new) >= fed + 3, "the new daemon's watchdog")
        assert is_alive(running.pid)
    assert running.wait() == 0
    assert {pid for pid, _ in systemd.look()[told + 1 :]} == {new}, "the old daemon speaks for the new one"
    assert new in systemd.said("READY=1")
    os.kill(new, signal.SIGTERM)
    systemd.wait_for("STOPPING=1")
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")


# -- the sockets it hands over ---------------------------------------------------------------------------

Activated = Callable[..., tuple[str, ...]]


@pytest.fixture
def activated() -> Activated:
    """Returns the command of a daemon that systemd starts with a socket."""
    program = tool("systemd-socket-activate", "systemd")

    def command(address: str, name: str = "echo") -> tuple[str, ...]:
        start = f"import os, sys; os.execv({program!r}, sys.argv)"
        variables = [f"-E{each}" for each in ("PYTHONPATH", "GAIOD_ENGINE", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET")]
        return ("-c", start, "-l", address, f"--fdname={name}", *variables, sys.executable, *SERVE)

    return command


@pytest.fixture
def address() -> str:
    """One that is free."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
    return f"{host}:{port}"


BOUND = 'metrics: {listen: "127.0.0.1:0"}\nlisteners: {echo: {bind: "systemd:echo", handler: echo}}\n'


def test_socket_that_systemd_opened_is_served_from_the_first_client_on(
    daemon: Start, activated: Activated, address: str
) -> None:
    running = daemon(f"workers: 2\n{BOUND}", command=activated(address), ready=False)
    running.wait_for("Listening on")
    assert echoes(address), "who came first was lost"
    running.wait_until_ready()
    assert running.address() == address
    for _ in range(20):
        assert echoes(address)


def test_socket_that_systemd_opened_stays_over_reloads_and_upgrades(
    daemon: Start, activated: Activated, address: str
) -> None:
    running = daemon(BOUND, command=activated(address), ready=False)
    running.wait_for("Listening on")
    assert echoes(address)
    running.wait_until_ready()
    sockets = inodes_of(running.pid, address)
    assert running.ask("reload")["generation"] == 2
    assert echoes(address)
    new = running.ask("upgrade")["pid"]
    assert inodes_of(new, address) == sockets
    assert echoes(address)
    assert running.wait() == 0
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    assert "Traceback" not in running.log()


def test_socket_that_systemd_did_not_hand_over_is_told_with_advice(
    daemon: Start, activated: Activated, address: str
) -> None:
    running = daemon(BOUND, command=activated(address, "other"), ready=False)
    running.wait_for("Listening on")
    connect(address).close()
    assert running.wait() == 71
    said = "listener echo: systemd handed over no socket called echo, but other; set FileDescriptorName=echo in its"
    assert said in running.log()


def test_listener_of_systemds_cannot_be_drained(daemon: Start, activated: Activated, address: str) -> None:
    running = daemon(BOUND, command=activated(address), ready=False)
    running.wait_for("Listening on")
    assert echoes(address)
    running.wait_until_ready()
    done = running.gaiod("drain", "echo")
    assert done.returncode != 0
    assert "the socket of echo is systemd's, which goes on listening: stop its .socket unit" in done.stderr
    assert echoes(address)
