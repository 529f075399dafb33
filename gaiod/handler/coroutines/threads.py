"""Threads for what blocks: a coroutine waits for a function that runs in one of them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gaiod.core.errors import TooManyOperations
from gaiod.handler.coroutines.waits import Wait

QUEUE_MAX = 10_000
"""Calls that wait for a thread. More would only wait longer than anybody wants."""

IDLE_S = 10.0
"""A thread that has had nothing to do for so long ends."""


class Threads:
    """A bounded pool of threads. All but the functions runs in the worker's thread.

    The threads end with the process: a function that hangs does not keep it.

    Args:
        name: what the threads are called, with a number.
        most: how many threads there are at most; they are started when they are needed.
        call_soon: calls a function in the worker's thread; any thread may call it.
    """

    def __init__(self, name: str, most: int, call_soon: Callable[[Callable[[], None]], None]) -> None:
        self._name = name
        self._most = most
        self._call_soon = call_soon
        self._calls: deque[tuple[float, Wait, Callable[[], Any]]] = deque()
        self._condition = threading.Condition()
        self._size = 0
        self._idle = 0
        self._number = 0

    def run(self, function: Callable[[], Any]) -> Wait:
        """Call a function in a thread.

        Returns:
            A wait for what it returns or raises. Withdrawn, it is not called if it has not begun; else it goes on.

        Raises:
            TooManyOperations: 10,000 calls wait for a thread.
        """
        if len(self._calls) >= QUEUE_MAX:
            raise TooManyOperations(f"{QUEUE_MAX} calls wait for one of {self._most} threads; raise threads_max")
        wait = Wait(self, True)
        with self._condition:
            self._calls.append((time.monotonic(), wait, function))
            if self._idle >= len(self._calls):
                self._condition.notify()
            elif self._size < self._most:
                self._size += 1
                self._number += 1
                name = f"{self._name}-{self._number}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return wait

    def withdraw(self, wait: Wait) -> None:
        """Do not begin a call that nobody waits for."""
        with self._condition:
            for call in self._calls:
                if call[1] is wait:
                    self._calls.remove(call)
                    return

    @property
    def size(self) -> int:
        """How many threads there are."""
        return self._size

    @property
    def queued(self) -> int:
        """How many calls wait for a thread."""
        return len(self._calls)

    @property
    def oldest_s(self) -> float:
        """For how many seconds the oldest of them has waited; 0: none waits."""
        try:
            return time.monotonic() - self._calls[0][0]
        except IndexError:
            return 0.0

    def _work(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                has_call = self._condition.wait_for(lambda: self._calls, IDLE_S)
                self._idle -= 1
                if not has_call:
                    self._size -= 1
                    return
                _, wait, function = self._calls.popleft()
            try:
                result = function()
            except StopIteration as error:  # no coroutine can be given one
                self._call_soon(_failing(wait, RuntimeError(f"the function raised {error!r}")))
            except BaseException as error:
                self._call_soon(_failing(wait, error))
            else:
                self._call_soon(_finishing(wait, result))
            del wait, function


def _finishing(wait: Wait, result: Any) -> Callable[[], None]:
    return lambda: wait.finish(result)


def _failing(wait: Wait, error: BaseException) -> Callable[[], None]:
    return lambda: wait.fail(error)
