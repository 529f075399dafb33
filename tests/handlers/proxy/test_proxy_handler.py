"""The handler as a whole: who is sent where, what servers are told, names, and what is left behind."""

import gc
import socket
import sys
import threading
from collections.abc import Callable

import pytest
from core.support.waiting import compiled_only
from gaiod.handlers.proxy.session import Session
from worker.support.proxying import Backend, Proxying, closed_address, text_of

from gaiod import ProxyHeader

Start = Callable[..., Proxying]
Backends = Callable[[int], list[Backend]]


def counts(proxy: Proxying, n: int) -> list[int]:
    """Return how many of `n` clients, which stay, each server gets."""
    for _ in range(n):
        proxy.connect()
    proxy.step_until(lambda: proxy.count_of_all("connections") == n, "the relays")
    return [proxy.count_of_server("connections", number) for number in range(len(proxy.handler.options.entries))]


@pytest.mark.parametrize(
    ("balance", "weights", "expected"),
    [
        ("round_robin", (1, 1, 1), {(4, 4, 4)}),
        ("round_robin", (2, 1, 1), {(6, 3, 3)}),
        ("least_connections", (1, 1, 1), {(4, 4, 4)}),
        ("least_connections", (2, 1, 1), {(6, 3, 3)}),
    ],
)
def test_clients_are_shared_out(
    start: Start, backends: Backends, balance: str, weights: tuple[int, ...], expected: set[tuple[int, ...]]
) -> None:
    servers = [
        {"address": backend.address, "weight": weight} for backend, weight in zip(backends(3), weights, strict=True)
    ]
    assert tuple(counts(start(*servers, balance=balance), 12)) in expected


def test_random_two_uses_all(start: Start, backends: Backends) -> None:
    assert min(counts(start(*backends(2), balance="random_two"), 20)) >= 8


def test_least_connections_knows_when_connections_end(start: Start, backends: Backends) -> None:
    first, second = backends(2)
    proxy = start(first, second, balance="least_connections")
    clients = [proxy.connect() for _ in range(6)]
    proxy.step_until(lambda: proxy.count_of_all("connections") == 6, "the relays")
    for client in clients:
        if proxy.server_of(client).peer_address[1] == int(first.address.rpartition(":")[2]):
            client.close()
    for _ in range(3):
        first.accept().close()  # type: ignore[union-attr]
    proxy.step_until(lambda: proxy.count_of_server("closed", 0) == 3, "the ends")
    for _ in range(3):
        proxy.connect()
    proxy.step_until(lambda: proxy.count_of_all("connections") == 9, "the relays")
    assert proxy.count_of_server("connections", 0) == 6


def test_source_hash_sends_a_client_where_it_was_before_whatever_its_port(start: Start, backends: Backends) -> None:
    assert sorted(counts(start(*backends(3), balance="source_hash"), 9)) == [0, 0, 9]


def test_source_hash_tells_addresses_apart(start: Start, backends: Backends) -> None:
    proxy = start(*backends(2), balance="source_hash")
    for number in range(1, 31):
        with socket.create_connection(proxy.address, source_address=(f"127.0.0.{number}", 0)):
            proxy.step_until(lambda number=number: proxy.count_of_all("connections") == number, "a relay")  # type: ignore[misc]
    assert min(proxy.count_of_server("connections", number) for number in range(2)) > 5


def test_backup_serves_while_the_server_refuses(start: Start, backends: Backends) -> None:
    (backup,) = backends(1)
    address = closed_address()
    passive = {"failures": 1, "eject": 0.2, "eject_max": 0.2, "slow_start": 0.0}
    proxy = start(text_of(address), {"address": backup.address, "backup": True}, passive=passive)
    client, far = proxy.pair(backup)
    proxy.carry(client, far, b"from the backup")
    backend = Backend(socket.create_server(address))
    proxy.step_until(lambda: proxy.handler.pool.servers[0].stats.up, "the return of the server")
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"from the server again")
    backend.close()


def test_client_is_not_lost_before_the_server_is_ejected_where_there_is_a_backup(
    start: Start, backends: Backends
) -> None:
    (backup,) = backends(1)
    proxy = start(text_of(closed_address()), {"address": backup.address, "backup": True})
    for number in range(3):
        client, far = proxy.pair(backup)
        proxy.carry(client, far, b"from the backup")
        assert proxy.count("upstream_retries") == number + 1
    assert not proxy.handler.pool.servers[0].stats.up


# -- PROXY headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_server_is_told_who_the_client_is(start: Start, backend: Backend, version: str) -> None:
    proxy = start(backend, send_proxy=version)
    client, far = proxy.pair(backend)
    header = ProxyHeader(client.getsockname(), client.getpeername())
    expected = header.encode_v1() if version == "v1" else header.encode_v2()
    client.sendall(b"hello")
    assert proxy.receive(far, len(expected) + 5) == expected + b"hello"
    proxy.carry(far, client, b"answer")


def test_server_is_told_anew_by_each_try(start: Start, backend: Backend) -> None:
    proxy = start(text_of(closed_address()), backend, send_proxy="v1", passive={"failures": 1000})
    for _ in range(2):
        client, far = proxy.pair(backend)
        client.sendall(b"hello")
        header = ProxyHeader(client.getsockname(), client.getpeername()).encode_v1()
        assert proxy.receive(far, len(header) + 5) == header + b"hello"


# -- names ---------------------------------------------------------------------------------------------


def test_name_is_looked_up_in_a_thread(start: Start, backend: Backend) -> None:
    port = backend.address.rpartition(":")[2]
    proxy = start(f"localhost:{port}", retries=5)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")
    assert "gaiod-names" in {thread.name for thread in threading.enumerate()}


def test_there_is_no_thread_where_there_is_no_name(start: Start, backend: Backend) -> None:
    before = threading.active_count()
    start(backend)
    assert threading.active_count() <= before


# -- what it costs ---------------------------------------------------------------------------------------


@compiled_only
def test_idle_connection_costs_little(start: Start, backend: Backend) -> None:
    """The session, beside two connections of 400 bytes, two relays and their deadline."""
    proxy = start(backend)
    client, _ = proxy.pair(backend)
    session = proxy.server_of(client).data
    assert sys.getsizeof(session) <= 120
    assert not hasattr(session, "__dict__")


def test_nothing_of_a_connection_is_left_behind_for_the_garbage_collector(start: Start, backend: Backend) -> None:
    proxy = start(backend)

    def serve_one() -> None:
        client, far = proxy.pair(backend)
        proxy.carry(client, far, b"hello")
        client.close()
        far.close()
        proxy.step_until(lambda: not proxy.watcher.connections(), "the end")

    serve_one()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            serve_one()
        assert [each for each in gc.get_objects() if type(each) is Session] == []
    finally:
        gc.enable()


def test_failed_try_leaves_nothing_behind_either(start: Start) -> None:
    proxy = start(text_of(closed_address()), retries=0, passive={"failures": 1000})

    def refuse_one() -> None:
        client = proxy.connect()
        assert proxy.is_ended(client)
        client.close()
        proxy.step_until(lambda: not proxy.watcher.connections(), "the end")

    refuse_one()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            refuse_one()
        assert [each for each in gc.get_objects() if type(each) is Session] == []
    finally:
        gc.enable()
