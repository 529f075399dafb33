"""The four ways to balance: who gets how many, and who moves when a server comes or goes."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from gaiod.handlers.proxy.balance import Balance, LeastConnections, RandomTwo, RoundRobin, SourceHash, balance_of
from gaiod.handlers.proxy.options import ServerOptions
from gaiod.handlers.proxy.servers import Endpoint, Server, hash_of
from worker.support.proxying import Counted


def endpoints_of(*weights: int) -> list[Endpoint]:
    """Return one endpoint for each weight; the n-th has the port n + 1."""
    servers = [Server(ServerOptions(f"10.0.0.1:{n}", weight), Counted()) for n, weight in enumerate(weights, 1)]
    return [server.endpoints[0] for server in servers]


def port(endpoint: Endpoint) -> int:
    """Return the port of an endpoint, by which these tests tell them apart."""
    return int(endpoint.target[1])


def shares(balance: Balance, endpoints: Sequence[Endpoint], n: int, *, connect: bool = False) -> list[float]:
    """Return which share of `n` different clients each gets."""
    counts: Counter[int] = Counter()
    for number in range(n):
        chosen = balance.choose(endpoints, hash_of(f"192.168.{number >> 8}.{number & 255}"))
        chosen.active += connect
        counts[port(chosen)] += 1
    return [counts[port(endpoint)] / n for endpoint in endpoints]


# -- round_robin ---------------------------------------------------------------------------------------


def test_round_robin_goes_round() -> None:
    endpoints = endpoints_of(1, 1, 1)
    chosen = [port(RoundRobin().choose(endpoints, 0)) for _ in range(6)]
    assert chosen == [1, 2, 3, 1, 2, 3]


def test_round_robin_spreads_the_turns_of_a_heavy_server_out() -> None:
    """As nginx says of its own: with 5, 1, 1 it is a a b a c a a."""
    endpoints = endpoints_of(5, 1, 1)
    chosen = [port(RoundRobin().choose(endpoints, 0)) for _ in range(14)]
    assert chosen == [1, 1, 2, 1, 3, 1, 1] * 2


def test_round_robin_is_exact_over_a_round_whatever_it_starts_with() -> None:
    endpoints = endpoints_of(3, 2, 1)
    for endpoint in endpoints:
        endpoint.current = random.Random(1).random() * endpoint.weight
    assert shares(RoundRobin(), endpoints, 600) == [300 / 600, 200 / 600, 100 / 600]


def test_round_robin_gives_who_comes_back_only_what_its_weight_says_by_then() -> None:
    endpoints = endpoints_of(10, 10)
    endpoints[1].weight = 1.0
    assert shares(RoundRobin(), endpoints, 110) == [100 / 110, 10 / 110]


# -- least_connections ----------------------------------------------------------------------------------


def test_least_connections_fills_up_whoever_has_fewest() -> None:
    endpoints = endpoints_of(1, 1, 1)
    endpoints[0].active, endpoints[1].active, endpoints[2].active = 5, 3, 4
    balance = LeastConnections()
    for _ in range(6):
        balance.choose(endpoints, 0).active += 1
    assert [endpoint.active for endpoint in endpoints] == [6, 6, 6]


def test_least_connections_takes_turns_among_equals() -> None:
    """Short connections are over before the next one comes: all must get some all the same."""
    assert shares(LeastConnections(), endpoints_of(1, 1, 1, 1), 400) == [0.25] * 4


def test_least_connections_heeds_weights() -> None:
    endpoints = endpoints_of(4, 2, 1)
    assert shares(LeastConnections(), endpoints, 700, connect=True) == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.01)


# -- random_two -----------------------------------------------------------------------------------------


def test_random_two_is_nearly_even_and_far_better_than_one() -> None:
    endpoints = endpoints_of(*[1] * 20)
    shares(RandomTwo(random.Random(7)), endpoints, 2000, connect=True)
    assert max(endpoint.active for endpoint in endpoints) <= 104
    assert min(endpoint.active for endpoint in endpoints) >= 94


def test_random_two_heeds_weights() -> None:
    endpoints = endpoints_of(4, 2, 1, 1)
    got = shares(RandomTwo(random.Random(7)), endpoints, 4000, connect=True)
    assert got == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.02)


def test_random_two_avoids_the_busy_one_of_two() -> None:
    endpoints = endpoints_of(1, 1)
    endpoints[0].active = 10
    assert {port(RandomTwo(random.Random(seed)).choose(endpoints, 0)) for seed in range(50)} == {2}


# -- source_hash ----------------------------------------------------------------------------------------


def test_source_hash_sends_a_client_to_the_same_server_whatever_the_order() -> None:
    endpoints = endpoints_of(1, 1, 1, 1)
    for number in range(100):
        key = hash_of(f"10.1.2.{number}")
        chosen = {
            port(SourceHash().choose(order, key)) for order in (endpoints, endpoints[::-1], endpoints_of(*[1] * 4))
        }
        assert len(chosen) == 1


def test_source_hash_is_even() -> None:
    assert shares(SourceHash(), endpoints_of(*[1] * 8), 16_000) == pytest.approx([1 / 8] * 8, abs=0.01)


def test_source_hash_heeds_weights() -> None:
    assert shares(SourceHash(), endpoints_of(5, 3, 2), 16_000) == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_source_hash_moves_only_the_clients_of_a_server_that_leaves() -> None:
    endpoints = endpoints_of(3, 1, 2, 1, 1)
    keys = [hash_of(f"10.1.{number >> 8}.{number & 255}") for number in range(4000)]
    before = {key: SourceHash().choose(endpoints, key) for key in keys}
    gone = endpoints.pop(2)
    after = {key: SourceHash().choose(endpoints, key) for key in keys}
    moved = {key for key in keys if before[key] is not after[key]}
    assert moved == {key for key in keys if before[key] is gone}
    assert {port(after[key]) for key in moved} == {1, 2, 4, 5}, "they are shared out among all that are left"


def test_source_hash_moves_to_a_heavier_server_only_what_it_gains() -> None:
    endpoints = endpoints_of(1, 1, 1)
    keys = [hash_of(f"10.1.{number >> 8}.{number & 255}") for number in range(4000)]
    before = {key: port(SourceHash().choose(endpoints, key)) for key in keys}
    endpoints[0].weight = 2.0
    after = {key: port(SourceHash().choose(endpoints, key)) for key in keys}
    assert {after[key] for key in keys if before[key] != after[key]} == {1}
    assert sum(after[key] == 1 for key in keys) / len(keys) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("key", [0, 1, (1 << 64) - 1])
def test_source_hash_has_an_answer_for_every_key(key: int) -> None:
    endpoints = endpoints_of(1, 1)
    endpoints[0].seed = key  # the draw is made from 0
    endpoints[1].seed = key ^ ((1 << 64) - 1)
    assert SourceHash().choose(endpoints, key) in endpoints


def test_each_way_has_its_name() -> None:
    names = ("round_robin", "least_connections", "random_two", "source_hash")
    kinds = [type(balance_of(name, random.Random())) for name in names]
    assert kinds == [RoundRobin, LeastConnections, RandomTwo, SourceHash]
