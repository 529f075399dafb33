"""What sources have counted, over all the feeders that there have been."""

import mmap
import os
from collections.abc import Collection, Iterable
from typing import Any

from gaiod.stats.feeder_cells import CODE_CHANGED, FORGOTTEN, HEARTBEAT, ROWS_MAX, SIZE, SOURCE_CELL, SOURCE_CELLS, row
from gaiod.supervisor.processes.slots import anonymous_file

SourceKey = tuple[str, str]
"""A listener's name and its source's."""


class FeederMemory:
    """What one feeder counts in. `fd` is what it maps."""

    def __init__(self) -> None:
        self.fd = anonymous_file("gaiod-feeder")
        os.ftruncate(self.fd, 8 * SIZE)
        self._memory = mmap.mmap(self.fd, 8 * SIZE)
        self._cells: Any = memoryview(self._memory).cast("q")
        self._numbers: dict[SourceKey, int] = {}
        self._unused = list(range(ROWS_MAX - 1, -1, -1))
        self._leaving: list[tuple[int, int]] = []  # (set, row): in use until the feeder runs that set

    @property
    def heartbeat_s(self) -> float:
        """When the feeder's loop last completed a pass, in `time.monotonic()`; 0 if it never has."""
        return float(self._cells[HEARTBEAT] / 1e9)

    @property
    def code_changed(self) -> int:
        """How many files it has loaded although the configuration was checked with another version of them."""
        return int(self._cells[CODE_CHANGED])

    @property
    def forgotten(self) -> int:
        """How many last messages were dropped, because there were too many."""
        return int(self._cells[FORGOTTEN])

    def assign(self, keys: Collection[SourceKey], set_number: int) -> dict[SourceKey, int]:
        """Return the number of the row of each key; it keeps the one it has.

        Args:
            keys: what is counted from now on, and nothing else.
            set_number: of the set of sources that they are: see `settled`.
        """
        for key in self._numbers.keys() - set(keys):
            self._leaving.append((set_number, self._numbers.pop(key)))
        for key in keys:
            if key not in self._numbers:
                self._numbers[key] = self._unused.pop()
        return dict(self._numbers)

    def settled(self, set_number: int) -> None:
        """Let rows be used again: the feeder runs this set, so nobody counts in those that left with it."""
        for number, each in self._leaving:
            if number <= set_number:
                first = row(each)
                for cell in range(first, first + len(SOURCE_CELLS)):
                    self._cells[cell] = 0
                self._unused.append(each)
        self._leaving = [(number, each) for number, each in self._leaving if number > set_number]

    def rows(self) -> dict[SourceKey, list[int]]:
        """Return the cells of every key."""
        return {
            key: self._cells[row(number) : row(number) + len(SOURCE_CELLS)].tolist()
            for key, number in self._numbers.items()
        }

    def close(self) -> None:
        """Give the memory back."""
        self._cells.release()
        self._memory.close()
        os.close(self.fd)


class SourceCounts:
    """Counts that outlive the feeder."""

    def __init__(self) -> None:
        self._live: FeederMemory | None = None
        self._retired: dict[SourceKey, list[int]] = {}
        self._forgotten = 0

    def open(self) -> FeederMemory:
        """Return memory for the next feeder; there is one at a time."""
        self._live = FeederMemory()
        return self._live

    @property
    def code_changed(self) -> int:
        """How many files the feeder that runs has loaded although the configuration was checked with others."""
        return 0 if self._live is None else self._live.code_changed

    def retire(self, *, has_died: bool) -> None:
        """Keep what the feeder has counted that is gone. One that has died may have missed something.

        Not where positions are kept: such a source goes on behind the last one, or says itself what is missing.
        """
        assert self._live is not None
        for key, cells in self._live.rows().items():
            cells[SOURCE_CELL["up"]] = 0
            cells[SOURCE_CELL["gaps"]] += has_died and not cells[SOURCE_CELL["keeps"]]
            self._retired[key] = _sum(self._retired.get(key), cells)
        self._forgotten += self._live.forgotten
        self._live.close()
        self._live = None

    def forget(self, keys: Iterable[SourceKey]) -> None:
        """Forget what others than these have counted: they are not configured any more."""
        kept = set(keys)
        self._retired = {key: cells for key, cells in self._retired.items() if key in kept}

    @property
    def forgotten(self) -> int:
        """How many last messages all feeders have dropped, because there were too many."""
        return self._forgotten + (0 if self._live is None else self._live.forgotten)

    def rows(self) -> dict[SourceKey, list[int]]:
        """Return the cells of every source: those of the past and of now, summed."""
        live = {} if self._live is None else self._live.rows()
        return {key: _sum(self._retired.get(key), live.get(key)) for key in {**self._retired, **live}}


def _sum(one: list[int] | None, other: list[int] | None) -> list[int]:
    nothing = [0] * len(SOURCE_CELLS)
    return [a + b for a, b in zip(one or nothing, other or nothing, strict=True)]
