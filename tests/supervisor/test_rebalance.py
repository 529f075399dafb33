"""Evening out established connections over the workers."""

import logging
import os
import signal
from typing import Any

import pytest
from e2e.support.clients import exchange
from hypothesis import given
from hypothesis import strategies as st

from gaiod.settings import ListenerSettings, TlsSettings
from gaiod.supervisor.processes import rebalance as module
from gaiod.supervisor.processes.rebalance import Outcome, Rebalancing, is_even, plan
from supervisor.support.fleets import FleetUnderTest, skewed


@pytest.mark.parametrize(
    "counts", [[], [0], [7], [0, 0], [1, 0], [2, 1, 1], [100, 82], [110, 90], [1000, 1100, 900], [1, 1, 0, 0]]
)
def test_what_is_within_a_tenth_of_the_mean_or_cannot_be_better_is_even(counts: list[int]) -> None:
    assert is_even(dict(enumerate(counts)))
    assert plan({"echo": dict(enumerate(counts))}) == {}


@pytest.mark.parametrize("counts", [[2, 0], [3, 1], [100, 81], [1000, 0], [5, 5, 0], [12, 10, 8, 10]])
def test_what_is_further_from_the_mean_is_uneven(counts: list[int]) -> None:
    assert not is_even(dict(enumerate(counts)))


def test_who_has_most_gives_to_who_has_least() -> None:
    assert plan({"echo": {0: 1000, 1: 0, 2: 200}}) == {0: {1: {"echo": 400}, 2: {"echo": 200}}}


def test_listeners_are_evened_out_one_by_one() -> None:
    """A worker may give of one and take of another: connections of two listeners are not alike."""
    counts = {"echo": {0: 100, 1: 0}, "db": {0: 0, 1: 50}, "ticks": {0: 7, 1: 7}}
    assert plan(counts) == {0: {1: {"echo": 50}}, 1: {0: {"db": 25}}}


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=9))
def test_after_the_moves_all_have_the_same_and_nobody_gave_and_took(counts: list[int]) -> None:
    moves = plan({"echo": dict(enumerate(counts))})
    after = list(counts)
    for giver, takers in moves.items():
        for taker, each in takers.items():
            assert each["echo"] > 0
            after[giver] -= each["echo"]
            after[taker] += each["echo"]
    assert max(after) - min(after) <= 1 or not moves
    assert not moves.keys() & {taker for takers in moves.values() for taker in takers}
    fewest = sum(max(0, count - after[i]) for i, count in enumerate(counts))
    assert sum(each["echo"] for takers in moves.values() for each in takers.values()) == fewest


class Evened:
    """A fleet whose connections are evened out, and what came of that."""

    def __init__(self, fleet: FleetUnderTest) -> None:
        self.fleet = fleet
        self.subject = Rebalancing(fleet.watcher, fleet.fleet)

    def run(self) -> Outcome:
        outcomes: list[Outcome] = []
        self.subject.begin(["echo"], outcomes.append)
        self.fleet.run_until(lambda: outcomes)
        assert not self.subject.is_running
        return outcomes[0]

    def counts(self) -> list[int]:
        return [member.process.memory.connections for _, member in sorted(self.fleet.fleet.serving.items())]


@pytest.fixture
def evened(fleet: FleetUnderTest) -> Evened:
    """Two workers, and who evens out their connections."""
    fleet.serve(workers=2, handover=True)
    return Evened(fleet)


def test_clients_go_on(evened: Evened) -> None:
    with skewed(evened.fleet, 9) as clients:
        outcome = evened.run()
        assert (outcome.moved, outcome.stayed, outcome.is_even) == (4, {}, True)
        assert (outcome.before, outcome.after) == ({"echo": {0: 9, 1: 0}}, {"echo": {0: 5, 1: 4}})
        assert evened.counts() == [5, 4]
        assert [exchange(client, b"still") for client in clients] == [b"still"] * 9


def test_worker_that_dies_meanwhile_ends_it(evened: Evened) -> None:
    with skewed(evened.fleet, 4):
        pid = evened.fleet.pid(0)
        os.kill(pid, signal.SIGSTOP)
        outcomes: list[Outcome] = []
        evened.subject.begin(["echo"], outcomes.append)
        assert evened.subject.is_running
        os.kill(pid, signal.SIGKILL)
        evened.fleet.run_until(lambda: outcomes)
        assert outcomes[0].moved == 0


def test_worker_in_place_of_a_dead_one_gets_its_share_once_it_has_served_for_a_while(
    evened: Evened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fleet = evened.fleet
    with skewed(fleet, 8):
        before = fleet.pid(1)
        os.kill(before, signal.SIGKILL)
        fleet.run_until(lambda: 1 in fleet.fleet.serving and fleet.pid(1) != before)
        for _ in range(20):
            evened.subject.look()
            fleet.run_once()
        assert evened.counts() == [8, 0], "not before it has shown that it lives"
        monkeypatch.setattr(module, "SETTLED_S", 0.0)
        evened.subject.look()
        fleet.run_until(lambda: not evened.subject.is_running)
        assert evened.counts() == [4, 4]
        assert "connections are uneven since a worker died: evening out those of echo" in caplog.text
        monkeypatch.setattr(evened.subject, "begin", lambda *arguments: pytest.fail("it is done once"))
        evened.subject.look()


def test_nothing_is_evened_out_by_itself_where_nobody_has_died(evened: Evened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    with skewed(evened.fleet, 8):
        evened.subject.look()
        assert not evened.subject.is_running


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "its handler, own.py:Raw, has no state_version: it cannot describe them"),
        ({"has_state": True, "handover": False}, "it has handover: false"),
        ({"has_state": True, "tls": TlsSettings(())}, "it has tls: connections that speak it stay with their worker"),
    ],
)
def test_obstacles_are_told(evened: Evened, settings: dict[str, Any], why: str) -> None:
    assert evened.subject.obstacle(ListenerSettings("raw", "127.0.0.1:0", "own.py:Raw", **settings)) == (
        why, os.EX_USAGE,
    )  # fmt: skip
    assert evened.subject.obstacle(ListenerSettings("fine", "127.0.0.1:0", "echo", has_state=True)) is None
