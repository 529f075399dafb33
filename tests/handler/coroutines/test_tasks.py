"""Tasks: coroutines driven by what they wait for."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from gaiod import ForgottenAwait, Task, UsageError
from gaiod.handler.coroutines.waits import Wait


class Run:
    """A task, and how it ended."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.ends: list[BaseException | None] = []
        self.task = Task(coroutine, lambda task, error: self.ends.append(error))
        self.task.start()


def test_task_goes_on_when_what_it_waits_for_comes() -> None:
    async def coroutine() -> int:
        return int(await wait) + 1

    wait = Wait()
    run = Run(coroutine())
    assert (run.ends, run.task.waits_for) == ([], wait)
    wait.finish(7)
    assert (run.ends, run.task.is_over) == ([None], True)


def test_error_that_is_thrown_can_be_caught_and_the_old_wait_is_no_longer_waited_for() -> None:
    async def coroutine() -> None:
        try:
            await first
        except LookupError:
            seen.append("caught")
        await second

    seen: list[str] = []
    first, second = Wait(), Wait()
    run = Run(coroutine())
    run.task.throw(LookupError())
    first.finish(None)
    assert (seen, run.ends) == (["caught"], [])
    second.finish(None)
    assert run.ends == [None]


def test_task_that_is_cancelled_by_itself_ends_at_its_next_await() -> None:
    async def coroutine() -> None:
        runs[0].task.cancel()
        seen.append("goes on")
        await Wait()

    runs: list[Run] = []
    seen: list[str] = []
    made = coroutine()
    run = Run.__new__(Run)
    run.ends = []
    run.task = Task(made, lambda task, error: run.ends.append(error))
    runs.append(run)
    run.task.start()
    assert seen == ["goes on"]
    assert isinstance(run.ends[0], asyncio.CancelledError)


def test_close_runs_what_is_left_and_waits_for_nothing() -> None:
    async def coroutine() -> None:
        try:
            await Wait()
        finally:
            seen.append("finally")

    seen: list[str] = []
    run = Run(coroutine())
    run.task.close()
    run.task.close()
    assert (seen, run.ends, run.task.is_over) == (["finally"], [None], True)


def test_two_tasks_cannot_await_the_same_thing() -> None:
    async def coroutine() -> None:
        await wait

    wait = Wait()
    first, second = Run(coroutine()), Run(coroutine())
    assert isinstance(second.ends[0], UsageError)
    wait.finish(None)
    assert first.ends == [None]


def test_task_can_be_awaited_before_and_after_its_end() -> None:
    async def inner() -> int:
        return int(await wait)

    async def outer() -> None:
        seen.append(await run.task)
        seen.append(await run.task)

    wait, seen = Wait(), list[int]()
    run = Run(inner())
    other = Run(outer())
    wait.finish(7)
    assert (seen, other.ends) == ([7, 7], [None])


@pytest.mark.parametrize("goes_on", [False, True])
def test_forgotten_await_is_raised_at_the_next_await_or_at_the_end(goes_on: bool) -> None:
    async def coroutine() -> None:
        Wait()
        if goes_on:
            await wait

    wait = Wait()
    run = Run(coroutine())
    assert isinstance(run.ends[0], ForgottenAwait)
    assert wait.task is None


def test_chain_of_tasks_is_no_chain_of_calls() -> None:
    async def first() -> int:
        return int(await wait)

    async def link(task: Task) -> int:
        return int(await task) + 1

    wait = Wait()
    runs = [Run(first())]
    for _ in range(3000):
        runs.append(Run(link(runs[-1].task)))
    wait.finish(0)
    assert runs[-1].ends == [None]
    assert runs[-1].task.is_over


def test_error_of_a_task_goes_to_who_awaits_it_and_to_nobody_else() -> None:
    async def inner() -> None:
        await wait
        raise LookupError("broken")

    async def outer() -> None:
        try:
            await run.task
        except LookupError as error:
            seen.append(str(error))

    wait, seen = Wait(), list[str]()
    run = Run(inner())
    other = Run(outer())
    wait.finish(None)
    assert (seen, run.ends, other.ends) == (["broken"], [None], [None])


def test_what_was_cancelled_cannot_be_awaited_again() -> None:
    async def coroutine() -> None:
        try:
            await wait
        except LookupError:
            await wait

    wait = Wait()
    run = Run(coroutine())
    run.task.throw(LookupError())
    assert isinstance(run.ends[0], UsageError)


def test_task_cannot_await_itself() -> None:
    async def coroutine() -> None:
        await wait
        await runs[0].task

    wait, runs = Wait(), list[Run]()
    runs.append(Run(coroutine()))
    wait.finish(None)
    assert isinstance(runs[0].ends[0], UsageError)
