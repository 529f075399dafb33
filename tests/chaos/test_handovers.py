"""Handing over under load, again and again: no byte is missing or doubled, and no connection ends that need not."""

import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.clients import Samples
from e2e.support.crowd import Seen, crowd
from e2e.support.daemons import Daemon
from e2e.support.procfs import descriptors_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import kill, workers_of

pytestmark = pytest.mark.chaos

CONFIG = """\
workers: 2
{more}
metrics: {{listen: "127.0.0.1:0"}}
handover: {{timeout: 60s}}
drain_timeout: 60s
listeners:
  back: {{bind: "{back}", handler: echo, backlog: 4096}}
  echo: {{bind: "127.0.0.1:0", handler: echo, backlog: 4096}}
  front: {{bind: "127.0.0.1:0", handler: proxy, backlog: 4096, with: {{servers: ["{back}"]}}}}
  ticks:
    bind: 127.0.0.1:0
    handler: push
    backlog: 4096
    with: {{topic: ticks, source: {{every: 100ms, message: "{{sequence}}"}}}}
"""

RECYCLED = "recycle: {age: 2s}"

SPARE_DESCRIPTORS = 64
"""What a worker has open beside its connections, at most."""

IN_FLIGHT_MAX = 200
"""Connections that two offers have: they may be committed to a worker that dies before it has counted them."""

sizes = pytest.mark.parametrize(
    ("echoes", "bulks", "subscribers", "for_s"),
    [
        pytest.param(100, 20, 40, 5.0, id="short"),
        pytest.param(5000, 500, 2000, 60.0, marks=pytest.mark.slow, id="long"),
    ],
)


@contextmanager
def loaded(
    daemon: Start, more: str, echoes: int, bulks: int, subscribers: int, *, again: bool = False
) -> Iterator[tuple[Daemon, Seen]]:
    """Give a daemon with clients of all kinds at work."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders have names too long for a socket
        running = daemon(CONFIG.format(more=more, back=f"unix:{Path(folder)}/back.sock"))
        with crowd(
            echo={"address": running.address("echo"), "count": echoes, "pause_s": 0.2 if echoes < 1000 else 2.0},
            bulk={"address": running.address("front"), "count": bulks},
            push={"address": running.address("ticks"), "count": subscribers},
            again=again,
        ) as seen:
            yield running, seen


def settle(running: Daemon, seen: Seen, counts: dict[str, int]) -> dict[str, Any]:
    """Wait until everybody is served by the workers that serve, and return what was seen."""
    wait_until(
        lambda: sorted(workers_of(running)) == sorted(running.workers), "the old workers' end", limit_s=12 * LIMIT_S
    )
    until_s = time.monotonic() + 3 * LIMIT_S
    while (found := seen())["silent_s"] >= 3 * TIME_UNIT:
        assert time.monotonic() < until_s, f"not everybody is served: {found}\n{running.log()[-3000:]}"
        time.sleep(0.5)
    assert found["connected"] == counts, what_ended(found, running)
    assert found["wrong"] == []
    assert found["doubled"] == 0
    return found


def victims_of(running: Daemon) -> list[int]:
    """Return workers that may die: five that do before they have served for a second end the daemon."""
    rows = running.ask("status")["workers"]
    return [row["pid"] for row in rows if row["state"] == "draining" or (row["age_s"] or 0.0) > 3.0]


def stop_recycling(running: Daemon) -> None:
    """Let workers live as long as they will."""
    file = running.folder.parent / "gaiod.yaml"
    file.write_text(file.read_text().replace(RECYCLED, ""))
    running.ask("reload")


def pauses(samples: Samples) -> str:
    """Return for how long connections stood still while they were handed over."""
    name = "gaiod_handover_pause_seconds"
    count = samples.total(f"{name}_count")
    bounds = sorted({float(labels["le"]) for labels in samples.labels(f"{name}_bucket")})
    shares = [f"{samples.total(f'{name}_bucket', le=le(bound)) / count:.1%} {le(bound)} s" for bound in bounds[:-1]]
    return f"{count:.0f} moves, within: {', '.join(shares)}; on average {samples.total(f'{name}_sum') / count:.3f} s"


def le(bound: float) -> str:
    """Return a bound as Prometheus writes it."""
    return str(bound)


def what_ended(found: dict[str, Any], running: Daemon) -> str:
    """Return how many connections ended how, and what the daemon says of it."""
    ends = Counter((kind, how) for kind, _, how in found["ends"])
    samples = running.scrape()
    name = "gaiod_connections_closed_total"
    reasons = [(each["listener"], each["reason"], samples.value(name, **each)) for each in samples.labels(name)]
    told = [line for line in running.log().splitlines() if any(word in line for word in ("stay", "ended", "killed"))]
    return "\n".join([str(ends), str([each for each in reasons if each[2]]), *told])


def spare_descriptors(running: Daemon) -> int:
    """Return the most that a worker has open beside connections."""
    samples = running.scrape()
    connections = samples.total("gaiod_connections_active") + samples.total("gaiod_upstream_connections_active")
    return int(sum(len(descriptors_of(pid)) for pid in running.workers) - connections)


@sizes
def test_nobody_notices_that_workers_are_recycled_all_the_time(
    daemon: Start, echoes: int, bulks: int, subscribers: int, for_s: float
) -> None:
    with loaded(daemon, RECYCLED, echoes, bulks, subscribers) as (running, seen):
        counts = {"echo": echoes, "bulk": bulks, "push": subscribers}
        time.sleep(for_s * TIME_UNIT)
        stop_recycling(running)
        found = settle(running, seen, counts)
        samples = running.scrape()
        spare = spare_descriptors(running)
    print(pauses(samples), found["moves"], f"{found['bytes']:,} bytes, longest answer {found['longest_s']:.2f} s")
    assert found["ends"] == []
    assert found["missed"] == 0
    moved = samples.total("gaiod_handover_connections_total", result="moved")
    assert moved > 2 * sum(counts.values())
    assert samples.total("gaiod_handover_stayed_total", reason="hook_error") == 0
    assert samples.total("gaiod_push_feed_gaps_total") == 0
    assert spare < 2 * SPARE_DESCRIPTORS


@sizes
def test_killed_workers_cost_only_what_they_had(
    daemon: Start, echoes: int, bulks: int, subscribers: int, for_s: float
) -> None:
    """Whichever of them dies, and at whatever point: the giver, the taker, or somebody else."""
    with loaded(daemon, RECYCLED, echoes, bulks, subscribers, again=True) as (running, seen):
        counts = {"echo": echoes, "bulk": bulks, "push": subscribers}
        until_s = time.monotonic() + for_s * TIME_UNIT
        kills = 0
        while time.monotonic() < until_s:
            time.sleep(random.uniform(0.5, 2.0) * TIME_UNIT)
            victims = victims_of(running)
            if victims:
                kill(random.choice(victims), signal.SIGKILL)
                kills += 1
        stop_recycling(running)
        found = settle(running, seen, counts)
        samples = running.scrape()
        spare = spare_descriptors(running)
    print(f"{kills} kills, {len(found['ends'])} ends, {found['missed']} missed; {pauses(samples)}")
    lost = samples.total("gaiod_connections_closed_total", reason="worker_lost")
    assert len(found["ends"]) <= lost + kills * IN_FLIGHT_MAX
    assert found["missed"] <= samples.total("gaiod_push_feed_gaps_total") * subscribers
    assert spare < 2 * SPARE_DESCRIPTORS
