"""What a coroutine waits for, for the interpreted engine. The compiled one has `waits.pyx` by that name."""

import sys
from collections.abc import Coroutine, Generator
from typing import Any

from gaiod.core.errors import UsageError


class ForgottenAwait(UsageError):
    """A coroutine called something that has to be awaited, and did not await it; the message says where."""


class Runner:
    """Runs a coroutine: `tasks.Task`.

    Attributes:
        owner: the `Stream` for which it runs; None: there is none.
        is_over: the coroutine has ended.
        forgotten: where an `await` was forgotten, as `file:line`; None: nowhere.
    """

    owner: Any
    is_over: bool
    forgotten: str | None

    def wake(self, wait: "Wait") -> None:
        """Go on: what it waits for has come."""
        raise NotImplementedError


class Wait:
    """Something that will come: a value or an error, once. To be awaited once, in a task.

    A wait that is dropped without having been awaited tells the task that has asked for it, if that runs then: an
    `await` was forgotten.

    Args:
        source: what is to bring it; it has `withdraw(wait)`, called if the task that waits is told to go on otherwise.
            None: nothing has to be withdrawn.
        is_work: whether a connection whose coroutine waits for it is busy (`Conn.busy`).
    """

    __slots__ = ("done", "error", "is_awaited", "is_work", "maker", "source", "task", "value")

    def __init__(self, source: Any = None, is_work: bool = False) -> None:
        self.source = source
        self.is_work = is_work
        self.done = False
        self.is_awaited = False
        self.maker = id(_running)  # of the runner that has asked for it
        self.value: Any = None
        self.error: BaseException | None = None
        self.task: Runner | None = None

    def finish(self, value: Any) -> None:
        """Bring the value. A second one is ignored."""
        if not self.done:
            self.done = True
            self.value = value
            self._tell()

    def fail(self, error: BaseException) -> None:
        """Bring an error, which is raised where it is awaited."""
        if not self.done:
            self.done = True
            self.error = error
            self._tell()

    def withdraw(self) -> None:
        """Let nobody bring it: its task goes on without, and who awaits it again gets an error."""
        self.task = None
        if not self.done:
            self.done = True
            self.error = UsageError("what is awaited was cancelled before; ask for it again")
            source, self.source = self.source, None
            if source is not None:
                source.withdraw(self)

    def _tell(self) -> None:
        task, self.task = self.task, None
        self.source = None
        if task is not None:
            task.wake(self)

    def __await__(self) -> Generator[Any, Any, Any]:
        self.is_awaited = True
        return self  # type: ignore[return-value]  # it is the iterator, and needs no more of a generator

    def __iter__(self) -> "Wait":
        return self

    def __next__(self) -> Any:
        if not self.done:
            return self
        if self.error is not None:
            raise self.error
        raise StopIteration(self.value)

    def __del__(self) -> None:
        if not self.is_awaited and _running is not None and self.maker == id(_running) and not _running.forgotten:
            frame = sys._getframe(1)
            _running.forgotten = f"{frame.f_code.co_filename}:{frame.f_lineno}"


_running: Runner | None = None


def new_wait(source: Any, is_work: bool) -> Wait:
    """Return a wait for what `source` brings: `Wait(source, is_work)`, without the cost of a call by name."""
    return Wait(source, is_work)


def come(value: Any) -> Wait:
    """Return a wait for what is there already."""
    wait = Wait()
    wait.done = True
    wait.value = value
    return wait


def running() -> Runner | None:
    """Return the runner whose coroutine runs now; None: none does."""
    return _running


def set_running(runner: Runner | None) -> None:
    """Say whose coroutine runs now."""
    global _running  # noqa: PLW0603 - of the one thread in which coroutines run
    _running = runner


def advance(runner: Runner, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Let a coroutine go on: return what it waits for, or what it has returned; then the runner `is_over`.

    Raises:
        Whatever it raised.
    """
    try:
        return coroutine.send(None)
    except StopIteration as end:
        runner.is_over = True
        return end.value


def is_cancelled(error: BaseException) -> bool:
    """Tell whether an error is such a one."""
    return type(error).__name__ == "CancelledError"
