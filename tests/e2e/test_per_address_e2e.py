"""Limits of each address, over all workers of a daemon: exact, whatever becomes of the workers."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from e2e.test_upgrade import upgraded

MOST = 10

CONFIG = f"""\
workers: 4
drain_timeout: 2s
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, per_address: {{connections_max: {MOST}}}}}
"""


class Users:
    """Clients of one address, which stay as long as they are let."""

    def __init__(self, running: Daemon, stack: ExitStack) -> None:
        self.here: list[socket.socket] = []
        self._running = running
        self._stack = stack

    def one_more(self) -> bool:
        """Connect; tell whether it is served."""
        try:
            sock = self._stack.enter_context(connect(self._running.address()))
            is_served = exchange(sock, b"ping") == b"ping"
        except OSError:
            return False
        if is_served:
            self.here.append(sock)
        return is_served

    def left(self) -> int:
        """Return how many are still served; the others are gone."""
        for sock in list(self.here):
            try:
                is_served = exchange(sock, b"here") == b"here"
            except OSError:
                is_served = False
            if not is_served:
                self.here.remove(sock)
                sock.close()
        return len(self.here)

    def fill(self) -> int:
        """Have as many as there may be; return how many that is."""
        wait_until(lambda: len(self.here) == MOST or (self.one_more() and len(self.here) == MOST), "all places")
        return len(self.here) + self.one_more()


def settle(running: Daemon) -> None:
    """Wait until connections are where they stay: one that moves is counted nowhere for a moment."""
    wait_until(lambda: len(running.ask("status")["workers"]) == 4, "the end of workers that handed over")


def rejected(running: Daemon) -> float:
    return running.scrape().value("gaiod_connections_rejected_total", listener="echo", reason="per_address")


def test_address_has_its_connections_and_no_more_whatever_becomes_of_workers(daemon: Start) -> None:
    running = daemon(CONFIG)
    with ExitStack() as stack:
        users = Users(running, stack)
        assert users.fill() == MOST
        assert rejected(running) == 1
        assert running.gaiod("workers", "restart", limit_s=2 * LIMIT_S).returncode == 0
        settle(running)
        assert users.left() == MOST, "they were handed over"
        assert users.fill() == MOST
        running.ask("reload")
        settle(running)
        assert users.left() == MOST
        assert users.fill() == MOST
        users.here.pop().close()
        assert users.fill() == MOST
        victim = running.workers[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in running.workers and len(running.workers) == 4, "another worker")
        users.left()
        assert users.fill() == MOST
        new = running.ask("upgrade")["pid"]
        with upgraded(running, new):
            assert users.left() == MOST
            assert users.fill() == MOST


def test_clients_that_come_at_once_are_as_many_as_may_and_one_for_each_worker_at_most(daemon: Start) -> None:
    running = daemon(CONFIG)
    with ExitStack() as stack:
        users = Users(running, stack)
        with ThreadPoolExecutor(40) as threads:
            served = sum(threads.map(lambda number: users.one_more(), range(80)))
        assert MOST <= served <= MOST + 4
        assert rejected(running) == 80 - served


def test_daemon_has_its_connections_and_no_more(daemon: Start) -> None:
    listeners = CONFIG.replace(f", per_address: {{connections_max: {MOST}}}", "")
    running = daemon(f"connections_max: {MOST}\n{listeners}")
    with ExitStack() as stack:
        users = Users(running, stack)
        assert users.fill() == MOST
        assert running.gaiod("workers", "restart", limit_s=2 * LIMIT_S).returncode == 0
        settle(running)
        assert users.left() == MOST
        assert users.fill() == MOST
        victim = running.workers[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in running.workers and len(running.workers) == 4, "another worker")
        users.left()
        assert users.fill() == MOST
    samples = running.scrape()
    assert samples.value("gaiod_connections_rejected_total", listener="echo", reason="daemon_limit") >= 3


def test_address_that_comes_too_often_is_refused_and_others_are_not(daemon: Start) -> None:
    running = daemon(CONFIG.replace(f"connections_max: {MOST}", "new: 1/h, burst: 5, exempt: [127.0.0.2/32]"))
    with ExitStack() as stack:
        users = Users(running, stack)
        assert sum(users.one_more() for _ in range(8)) == 5
        samples = running.scrape()
        assert samples.value("gaiod_connections_rejected_total", listener="echo", reason="rate") == 3
        host, _, port = running.address().rpartition(":")
        for source in ("127.0.0.2", "127.0.0.3") * 3:
            with socket.create_connection((host, int(port)), LIMIT_S, (source, 0)) as sock:
                assert exchange(sock, b"ping") == b"ping"
    assert "is rejected: per_address.new is reached" in running.log()
