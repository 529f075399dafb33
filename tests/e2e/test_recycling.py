"""Replacing workers that are worn, or because an operator says so: nobody's connection ends for it."""

from contextlib import ExitStack
from pathlib import Path

from core.support.sockets import receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, echoes, exchange
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import IMPORTS, beside
from e2e.support.procfs import is_alive
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

LEAKS = IMPORTS + (
    "class Leaks(gaiod.Handler):\n"
    "    def on_open(self, conn):\n"
    "        self.leaked = b'x' * (48 << 20)\n"
    "        conn.read()\n"
    "    def on_read(self, conn, result):\n"
    "        conn.write(result.buffer)\n"
    "    def on_write(self, conn, result):\n"
    "        conn.read()\n"
)


def _wait_for_successor(running: Daemon, why: str) -> None:
    """Wait until worker 0 was replaced for wear."""

    def look() -> bool:
        return running.scrape().value("gaiod_worker_restarts_total", worker=0, reason="recycle") >= 1

    wait_until(look, "the worker's replacement")
    assert why in running.log()
    assert running.scrape().value("gaiod_ready") == 1


def test_worker_is_replaced_when_it_has_accepted_so_many(daemon: Start) -> None:
    running = daemon(f"handover: {{enabled: false}}\nrecycle: {{connections: 10}}\n{ECHO}")
    worker = running.worker
    with connect(running.address()) as old:
        assert exchange(old, b"before") == b"before"
        for _ in range(9):
            assert echoes(running.address())
        _wait_for_successor(running, "is replaced: it has accepted 10 connections")
        rows = {row["pid"]: row["state"] for row in running.ask("status")["workers"]}
        assert rows.pop(worker) == "draining"
        assert list(rows.values()) == ["serving"]
        assert exchange(old, b"after") == b"after"
        assert running.scrape().total("gaiod_connections_accepted_total") == 10
    wait_until(lambda: not is_alive(worker), "the old worker's end")
    assert running.scrape().total("gaiod_connections_active") == 0


def test_worker_is_replaced_when_it_is_old(daemon: Start) -> None:
    running = daemon(f"recycle: {{age: 1s}}\n{ECHO}")
    _wait_for_successor(running, " s old")
    assert echoes(running.address())


def test_worker_is_replaced_when_it_has_grown(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LEAKS)
    running = daemon(f"recycle: {{memory: 48MiB}}\n{beside()}")
    with connect(running.address("mine")) as sock:
        assert exchange(sock, b"x") == b"x"
        _wait_for_successor(running, "MiB of memory")
        assert exchange(sock, b"x") == b"x"


def test_nobody_is_refused_while_workers_are_replaced(daemon: Start) -> None:
    running = daemon(f"workers: 2\nrecycle: {{connections: 40}}\n{ECHO}")
    accepted = 0
    while running.scrape().total("gaiod_worker_restarts_total", reason="recycle") < 2:
        for _ in range(20):
            assert echoes(running.address())
            accepted += 1
        assert accepted < 10_000
    wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "the end of all")
    assert running.scrape().total("gaiod_connections_accepted_total") == accepted


def test_workers_are_replaced_one_after_the_other_when_an_operator_says_so(daemon: Start) -> None:
    running = daemon(f"workers: 3\n{ECHO}")
    before = running.workers
    with ExitStack() as clients:
        socks = [clients.enter_context(connect(running.address())) for _ in range(10)]
        for sock in socks:
            assert exchange(sock, b"before") == b"before"
        done = running.gaiod("workers", "restart")
        assert (done.returncode, done.stdout) == (0, "restarted: workers 0, 1, 2\n"), done
        for sock in socks:
            sock.sendall(b"after")
        assert [receive(sock, 5) for sock in socks] == [b"after"] * 10
        after = running.workers
        assert len(after) == 3
        assert not set(before) & set(after)
    for worker in range(3):
        assert running.scrape().value("gaiod_worker_restarts_total", worker=worker, reason="admin") == 1
    wait_until(lambda: not any(map(is_alive, before)), "the old workers' end", limit_s=LIMIT_S)
