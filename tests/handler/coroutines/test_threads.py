"""Threads for what blocks: bounded, named, and nobody's who does not wait."""

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import pytest
from core.support.waiting import LIMIT_S

from gaiod import TooManyOperations
from gaiod.handler.coroutines.threads import QUEUE_MAX, Threads
from gaiod.handler.coroutines.waits import Wait

Calls = SimpleQueue[Callable[[], None]]


@pytest.fixture
def calls() -> Calls:
    """What threads want to be called in the worker's."""
    return SimpleQueue()


def settle(calls: Calls, wait: Wait) -> Wait:
    """Call what comes until a wait is over."""
    while not wait.done:
        calls.get(timeout=LIMIT_S)()
    return wait


def test_as_many_threads_as_are_needed_and_no_more(calls: Calls) -> None:
    threads = Threads("test", 2, calls.put)
    both, release = threading.Barrier(3), threading.Event()

    def block() -> str:
        both.wait(LIMIT_S)
        release.wait()
        return threading.current_thread().name

    waits = [threads.run(block) for _ in range(2)]
    both.wait(LIMIT_S)
    waits += [threads.run(lambda: "later") for _ in range(3)]
    assert (threads.size, threads.queued) == (2, 3)
    assert threads.oldest_s >= 0
    release.set()
    assert {settle(calls, wait).value for wait in waits} == {"test-1", "test-2", "later"}
    assert (threads.queued, threads.oldest_s) == (0, 0.0)


def test_thread_that_is_free_is_used_again(calls: Calls) -> None:
    threads = Threads("test", 8, calls.put)
    for _ in range(5):
        settle(calls, threads.run(int))
        until_s = time.monotonic() + LIMIT_S
        while threads._idle == 0 and time.monotonic() < until_s:
            time.sleep(0.001)
    assert threads.size == 1


def test_threads_without_work_end(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gaiod.handler.coroutines.threads.IDLE_S", 0.01)
    threads = Threads("test", 8, calls.put)
    settle(calls, threads.run(int))
    until_s = time.monotonic() + LIMIT_S
    while threads.size:
        assert time.monotonic() < until_s
        time.sleep(0.001)
    assert settle(calls, threads.run(int)).value == 0


def test_error_goes_to_who_waits_whatever_it_is(calls: Calls) -> None:
    def leave() -> None:
        raise SystemExit("not the worker's end")

    wait = settle(calls, Threads("test", 1, calls.put).run(leave))
    assert isinstance(wait.error, SystemExit)


def test_end_of_an_iterator_is_no_end_of_a_coroutine(calls: Calls) -> None:
    wait = settle(calls, Threads("test", 1, calls.put).run(lambda: next(iter([]))))
    assert isinstance(wait.error, RuntimeError)


def test_call_that_nobody_waits_for_is_not_begun(calls: Calls) -> None:
    threads = Threads("test", 1, calls.put)
    release, seen = threading.Event(), threading.Event()
    first = threads.run(release.wait)
    threads.run(seen.set).withdraw()
    release.set()
    settle(calls, first)
    settle(calls, threads.run(int))
    assert not seen.is_set()


def test_queue_is_bounded(calls: Calls) -> None:
    threads = Threads("test", 1, calls.put)
    release = threading.Event()
    first = threads.run(release.wait)
    with pytest.raises(TooManyOperations, match="calls wait for one of 1 threads; raise threads_max"):
        for _ in range(QUEUE_MAX + 2):
            threads.run(int)
    release.set()
    settle(calls, first)
