"""`gaiod server`: an operator drains servers and brings them back, whatever becomes of the processes."""

import os
import signal
from collections.abc import Iterator

import pytest

from e2e.support.clients import connect, exchange
from e2e.support.daemons import Daemon
from e2e.support.knowing import CountingServer, counting, echoes_often, replaced
from e2e.support.starting import Start
from e2e.support.upstreams import config, until
from e2e.support.waiting import wait_until

CLIENTS = 12


@pytest.fixture
def two() -> Iterator[list[CountingServer]]:
    """Servers."""
    with counting(count=2) as servers:
        yield servers


def text_of(servers: list[CountingServer], more: str = "") -> str:
    """Return a configuration of two workers."""
    labels = ", ".join(repr(server.label) for server in servers)
    with_ = f"servers: [{labels}], passive: {{slow_start: 0s}}{more}"
    return f"workers: 2\n{config(with_).replace('drain_timeout: 1s', 'drain_timeout: 30s')}"


def order(running: Daemon, server: CountingServer, *action: str) -> str:
    """Say what is wanted of a server; return what the command says."""
    done = running.gaiod("server", "db", server.label, *action)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shares(running: Daemon, servers: list[CountingServer], clients: int = CLIENTS) -> list[int]:
    """Return how many of so many clients each server gets."""
    before = [server.clients for server in servers]
    echoes_often(running.address("db"), clients)
    return [server.clients - had for server, had in zip(servers, before, strict=True)]


def test_drain_keeps_new_clients_away_over_all_processes_and_lets_those_stay_that_are_there(
    daemon: Start, two: list[CountingServer]
) -> None:
    running = daemon(text_of(two))
    first, second = two
    with connect(running.address("db")) as stays:
        exchange(stays, b"before")
        drained, other = (first, second) if first.clients else (second, first)
        assert order(running, drained, "drain") == f"server {drained.label} of db: drain\n"
        until(running, 1, "upstream_admin_state", server=drained.label, state="drain")
        until(running, 1, "upstream_up", server=drained.label)
        for how in ("reload", "restart", "upgrade", "kill"):
            assert exchange(stays, b"stays") == b"stays"
            replaced(running, how)
            assert shares(running, [drained, other]) == [0, CLIENTS], how
        assert order(running, drained, "ready") == f"server {drained.label} of db: ready\n"
        wait_until(lambda: min(shares(running, two)) > 0, "clients for both")
    done = running.gaiod("server", "db")
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [["db", each.label, "up"] for each in two]
    _end(running)


def _end(running: Daemon) -> None:
    """Wait for the end of a daemon that was upgraded, and end the new one."""
    new = running.ask("status")["pid"]
    assert running.wait() == 0, running.log()
    os.kill(new, signal.SIGTERM)


def test_server_in_maintenance_is_not_checked(daemon: Start, two: list[CountingServer]) -> None:
    running = daemon(text_of(two, ", check: {interval: 50ms}"))
    repaired, other = two
    until(running, 1, "upstream_up", server=repaired.label)
    order(running, repaired, "maint")
    for how in ("reload", "kill"):
        replaced(running, how)
        before, seen = repaired.connections, other.connections
        wait_until(lambda seen=seen: other.connections > seen + 5, "checks of the other one")  # type: ignore[misc]
        assert repaired.connections <= before + 1, "one may have been under way"
        assert shares(running, two) == [0, CLIENTS]
    assert [row["admin"] for row in running.ask("status")["servers"]] == ["maint", "ready"]
    order(running, repaired, "ready")
    seen_checks = repaired.connections
    wait_until(lambda: repaired.connections > seen_checks + 5, "checks")
    assert min(shares(running, two)) > 0


def test_weight_is_an_operators_until_it_is_given_back(daemon: Start, two: list[CountingServer]) -> None:
    running = daemon(text_of(two).replace("workers: 2", "workers: 1"))
    first, second = two
    assert order(running, first, "weight", "3") == f"server {first.label} of db: ready, weight 3\n"
    for how in ("reload", "kill"):
        replaced(running, how)
        assert shares(running, two) == [9, 3], how
    order(running, second, "weight", "0")
    replaced(running, "upgrade")
    assert shares(running, two) == [12, 0]
    assert running.scrape().value("gaiod_upstream_admin_weight", upstream="db", server=second.label) == 0
    order(running, first, "weight", "configured")
    order(running, second, "weight", "configured")
    assert shares(running, two) == [6, 6]
    _end(running)


def test_client_for_whom_all_servers_are_drained_is_told_so(daemon: Start, two: list[CountingServer]) -> None:
    running = daemon(text_of(two))
    for server in two:
        order(running, server, "drain")
    with connect(running.address("db")) as client:
        assert client.recv(1) == b""
    until(running, 1, "upstream_unavailable_total", upstream="db", cause="drained")
    reloaded = running.gaiod("reload")
    assert reloaded.stderr == "warning: no server of db takes clients; gaiod status and the log say why\n"
    health = running.gaiod("health")
    assert (health.returncode, health.stdout) == (
        0,
        "healthy: serving, 2 workers serving; no server of db takes clients\n",
    )
    assert running.gaiod("health", "--servers").returncode == 75


def test_what_is_not_there_is_refused_with_what_is(daemon: Start, two: list[CountingServer]) -> None:
    running = daemon(text_of(two))
    known = ", ".join(server.label for server in two)
    for arguments, says in (
        (("nowhere", two[0].label, "drain"), "there is no listener nowhere; there is db"),
        (
            ("db", "10.0.0.1:1", "drain"),
            f"listener db has no server 10.0.0.1:1; there is {known}",
        ),
        (("db", two[0].label, "weight", "257"), "the weight 257 is too high; write 0 to 256, or configured"),
        (("db", two[0].label, "weight", "much"), "'much' is not its weight, 0 to 256, or `configured`"),
    ):
        done = running.gaiod("server", *arguments)
        assert done.returncode == 64
        assert says in done.stderr
