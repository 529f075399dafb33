"""The shared memory that workers count in, and the slots that add it up.

Every worker process has memory of its own: while one drains, its successor counts already, and
plain stores of two processes into one cell would get lost. A slot is what they have in common: the
number 0..N-1 that metrics call `worker`. It outlives them, so a counter never goes back.
"""

import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from gaiod.stats.cells import (
    CELL,
    HEARTBEAT,
    LISTENER_GAUGES,
    SERVER_CELL,
    SERVER_GAUGES,
    WORKER_LOST,
    Layout,
    open_connections,
    open_to_server,
)

Key = tuple[str, str]
"""A listener's name and its handler's label: what its counters belong to."""

ServerKey = tuple[Key, str]
"""A listener's key and a server's label."""

K = TypeVar("K", Key, ServerKey)


class Memory:
    """What one worker process counts in. `fd` is what it maps; `keys` says whose row is which.

    Args:
        keys: of the worker's listeners, in their order, and each one's servers.
    """

    def __init__(self, keys: Mapping[Key, tuple[str, ...]]) -> None:
        self.keys = list(keys)
        self.layout = Layout(tuple(len(labels) for labels in keys.values()))
        self._servers = {
            (key, label): self.layout.server(number, index)
            for number, (key, labels) in enumerate(keys.items())
            for index, label in enumerate(labels)
        }
        self.fd = anonymous_file("gaiod-stats")
        os.ftruncate(self.fd, 8 * self.layout.size)
        self._memory = mmap.mmap(self.fd, 8 * self.layout.size)
        self.cells: Any = memoryview(self._memory).cast("q")

    @property
    def heartbeat_s(self) -> float:
        """When the worker's loop last completed a pass, in `time.monotonic()`; 0 if it never has."""
        return float(self.cells[self.layout.worker(HEARTBEAT)] / 1e9)

    def worker_cells(self) -> list[int]:
        """Return the cells that belong to no listener."""
        return self._part(0, self.layout.row(0))

    def row(self, index: int) -> list[int]:
        """Return the cells of one listener."""
        return self._part(self.layout.row(index), len(CELL))

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """Return the cells of every server."""
        return {server: self._part(first, len(SERVER_CELL)) for server, first in self._servers.items()}

    def _part(self, first: int, count: int) -> list[int]:
        cells: list[int] = self.cells[first : first + count].tolist()
        return cells

    @property
    def connections(self) -> int:
        """How many connections the worker has open."""
        return sum(open_connections(self.row(index)) for index in range(len(self.keys)))

    def close(self) -> None:
        """Give the memory back."""
        self.cells.release()
        self._memory.close()
        os.close(self.fd)


class Slot:
    """The counters of a slot, over all the workers that have had it.

    Attributes:
        number: the slot.
        restarts: how often a worker was replaced here, by why.
        retired_cpu_s: the CPU time that workers had used which are gone.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.restarts: Counter[str] = Counter()
        self.retired_cpu_s = 0.0
        self._live: list[Memory] = []
        self._retired = [0] * Layout().size
        self._retired_rows: dict[Key, list[int]] = {}
        self._retired_servers: dict[ServerKey, list[int]] = {}

    def open(self, keys: Mapping[Key, tuple[str, ...]]) -> Memory:
        """Return memory for one more worker."""
        memory = Memory(keys)
        self._live.append(memory)
        return memory

    def retire(self, memory: Memory, cpu_s: float = 0.0) -> None:
        """Keep what a worker has counted and used that is gone; its open connections are gone with it."""
        self._live.remove(memory)
        self.retired_cpu_s += cpu_s
        self._retired = _sum(self._retired, memory.worker_cells())
        rows = {}
        for index, key in enumerate(memory.keys):
            row = memory.row(index)
            row[CELL[f"closed_{WORKER_LOST}"]] += open_connections(row)
            for gauge in LISTENER_GAUGES:
                row[CELL[gauge]] = 0
            rows[key] = row
        servers = memory.server_rows()
        for row in servers.values():
            row[SERVER_CELL["closed"]] += open_to_server(row)
            for gauge in SERVER_GAUGES:
                row[SERVER_CELL[gauge]] = 0
        self._retired_rows = added((self._retired_rows, rows))
        self._retired_servers = added((self._retired_servers, servers))
        memory.close()

    def absorb(self, other: "Slot") -> None:
        """Take over what another slot has counted, which has no worker any more."""
        self._retired = _sum(self._retired, other._retired)
        self._retired_rows = added((self._retired_rows, other._retired_rows))
        self._retired_servers = added((self._retired_servers, other._retired_servers))

    def forget(self, keys: Mapping[Key, Container[str]]) -> None:
        """Forget listeners, and servers of listeners, other than these: they are not configured any more."""
        for key in self._retired_rows.keys() - keys.keys():
            del self._retired_rows[key]
        for key, label in list(self._retired_servers):
            if label not in keys.get(key, ()):
                del self._retired_servers[key, label]

    def worker_cells(self) -> list[int]:
        """Return the cells that belong to no listener: those of the past and of now, summed."""
        return _sum(self._retired, self.live_cells())

    def live_cells(self) -> list[int]:
        """Return the same of the workers that run: what gauges are differences of."""
        return _sum([0] * len(self._retired), *(memory.worker_cells() for memory in self._live))

    def row(self, key: Key) -> list[int]:
        """Return a listener's cells: those of the past and of now, summed."""
        return _sum(self._retired_rows.get(key, [0] * len(CELL)), self.live_row(key))

    def live_row(self, key: Key) -> list[int]:
        """Return the same of the workers that run."""
        rows = [memory.row(memory.keys.index(key)) for memory in self._live if key in memory.keys]
        return _sum([0] * len(CELL), *rows)

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """Return the cells of every server there is or was: those of the past and of now, summed."""
        return added((self._retired_servers, *(memory.server_rows() for memory in self._live)))


def added(tables: Iterable[Mapping[K, list[int]]]) -> dict[K, list[int]]:
    """Return the sums of the rows that several tables have for the same key."""
    rows: dict[K, list[int]] = {}
    for table in tables:
        for key, row in table.items():
            rows[key] = _sum(rows[key], row) if key in rows else row
    return rows


def _sum(*columns: list[int]) -> list[int]:
    return [sum(cells) for cells in zip(*columns, strict=True)]


def anonymous_file(name: str) -> int:
    """Return the descriptor of a file that is nowhere to be found, and goes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    fd, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return fd
