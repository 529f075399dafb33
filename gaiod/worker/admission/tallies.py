"""What a worker reads and writes of the memory that limits are counted in (`stats/tally_layout.py`)."""

import mmap
import os
import weakref
from math import exp, log

from gaiod.stats.tally_layout import (
    BUCKET_CELLS,
    BUCKETS,
    CHANGES,
    FACTOR_BYTES,
    HASH_MASK,
    LEVEL_BITS,
    LEVEL_MASK,
    LEVEL_ONE,
    MIXER,
    NAME_BITS,
    NUMBER_BITS,
    OWNERS,
    SEATS_MAX,
    SECRET,
    WAYS,
    start_of,
)


class Tallies:
    """What a worker reads and writes.

    Args:
        fd: of the file; it is closed with this object.
        seat: the worker's own.
    """

    def __init__(self, fd: int, seat: int) -> None:
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self._own = start_of(seat) // 8
        self._look()

    def _look(self) -> None:
        """Take note of the seats that there are now."""
        self._memory = mmap.mmap(self._fd, 0)  # the one before goes with its last view
        cells = memoryview(self._memory).cast("q")
        self._changes = [cells[CHANGES], cells[CHANGES + 1]]
        owners = cells[OWNERS : OWNERS + SEATS_MAX].tolist()
        self._seats = [start_of(seat) // 8 for seat, owner in enumerate(owners) if owner]
        self._cells = cells

    def tagger(self, name: str) -> tuple[int, int]:
        """Return the factor and the summand with which `tag_of` makes the tags of a listener."""
        secret = self._memory[SECRET]
        at = 2 * FACTOR_BYTES
        factor, summand = (int.from_bytes(secret[i : i + FACTOR_BYTES], "little") for i in (0, FACTOR_BYTES))
        named = int.from_bytes(name.encode(), "little") * int.from_bytes(secret[at:], "little")
        return factor, summand + (named >> NAME_BITS) & (1 << 8 * FACTOR_BYTES) - 1

    def of(self, tag: int, now_ms: int, window_ms: float) -> tuple[int, float]:
        """Return how many connections a client has, and the level of those that came lately."""
        if self._cells[CHANGES] != self._changes[0] or self._cells[CHANGES + 1] != self._changes[1]:
            self._look()
        cells = self._cells
        connections, level = 0, 0.0
        for start in self._seats:
            cell = self._place(start, tag)
            if cell >= 0:
                connections += cells[cell + WAYS]
                if window_ms:
                    level += _level_of(cells[cell + 2 * WAYS], now_ms, window_ms)
        return connections, level

    def add(self, tag: int, arrivals: int, now_ms: int, window_ms: float) -> None:
        """Take note of one more connection of a client, and of so many arrivals: 0 if another worker had it."""
        cell = self._place(self._own, tag)
        if cell < 0:
            cell = self._room_for(tag)
        cells = self._cells
        cells[cell + WAYS] += 1
        level = arrivals + (_level_of(cells[cell + 2 * WAYS], now_ms, window_ms) if window_ms else 0.0)
        cells[cell + 2 * WAYS] = (now_ms << LEVEL_BITS) + min(LEVEL_MASK, int(level * LEVEL_ONE + 0.5))

    def take_away(self, tag: int) -> None:
        """Take note that a connection of a client has ended. One that is not remembered any more has none."""
        cell = self._place(self._own, tag)
        if cell >= 0 and self._cells[cell + WAYS] > 0:
            self._cells[cell + WAYS] -= 1

    def _place(self, start: int, tag: int) -> int:
        """Return the cell of a tag in the seat that begins at a cell; -1: it is not there."""
        cells = self._cells
        first = start + (tag & BUCKETS - 1) * BUCKET_CELLS
        for cell in range(first, first + WAYS):
            if cells[cell] == tag:
                return cell
        return -1

    def _room_for(self, tag: int) -> int:
        """Return the cell of a tag that was not there: in the place of nobody, or of the coldest one.

        That is one without connections, or with the fewest, which came the longest ago. What nobody has is all zeros.
        """
        cells = self._cells
        first = self._own + (tag & BUCKETS - 1) * BUCKET_CELLS
        coldest = first
        for cell in range(first, first + WAYS):
            fewer = cells[cell + WAYS] - cells[coldest + WAYS]
            if fewer < 0 or (fewer == 0 and cells[cell + 2 * WAYS] < cells[coldest + 2 * WAYS]):
                coldest = cell
        cells[coldest + WAYS] = cells[coldest + 2 * WAYS] = 0
        cells[coldest] = tag
        return coldest


def tag_of(number: int, factor: int, summand: int) -> int:
    """Return the tag of a number.

    Multiply-shift hashing: who does not know the factor cannot find two alike. It is mixed, as the products of numbers
    in a row are in a row, and would share buckets.
    """
    mixed = (factor * number + summand >> NUMBER_BITS) & HASH_MASK
    mixed = (mixed ^ mixed >> 31) * MIXER & HASH_MASK
    return (mixed ^ mixed >> 32) >> 1 or 1


def _level_of(recent: int, now_ms: int, window_ms: float) -> float:
    level = (recent & LEVEL_MASK) / LEVEL_ONE
    return level * exp(((recent >> LEVEL_BITS) - now_ms) / window_ms) if level else 0.0


def window_ms_of(rate: float, burst: int) -> float:
    """Return the window in which the level of who makes `rate` connections a second stays at `burst`.

    Who is at the limit is admitted when the level has gone down from `burst` + 1/2 to `burst` - 1/2.
    """
    return 1000 / (rate * log((burst + 0.5) / (burst - 0.5)))
