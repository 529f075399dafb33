"""The stopwatch: which lap was too long, on either engine."""

import time

from core.support.waiting import MOMENT_S
from gaiod.core.engine import Stopwatch

LIMIT_S = 0.05
NANO = 1_000_000_000


def _wait_beyond(watch: Stopwatch) -> None:
    while time.monotonic_ns() < watch.since_ns + 2 * watch.limit_ns:
        pass


def test_lap_is_too_long_when_it_took_longer_than_the_limit() -> None:
    watch = Stopwatch(int(LIMIT_S * NANO))
    watch.begin([1, 2])
    began_ns = watch.since_ns
    _wait_beyond(watch)
    assert watch.lap()
    assert watch.took_ns == watch.since_ns - began_ns >= LIMIT_S * NANO


def test_laps_are_counted_from_the_end_of_the_one_before() -> None:
    """A pass of many quick hooks is not a slow hook."""
    watch = Stopwatch(int(10 * MOMENT_S * NANO))
    watch.begin([])
    while time.monotonic_ns() < watch.since_ns + watch.limit_ns and watch.index < 1000:
        assert not watch.lap()
        watch.step()
    assert watch.index == 1000


def test_nothing_is_too_long_outside_of_a_pass_or_without_a_limit() -> None:
    watch, still = Stopwatch(1), Stopwatch(0)
    watch.begin([1])
    watch.end()
    still.begin([1])
    assert watch.results is None and still.results is None
    assert not watch.lap() and not still.lap()


def test_lap_is_for_whom_was_noted_until_it_ends() -> None:
    """Whatever was noted is let go with it: a connection must not live on for that."""
    watch = Stopwatch(NANO)
    target, conn = object(), object()
    watch.note(target, "on_timer", conn)
    assert (watch.target, watch.hook, watch.conn) == (target, "on_timer", conn)
    assert not watch.lap()
    assert (watch.target, watch.conn) == (None, None)


def test_sleeper_is_woken_once_when_a_pass_begins() -> None:
    woken = []
    watch = Stopwatch(NANO)
    watch.wake = lambda: woken.append(True)
    watch.begin([])
    assert woken == []
    watch.is_watched = False
    watch.begin([])
    watch.begin([])
    assert woken == [True]
