"""How fast each connection moves bytes: from two looks at all of them, which are kept only while somebody looks."""

from collections.abc import Iterable

from gaiod.core.connection import Conn

APART_MIN_S = 0.2
"""Looks that are closer are one: what is asked for in two questions, say."""

KEPT_S = 60.0
"""Nobody looks any more when nobody has for so long."""


class Traffic:
    """Remembers how many bytes connections had moved. 10,000 take 1.8 MiB, and 1.2 ms a look (CPython 3.11)."""

    def __init__(self) -> None:
        self._before: tuple[float, dict[int, int]] | None = None
        self._last: tuple[float, dict[int, int]] | None = None

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked lately."""
        return self._last is not None

    def look(self, conns: Iterable[Conn], now_s: float) -> None:
        """Remember what these have moved; rates are from the look before on."""
        if self._last is None or now_s - self._last[0] >= APART_MIN_S:
            self._before = self._last
            self._last = now_s, {conn.serial: conn.bytes_received + conn.bytes_sent for conn in conns}

    def rate(self, conn: Conn, now_s: float) -> float | None:
        """Return how many bytes a second a connection has moved since the look before the last; None: unknown."""
        if self._before is None:
            return None
        then_s, moved = self._before
        before = moved.get(conn.serial, 0 if conn.opened_s >= then_s else None)
        if before is None or now_s <= then_s:
            return None
        return max(0.0, (conn.bytes_received + conn.bytes_sent - before) / (now_s - then_s))

    def forget(self, now_s: float) -> None:
        """Forget all of it if nobody looks any more."""
        if self._last is not None and now_s - self._last[0] > KEPT_S:
            self._before = self._last = None
