"""What a listener shares with the same listener in other workers, by way of the supervisor.

The supervisor puts what workers say in an order, which all of them follow. A worker has its own value at once.
Until the supervisor has repeated it, what others say of the same key is older, and is not looked at.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.handler.shared_values import RESERVED, SharedValues

BURST = 1000
"""Values that are passed on at once: every server of a listener may change at the same moment."""

RATE = 100.0
"""... and later a second: a supervisor passes each of them to every worker."""


class SharedState:
    """The shared values of one listener in one worker.

    Attributes:
        values: the last value of each key.
        is_leader: this worker does what one does for all.
    """

    def __init__(
        self,
        watcher: Watcher,
        values: Mapping[str, Any],
        send: Callable[[str, Any], None],
        delayed: Callable[[int], None],
    ) -> None:
        """Begin with what is known.

        Args:
            watcher: the worker's.
            values: what other workers have shared. What gaiod itself has is left out.
            send: tells the supervisor of a key and its value.
            delayed: is told how many values have to wait, each time that some do.
        """
        self._values = SharedValues({key: value for key, value in values.items() if not key.startswith(RESERVED)})
        self.values = self._values.values
        self.is_leader = False
        self._watcher = watcher
        self._send = send
        self._delayed = delayed
        self._unrepeated: Counter[str] = Counter()  # by key, what the supervisor has not repeated
        self._waiting: dict[str, None] = {}  # keys of which the last value is not sent
        self._allowed = float(BURST)
        self._counted_s = time.monotonic()
        self._has_timer = False

    def share(self, key: str, value: Any) -> bool:
        """Share a value; tell whether it is another than before.

        Raises:
            ValueError: it cannot be shared.
        """
        if not self._values.put(key, value):
            return False
        self._waiting[key] = None
        self._send_waiting()
        if self._waiting:
            self._delayed(1)
        return True

    def take(self, key: str, value: Any, *, is_own: bool) -> bool:
        """Take a value from the supervisor; tell whether it is news. `is_own`: this worker had shared it."""
        if is_own:
            self._unrepeated[key] -= 1
            if not self._unrepeated[key]:
                del self._unrepeated[key]
        if key in self._unrepeated or key in self._waiting:
            return False
        return self._values.put(key, value, total_max=inf)  # the supervisor has seen to it

    def _send_waiting(self) -> None:
        """Send what the rate allows, and come back for the rest."""
        now_s = time.monotonic()
        self._allowed = min(float(BURST), self._allowed + (now_s - self._counted_s) * RATE)
        self._counted_s = now_s
        while self._waiting and self._allowed >= 1:
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._allowed -= 1
            self._unrepeated[key] += 1
            self._send(key, self.values.get(key))
        if self._waiting and not self._has_timer:
            self._has_timer = True
            self._watcher.timer(now_s + 1 / RATE, context=self._ring)

    def _ring(self, result: OpResult) -> None:
        self._has_timer = False
        self._send_waiting()
