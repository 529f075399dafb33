"""Waiting for completions, never for time: every wait ends with the event, or fails at a limit."""

import os
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

TIME_UNIT = float(os.environ.get("GAIOD_TEST_SECONDS", "1"))
"""Seconds. Every time in these tests is a multiple of it: raise it where the machine is slow."""

LIMIT_S = 10 * TIME_UNIT
"""Longest wait for what must happen."""

MOMENT_S = 0.03 * TIME_UNIT
"""A deadline that is soon over, and how long to look for what must not happen."""

T = TypeVar("T")

compiled_only = pytest.mark.engine("compiled")
interpreted_only = pytest.mark.engine("interpreted")
"""Deselected with the other engine (`conftest.py`): a test that is skipped is one that this machine cannot run."""


def soon() -> float:
    """Return a deadline that is soon over."""
    return time.monotonic() + MOMENT_S


def later() -> float:
    """Return a deadline that no test sees."""
    return time.monotonic() + 100 * LIMIT_S


def pass_time_until(moment_s: float) -> None:
    """Keep this thread busy until `moment_s`: the loop is late, as after a slow handler."""
    while time.monotonic() <= moment_s:
        pass


def seen(look: Callable[[], T]) -> T | None:
    """Return what `look()` sees; None while a list that it indexes has still to fill."""
    try:
        return look()
    except IndexError:
        return None


def collect(watcher: Watcher, n: int, timeout: float = LIMIT_S) -> list[OpResult]:
    """Return the next `n` completions; fail if there are fewer in `timeout` seconds, or more.

    Swap buffers are valid in those of the last pass only: collect reads without a buffer one by one.
    """
    done = collect_until(watcher, lambda done: len(done) >= n, timeout)
    assert len(done) == n, f"{len(done)} completions instead of {n}: {done}"
    return done


def collect_one(watcher: Watcher, timeout: float = LIMIT_S) -> OpResult:
    """Return the one next completion."""
    return collect(watcher, 1, timeout)[0]


def collect_until(
    watcher: Watcher, is_enough: Callable[[list[OpResult]], bool], timeout: float = LIMIT_S
) -> list[OpResult]:
    """Return the completions up to the pass after which they are enough; fail after `timeout` seconds."""
    until_s = time.monotonic() + timeout
    done: list[OpResult] = []
    while not is_enough(done):
        left_s = until_s - time.monotonic()
        assert left_s > 0, f"in {timeout} s came only {len(done)} completions: {done[:20]}"
        done += watcher.wait_io(left_s)
    return done


def collect_rest(watcher: Watcher) -> list[OpResult]:
    """Close the watcher and return what it still had to say."""
    watcher.close()
    done: list[OpResult] = []
    while True:
        try:
            done += watcher.wait_io(LIMIT_S)
        except WatcherClosed:
            return done


def assert_quiet(watcher: Watcher, timeout: float = MOMENT_S) -> None:
    """Fail if anything completes within `timeout` seconds."""
    assert watcher.wait_io(timeout) == []


def contexts(done: Iterable[OpResult]) -> list[object]:
    """Return the contexts of completions, in their order."""
    return [result.context for result in done]


def spin(watcher: Watcher, is_over: Callable[[], bool], timeout: float = LIMIT_S) -> list[OpResult]:
    """Run the loop until `is_over`; return what completed meanwhile."""
    until_s = time.monotonic() + timeout
    done: list[OpResult] = []
    while not is_over():
        assert time.monotonic() < until_s, f"did not happen in {timeout} s; completed: {done[:20]}"
        done += watcher.wait_io(0.001)
    return done
