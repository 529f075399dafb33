"""Timers: they ring once, in order, never early, and can be cancelled."""

import errno
import gc
import math
import random
import time
import weakref

import pytest

from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    TIME_UNIT,
    assert_quiet,
    collect,
    collect_one,
    collect_until,
    contexts,
    interpreted_only,
    later,
    soon,
)
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


def test_timer_rings_at_its_time_and_not_before(watcher: Watcher) -> None:
    deadline = soon()
    timer = watcher.timer(deadline, context="context")
    result = collect_one(watcher)
    assert time.monotonic() >= deadline
    assert result is timer
    assert (result.operation, result.context, result.error) == (OpType.TIMER, "context", None)
    assert (result.conn, result.buffer, result.size) == (None, None, 0)
    assert_quiet(watcher)


def test_timer_does_not_end_a_wait_before_its_time(watcher: Watcher) -> None:
    watcher.timer(later())
    until_s = soon()
    assert watcher.wait_io(MOMENT_S) == []
    assert time.monotonic() >= until_s - 0.01 * TIME_UNIT


def test_timer_whose_time_is_past_rings_in_the_next_pass(watcher: Watcher) -> None:
    for deadline in (0.0, -5.0, time.monotonic() - 1):
        watcher.timer(deadline, context=deadline)
        assert contexts(watcher.wait_io(0)) == [deadline]


def test_timers_ring_in_the_order_of_their_times(watcher: Watcher) -> None:
    start_s = time.monotonic()
    order = [5, 1, 4, 2, 3]
    for number in order:
        watcher.timer(start_s + number * MOMENT_S / 3, context=number)
    assert contexts(collect(watcher, 5)) == sorted(order)


def test_timers_of_one_time_ring_in_the_order_they_were_set(watcher: Watcher) -> None:
    deadline = soon()
    for number in range(1_000):
        watcher.timer(deadline, context=number)
    assert contexts(collect(watcher, 1_000)) == list(range(1_000))


def test_thousands_of_timers_ring_once_each_and_in_order(watcher: Watcher) -> None:
    start_s = time.monotonic()
    shuffled = random.Random(1)
    for _ in range(20_000):
        deadline = start_s + shuffled.random() * 2 * MOMENT_S
        watcher.timer(deadline, context=deadline)
    done = collect_until(watcher, lambda done: len(done) >= 20_000)
    assert len(done) == 20_000
    assert [result.error for result in done] == [None] * 20_000
    times = [float(str(context)) for context in contexts(done)]
    assert times == sorted(times)


def test_cancelled_timer_completes_once_with_ecanceled(watcher: Watcher) -> None:
    timer = watcher.timer(soon(), context="cancelled")
    watcher.cancel(timer)
    watcher.cancel(timer)
    result = collect_one(watcher)
    assert result is timer
    assert isinstance(result.error, OSError)
    assert result.error.errno == errno.ECANCELED
    assert_quiet(watcher, 2 * MOMENT_S)


def test_cancel_of_a_timer_that_rang_is_a_no_op(watcher: Watcher) -> None:
    timer = watcher.timer(0.0)
    collect_one(watcher)
    watcher.cancel(timer)
    assert timer.error is None
    assert_quiet(watcher, 0)


def test_cancel_of_one_timer_leaves_the_others(watcher: Watcher) -> None:
    deadline = soon()
    timers = [watcher.timer(deadline, context=number) for number in range(100)]
    for timer in timers[::2]:
        watcher.cancel(timer)
    done = collect(watcher, 100)
    assert contexts(result for result in done if result.error is None) == list(range(1, 100, 2))


@interpreted_only
def test_cancelled_timers_are_swept_out_of_the_heap(watcher: Watcher) -> None:
    for _ in range(5_000):
        watcher.cancel(watcher.timer(later()))
    assert len(watcher.wait_io(0)) == 5_000
    watcher.timer(later())
    assert len(watcher.timers.heap) < 300


def test_timer_that_was_cancelled_keeps_nothing_alive_for_long(watcher: Watcher) -> None:
    class Canary:
        pass

    dead = []
    for _ in range(200):
        canary = Canary()
        dead.append(weakref.ref(canary))
        watcher.cancel(watcher.timer(later(), context=canary))
        collect_one(watcher)
    del canary
    gc.collect()
    assert sum(reference() is not None for reference in dead) <= 100


@pytest.mark.parametrize("deadline", [math.nan, math.inf, -math.inf], ids=repr)
def test_timer_without_a_finite_time_is_refused(watcher: Watcher, deadline: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        watcher.timer(deadline)
    assert_quiet(watcher, 0)


def test_timers_ring_while_the_loop_is_busy_with_connections(watcher: Watcher) -> None:
    """Posts come in every pass: there is always something to return, and the timer is still seen."""
    deadline = soon()
    watcher.timer(deadline, context="timer")
    begin_s = time.monotonic()
    while True:
        watcher.post("busy")
        if "timer" in contexts(watcher.wait_io()):
            break
        assert time.monotonic() - begin_s < LIMIT_S
