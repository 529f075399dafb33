"""What a proxy knows of its servers outlives its processes: names, health, ejections."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker.support.proxying import closed_address, text_of

from e2e.support.daemons import Daemon
from e2e.support.knowing import CountingServer, Zone, counting, echoes_often, kill_worker, replaced
from e2e.support.starting import Start
from e2e.support.upstreams import config, until
from e2e.support.waiting import wait_until

WAYS = ("reload", "restart", "kill", "upgrade")
CLIENTS = 12
"""After each of them: more than there are servers times workers."""


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    """A name server, which answers nothing yet."""
    return Zone(tmp_path)


@pytest.fixture
def server() -> Iterator[CountingServer]:
    """A server that lives."""
    with counting() as (server,):
        yield server


def ended(running: Daemon) -> None:
    """Wait for the end of a daemon that was upgraded, and end the new one."""
    new = running.ask("status")["pid"]
    assert running.wait() == 0, running.log()
    os.kill(new, signal.SIGTERM)


# -- names -----------------------------------------------------------------------------------------------


def named(server: CountingServer) -> str:
    """Return a configuration whose server has a name; no client waits."""
    servers = f"servers: ['db.test:{server.server_address[1]}'], queue: {{length: 0}}, retries: 0"
    return f"workers: 2\n{config(f'{servers}, resolve_interval: 1s')}"


def test_no_client_is_lost_when_processes_are_replaced_without_a_name_server(
    daemon: Start, zone: Zone, server: CountingServer
) -> None:
    zone.set({"db.test": "127.0.0.1"})
    running = daemon(named(server), environment=zone.environment)
    echoes_often(running.address("db"), CLIENTS)
    zone.take_away()
    running.wait_for("looking it up failed: [Errno -3] Temporary failure in name resolution; it is still taken to be")
    for how in WAYS:
        replaced(running, how)
        echoes_often(running.address("db"), CLIENTS)
    assert server.clients == CLIENTS * (1 + len(WAYS))
    ended(running)


def serves_all(running: Daemon) -> bool:
    """Tell whether clients of all workers are served."""
    try:
        echoes_often(running.address("db"), CLIENTS)
    except ConnectionError:
        return False
    return True


def test_worker_is_not_ready_before_it_has_an_answer(daemon: Start, zone: Zone, server: CountingServer) -> None:
    running = daemon(named(server), environment=zone.environment, ready=False)
    running.wait_for("looking it up failed")
    assert "ready:" not in running.log()
    zone.set({"db.test": "127.0.0.1"})
    running.wait_until_ready()
    echoes_often(running.address("db"), CLIENTS)


def test_address_that_changes_reaches_all_workers_and_one_of_them_asks(
    daemon: Start, zone: Zone, server: CountingServer
) -> None:
    zone.set({"db.test": "127.0.0.2"})
    running = daemon(named(server), environment=zone.environment)
    zone.set({"db.test": "127.0.0.1"})
    label = f"db.test:{server.server_address[1]}"
    running.wait_for(f"server {label}: it is now 127.0.0.1")
    wait_until(lambda: serves_all(running), "the other worker knowing it, too")
    kill_worker(running)
    zone.set({"db.test": "127.0.0.3"})
    running.wait_for(f"server {label}: it is now 127.0.0.3")
    assert running.log().count("it is now 127.0.0.1") == 1, "one worker looks it up"


def test_reload_to_a_name_that_nobody_has_looked_up_waits_for_the_answer(
    daemon: Start, zone: Zone, server: CountingServer
) -> None:
    zone.set({"db.test": "127.0.0.1", "other.test": "127.0.0.1"})
    running = daemon(named(server), environment=zone.environment)
    file = running.folder.parent / "gaiod.yaml"
    file.write_text(file.read_text().replace("db.test", "other.test"))
    replaced(running, "reload")
    echoes_often(running.address("db"), CLIENTS)


# -- health ----------------------------------------------------------------------------------------------


def test_server_that_is_down_gets_no_client_when_processes_are_replaced(daemon: Start, server: CountingServer) -> None:
    dead = text_of(closed_address())
    check = "check: {interval: 3s}, passive: {failures: 1000}"
    running = daemon(f"workers: 2\n{config(f'servers: [{server.label!r}, {dead!r}], {check}')}")
    until(running, 0, "upstream_up", server=dead)
    for how in WAYS:
        before = running.scrape().total("gaiod_upstream_connect_failures_total", server=dead)
        replaced(running, how)
        echoes_often(running.address("db"), CLIENTS)
        scrape = running.scrape()
        now = scrape.total("gaiod_upstream_connect_failures_total", server=dead)
        assert now == (0 if how == "upgrade" else before), how
        assert scrape.total("gaiod_upstream_up", server=dead) == 0
    ended(running)


def test_ejection_is_known_to_all_workers_and_their_successors(daemon: Start, server: CountingServer) -> None:
    dead = text_of(closed_address())
    passive = "passive: {failures: 2, eject: 10m, eject_max: 1h}"
    running = daemon(f"workers: 2\n{config(f'servers: [{server.label!r}, {dead!r}], {passive}')}")
    echoes_often(running.address("db"), CLIENTS)
    running.wait_for(f"server {dead} is ejected for 600 s")
    until(running, 0, "upstream_up", server=dead)
    wait_until(lambda: counted(running, dead) == settled(running, dead), "no more failures")
    failures = counted(running, dead)
    assert failures <= 4, "not as many for each worker"
    for how in WAYS[:3]:
        replaced(running, how)
        echoes_often(running.address("db"), CLIENTS)
        assert counted(running, dead) == failures, how
    replaced(running, "upgrade")
    echoes_often(running.address("db"), CLIENTS)
    assert counted(running, dead) == 0
    ended(running)


def counted(running: Daemon, label: str) -> float:
    """Return how often a server could not be connected to."""
    return running.scrape().total("gaiod_upstream_connect_failures_total", server=label)


def settled(running: Daemon, label: str) -> float:
    """Return the same after some more clients."""
    echoes_often(running.address("db"), CLIENTS)
    return counted(running, label)


def test_one_worker_checks_for_all(daemon: Start, server: CountingServer) -> None:
    """Four would make as many checks in a quarter of the time; a busy machine only takes longer."""
    wanted = 20
    running = daemon(f"workers: 4\n{config(f'servers: [{server.label!r}], check: {{interval: 100ms}}')}")
    until(running, 1, "upstream_up", server=server.label)
    began_s, before = time.monotonic(), server.connections
    wait_until(lambda: server.connections >= before + wanted, "checks")
    assert time.monotonic() - began_s > 0.8 * 0.1 * wanted
    scrape = running.scrape()
    passed = scrape.total("gaiod_upstream_health_checks_total", server=server.label, result="passed")
    assert abs(passed - server.connections) <= 2


def test_another_worker_checks_when_the_one_that_did_dies(daemon: Start, server: CountingServer) -> None:
    running = daemon(f"workers: 2\n{config(f'servers: [{server.label!r}], check: {{interval: 100ms}}')}")
    for _ in range(3):
        kill_worker(running)
        before = server.connections
        wait_until(lambda before=before: server.connections >= before + 3, "checks")  # type: ignore[misc]


def test_server_that_comes_up_is_used_by_all_workers(daemon: Start, server: CountingServer) -> None:
    address = closed_address()
    dead = text_of(address)
    check = "check: {interval: 100ms, rise: 1}, passive: {slow_start: 0s}"
    running = daemon(f"workers: 2\n{config(f'servers: [{server.label!r}, {dead!r}], {check}')}")
    until(running, 0, "upstream_up", server=dead)
    with counting(address=address) as (back,):
        until(running, 1, "upstream_up", server=dead)
        echoes_often(running.address("db"), 2 * CLIENTS)
        assert abs(back.clients - server.clients) <= 4, "each worker begins its rounds where it likes"


# -- names without an answer -----------------------------------------------------------------------------


def test_name_that_must_have_an_address_fails_the_first_start_and_a_reload_but_no_later_worker(
    daemon: Start, zone: Zone, server: CountingServer
) -> None:
    zone.set({"db.test": "127.0.0.1"})
    text = named(server).replace("retries: 0", "retries: 0, resolve: required")
    running = daemon(text, environment=zone.environment)
    file = running.folder.parent / "gaiod.yaml"
    file.write_text(text.replace("db.test", "typo.test"))
    refused = running.gaiod("reload")
    assert refused.returncode == 70
    assert f"resolve: required, and no address is found for typo.test:{server.server_address[1]}" in refused.stderr
    file.write_text(text)
    zone.take_away()
    for how in ("kill", "reload"):
        replaced(running, how)
        echoes_often(running.address("db"), CLIENTS)
    running.stop()
    zone.set({})
    failed = daemon(text, environment=zone.environment, ready=False)
    assert failed.wait() == 70
    assert "resolve: required, and no address is found for db.test" in failed.log()
