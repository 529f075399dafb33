"""What each address may have: at the same time, in a time, over all workers, and when connections change hands."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gaiod.handlers.echo import Echo

from gaiod import ProxyHeader
from gaiod.settings import PerAddressSettings, ProxyProtocolSettings
from gaiod.worker.admission.per_address import TOO_MANY, TOO_SOON, PerAddress
from gaiod.worker.listener import Common
from gaiod.worker.names import Names
from worker.admission.test_access import dial_from
from worker.support.serving import Recorder, Serving
from worker.support.tallying import Tables, tables
from worker.test_giver_and_taker import Both

TWO = PerAddressSettings(connections_max=2)
SLOW = PerAddressSettings(new_per_s=1 / 3600, burst=2)
"""So slow that what comes meanwhile is nothing."""

NAMES = (Names(3, {"worker": 1, "generation": 4, "process": 812}), Names(7))

Limit = Callable[..., Serving]


@pytest.fixture
def memory() -> Iterator[Tables]:
    """A memory without workers."""
    with tables() as made:
        yield made


@pytest.fixture
def limit(memory: Tables) -> Iterator[Limit]:
    """A maker of listeners that count in the same memory, each in a worker of its own."""
    made: list[Serving] = []

    def limit(settings: PerAddressSettings, **others: Any) -> Serving:
        handler = others.pop("handler", None) or Recorder()
        made.append(Serving(handler, per_address=settings, common=Common(memory.worker()), **others))
        return made[-1]

    yield limit
    while made:
        made.pop().close()


def wait_for(serving: Serving, cell: str, count: int) -> None:
    serving.step_until(lambda: serving.count(cell) == count, f"{count} {cell}")


def test_ipv6_network_is_one_address_and_ipv4_in_ipv6_is_ipv4(memory: Tables) -> None:
    limits = PerAddress(PerAddressSettings(connections_max=1, exempt=("192.0.2.0/24",)), "echo", memory.worker())

    def admit(*hosts: str) -> list[bool]:
        return [limits.admit(number, (host, 7)) is None for number, host in enumerate(hosts)]

    assert admit("10.0.0.1", "10.0.0.2", "10.0.0.1") == [True, True, False]
    assert admit("::ffff:10.0.0.1", "::ffff:10.0.0.3") == [False, True]
    assert admit("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1") == [True, False, True]
    assert admit("::a00:1") == [True]
    assert admit(*["192.0.2.7"] * 3) == [True] * 3


def test_unix_sockets_and_who_is_gone_have_no_limit(memory: Tables) -> None:
    limits = PerAddress(PerAddressSettings(connections_max=1), "echo", memory.worker())
    assert [limits.admit(number, address) for number, address in enumerate(["", "", b"\0a", None, None])] == [None] * 5
    limits.gone(0)


def test_listeners_count_for_themselves(memory: Tables) -> None:
    worker = memory.worker()
    one, other = (PerAddress(PerAddressSettings(connections_max=1), name, worker) for name in ("a", "b"))
    assert [each.admit(1, ("10.0.0.1", 7)) for each in (one, one, other)] == [None, TOO_MANY, None]


def test_rate_is_that_of_all_workers_and_counts_who_was_admitted(memory: Tables) -> None:
    one, other = (PerAddress(SLOW, "echo", memory.worker()) for _ in range(2))
    address = ("10.0.0.1", 7)
    assert [one.admit(1, address), other.admit(2, address)] == [None, None]
    one.gone(1)
    assert [one.admit(3, address), other.admit(4, address)] == [TOO_SOON, TOO_SOON]
    assert other.admit(5, ("10.0.0.2", 7)) is None


def test_address_has_so_many_connections_and_no_more(limit: Limit, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    serving = limit(TWO)
    with dial_from(serving, "127.0.0.2"), dial_from(serving, "127.0.0.2") as second:
        wait_for(serving, "accepted", 2)
        with dial_from(serving, "127.0.0.2") as third, dial_from(serving, "127.0.0.3"):
            wait_for(serving, "rejected_per_address", 1)
            wait_for(serving, "accepted", 3)
            with pytest.raises(ConnectionResetError):
                third.recv(1)
        second.close()
        wait_for(serving, "closed_peer_eof", 2)
        with dial_from(serving, "127.0.0.2"):
            wait_for(serving, "accepted", 4)
    (line,) = [record.getMessage() for record in caplog.records if "per_address" in record.getMessage()]
    assert line.startswith("listener front: a connection from 127.0.0.2:")
    assert "is rejected: per_address.connections_max is reached" in line


def test_address_that_comes_too_often_is_told_by_a_reason_of_its_own(limit: Limit) -> None:
    serving = limit(SLOW)
    for number in range(2):
        dial_from(serving, "127.0.0.2").close()
        wait_for(serving, "accepted", number + 1)
    with dial_from(serving, "127.0.0.2"):
        wait_for(serving, "rejected_rate", 1)
    assert serving.count("rejected_per_address") == 0


def test_limit_is_that_of_two_workers_together(limit: Limit) -> None:
    one, other = limit(TWO), limit(TWO)
    with dial_from(one, "127.0.0.2"), dial_from(other, "127.0.0.2"):
        for serving in (one, other):
            wait_for(serving, "accepted", 1)
        for serving in (one, other):
            with dial_from(serving, "127.0.0.2"):
                wait_for(serving, "rejected_per_address", 1)


def test_address_that_a_balancer_announces_counts(limit: Limit) -> None:
    balancer = ProxyProtocolSettings(networks=("127.0.0.0/8",))
    serving = limit(PerAddressSettings(connections_max=1), proxy_protocol=balancer)

    def announce(host: str | None) -> socket.socket:
        client = serving.dial()
        source = None if host is None else (host, 1)
        client.sendall(ProxyHeader(source, None if host is None else ("192.0.2.1", 80)).encode_v2())
        return client

    first = announce("192.0.2.7")
    announce("192.0.2.8")
    announce(None)
    announce(None)
    wait_for(serving, "accepted", 4)
    refused = announce("192.0.2.7")
    wait_for(serving, "rejected_per_address", 1)
    with pytest.raises(ConnectionResetError):
        refused.recv(1)
    serving.step_until(lambda: serving.listener.active == 4, "its place being free again")
    first.close()
    serving.step_until(lambda: serving.listener.active == 3, "the end of the first")
    announce("192.0.2.7")
    wait_for(serving, "accepted", 5)


def test_refusal_takes_no_place_and_full_listener_counts_nobody(limit: Limit) -> None:
    serving = limit(PerAddressSettings(connections_max=1), connections_max=1)
    with dial_from(serving, "127.0.0.2") as first:
        wait_for(serving, "accepted", 1)
        with dial_from(serving, "127.0.0.3"):
            wait_for(serving, "rejected_limit", 1)
        first.close()
        serving.step_until(lambda: serving.listener.active == 0, "room")
    with dial_from(serving, "127.0.0.3"):
        wait_for(serving, "accepted", 2)


def test_count_goes_with_a_connection_that_is_handed_over(
    limit: Limit, memory: Tables, request: pytest.FixtureRequest
) -> None:
    settings = PerAddressSettings(connections_max=3)
    giver, taker = (Serving(Echo(), per_address=settings, common=Common(memory.worker()), names=name) for name in NAMES)
    both = Both(giver, taker)
    request.addfinalizer(both.close)
    for number in range(3):
        both.giver.dial()
        wait_for(both.giver, "accepted", number + 1)
    outcome = both.hand_over()
    assert outcome.moved == 3
    both.step_until(lambda: both.taker.listener.active == 3, "their arrival")
    memory.ends(0)
    with socket.create_connection(both.taker.address):
        wait_for(both.taker, "rejected_per_address", 1)
