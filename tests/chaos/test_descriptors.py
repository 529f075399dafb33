"""Descriptors: none left over after very many connections, and a worker that has no more of them."""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from core.support.descriptors import can_open
from core.support.sockets import reset
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.clients import connect, readable
from e2e.support.procfs import cpu_s, descriptors_of, resident_bytes
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import many, workers_of
from chaos.support.load import Load

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

LIMIT = 256
STEADY = CLIENTS = 50
FREED = 100
AGAIN_S = 0.2


@contextmanager
def limited(pid: int, descriptors: int) -> Iterator[None]:
    """Let another process have no more than so many descriptors."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("clients", "full_s"), [pytest.param(600, 1, id="short"), pytest.param(1000, 10, marks=pytest.mark.slow, id="long")]
)
def test_worker_without_descriptors_rests_and_serves_on_when_there_are_some(
    daemon: Start, tmp_path: Path, clients: int, full_s: float
) -> None:
    """Less than 5 % of a CPU, the steady clients' messages included; who waits is served 0.2 s after others have gone.

    A tenth of a second is the listener's rest, and another is allowed for the scheduler. It tries again after each
    rest and for each connection that closes, but not for each client that comes.
    """
    assert can_open(clients + 200)
    running = daemon(many(tmp_path, workers=1))
    (worker,) = workers_of(running)
    with ExitStack() as stack:
        load = stack.enter_context(Load(running.address("mine"), STEADY, pause_s=1.0))
        load.wait_until_served()
        with limited(worker, LIMIT):
            full_since_s = time.monotonic()
            socks = [stack.enter_context(connect(running.address("mine"))) for _ in range(clients)]
            wait_until(lambda: len(descriptors_of(worker)) == LIMIT, "a full worker")
            wait_until(lambda: running.scrape().total("gaiod_accept_errors_total", errno="EMFILE") > 0, "its counter")
            began_s, began_cpu_s = time.monotonic(), cpu_s(worker)
            time.sleep(full_s)  # to measure, not to wait
            assert cpu_s(worker) - began_cpu_s <= 0.05 * (time.monotonic() - began_s)
            served = readable(socks)
            waiting = [sock for sock in socks if sock not in served]
            assert len(served) < LIMIT - STEADY
            for sock in served[:FREED]:
                sock.close()
            freed_s = time.monotonic()
            wait_until(lambda: len(readable(waiting)) >= FREED, "as many others served")
            assert time.monotonic() - freed_s < AGAIN_S * TIME_UNIT + 0.1
            assert len(readable(waiting)) == FREED
            tries_max = 1 + FREED + 11 * (time.monotonic() - full_since_s)
            assert running.scrape().total("gaiod_accept_errors_total", errno="EMFILE") <= tries_max
        wait_until(lambda: len(readable(waiting)) == len(waiting), "everybody served")
    assert not load.ends and not load.wrong and not load.connect_errors


@pytest.mark.parametrize(
    "connections", [pytest.param(5000, id="short"), pytest.param(1_000_000, marks=pytest.mark.slow, id="long")]
)
def test_short_connections_leave_nothing_behind(daemon: Start, tmp_path: Path, connections: int) -> None:
    running = daemon(many(tmp_path, workers=1))
    (worker,) = workers_of(running)
    fds = descriptors_of(worker)
    limit_s = LIMIT_S + connections / 1000 * TIME_UNIT
    with Load(running.address("mine"), CLIENTS, pause_s=0, messages_per_connection=1) as load:
        wait_until(lambda: load.closed >= connections // 2, "half of the connections", limit_s=limit_s)
        memory = resident_bytes(worker)
        wait_until(lambda: load.closed >= connections, "all connections", limit_s=limit_s)
        assert resident_bytes(worker) - memory < 2 << 20
    assert not load.ends and not load.wrong and not load.connect_errors
    wait_until(lambda: descriptors_of(worker) == fds, "as many descriptors as before", limit_s=TIME_UNIT)
    samples = running.scrape()
    accepted = samples.total("gaiod_connections_accepted_total")
    assert accepted >= connections
    assert samples.total("gaiod_connections_closed_total") == accepted
    in_order = samples.total("gaiod_connections_closed_total", reason="peer_eof")
    assert accepted - CLIENTS <= in_order <= accepted, "the last of each client may have been reset"
    assert samples.total("gaiod_conn_gc_found_total") == samples.total("gaiod_conn_gc_closed_total")


@pytest.mark.parametrize(
    "resets", [pytest.param(500, id="short"), pytest.param(2000, marks=pytest.mark.slow, id="long")]
)
def test_connections_that_are_reset_at_once_cost_nothing_and_nobody(daemon: Start, tmp_path: Path, resets: int) -> None:
    """All of them open first, and then reset together: some are served by then, and others still queued."""
    assert can_open(resets + 200)
    running = daemon(many(tmp_path, workers=1))
    (worker,) = workers_of(running)
    with Load(running.address("mine"), STEADY, pause_s=0.01) as load:
        load.wait_until_served()
        fds = descriptors_of(worker)
        socks = [connect(running.address("mine")) for _ in range(resets)]
        for sock in socks:
            reset(sock)
        wait_until(lambda: descriptors_of(worker) == fds, "as many descriptors as before", limit_s=TIME_UNIT)
        for _ in range(resets):
            reset(connect(running.address("mine")))
        wait_until(lambda: descriptors_of(worker) == fds, "as many descriptors as before", limit_s=TIME_UNIT)
        wait_until(lambda: running.scrape().total("gaiod_connections_active") == STEADY, "the gauge", limit_s=TIME_UNIT)
    assert not load.ends and not load.wrong and not load.connect_errors
    assert "ERROR" not in running.log()
