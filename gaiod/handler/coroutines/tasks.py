"""Tasks: coroutines that are driven by what they wait for, without a loop of their own."""

import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from gaiod.core.errors import UsageError
from gaiod.handler.coroutines.waits import (
    ForgottenAwait,
    Runner,
    Wait,
    advance,
    come,
    is_cancelled,
    running,
    set_running,
)

_ready: deque[tuple["Task", Wait | None]] = deque()
"""Tasks that begin, or go on, when the one that runs waits again: a chain of tasks must not be a chain of calls."""

_is_at_ready = False
"""They are going on, one after the other."""


class Task(Runner):
    """Drives one coroutine: whatever it awaits resumes it, at once, in the worker's thread.

    Awaiting a task waits for its end. It returns what the coroutine returned, or raises what it raised; None: it was
    cancelled. An error that is awaited by somebody is told to nobody else.

    Args:
        coroutine: it begins with `start`.
        ended: called with the task and the error that ended it; None: it has returned. An error is being handled then,
            so that `sys.exception()` is it.
        owner: the `Stream` that it serves; its connection is busy while the task waits for work. None: there is none.

    Attributes:
        waits_for: what it waits for; None: it runs, or is over.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        ended: Callable[["Task", BaseException | None], None],
        owner: Any = None,
    ) -> None:
        self.coroutine = coroutine
        self._ended = ended
        self.owner = owner
        self.waits_for: Wait | None = None
        self.is_over = False
        self.forgotten: str | None = None
        self._is_running = False
        self._is_busy = False
        self._to_throw: BaseException | None = None
        self._result: Any = None
        self._failure: BaseException | None = None
        self._ends: list[Wait] | None = None

    def start(self) -> None:
        """Let the coroutine begin."""
        self._run(None)

    def start_soon(self) -> None:
        """Let the coroutine begin when the one that runs waits; at once, if none runs."""
        if running() is None and not _is_at_ready:
            self._run(None)
        else:
            _ready.append((self, None))

    def wake(self, wait: Wait) -> None:
        """Go on: what it waits for has come."""
        if running() is None and not _is_at_ready:
            self._go_on(wait)
        else:
            _ready.append((self, wait))

    def throw(self, error: BaseException) -> None:
        """Raise an error in the coroutine where it waits; if it runs just now, at its next await."""
        if self.is_over:
            return
        if self._is_running:
            self._to_throw = error
            return
        if self.waits_for is not None:
            self.waits_for.withdraw()
        self._run(error)

    def cancel(self) -> None:
        """Raise `asyncio.CancelledError` in the coroutine where it waits. Its `finally` may wait for some seconds."""
        self.throw(cancelled("the task was cancelled"))

    def close(self) -> None:
        """End the coroutine where it waits: its `finally` runs, and cannot wait."""
        if self.is_over or self._is_running:
            return
        if self.waits_for is not None:
            self.waits_for.withdraw()
            self.waits_for = None
        self.is_over = True
        try:
            self.coroutine.close()
        except BaseException as error:
            self._finish(None, error)
        else:
            self._finish(None, None)

    @property
    def closed(self) -> bool:
        """Whether the coroutine has ended."""
        return self.is_over

    def __await__(self) -> Any:
        if running() is self:
            raise UsageError("a task cannot await its own end")
        if self._failure is not None:
            raise self._failure
        if self.is_over:
            return come(self._result).__await__()
        if self._ends is None:
            self._ends = []
        wait = Wait(None, True)
        self._ends.append(wait)
        return wait.__await__()

    def _go_on(self, wait: Wait | None) -> None:
        if wait is self.waits_for and not self.is_over:
            self._run(None)

    def _run(self, error: BaseException | None) -> None:
        before = running()
        set_running(self)
        self._is_running = True
        self.waits_for = None
        try:
            while True:
                got = advance(self, self.coroutine) if error is None else self._throw(error)
                if self.is_over:
                    break
                error = self._wait_for(got)
                if error is None:
                    return
        except BaseException as raised:
            self.is_over = True
            self._finish(None, raised)
        else:
            self._returned(got)
        finally:
            self._is_running = False
            set_running(before)
            if before is None and _ready and not _is_at_ready:
                run_ready()

    def _throw(self, error: BaseException) -> Any:
        try:
            return self.coroutine.throw(error)
        except StopIteration as end:
            self.is_over = True
            return end.value

    def _wait_for(self, got: Any) -> BaseException | None:
        """Wait for what the coroutine awaits; return the error that it gets instead, None: it waits."""
        error: BaseException | None = None
        if self.forgotten is not None:
            error = self._take_forgotten()
        elif self._to_throw is not None:
            error, self._to_throw = self._to_throw, None
        if error is not None:
            if type(got) is Wait:
                got.withdraw()
            return error
        if type(got) is not Wait:
            return UsageError(f"a coroutine handler cannot await {got!r}; await what gaiod gives it")
        wait: Wait = got
        if wait.task is not None:
            return UsageError("two coroutines await the same thing; each has to ask for its own")
        wait.task = self
        self.waits_for = wait
        if wait.is_work != self._is_busy:
            self._be_busy(wait.is_work)
        return None

    def _be_busy(self, is_busy: bool) -> None:
        self._is_busy = is_busy
        if self.owner is not None:
            self.owner.count_work(1 if is_busy else -1)

    def _take_forgotten(self) -> ForgottenAwait:
        place, self.forgotten = self.forgotten, None
        return ForgottenAwait(f"an await was forgotten at {place}: nothing waits for what was called there")

    def _returned(self, result: Any) -> None:
        if self.forgotten is None:
            self._finish(result, None)
            return
        try:
            raise self._take_forgotten()
        except ForgottenAwait as error:
            self._finish(None, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        self._result = result
        if self._is_busy:
            self._be_busy(False)
        ends, self._ends = self._ends, None
        if error is None or is_cancelled(error) or not ends:
            self._ended(self, error)
            for wait in ends or ():
                wait.finish(result)
        else:
            self._failure = error
            self._ended(self, None)
            for wait in ends:
                wait.fail(error)


def run_ready() -> None:
    """Let every task go on whose wait is over."""
    global _is_at_ready  # noqa: PLW0603 - of the one thread in which coroutines run
    _is_at_ready = True
    try:
        while _ready:
            task, wait = _ready.popleft()
            task._go_on(wait)
    finally:  # what is left after an exception, which only a test's script lets through, is nobody's
        _ready.clear()
        _is_at_ready = False


class _CancelledError(BaseException):
    """What a coroutine gets that nobody could tell from `asyncio.CancelledError`: asyncio was not imported."""


_CancelledError.__name__ = _CancelledError.__qualname__ = "CancelledError"


def cancelled(why: str) -> BaseException:
    """Make the error by which a coroutine learns that it is to end: `asyncio.CancelledError`.

    Importing asyncio takes tens of milliseconds and 3 MiB. Who has not imported it cannot catch its error by name.
    """
    asyncio = sys.modules.get("asyncio")
    return _CancelledError(why) if asyncio is None else asyncio.CancelledError(why)
