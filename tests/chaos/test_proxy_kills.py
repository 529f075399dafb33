"""Workers of a proxy killed again and again: what one of them had is lost, and nothing that was counted is."""

import time
from pathlib import Path
from threading import Event, Thread

import pytest
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.clients import request
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.upstreams import until
from e2e.support.waiting import wait_until
from prometheus_client.parser import text_string_to_metric_families

from chaos.support.daemons import kill
from chaos.support.load import Load
from chaos.support.proxies import proxied

pytestmark = pytest.mark.chaos

Key = tuple[str, frozenset[tuple[str, str]]]


class Watch:
    """Scrapes all the time, and notes every counter that went back.

    Attributes:
        scrapes: how many there were.
        backwards: the counters, with what they were before and then.
    """

    def __init__(self, running: Daemon) -> None:
        self.scrapes = 0
        self.backwards: list[tuple[Key, float, float]] = []
        self._metrics = running.metrics
        self._seen: dict[Key, float] = {}
        self._is_over = Event()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(LIMIT_S)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._is_over.wait(0.02):
                self._look()
        except Exception as failure:
            self._failure = failure

    def _look(self) -> None:
        for family in text_string_to_metric_families(request(self._metrics, "/metrics").body.decode()):
            for sample in family.samples if family.type in ("counter", "histogram") else ():
                key = sample.name, frozenset(sample.labels.items())
                if sample.value < self._seen.get(key, 0):
                    self.backwards.append((key, self._seen[key], sample.value))
                self._seen[key] = sample.value
        self.scrapes += 1


def kill_worker(running: Daemon, slot: int) -> None:
    """Kill the worker of a slot; return when another one serves there."""
    replaced = running.log().count("serves again")
    (victim,) = (row["pid"] for row in running.ask("status")["workers"] if row["worker"] == slot)
    kill(victim)
    wait_until(lambda: running.log().count("serves again") > replaced, "a replacement")


@pytest.mark.parametrize(
    ("clients", "kills"), [pytest.param(60, 2, id="short"), pytest.param(500, 30, marks=pytest.mark.slow, id="long")]
)
def test_killed_workers_cost_their_own_proxied_connections_and_no_counter_goes_back(
    daemon: Start, tmp_path: Path, clients: int, kills: int
) -> None:
    """A worker that has served for 1 s is replaced at once."""
    running, _ = proxied(daemon, tmp_path, workers=2)
    expected = 0.0
    with Load(running.address("front"), clients, pause_s=clients / 5000) as load:
        load.wait_until_served()
        with Watch(running) as watch:
            for number in range(kills):
                time.sleep(1.2 * TIME_UNIT)  # a rhythm, not a wait: each has settled, and the load goes on
                slot, before = number % 2, until(running, clients, "upstream_connections_active", upstream="front")
                expected += before.total("gaiod_connections_active", listener="front", worker=slot)
                kill_worker(running, slot)
                load.wait_until_served()
                lost = until(running, expected, "connections_closed_total", listener="front", reason="worker_lost")
                assert lost.total("gaiod_upstream_connections_active", upstream="front") <= clients
            after = until(running, clients, "upstream_connections_active", upstream="front")
    assert expected > 0
    assert len(load.ends) == expected, "somebody else's connection was lost"
    assert not load.wrong and not load.connect_errors
    assert watch.scrapes > 10 * kills
    assert watch.backwards == []
    assert after.total("gaiod_upstream_connections_total", upstream="front") == clients + expected
    until(running, 0, "upstream_connections_active", upstream="front")
