"""What a listener allows, and what happens beyond: too many connections, too silent ones, no descriptors."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest
from core.support.waiting import TIME_UNIT

from e2e.support.clients import Samples, connect, exchange, is_ended
from e2e.support.daemons import Daemon
from e2e.support.procfs import cpu_s, descriptors_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

LIMITED = """\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo:
    bind: "127.0.0.1:0"
    handler: echo
    {limit}
"""

CPU_SHARE_MAX = 0.2
"""A naive loop uses all of a CPU while accept() fails."""


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


@contextmanager
def no_descriptors_left(pid: int) -> Iterator[None]:
    """Let a process open no descriptor more: the limit is on their numbers, and some number below may be free."""
    taken = descriptors_of(pid)
    limit = next(number for number in count() if number not in taken)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, _hard_limit(pid)))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _hard_limit(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]


def _accept_errors(samples: Samples) -> float:
    return samples.value("gaiod_accept_errors_total", listener="echo", errno="EMFILE")


def _connected(running: Daemon, clients: ExitStack, n: int) -> list[socket.socket]:
    return [clients.enter_context(connect(running.address())) for _ in range(n)]


def test_connection_is_closed_and_counted_when_it_is_one_too_many(daemon: Start, clients: ExitStack) -> None:
    running = daemon(LIMITED.format(limit="connections_max: 2"))
    served = _connected(running, clients, 2)
    assert all(exchange(sock, b"in") == b"in" for sock in served)
    assert is_ended(*_connected(running, clients, 1))
    samples = running.scrape()
    assert samples.value("gaiod_connections_rejected_total", listener="echo", reason="limit") == 1
    assert samples.value("gaiod_connections_limit", listener="echo") == 2
    assert all(exchange(sock, b"still in") == b"still in" for sock in served)
    assert "connections_max=2 is reached" in running.log()


def test_connection_is_served_when_another_has_made_room(daemon: Start, clients: ExitStack) -> None:
    running = daemon(LIMITED.format(limit="connections_max: 1"))
    with connect(running.address()) as sock:
        assert exchange(sock, b"in") == b"in"
    wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "room")
    (sock,) = _connected(running, clients, 1)
    assert exchange(sock, b"next") == b"next"


def test_silent_connection_is_closed_when_the_idle_timeout_is_over(daemon: Start, clients: ExitStack) -> None:
    timeout_s = TIME_UNIT
    running = daemon(LIMITED.format(limit=f"idle_timeout: {round(timeout_s * 1000)}ms"))
    silent, busy = _connected(running, clients, 2)
    assert exchange(silent, b"hello") == b"hello"
    silent_since_s = time.monotonic()
    silent.setblocking(False)

    def look() -> bool:
        assert exchange(busy, b"busy") == b"busy"
        try:
            return silent.recv(1) == b""
        except BlockingIOError:
            return False

    wait_until(look, "the end of the silent connection")
    assert time.monotonic() - silent_since_s >= 0.9 * timeout_s
    assert exchange(busy, b"alive") == b"alive"
    closed = "gaiod_connections_closed_total"
    assert running.scrape().value(closed, listener="echo", reason="idle") == 1


def test_worker_survives_without_a_free_descriptor(daemon: Start, clients: ExitStack) -> None:
    """It must neither spin, nor lose the connections it has, nor forget those that wait."""
    running = daemon()
    worker = running.worker
    served = _connected(running, clients, 5)
    assert all(exchange(sock, b"before") == b"before" for sock in served)
    with no_descriptors_left(worker):
        waiting = _connected(running, clients, 20)
        wait_until(lambda: _accept_errors(running.scrape()) >= 1, "a failing accept()")
        began_s, used_s = time.monotonic(), cpu_s(worker)
        wait_until(lambda: _accept_errors(running.scrape()) >= 6, "accept() being tried again")
        passed_s = time.monotonic() - began_s
        assert cpu_s(worker) - used_s < CPU_SHARE_MAX * passed_s + 1 / os.sysconf("SC_CLK_TCK")
        assert _accept_errors(running.scrape()) < 20 + 20 * passed_s, "accept() is called in a loop"
        paused = {"listener": "echo", "reason": "fd"}
        assert running.scrape().value("gaiod_accept_paused_seconds_total", **paused) > 0
        assert all(exchange(sock, b"meanwhile") == b"meanwhile" for sock in served)
        served.pop().close()
        assert exchange(waiting[0], b"room") == b"room"
    assert all(exchange(sock, b"after") == b"after" for sock in waiting)
    assert running.log().count("accepting failed: [Errno 24]") <= 1 + passed_s + 1


def test_supervisor_survives_without_a_free_descriptor(daemon: Start, clients: ExitStack) -> None:
    running = daemon()
    with no_descriptors_left(running.pid), connect(running.metrics) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        running.wait_for("accepting failed")
        began_s, used_s = time.monotonic(), cpu_s(running.pid)
        wait_until(lambda: running.log().count("accepting failed") >= 4, "accept() being tried again")
        passed_s = time.monotonic() - began_s
        assert cpu_s(running.pid) - used_s < CPU_SHARE_MAX * passed_s + 1 / os.sysconf("SC_CLK_TCK")
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (256, _hard_limit(running.pid)))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
    (sock,) = _connected(running, clients, 1)
    assert exchange(sock, b"served") == b"served"
