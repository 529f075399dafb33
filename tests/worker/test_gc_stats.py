"""The garbage collector, counted and timed."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from gaiod.stats.cells import GC_CELLS, GC_GENERATIONS, GC_PAUSE_BOUNDS_S, Layout
from gaiod.worker.gc_stats import GcStats

LAYOUT = Layout()


@pytest.fixture
def cells() -> Iterator[Any]:
    """A slot in which collections are counted; none happens by itself."""
    gc.collect()
    gc.disable()
    cells = [0] * LAYOUT.size
    stats = GcStats(cells, LAYOUT)
    stats.start()
    yield cells
    stats.stop()
    gc.enable()


def _count(cells: list[int], generation: int, name: str) -> int:
    return cells[LAYOUT.gc(generation, name)]


def _pauses(cells: list[int], generation: int) -> int:
    return sum(_count(cells, generation, f"pause_le_{bound}") for bound in (*GC_PAUSE_BOUNDS_S, "inf"))


@pytest.mark.parametrize("generation", range(GC_GENERATIONS))
def test_collection_is_counted_and_timed_in_its_generation(cells: Any, generation: int) -> None:
    for _ in range(3):
        gc.collect(generation)
    assert [_count(cells, each, "collections") for each in range(3)] == [3 * (each == generation) for each in range(3)]
    assert [_pauses(cells, each) for each in range(3)] == [3 * (each == generation) for each in range(3)]
    assert 0 < _count(cells, generation, "pause_ns") < 10e9


def test_objects_are_counted_when_they_are_collected(cells: Any) -> None:
    for _ in range(10):
        cycle: list[Any] = []
        cycle.append(cycle)
    del cycle
    gc.collect()
    assert _count(cells, 2, "collected") == 10
    assert _count(cells, 2, "uncollectable") == 0


def test_nothing_else_in_the_slot_is_touched(cells: Any) -> None:
    gc.collect()
    own = {LAYOUT.gc(generation, name) for generation in range(GC_GENERATIONS) for name in GC_CELLS}
    assert [cell for number, cell in enumerate(cells) if number not in own and cell] == []


def test_nothing_is_counted_before_the_start_or_after_the_stop() -> None:
    cells = [0] * LAYOUT.size
    stats = GcStats(cells, LAYOUT)
    gc.collect()
    stats.start()
    stats.stop()
    gc.collect()
    assert sum(cells) == 0
