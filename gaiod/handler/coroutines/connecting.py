"""Connecting to one of several addresses: the next one is tried while the one before is still silent (RFC 8305)."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from gaiod.handler.coroutines.waits import Wait
from gaiod.handler.handler import Call

ATTEMPT_DELAY_S = 0.25
"""What one address gets before the next is tried, too: RFC 8305, section 5."""

Target = tuple[str, int] | str


class Attempts:
    """Connects to the first of some addresses that answers.

    Args:
        targets: what is tried, in this order.
        connect: begins to connect to one, and calls its second argument with the error, or None: it is connected. It
            returns the stream. An `OSError` that it raises is that address's failure.
        call_later: calls its second argument after some seconds.

    Attributes:
        wait: for the `Stream`.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        connect: Callable[[Target, Callable[[Any, Exception | None], None]], Any],
        call_later: Callable[[float, Callable[[], None]], Call],
    ) -> None:
        self.wait = Wait(self, True)
        self._left = list(targets)
        self._connect = connect
        self._call_later = call_later
        self._timer: Call | None = None
        self._streams: list[Any] = []
        self._error: Exception | None = None

    def begin(self) -> None:
        """Try the first address, or the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._left:
            target = self._left.pop(0)
            try:
                self._streams.append(self._connect(target, self._ended))
            except OSError as error:
                self._error = self._error or error
                continue
            if self._left:
                self._timer = self._call_later(ATTEMPT_DELAY_S, self.begin)
            return
        if not self._streams:
            self.wait.fail(self._error or OSError("there is no address to connect to"))

    def withdraw(self, wait: Wait) -> None:
        """Try no more: nobody waits for it."""
        self._stop(None)

    def _ended(self, stream: Any, error: Exception | None) -> None:
        if stream not in self._streams:
            return  # another one was faster, or nobody waits any more
        if error is None:
            self._stop(stream)
            self.wait.finish(stream)
        else:
            self._error = self._error or error
            self._streams.remove(stream)
            stream.abort()
            self.begin()

    def _stop(self, winner: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        streams, self._streams, self._left = self._streams, [], []
        for stream in streams:
            if stream is not winner:
                stream.abort()


def interleaved(targets: Sequence[tuple[str, int]]) -> list[Target]:
    """Return addresses with the two families in turn, the family of the first one first: RFC 8305, section 4."""
    families: dict[bool, list[Target]] = {}
    for target in targets:
        families.setdefault(":" in target[0], []).append(target)
    return [target for pair in zip_longest(*families.values()) for target in pair if target is not None]
