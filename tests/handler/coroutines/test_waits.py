"""Waits: what comes once, to the one who waits."""

import pytest

from gaiod.handler.coroutines.waits import Runner, Wait, advance, come, running, set_running


class Notes(Runner):
    """Notes who woke it."""

    def __init__(self) -> None:
        self.woken: list[Wait] = []
        self.is_over = False
        self.forgotten: str | None = None

    def wake(self, wait: Wait) -> None:
        self.woken.append(wait)


def test_value_wakes_who_waits_once() -> None:
    runner, wait = Notes(), Wait()
    wait.task = runner
    wait.finish(7)
    wait.finish(8)
    wait.fail(LookupError())
    assert (runner.woken, wait.value, wait.error) == ([wait], 7, None)


def test_withdrawn_wait_tells_its_source_and_wakes_nobody() -> None:
    class Source:
        withdrawn: Wait | None = None

        def withdraw(self, wait: Wait) -> None:
            self.withdrawn = wait

    runner, source = Notes(), Source()
    wait = Wait(source)
    wait.task = runner
    wait.withdraw()
    wait.finish(7)
    assert (source.withdrawn, runner.woken) == (wait, [])


@pytest.mark.parametrize("value", [None, 7, (1, 2), StopIteration(7), LookupError("a value")])
def test_coroutine_gets_the_very_value(value: object) -> None:
    async def coroutine() -> object:
        return await wait

    wait, runner, made = Wait(), Notes(), coroutine()
    assert advance(runner, made) is wait
    assert not runner.is_over
    wait.finish(value)
    assert advance(runner, made) is value
    assert runner.is_over


def test_coroutine_gets_the_very_error() -> None:
    async def coroutine() -> None:
        await wait

    wait, error = Wait(), LookupError("missing")
    made = coroutine()
    advance(Notes(), made)
    wait.fail(error)
    with pytest.raises(LookupError) as raised:
        advance(Notes(), made)
    assert raised.value is error


def test_what_is_there_already_needs_no_wait() -> None:
    async def coroutine() -> int:
        return int(await come(7))

    runner = Notes()
    assert advance(runner, coroutine()) == 7
    assert runner.is_over


def test_wait_that_was_dropped_tells_who_runs_then() -> None:
    runner = Notes()
    set_running(runner)
    try:
        assert running() is runner
        Wait()
        assert runner.forgotten is not None
        assert runner.forgotten.startswith(__file__)
        runner.forgotten = None

        async def coroutine() -> None:
            await come(None)

        advance(runner, coroutine())
        assert runner.forgotten is None
    finally:
        set_running(None)
    Wait()
    assert runner.forgotten is None
