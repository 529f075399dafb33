"""Back-off: how long to wait before the next attempt."""


class Backoff:
    """A pause that doubles with every failure. Random shares are left to callers whose peers fail all at once.

    Args:
        first_s: the first pause, in seconds.
        max_s: the longest.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    @property
    def next_s(self) -> float:
        """The pause that `take` will return."""
        return self._next_s

    def take(self) -> float:
        """Return how long to wait now; the pause after that is twice as long."""
        pause_s = self._next_s
        self._next_s = min(self._max_s, 2 * pause_s)
        return pause_s

    def reset(self) -> None:
        """Begin with the first pause again: an attempt has succeeded."""
        self._next_s = self._first_s
