"""Connections keep their names when they go to another worker."""

import time
from typing import Any

import pytest
from core.support.waiting import LIMIT_S

from gaiod import Conn
from gaiod.worker.inspect.connection_facts import ConnectionFacts
from worker.support.serving import Serving
from worker.test_giver_and_taker import Both, Counting, Refusing, ask, both_of


def only(serving: Serving) -> Conn:
    """Return the only connection of a client."""
    [conn] = serving.listener.clients()
    return conn


def test_connection_keeps_its_name_wherever_it_goes(request: pytest.FixtureRequest) -> None:
    """There, and back again: the worker that accepted it has another number for it then."""
    there = both_of(request, Counting(), Counting())
    client = there.giver.connect()
    born = only(there.giver)
    name = there.giver.names.of(born)
    assert name == f"3-{born.serial}"
    there.hand_over()
    moved = only(there.taker)
    assert there.taker.names.of(moved) == name
    assert there.taker.names.serial_of(name) == moved.serial
    assert there.taker.names.serial_of(f"7-{moved.serial}") is None, "it has one name"
    assert not there.giver.names.moved
    facts = ConnectionFacts([there.taker.listener], there.taker.names).explain(name)
    assert facts["sides"][0]["id"] == name
    assert facts["moved"].pop("ago_s") < LIMIT_S
    assert facts["moved"] == {"times": 1, "worker": 1, "generation": 4, "process": 812}
    back = Both(there.taker, there.giver)
    request.addfinalizer(back.takes.close)
    back.hand_over()
    again = only(there.giver)
    assert again.serial != born.serial
    assert there.giver.names.of(again) == name
    origin = there.giver.names.origin_of(again)
    assert origin is not None
    assert origin.moves == 2
    assert not there.taker.names.moved
    client.close()
    there.giver.step_until(there.giver.closes, "its end")
    assert there.giver.recent_closes.find(name, time.monotonic()) is not None
    assert not there.giver.names.moved


def test_connection_that_stays_is_named_as_before(request: pytest.FixtureRequest) -> None:
    both = both_of(request, Counting(), Refusing())
    both.giver.connect()
    name = both.giver.names.of(only(both.giver))
    assert both.hand_over().stayed == {"refused": 1}
    assert both.giver.names.of(only(both.giver)) == name
    assert not both.taker.names.moved


@pytest.mark.parametrize(
    "name",
    [
        (7, 0, 1),
        (0, 5, 1),
        (3, -5, 1),
        (3, 2**63, 1),
        (2**32, 5, 1),
        (3, 5, 0),
        (3, 5),
        ("3", 5, 1),
        None,
        "live",
    ],
)
def test_name_that_cannot_be_is_not_taken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    """Also not that of a connection which is there."""
    both = both_of(request, Counting(), Counting())
    there = both.taker.connect()
    told = (7, only(both.taker).serial, 1) if name == "live" else name
    client = both.giver.connect()
    monkeypatch.setattr(both.giver.names, "told_of", lambda conn: told)
    assert both.hand_over().stayed == {"version": 1}
    assert ask(both.giver, client) == b"1"
    assert ask(both.taker, there) == b"1"
    assert not both.taker.names.moved


def test_name_that_two_have_is_taken_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    both = both_of(request, Counting(), Counting())
    clients = [both.giver.connect() for _ in range(3)]
    monkeypatch.setattr(both.giver.names, "told_of", lambda conn: (9, 5, 1))
    outcome = both.hand_over()
    assert (outcome.moved, outcome.stayed) == (1, {"version": 2})
    for where, client in zip((both.taker, both.giver, both.giver), clients, strict=True):
        assert ask(where, client) == b"1"
