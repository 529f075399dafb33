"""Connecting to the first of several addresses that answers: RFC 8305."""

from collections.abc import Callable
from typing import Any

import pytest

from gaiod.handler.coroutines.connecting import ATTEMPT_DELAY_S, Attempts, Target, interleaved


class Call:
    """Something that is to happen later."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def ring(self) -> None:
        if not self.is_cancelled:
            self.action()


class Attempt:
    """A connection that is being made."""

    def __init__(self, ended: Callable[[Any, Exception | None], None]) -> None:
        self._ended = ended
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def end(self, error: Exception | None = None) -> None:
        self._ended(self, error)


class Net:
    """Where nothing is connected unless the test says so."""

    def __init__(self, *targets: Target, refused: Target | None = None) -> None:
        self.tried: dict[Target, Attempt] = {}
        self.calls: list[Call] = []
        self._refused = refused
        self.attempts = Attempts(targets, self._connect, self._call_later)
        self.attempts.begin()

    def _connect(self, target: Target, ended: Callable[[Any, Exception | None], None]) -> Attempt:
        if target == self._refused:
            raise OSError("no descriptor is left")
        self.tried[target] = Attempt(ended)
        return self.tried[target]

    def _call_later(self, delay_s: float, action: Callable[[], None]) -> Call:
        assert delay_s == ATTEMPT_DELAY_S
        self.calls.append(Call(action))
        return self.calls[-1]


A, B, C = ("192.0.2.1", 80), ("192.0.2.2", 80), ("192.0.2.3", 80)


def test_one_that_answers_is_the_only_one_tried() -> None:
    net = Net(A, B)
    net.tried[A].end()
    assert net.attempts.wait.value is net.tried[A]
    net.calls[0].ring()
    assert list(net.tried) == [A]


def test_next_one_is_tried_beside_one_that_is_silent_and_the_first_to_answer_wins() -> None:
    net = Net(A, B, C)
    net.calls[0].ring()
    net.calls[1].ring()
    assert list(net.tried) == [A, B, C]
    net.tried[B].end()
    assert net.attempts.wait.value is net.tried[B]
    assert [net.tried[each].is_aborted for each in (A, B, C)] == [True, False, True]
    net.tried[A].end()
    assert net.attempts.wait.value is net.tried[B]


def test_next_one_is_tried_at_once_after_a_failure() -> None:
    net = Net(A, B)
    net.tried[A].end(ConnectionRefusedError("A"))
    assert net.calls[0].is_cancelled
    net.tried[B].end()
    assert net.attempts.wait.value is net.tried[B]


def test_first_error_is_told_when_all_have_failed() -> None:
    net = Net(A, B, refused=B)
    net.tried[A].end(ConnectionRefusedError("A"))
    assert str(net.attempts.wait.error) == "A"


def test_without_an_address_it_fails() -> None:
    assert str(Net().attempts.wait.error) == "there is no address to connect to"


def test_nothing_is_left_when_nobody_waits() -> None:
    net = Net(A, B)
    net.attempts.wait.withdraw()
    assert net.tried[A].is_aborted
    assert net.calls[0].is_cancelled


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([("::1", 1), ("::2", 1), ("10.0.0.1", 1)], [("::1", 1), ("10.0.0.1", 1), ("::2", 1)]),
        ([("10.0.0.1", 1), ("10.0.0.2", 1), ("::1", 1)], [("10.0.0.1", 1), ("::1", 1), ("10.0.0.2", 1)]),
    ],
)
def test_families_take_turns(before: list[tuple[str, int]], after: list[Target]) -> None:
    assert interleaved(before) == after
