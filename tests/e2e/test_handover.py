"""Established connections outlive the worker that served them: reload, restart of the workers, upgrade."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from core.support.sockets import pattern
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange, is_ended
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

TOP = 'workers: 2\nmetrics: {listen: "127.0.0.1:0"}\ndrain_timeout: 100ms\n'
ECHO = '  echo: {bind: "127.0.0.1:0", handler: echo}\n'
TICKS = """\
  ticks:
    bind: 127.0.0.1:0
    handler: push
    with: {topic: ticks, source: {every: 2ms, message: "{sequence}"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration's file."""
    return tmp_path / "gaiod.yaml"


class Echoed:
    """A client that sends bytes all the time, and compares what comes back."""

    def __init__(self, address: str) -> None:
        self.sock = connect(address)
        self.data = pattern(1 << 20)
        self.sent = self.received = 0
        self.longest_s = 0.0
        self.failure: str | None = None

    def run(self, is_over: threading.Event) -> None:
        try:
            while not is_over.is_set():
                size = 1 + self.sent * 7 % 30_000
                first = self.sent % (len(self.data) - size)
                part = self.data[first : first + size]
                began_s = time.monotonic()
                if exchange(self.sock, part) != part:
                    self.failure = f"other bytes after {self.sent}"
                    return
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                self.sent += size
                time.sleep(0.002)
        except OSError as error:
            self.failure = f"{error!r} after {self.sent} bytes"


class Subscribed:
    """A subscriber that expects each number after the one before."""

    def __init__(self, address: str) -> None:
        self.sock = connect(address)
        self.last = 0
        self.failure: str | None = None

    def run(self, is_over: threading.Event) -> None:
        with self.sock.makefile("rb") as lines:
            while not is_over.is_set():
                try:
                    line = lines.readline()
                except OSError as error:
                    self.failure = f"{error!r} after {self.last}"
                    return
                if not line or (self.last and int(line) != self.last + 1):
                    self.failure = f"{line!r} after {self.last}"
                    return
                self.last = int(line)


@contextmanager
def busy(clients: list[Echoed | Subscribed]) -> Iterator[None]:
    """Have clients at work meanwhile; none may have seen anything."""
    is_over = threading.Event()
    threads = [threading.Thread(target=client.run, args=(is_over,)) for client in clients]
    with ExitStack() as stack:
        for client in clients:
            stack.callback(client.sock.close)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    assert [client.failure for client in clients if client.failure is not None] == []


def clients_of(running: Daemon) -> list[Echoed | Subscribed]:
    """Return some clients of each listener."""
    echoed = [Echoed(running.address(name)) for name in ["echo"] * 6 + ["front"] * 4]
    return [*echoed, *(Subscribed(running.address("ticks")) for _ in range(4))]


def all_kinds(file: Path) -> str:
    """Return a configuration with an echo, a publisher, and a proxy before another echo."""
    back = f"unix:{file.parent}/back.sock"
    front = f'  front: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["{back}"]}}}}\n'
    return f'{TOP}listeners:\n  back: {{bind: "{back}", handler: echo}}\n{ECHO}{front}{TICKS}'


def moved_of(running: Daemon, listener: str) -> float:
    """Return how many connections of a listener were taken over; who takes them counts when it gets to it."""
    return running.scrape().value("gaiod_handover_connections_total", listener=listener, result="moved")


def test_no_client_notices_reloads_of_options_and_restarts_of_workers(daemon: Start, file: Path) -> None:
    text = all_kinds(file)
    running = daemon(text)
    clients = clients_of(running)
    with busy(clients):
        for number in range(3):
            changed = text.replace("handler: echo}", f"handler: echo, idle_timeout: {number + 1}h}}")
            file.write_text(changed)
            before = set(running.workers)
            running.ask("reload")
            wait_until(lambda before=before: not before & set(running.workers), "the old workers' end")  # type: ignore[misc]
        before = set(running.workers)
        assert running.gaiod("workers", "restart").returncode == 0
        wait_until(lambda: not before & set(running.workers), "the old workers' end")
    moved = {"echo": 6 * 4, "front": 4 * 4, "ticks": 4 * 4}
    wait_until(lambda: all(moved_of(running, name) >= least for name, least in moved.items()), "their being counted")
    samples = running.scrape()
    for listener in moved:
        assert samples.value("gaiod_handover_connections_total", listener=listener, result="stayed") == 0
    assert samples.value("gaiod_push_feed_gaps_total", listener="ticks") == 0
    assert max(client.longest_s for client in clients if isinstance(client, Echoed)) < LIMIT_S
    running.wait_for(" connections over in ")


def test_connection_that_is_handed_over_is_not_a_new_one_to_its_server(daemon: Start, file: Path) -> None:
    text = all_kinds(file)
    running = daemon(text)
    with connect(running.address("front")) as client:
        exchange(client, b"before")
        file.write_text(text.replace("handler: proxy", "handler: proxy, idle_timeout: 1h"))
        running.ask("reload")
        wait_until(lambda: moved_of(running, "front") == 1, "its being handed over")
        exchange(client, b"after")
        samples = running.scrape()
        assert samples.total("gaiod_upstream_connections_total", upstream="front") == 1
        assert samples.total("gaiod_upstream_connections_active", upstream="front") == 1
    wait_until(
        lambda: running.scrape().total("gaiod_upstream_connections_active", upstream="front") == 0, "its being closed"
    )


def test_no_client_notices_an_upgrade(daemon: Start, file: Path) -> None:
    running = daemon(all_kinds(file))
    with busy(clients_of(running)):
        new = running.ask("upgrade")["pid"]
        assert running.wait() == 0
        time.sleep(0.1)  # some messages of the new daemon's alone
    os.kill(new, signal.SIGTERM)
    assert "Traceback" not in running.log()


@pytest.mark.parametrize(
    ("top", "listener"),
    [("handover: {enabled: false}\n", ECHO), ("", ECHO.replace("echo}", "echo, handover: false}"))],
)
def test_who_must_not_be_handed_over_drains(daemon: Start, file: Path, top: str, listener: str) -> None:
    running = daemon(f"{top}{TOP}listeners:\n{listener}")
    with connect(running.address("echo")) as sock:
        assert exchange(sock, b"before") == b"before"
        changed = listener.replace("handler: echo", "handler: echo, idle_timeout: 2h")
        file.write_text(f"{top}{TOP}listeners:\n{changed}")
        running.ask("reload")
        assert is_ended(sock)


def test_handler_that_cannot_describe_its_connections_drains_and_that_is_told(daemon: Start, file: Path) -> None:
    code = file.parent / "plain.py"
    code.write_text(
        "from gaiod import Handler\n\n\nclass Plain(Handler):\n"
        "    def on_open(self, conn):\n        conn.read()\n\n"
        "    def on_read(self, conn, result):\n        conn.write(result.buffer)\n\n"
        "    def on_write(self, conn, result):\n        conn.read()\n"
    )
    text = f'{TOP}listeners:\n  echo: {{bind: "127.0.0.1:0", handler: {code}}}\n'
    running = daemon(text)
    sock: socket.socket
    with connect(running.address("echo")) as sock:
        assert exchange(sock, b"before") == b"before"
        code.write_text(code.read_text() + "\n# changed\n")
        running.ask("reload")
        assert is_ended(sock)
    running.wait_for("handed 0 of 1 connections over")
    running.wait_for("1 stay: 1 handler")
    assert running.scrape().value("gaiod_handover_stayed_total", listener="echo", reason="handler") == 1


def test_connection_keeps_its_name_over_reload_restart_and_upgrade(daemon: Start, file: Path) -> None:
    """Also the connection to a server. It is explained, and ended, by the name that it has had from the beginning."""
    running = daemon(all_kinds(file))
    with connect(running.address("front")) as sock:
        assert exchange(sock, b"before") == b"before"
        told = running.ask("connections", listener="front")["connections"]
        [name] = [row["id"] for row in told]
        sides = [side["id"] for side in running.ask("explain", connection=name)["sides"]]
        assert running.gaiod("reload").returncode == 0
        wait_until(lambda: running.ask("explain", connection=name).get("moved"), "the hand-over at a reload")
        assert running.gaiod("workers", "restart").returncode == 0
        wait_until(lambda: running.ask("explain", connection=name)["moved"]["times"] == 2, "that at a restart")
        new = running.ask("upgrade")["pid"]
        assert running.wait() == 0
        try:
            moved = running.ask("explain", connection=name)["moved"]
            assert (moved["times"], moved["generation"]) == (3, 2)
            text = running.gaiod("explain", sides[1]).stdout
            assert " ago from worker " in text
            assert "; it has moved 3 times." in text
            assert [f"connection {side}\n" in text for side in sides] == [True, True]
            assert exchange(sock, b"after") == b"after"
            with connect(running.address("front")) as other:
                assert exchange(other, b"new") == b"new"
                rows = running.ask("connections", listener="front")["connections"]
                assert len({row["id"] for row in rows}) == 2
                assert running.gaiod("kill", name).returncode == 0
                assert is_ended(sock)
                assert exchange(other, b"still") == b"still"
        finally:
            os.kill(new, signal.SIGTERM)


@pytest.mark.parametrize("move", [True, False])
def test_each_connection_that_moves_has_a_line_if_that_is_wanted(daemon: Start, file: Path, move: bool) -> None:
    wanted = "log: {connections: {move: true, close: true}}\n" if move else ""
    running = daemon(f"{wanted}{TOP}listeners:\n{ECHO}")
    with connect(running.address("echo")) as sock:
        assert exchange(sock, b"before") == b"before"
        [row] = running.ask("connections")["connections"]
        assert running.gaiod("reload").returncode == 0
        wait_until(lambda: running.ask("explain", connection=row["id"]).get("moved"), "the hand-over")
        assert exchange(sock, b"after") == b"after"
    lines = [line for line in running.log().splitlines() if "connection moved" in line]
    assert len(lines) == move
    for line in lines:
        assert f" conn={row['id']} listener=echo peer={row['peer']} from_worker={row['worker']} " in line
        assert " from_generation=1 " in line
        assert " moves=1 paused_s=" in line
        running.wait_for(f"connection closed conn={row['id']} listener=echo peer={row['peer']} ")


def test_rebalance_evens_out_connections_of_which_one_worker_has_all(daemon: Start) -> None:
    """Each byte that the clients get back meanwhile is compared."""
    running = daemon(f"{TOP}listeners:\n{ECHO}")
    with ExitStack() as stack:
        clients: list[Echoed | Subscribed] = []
        while len(clients) < 20:
            client = Echoed(running.address("echo"))
            stack.callback(client.sock.close)
            assert exchange(client.sock, b"ping") == b"ping"
            rows = running.ask("connections", limit=1000)["connections"]
            name = "{}:{}".format(*client.sock.getsockname())
            if next(row["worker"] for row in rows if row["peer"] == name) == 0:
                clients.append(client)
            else:
                client.sock.close()
        workers = running.workers
        with busy(clients):
            done = running.gaiod("rebalance", "echo")
            time.sleep(0.2)  # they go on
        assert done.returncode == 0, done
        assert done.stdout == "moved: 10 connections\n  echo: worker 0: 20 -> 10, worker 1: 0 -> 10\n"
        assert running.workers == workers
        running.wait_for("handed 10 of 10 connections over")
        samples = running.scrape()
        assert samples.value("gaiod_handover_connections_total", listener="echo", result="moved") == 10
        assert samples.value("gaiod_handover_connections_total", listener="echo", result="stayed") == 0
