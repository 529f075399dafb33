"""The shared memory that workers count in, and the slots that add it up.

Every worker process has memory of its own: while one drains, its successor counts already, and
plain stores of two processes into one cell would get lost. A slot is what they have in common: the
number 0..N-1 that metrics call `worker`. It outlives them, so a counter never goes back.
"""

import mmap
import os
import tempfile
from collections import Counter
from typing import Any

from gaiod.runtime.stats import CELL, HEARTBEAT, WORKER_LOST, Layout, open_connections

Key = tuple[str, str]
"""A listener's name and its handler's label: what its counters belong to."""


class Memory:
    """What one worker process counts in. `fd` is what it maps; `keys` says whose row is which."""

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self.keys = keys
        self.layout = Layout(len(keys))
        self.fd = anonymous_file("gaiod-stats")
        os.ftruncate(self.fd, 8 * self.layout.size)
        self._memory = mmap.mmap(self.fd, 8 * self.layout.size)
        self.cells: Any = memoryview(self._memory).cast("q")

    @property
    def heartbeat_s(self) -> float:
        """When the worker's loop last came round, in `time.monotonic()`; 0 if it never has."""
        return float(self.cells[self.layout.worker(HEARTBEAT)] / 1e9)

    def worker_cells(self) -> list[int]:
        """Return the cells that belong to no listener."""
        cells: list[int] = self.cells[: self.layout.row(0)].tolist()
        return cells

    def row(self, index: int) -> list[int]:
        """Return the cells of one listener."""
        first = self.layout.row(index)
        cells: list[int] = self.cells[first : first + len(CELL)].tolist()
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
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.restarts: Counter[str] = Counter()
        self._live: list[Memory] = []
        self._retired = [0] * Layout(0).size
        self._retired_rows: dict[Key, list[int]] = {}

    def open(self, keys: tuple[Key, ...]) -> Memory:
        """Return memory for one more worker."""
        memory = Memory(keys)
        self._live.append(memory)
        return memory

    def retire(self, memory: Memory) -> None:
        """Keep what a worker has counted that is gone; its open connections are gone with it."""
        self._live.remove(memory)
        self._retired = _sum(self._retired, memory.worker_cells())
        for index, key in enumerate(memory.keys):
            row = memory.row(index)
            row[CELL[f"closed_{WORKER_LOST}"]] += open_connections(row)
            self._retired_rows[key] = _sum(self._retired_rows.get(key, [0] * len(CELL)), row)
        memory.close()

    def absorb(self, other: "Slot") -> None:
        """Take over what another slot has counted, which has no worker any more."""
        self._retired = _sum(self._retired, other._retired)
        for key, row in other._retired_rows.items():
            self._retired_rows[key] = _sum(self._retired_rows.get(key, [0] * len(CELL)), row)

    def forget(self, keys: set[Key]) -> None:
        """Forget listeners other than these: they are not configured any more."""
        for key in self._retired_rows.keys() - keys:
            del self._retired_rows[key]

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


def _sum(*columns: list[int]) -> list[int]:
    return [sum(cells) for cells in zip(*columns, strict=True)]


def anonymous_file(name: str) -> int:
    """Return the descriptor of a file that is nowhere to be found, and goes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    fd, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return fd
