"""When a worker that died is started again, and when that is given up."""

import pytest

from gaiod.supervisor.processes.crash_loop import BACKOFF_FIRST_S, FAILURES_MAX, FAILURES_WINDOW_S, SETTLED_S, CrashLoop


def test_worker_that_had_settled_is_replaced_at_once() -> None:
    restarts = CrashLoop()
    assert [restarts.pause_s(0, SETTLED_S, float(now_s)) for now_s in range(100)] == [0.0] * 100


def test_pause_doubles_until_it_is_given_up() -> None:
    restarts = CrashLoop()
    pauses = [restarts.pause_s(0, 0.0, 1000.0) for _ in range(FAILURES_MAX)]
    assert pauses == [*(BACKOFF_FIRST_S * 2**number for number in range(FAILURES_MAX - 1)), None]


def test_failures_are_forgotten_after_a_while() -> None:
    restarts = CrashLoop()
    for number in range(20):
        assert restarts.pause_s(0, 0.0, number * (FAILURES_WINDOW_S + 1)) == BACKOFF_FIRST_S


@pytest.mark.parametrize("apart_s", [0.0, FAILURES_WINDOW_S / FAILURES_MAX])
def test_given_up_when_so_many_fall_into_the_window(apart_s: float) -> None:
    restarts = CrashLoop()
    pauses = [restarts.pause_s(0, 0.0, number * apart_s) for number in range(FAILURES_MAX)]
    assert pauses[-1] is None
    assert None not in pauses[:-1]


def test_slots_are_counted_apart() -> None:
    restarts = CrashLoop()
    for _ in range(FAILURES_MAX - 1):
        restarts.pause_s(0, 0.0, 0.0)
    assert restarts.pause_s(1, 0.0, 0.0) == BACKOFF_FIRST_S


def test_worker_that_had_settled_does_not_forgive_the_others() -> None:
    """A handler that dies now and then at its start is still one that does."""
    restarts = CrashLoop()
    for _ in range(FAILURES_MAX - 1):
        restarts.pause_s(0, 0.0, 0.0)
    assert restarts.pause_s(0, SETTLED_S, 0.0) == 0.0
    assert restarts.pause_s(0, 0.0, 0.0) is None
