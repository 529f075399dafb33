"""Takers that die of what they take over."""

import time
from typing import Any

import pytest
from core.support.waiting import LIMIT_S

from gaiod.worker.handover import taker as taking
from gaiod.worker.handover.wire import close_all
from worker.test_giver_and_taker import Both, Counting, ask, both_of


class Dies(BaseException):
    """What ends a process."""


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make takers die of connections that have spoken nine times."""
    build = taking._Link._build

    def build_or_die(link: Any, offer: Any) -> dict[str, str]:
        if b"9" in offer.parts:
            close_all(offer.descriptors)
            raise Dies
        return build(link, offer)

    monkeypatch.setattr(taking._Link, "_build", build_or_die)


def hand_over_to_many(request: pytest.FixtureRequest, first: Both, most: int) -> list[Both]:
    """Start a taker for each that dies, as a supervisor does, and return all: at most so many. The last one lives."""
    takers = [first]
    assert first.gives is not None
    until_s = time.monotonic() + LIMIT_S
    while first.outcome is None:
        assert time.monotonic() < until_s
        first.step(taker=False)
        try:
            takers[-1].taker.step()
        except Dies:
            takers[-1].taker.watcher.close()
            assert len(takers) < most, "one taker more dies"
            takers.append(both_of(request, Counting(), Counting()))
            first.gives.add_takers([takers[-1].takes.address])
    return takers


@pytest.mark.usefixtures("deadly")
def test_connection_that_its_takers_die_of_costs_two_of_them_and_stays(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(150)]
    for number, client in enumerate(clients):
        for _ in range(9 if number == 60 else 1):
            ask(both.giver, client)
    both.begin()
    takers = hand_over_to_many(request, both, most=3)
    assert both.outcome is not None
    assert (both.outcome.moved, both.outcome.stayed) == (149, {"lost": 1})
    assert ask(both.giver, clients[60]) == b"1"  # of 10
    assert sum(each.taker.listener.active for each in takers[1:]) == 149
    assert caplog.text.count("a worker ended again while it took over a connection of listener") == 1


@pytest.mark.usefixtures("deadly")
def test_listener_of_which_each_connection_is_deadly_costs_three_takers(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(20)]
    for client in clients:
        for _ in range(9):
            ask(both.giver, client)
    both.begin()
    hand_over_to_many(request, both, most=4)
    assert both.outcome is not None
    assert (both.outcome.moved, both.outcome.stayed) == (0, {"lost": 20})
    assert both.giver.listener.active == 20


@pytest.mark.usefixtures("deadly")
def test_deaths_are_remembered_where_connections_are_evened_out_again_and_again(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Counting())
    client = both.giver.connect()
    for _ in range(9):
        ask(both.giver, client)
    deaths: list[bool] = []
    for _ in range(4):
        taker = both_of(request, Counting(), Counting())
        both.outcome = None
        both.begin(takers=[{**taker.takes.address, "counts": {"front": 1}}])
        until_s = time.monotonic() + LIMIT_S
        is_dead = False
        while both.outcome is None:
            assert time.monotonic() < until_s
            both.step(taker=False)
            try:
                if not is_dead:
                    taker.taker.step()
            except Dies:
                taker.taker.watcher.close()
                is_dead = True
        deaths.append(is_dead)
    assert deaths == [True, True, False, False]
    assert ask(both.giver, client) == b"1"  # of 10
