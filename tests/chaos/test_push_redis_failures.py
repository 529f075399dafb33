"""Two daemons on one Redis: what dies costs its own clients and nobody else, and everything heals by itself."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from e2e.support.daemons import Daemon
from e2e.support.feeding import feeder_of
from e2e.support.redis import RedisServer
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.audience import Audience, Script
from chaos.support.daemons import kill, workers_of
from chaos.support.pushing import deliveries, dropped, push_config, wait_for_subscribers

pytestmark = pytest.mark.chaos

SIZE = 200
KEPT = ("--appendonly", "yes", "--appendfsync", "always")
"""Makes a Redis that is killed lose nothing that it has answered."""

SUBSCRIBERS = [pytest.param(15, id="short"), pytest.param(450, marks=pytest.mark.slow, id="long")]
"""Of each daemon."""


@dataclass
class Host:
    """A daemon, and its subscribers."""

    running: Daemon
    audience: Audience

    def source(self, name: str) -> float:
        """Return a metric of its source."""
        return self.running.scrape().value(f"gaiod_push_{name}", listener="ticks", source="redis")

    def survivors_missed_nothing(self, published: int) -> bool:
        """Tell whether all who are still connected got every message."""
        return all(list(each.numbers) == list(range(published)) for each in self.audience.fast if not each.ended)


class Cluster:
    """Two daemons whose sources read the same Redis, and a publisher."""

    def __init__(self, server: RedisServer, script: Script, hosts: list[Host], *, stream: bool) -> None:
        self.server = server
        self.script = script
        self.hosts = hosts
        self._command = ("XADD", "ticks", "*", "message") if stream else ("PUBLISH", "ticks")

    def publish(self, messages: int) -> None:
        """Publish steadily, the subscribers reading meanwhile; without a Redis, in vain."""
        with self.server.client() as client:
            for _ in range(messages):
                try:
                    client.execute_command(*self._command, self.script.write(SIZE))
                except redis.ConnectionError:
                    pass
                self.read()

    def read(self) -> None:
        """Have all subscribers read what is there."""
        for host in self.hosts:
            host.audience.read()

    def publish_until(self, look: Callable[[], bool], what: str) -> None:
        """Publish steadily until something has happened."""

        def go_on() -> bool:
            self.publish(5)
            return look()

        wait_until(go_on, what)

    def read_until_the_last(self, *hosts: Host) -> None:
        """Wait until everybody has the last message."""
        for host in hosts or self.hosts:
            host.audience.read_until(len(self.script.lines) - 1)

    def sources_are(self, up: int) -> bool:
        """Tell whether both daemons say so of their source."""
        return all(host.source("source_up") == up for host in self.hosts)


@contextmanager
def clustered(daemon: Start, clients: int, *, stream: bool, workers: int = 2) -> Iterator[Cluster]:
    """Start a Redis, two daemons and their subscribers."""
    with TemporaryDirectory() as folder:  # pytest's folders have names too long for a socket
        server = RedisServer(Path(folder), *(KEPT if stream else ()))
        names = "streams: [ticks]" if stream else "channels: [ticks]"
        text = push_config(f"source: {{redis: '{server.url}', {names}}}", workers=workers)
        hosts: list[Host] = []
        script = Script()
        server.start()
        try:
            for _ in range(2):
                running = daemon(text)
                hosts.append(Host(running, Audience(running.address("ticks"), script, clients)))
                wait_for_subscribers(running, clients)
            cluster = Cluster(server, script, hosts, stream=stream)
            wait_until(lambda: cluster.sources_are(1), "both sources")
            yield cluster
        finally:
            for host in hosts:
                host.audience.close()
            server.kill()


@pytest.mark.parametrize("clients", SUBSCRIBERS)
def test_redis_that_is_killed_costs_the_channels_a_gap_that_is_counted_and_nobody_a_connection(
    daemon: Start, clients: int
) -> None:
    with clustered(daemon, clients, stream=False) as cluster:
        cluster.publish(50)
        cluster.read_until_the_last()
        last = len(cluster.script.lines) - 1
        cluster.server.kill()
        cluster.publish_until(lambda: cluster.sources_are(0), "sources that are down")
        cluster.server.start()
        cluster.publish_until(lambda: cluster.sources_are(1), "sources that are up again")
        cluster.publish(50)
        cluster.read_until_the_last()
        for host in cluster.hosts:
            assert (host.source("source_gaps_total"), host.source("source_reconnects_total")) == (1, 1)
            gaps = {tuple(each.gaps) for each in host.audience.fast}
            ((first, _),) = next(iter(gaps))
            assert (len(gaps), first) == (1, last + 1), "all subscribers miss the same, once"
            check_counters(host)


@pytest.mark.parametrize("clients", SUBSCRIBERS)
def test_redis_that_is_killed_costs_the_streams_nothing(daemon: Start, clients: int) -> None:
    """What is published meanwhile is published once it is back, as it is by publishers that wait for an answer."""
    with clustered(daemon, clients, stream=True) as cluster:
        for _ in range(2):
            cluster.publish(50)
            cluster.server.kill()
            wait_until(lambda: cluster.sources_are(0), "sources that are down")
            cluster.server.start()
            cluster.publish(50)
            wait_until(lambda: cluster.sources_are(1), "sources that are up again")
        cluster.read_until_the_last()
        for host in cluster.hosts:
            assert host.survivors_missed_nothing(200)
            assert (host.source("source_gaps_total"), host.source("source_reconnects_total")) == (0, 2)
            check_counters(host)


@pytest.mark.parametrize("clients", SUBSCRIBERS)
def test_worker_and_feeder_that_are_killed_cost_the_other_daemon_nothing(daemon: Start, clients: int) -> None:
    """A killed worker costs the connections it had, a killed feeder nothing: the stream goes on where it was."""
    with clustered(daemon, clients, stream=True) as cluster:
        hurt, other = cluster.hosts
        cluster.publish(50)
        cluster.read_until_the_last()
        samples = hurt.running.scrape()
        lost, kept = (samples.value("gaiod_push_subscribers", listener="ticks", worker=slot) for slot in (0, 1))
        victim, survivor = workers_of(hurt.running)
        os.kill(victim, signal.SIGKILL)
        cluster.publish_until(lambda: _ended(hurt) in (lost, kept), "the end of its connections")
        cluster.publish_until(lambda: len(workers_of(hurt.running)) == 2, "another worker")
        cluster.read_until_the_last(other)
        assert survivor in workers_of(hurt.running)
        assert hurt.source("source_gaps_total") == 0
        _wait_for_the_living(cluster, hurt)
        assert hurt.survivors_missed_nothing(len(cluster.script.lines))
        before = _ended(hurt)

        feeder = feeder_of(hurt.running)
        kill(feeder)
        cluster.publish_until(lambda: feeder_of(hurt.running) != feeder, "another feeder")
        cluster.publish_until(lambda: hurt.source("source_up") == 1, "its source")
        cluster.publish(50)
        cluster.read_until_the_last(other)
        _wait_for_the_living(cluster, hurt)
        assert _ended(hurt) == before
        assert hurt.source("source_gaps_total") == 0
        assert hurt.survivors_missed_nothing(len(cluster.script.lines))
        assert other.survivors_missed_nothing(len(cluster.script.lines))
        assert _ended(other) == 0
        assert other.source("source_gaps_total") == 0
        assert other.running.scrape().total("gaiod_worker_restarts_total") == 0
        check_counters(other)


def check_counters(host: Host) -> None:
    """Check that the metrics say what the subscribers have got, of whom none was disconnected."""
    got = sum(len(each.numbers) for each in host.audience)
    wait_until(lambda: deliveries(host.running.scrape()) == got, "deliveries that are what clients have got")
    samples = host.running.scrape()
    assert got == host.source("published_total") * len(host.audience.fast)
    assert dropped(samples) == {}
    assert samples.value("gaiod_push_feed_gaps_total", listener="ticks") == 0
    assert _ended(host) == 0


def _ended(host: Host) -> int:
    return sum(each.ended for each in host.audience)


def _wait_for_the_living(cluster: Cluster, host: Host) -> None:
    """Wait until everybody who is still connected has the last message."""
    last = len(cluster.script.lines) - 1

    def have() -> bool:
        cluster.read()
        return all(each.numbers[-1] == last for each in host.audience.fast if not each.ended)

    wait_until(have, "the last message")
