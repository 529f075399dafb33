"""The queue of clients that wait for a server: bounded, and nobody waits longer than the timeout."""

from collections import deque
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class Queue(Generic[T]):
    """First come, first served. All wait equally long at most, so the oldest is also the first to give up."""

    def __init__(self, length_max: int, timeout_s: float) -> None:
        self._length_max = length_max
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[float, T]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def due_s(self) -> float:
        """When the oldest will have waited too long."""
        return self._waiting[0][0] if self._waiting else inf

    def push(self, item: T, now_s: float) -> bool:
        """Let it wait behind the others; tell whether there was room."""
        if len(self._waiting) >= self._length_max:
            return False
        self._waiting.append((now_s + self._timeout_s, item))
        return True

    def oldest(self) -> T:
        """Return the one whose turn it is; it goes on waiting until `pop()`."""
        return self._waiting[0][1]

    def pop(self) -> T:
        """Take the oldest out."""
        return self._waiting.popleft()[1]
