"""How a worker divides its connections among those that take them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from core.support.waiting import LIMIT_S
from gaiod.handlers.echo import Echo

from gaiod import Handler
from gaiod.worker.handover import giver as giving
from gaiod.worker.handover.taker import Taker
from gaiod.worker.names import Names
from worker.support.serving import Serving
from worker.test_giver_and_taker import Both, Counting, Refusing, both_of, both_with


@pytest.fixture
def echoes() -> Iterator[Both]:
    """A giver, and a taker beside those of the test."""
    both = both_with(Echo(), Echo())
    yield both
    both.close()


class Taking:
    """One more worker that takes connections over."""

    def __init__(self, handler: Handler) -> None:
        self.serving = Serving(handler, names=Names(9))
        self.takes = Taker(
            self.serving.watcher, [self.serving.listener], self.serving.names, dict, lambda listener, conn: None
        )

    @property
    def count(self) -> int:
        return self.serving.listener.active

    def close(self) -> None:
        self.takes.close()
        self.serving.close()


@pytest.fixture
def three(echoes: Both) -> Iterator[list[Taking]]:
    """Takers beside that of `echoes`."""
    takers = [Taking(Echo()) for _ in range(3)]
    yield takers
    for taker in takers:
        taker.close()


def step_all(both: Both, takers: Sequence[Taking], look: Callable[[], object], what: str) -> None:
    def stepped() -> object:
        for taker in takers:
            taker.serving.step()
        return look()

    both.step_until(stepped, what)


def counted(taker: Taking | Both, count: int) -> dict[str, Any]:
    """Return a taker that is to get so many connections."""
    return {**taker.takes.address, "counts": {"front": count}}


@pytest.mark.parametrize(("clients", "shares"), [(250, [83, 84, 83]), (2, [0, 1, 1]), (1, [0, 1, 0])])
def test_all_takers_get_the_same_and_none_all_that_is_left_over(
    echoes: Both, three: list[Taking], clients: int, shares: list[int]
) -> None:
    """The giver is worker 1: who gets one more differs from giver to giver."""
    for _ in range(clients):
        echoes.giver.connect()
    echoes.begin(takers=[taker.takes.address for taker in three])
    step_all(echoes, three, lambda: echoes.outcome, "the outcome")
    step_all(echoes, three, lambda: sum(taker.count for taker in three) == clients, "their arrival")
    assert [taker.count for taker in three] == shares


def test_share_of_a_taker_that_dies_goes_to_the_others(echoes: Both, three: list[Taking]) -> None:
    for _ in range(30):
        echoes.giver.connect()
    first, *others = three
    echoes.begin(takers=[taker.takes.address for taker in three])
    first.serving.watcher.close()
    step_all(echoes, others, lambda: echoes.outcome, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (30, {})
    step_all(echoes, others, lambda: [taker.count for taker in others] == [15, 15], "their arrival")


def test_share_of_a_taker_that_says_nothing_goes_to_the_others(
    echoes: Both, three: list[Taking], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving, "HELLO_S", 0.05)
    for _ in range(30):
        echoes.giver.connect()
    _, *others = three
    echoes.begin(takers=[taker.takes.address for taker in three])
    step_all(echoes, others, lambda: echoes.outcome, "the outcome")
    step_all(echoes, others, lambda: [taker.count for taker in others] == [15, 15], "their arrival")


def test_some_go_if_some_are_wanted(echoes: Both, three: list[Taking]) -> None:
    clients = [echoes.giver.connect() for _ in range(300)]
    echoes.begin(takers=[counted(three[0], 150), counted(three[1], 30)])
    step_all(echoes, three, lambda: echoes.outcome, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (180, {})
    step_all(echoes, three, lambda: [taker.count for taker in three] == [150, 30, 0], "their arrival")
    assert echoes.giver.listener.active == 120
    assert echoes.giver.exchange(clients[-1], b"still") == b"still"


def test_others_go_for_those_that_are_not_quiet(echoes: Both) -> None:
    for _ in range(10):
        echoes.giver.connect()
    for conn in echoes.giver.listener.clients()[:6]:
        conn.busy = True
    echoes.begin(takers=[counted(echoes, 4)])
    echoes.step_until(lambda: echoes.outcome, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (4, {})


def test_as_many_stay_as_were_to_go_if_none_is_quiet(echoes: Both) -> None:
    for _ in range(10):
        echoes.giver.connect()
    for conn in echoes.giver.listener.clients()[:9]:
        conn.busy = True
    echoes.begin(0.2, takers=[counted(echoes, 4)])
    echoes.step_until(lambda: echoes.outcome, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (1, {"not_quiet": 3})


def test_refusal_is_not_made_up_for(request: pytest.FixtureRequest) -> None:
    """All are alike to a taker that refuses one; they would be asked one after the other for nothing."""
    both = both_of(request, Counting(), Refusing())
    for _ in range(10):
        both.giver.connect()
    both.begin(takers=[counted(both, 4)])
    both.step_until(lambda: both.outcome, "the outcome")
    assert both.outcome is not None
    assert (both.outcome.moved, both.outcome.stayed) == (0, {"refused": 4})


def test_taker_that_is_gone_when_some_were_to_go_is_not_waited_for(echoes: Both) -> None:
    for _ in range(10):
        echoes.giver.connect()
    echoes.begin(takers=[counted(echoes, 4)])
    echoes.taker.watcher.close()
    outcome = echoes.step_until_over()
    assert (outcome.moved, outcome.stayed) == (0, {"lost": 4})
    assert outcome.took_s < LIMIT_S / 2


def test_who_is_to_give_some_and_then_all_does_so_at_once(echoes: Both) -> None:
    """What was to go is not counted as what stays."""
    for _ in range(10):
        echoes.giver.connect()
    for conn in echoes.giver.listener.clients():
        conn.busy = True
    echoes.begin(takers=[counted(echoes, 4)])
    for _ in range(10):
        echoes.step()
    assert echoes.gives is not None
    echoes.gives.cut_short()
    echoes.step_until(lambda: echoes.outcome, "the outcome")
    assert echoes.outcome is not None
    assert (echoes.outcome.moved, echoes.outcome.stayed) == (0, {})
    assert echoes.outcome.took_s < LIMIT_S / 2
