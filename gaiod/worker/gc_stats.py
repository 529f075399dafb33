"""Python's garbage collector, counted and timed: its pauses are part of every connection's latency."""

import gc
import time
from typing import Any

from gaiod.stats.cells import GC_CELLS, GC_GENERATIONS, GC_PAUSE_BOUNDS_S, Layout, bucket_of

FIRST_PAUSE = GC_CELLS.index(f"pause_le_{GC_PAUSE_BOUNDS_S[0]}")


class GcStats:
    """Counts each collection into a slot, from `start` until `stop`."""

    def __init__(self, cells: Any, layout: Layout) -> None:
        self._cells = cells
        self._rows = [layout.gc(generation, GC_CELLS[0]) for generation in range(GC_GENERATIONS)]
        self._began_s = 0.0

    def start(self) -> None:
        """Count from now on."""
        gc.callbacks.append(self._note)

    def stop(self) -> None:
        """Count no more."""
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.perf_counter()
            return
        pause_s = time.perf_counter() - self._began_s
        row = self._rows[info["generation"]]
        for name, amount in (
            ("collections", 1),
            ("collected", info["collected"]),
            ("uncollectable", info["uncollectable"]),
            ("pause_ns", int(pause_s * 1e9)),
        ):
            self._cells[row + GC_CELLS.index(name)] += amount
        self._cells[row + FIRST_PAUSE + bucket_of(pause_s, GC_PAUSE_BOUNDS_S)] += 1
