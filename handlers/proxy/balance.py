"""Which of several endpoints gets a client: the four ways of `balance:`.

Each has `choose(endpoints, key)`: of at least two endpoints, for a client of which `key` is a hash of its
address. Their weights may change from one call to the next, and so may the list.
"""

import random
from collections.abc import Sequence
from math import inf, log
from typing import Protocol

from .servers import Endpoint

MASK_64 = (1 << 64) - 1


class Balance(Protocol):
    """One of the ways."""

    def choose(self, endpoints: Sequence[Endpoint], key: int) -> Endpoint:
        """Return who gets the client."""


class RoundRobin:
    """By turns, each as often as its weight says, the turns of heavy ones spread out (as nginx does).

    Each is owed its weight at every choice; who is owed most gets the client, and pays what all were owed.
    """

    def choose(self, endpoints: Sequence[Endpoint], key: int) -> Endpoint:
        total, most = 0.0, -inf
        chosen = endpoints[0]
        for endpoint in endpoints:
            total += endpoint.weight
            endpoint.current += endpoint.weight
            if endpoint.current > most:
                chosen, most = endpoint, endpoint.current
        chosen.current -= total
        return chosen


class LeastConnections:
    """Who would have the fewest connections for its weight; among equals by turns."""

    def __init__(self) -> None:
        self._first = 0

    def choose(self, endpoints: Sequence[Endpoint], key: int) -> Endpoint:
        first = self._first = (self._first + 1) % len(endpoints)
        least = inf
        chosen = endpoints[first]
        for endpoint in (*endpoints[first:], *endpoints[:first]):
            load = (endpoint.active + 1) / endpoint.weight
            if load < least:
                chosen, least = endpoint, load
        return chosen


class RandomTwo:
    """The less busy of two that are drawn by their weights.

    Many proxies that each know only their own connections would all send the next client to the same server by
    least_connections; these do not. Source: Mitzenmacher, The Power of Two Choices in Randomized Load
    Balancing, 2001.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def choose(self, endpoints: Sequence[Endpoint], key: int) -> Endpoint:
        first = self._draw(endpoints)
        second = self._draw([endpoint for endpoint in endpoints if endpoint is not first])
        return first if (first.active + 1) * second.weight <= (second.active + 1) * first.weight else second

    def _draw(self, endpoints: Sequence[Endpoint]) -> Endpoint:
        return self._dice.choices(endpoints, [endpoint.weight for endpoint in endpoints])[0]


class SourceHash:
    """The same endpoint for the same client, and when one leaves, only its own clients move.

    Rendezvous hashing: each endpoint draws a number from the client and its own address, and the highest wins.
    The draws are stretched so that weights are shares. Source: Thaler and Ravishankar, 1998; the weights: Schindelhauer
    and Schomaker, Weighted Distributed Hash Tables, 2005.
    """

    def choose(self, endpoints: Sequence[Endpoint], key: int) -> Endpoint:
        highest = -inf
        chosen = endpoints[0]
        for endpoint in endpoints:
            score = -endpoint.weight / log(_draw(key ^ endpoint.seed))
            if score > highest:
                chosen, highest = endpoint, score
        return chosen


def _draw(number: int) -> float:
    """Return a fraction between 0 and 1, neither of them, from 64 bits (the finalizer of splitmix64)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & MASK_64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & MASK_64
    return ((number ^ number >> 31) >> 12) / (1 << 52) + 2.0**-54


def balance_of(name: str, dice: random.Random) -> Balance:
    """Return the way of that name."""
    if name == "least_connections":
        return LeastConnections()
    if name == "random_two":
        return RandomTwo(dice)
    return SourceHash() if name == "source_hash" else RoundRobin()
