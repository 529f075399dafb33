"""Subscribers that come, say what they want, and go, while nothing is published: nothing of them may stay."""

import pytest
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.procfs import descriptors_of, resident_bytes
from e2e.support.starting import Start
from e2e.support.upstreams import until
from e2e.support.waiting import wait_until

from chaos.support.daemons import workers_of

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

CONFIG = """\
metrics: {listen: "127.0.0.1:0"}
listeners:
  ticks: {bind: "127.0.0.1:0", handler: push, connections_max: 12000, with: {subscribe: {}}}
"""

TOPICS = 16
"""Of each, with names that nobody else has, as long as they may be."""

GONE_S = 2.0 * TIME_UNIT
"""When the last one must have been noticed to have gone: its second, and one for looking."""

ROUNDS = 3
GROWTH_MAX_BYTES = 4 << 20
"""From the first round on, that of the allocator. What a thousand would leave behind in the others: 14 MiB."""


def come_and_go(running: Daemon, count: int) -> None:
    """Subscribe so many times, and close."""
    address = running.address("ticks")
    for number in range(count):
        names = (f"{number:08}{topic:02}".ljust(128, "x") for topic in range(TOPICS))
        with connect(address) as sock:
            sock.sendall(f"SUBSCRIBE {' '.join(names)}\n".encode())


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_subscribers_that_have_gone_leave_nothing_behind(daemon: Start, count: int) -> None:
    running = daemon(CONFIG)
    (worker,) = workers_of(running)
    come_and_go(running, 1)  # a worker that says it is ready may still be moving the socket that it accepts on
    until(running, 1, "connections_closed_total", listener="ticks")
    before = descriptors_of(worker)
    resident = []
    for number in range(ROUNDS):
        come_and_go(running, count)
        wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "the end of all", limit_s=GONE_S)
        samples = running.scrape()
        closed = samples.value("gaiod_connections_closed_total", listener="ticks", reason="peer_eof")
        assert closed == 1 + (number + 1) * count
        assert samples.total("gaiod_push_subscribers") == 0
        assert descriptors_of(worker) == before
        resident.append(resident_bytes(worker))
    assert resident[-1] < resident[0] + GROWTH_MAX_BYTES * max(1, count // 1000)
