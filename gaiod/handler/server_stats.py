"""What a handler tells of the servers that it connects to: where their metrics come from."""

from collections.abc import Sequence
from typing import Any

from gaiod.stats.cells import (
    CELL,
    CONNECT_BOUNDS_S,
    HANDLER_CELLS,
    SERVER_CELL,
    SERVER_FAILURES,
    Layout,
    bucket_of,
)

CONNECTIONS, ARRIVED, CLOSED = SERVER_CELL["connections"], SERVER_CELL["arrived"], SERVER_CELL["closed"]
CONNECT_NS = CELL["connect_ns"]
FIRST_CONNECT = CELL[f"connect_le_{CONNECT_BOUNDS_S[0]}"]


class ServerStats:
    """Counts for one server, as one listener of one worker sees it: `Handler.server`.

    Used in the worker's thread.
    """

    def __init__(self, cells: Any, first: int, row: int) -> None:
        """Count from now on.

        Args:
            cells: where to: 64-bit integers.
            first: the first of the server's cells (`stats.Layout.server`).
            row: the first of its listener's (`stats.Layout.row`): how long connecting takes is told of all servers.
        """
        self._cells = cells
        self._first = first
        self._row = row

    def connected(self, duration_s: float) -> None:
        """Tell of a connection that was established, and how long that took. One `closed()` belongs to it."""
        cells, row = self._cells, self._row
        cells[self._first + CONNECTIONS] += 1
        cells[row + CONNECT_NS] += int(duration_s * 1e9)
        cells[row + FIRST_CONNECT + bucket_of(duration_s, CONNECT_BOUNDS_S)] += 1

    def arrived(self) -> None:
        """Tell of a connection that came from another worker (`Handler.on_arrive`), and is no new one to the server.

        One `closed()` belongs to it.
        """
        self._cells[self._first + ARRIVED] += 1

    def closed(self) -> None:
        """Tell of the end of a connection that was `connected()`, or `arrived()`."""
        self._cells[self._first + CLOSED] += 1

    def failed(self, reason: str) -> None:
        """Tell of a connection that could not be established: refused, timeout, unreachable, reset, tls or other.

        Raises:
            ValueError: another reason.
        """
        if reason not in SERVER_FAILURES:
            raise ValueError(f"{reason!r} is no reason for a failed connect; give one of {', '.join(SERVER_FAILURES)}")
        self._count(f"failed_{reason}")

    def checked(self, passed: bool) -> None:
        """Tell of a health check, and how it went."""
        self._count("checks_passed" if passed else "checks_failed")

    @property
    def up(self) -> bool:
        """Whether the server is given connections; True until somebody sets it to False."""
        return not self._cells[self._first + SERVER_CELL["down"]]

    @up.setter
    def up(self, is_up: bool) -> None:
        self._cells[self._first + SERVER_CELL["down"]] = not is_up

    def _count(self, cell: str) -> None:
        self._cells[self._first + SERVER_CELL[cell]] += 1


class HandlerCounts:
    """Everything that the handler of a listener counts by itself."""

    def __init__(self, cells: Any, layout: Layout, number: int, labels: Sequence[str]) -> None:
        """Count from now on.

        Args:
            cells: where to: 64-bit integers.
            layout: where in them.
            number: which of the layout's listeners this is.
            labels: of the listener's servers.
        """
        self._cells = cells
        self._row = layout.row(number)
        self._servers = {
            label: ServerStats(cells, layout.server(number, index), self._row) for index, label in enumerate(labels)
        }

    def server(self, label: str) -> ServerStats:
        """As `Handler.server`."""
        if label not in self._servers:
            known = ", ".join(self._servers) or "none"
            raise ValueError(f"no server is called {label!r}; servers_of() names {known}")
        return self._servers[label]

    def count(self, name: str, amount: int) -> None:
        """As `Handler.count`."""
        if name not in HANDLER_CELLS:
            raise ValueError(f"{name!r} is nothing a handler counts; give one of {', '.join(HANDLER_CELLS)}")
        self._cells[self._row + CELL[name]] += amount
