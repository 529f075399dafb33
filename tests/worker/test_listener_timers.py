"""Timers of a listener: once or again and again, and only while that is wanted."""

import time
from collections.abc import Callable

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Watcher
from gaiod.process.dispatch import dispatch
from gaiod.worker.listener_timers import Timers


@pytest.fixture
def step_until(watcher: Watcher) -> Callable[[Callable[[], object]], None]:
    """Let the loop go round until something is so."""

    def step_until(is_so: Callable[[], object]) -> None:
        until_s = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < until_s
            dispatch(watcher.wait_io(MOMENT_S))

    return step_until


def test_after_calls_once_and_every_again_and_again(
    watcher: Watcher, step_until: Callable[[Callable[[], object]], None]
) -> None:
    timers = Timers(watcher, lambda: True)
    once: list[float] = []
    often: list[float] = []
    began_s = time.monotonic()
    timers.after(MOMENT_S, lambda: once.append(time.monotonic()))
    timers.every(MOMENT_S, lambda: often.append(time.monotonic()))
    step_until(lambda: len(often) == 3)
    assert len(once) == 1
    assert once[0] - began_s >= MOMENT_S
    assert often[2] - began_s >= 3 * MOMENT_S


def test_nothing_is_called_any_more_once_it_is_not_wanted(
    watcher: Watcher, step_until: Callable[[Callable[[], object]], None]
) -> None:
    wanted = [True]
    timers = Timers(watcher, lambda: wanted[0])
    rung: list[str] = []
    timers.every(0.0, lambda: rung.append("every"))
    step_until(lambda: rung)
    wanted.clear()
    wanted.append(False)
    before = len(rung)
    timers.after(0.0, lambda: rung.append("after"))
    over: list[object] = []
    watcher.timer(time.monotonic() + MOMENT_S, context=over.append)
    step_until(lambda: over)
    assert len(rung) == before
