"""The proxy in a daemon with several servers: who gets how many, who is down, who has to wait."""

import socket
from collections.abc import Iterator

import pytest
from core.support.sockets import listen, receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, is_ended
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.upstreams import accept, address_of, config, pair, until, upstreams


@pytest.fixture
def three() -> Iterator[list[socket.socket]]:
    """Servers."""
    with upstreams(3) as made:
        yield made


def counts(running: Daemon, servers: list[socket.socket], n: int) -> list[float]:
    """Return how many of `n` clients, which stay connected, each server gets."""
    clients = [connect(running.address("db")) for _ in range(n)]
    scrape = until(running, n, "upstream_connections_active", upstream="db")
    for client in clients:
        client.close()
    labels = [address_of(server).strip("'") for server in servers]
    return [scrape.value("gaiod_upstream_connections_active", upstream="db", server=label) for label in labels]


@pytest.mark.parametrize(
    ("balance", "expected"),
    [("round_robin", [6, 3, 3]), ("least_connections", [6, 3, 3]), ("random_two", None), ("source_hash", [0, 0, 12])],
)
def test_clients_are_shared_out(
    daemon: Start, three: list[socket.socket], balance: str, expected: list[float] | None
) -> None:
    first, *others = map(address_of, three)
    servers = f"[{{address: {first}, weight: 2}}, {', '.join(others)}]"
    found = counts(daemon(config(f"servers: {servers}, balance: {balance}")), three, 12)
    if balance == "source_hash":
        found.sort()
    assert found == (expected or found)
    assert sum(found) == 12


def test_clients_of_one_address_stay_with_their_server_in_every_worker(
    daemon: Start, three: list[socket.socket]
) -> None:
    text = config(f"servers: [{', '.join(map(address_of, three))}], balance: source_hash")
    found = counts(daemon(f"workers: 2\n{text}"), three, 20)
    assert sorted(found) == [0, 0, 20]


def test_server_that_fails_its_checks_gets_no_clients_until_it_passes_again(daemon: Start) -> None:
    with upstreams(1) as (steady,):
        with listen() as sock:
            address = sock.getsockname()
            label = f"{address[0]}:{address[1]}"
        check = "check: {interval: 50ms, timeout: 500ms, rise: 2, fall: 2}, passive: {slow_start: 0s}"
        running = daemon(config(f"servers: ['{label}', {address_of(steady)}], {check}"))
        until(running, 0, "upstream_up", server=label)
        assert running.scrape().total("gaiod_upstream_health_checks_total", server=label, result="failed") >= 1
        with socket.create_server(address) as back:
            back.settimeout(LIMIT_S)
            until(running, 1, "upstream_up", server=label)
            clients = [connect(running.address("db")) for _ in range(4)]
            for number, client in enumerate(clients):
                client.sendall(b"%d" % number)
            scrape = until(running, 4, "upstream_connections_active", upstream="db")
            assert scrape.total("gaiod_upstream_connections_active", server=label) == 2
            for client in clients:
                client.close()
        running.wait_for(f"server {label} is down: its checks fail")
        running.wait_for(f"server {label} is up: its checks pass")


def test_connections_of_a_server_that_goes_down_are_closed_where_that_is_wanted(daemon: Start) -> None:
    with upstreams(1) as (upstream,):
        check = "check: {interval: 50ms, timeout: 100ms, fall: 2, expect: ready}, on_down: close"
        running = daemon(config(f"servers: [{address_of(upstream)}], {check}"))
        with connect(running.address("db")) as client:
            assert is_ended(client)
        with connect(running.address("db")) as late:
            assert is_ended(late)
        for reason in ("server_down", "no_server"):
            until(running, 1, "connections_closed_total", listener="db", reason=reason)


def test_client_waits_for_a_place_and_not_for_ever(daemon: Start) -> None:
    with upstreams(1) as (upstream,):
        servers = f"servers: [{{address: {address_of(upstream)}, connections_max: 1}}]"
        running = daemon(config(f"{servers}, queue: {{length: 1, timeout: 2s}}"))
        client, far = pair(running, upstream)
        with connect(running.address("db")) as waiting:
            until(running, 1, "upstream_queue_length", upstream="db")
            with connect(running.address("db")) as late:
                assert is_ended(late), "there is room for one to wait"
            waiting.sendall(b"patience")
            client.close()
            far.close()
            with accept(upstream) as far, connect(running.address("db")) as third:
                assert receive(far, 8) == b"patience"
                assert is_ended(third)
        scrape = until(running, 2, "upstream_unavailable_total", upstream="db")
        assert scrape.total("gaiod_upstream_queue_timeouts_total", upstream="db") == 1
        assert scrape.total("gaiod_upstream_queue_length", upstream="db") == 0


def test_reload_to_other_servers_leaves_connections_alone(daemon: Start, three: list[socket.socket]) -> None:
    before, after, _ = three
    running = daemon(config(f"servers: [{address_of(before)}]").replace("drain_timeout: 1s", "drain_timeout: 10s"))
    client, far = pair(running, before)
    with client, far:
        file = running.folder.parent / "gaiod.yaml"
        file.write_text(file.read_text().replace(address_of(before), address_of(after)))
        assert running.gaiod("reload").returncode == 0
        client.sendall(b"still")
        assert receive(far, 5) == b"still"
        new, new_far = pair(running, after)
        with new, new_far:
            new.sendall(b"hello")
            assert receive(new_far, 5) == b"hello"
