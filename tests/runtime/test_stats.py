"""Statistics slots: every number has a cell of its own."""

import pytest

from gaiod.core import counters
from gaiod.runtime.handler import HOOKS
from gaiod.runtime.stats import (
    ACCEPT_ERRORS,
    CELL,
    CLOSE_REASONS,
    DURATION_BOUNDS_S,
    GC_CELLS,
    GC_GENERATIONS,
    REJECT_REASONS,
    WORKER_CELLS,
    Layout,
    bucket_of,
)


@pytest.mark.parametrize("listeners", [0, 1, 4, 100])
def test_cells_do_not_overlap_and_fill_the_slot(listeners: int) -> None:
    layout = Layout(listeners)
    used = list(range(counters.SIZE))
    used += [layout.gc(generation, cell) for generation in range(GC_GENERATIONS) for cell in GC_CELLS]
    used += [layout.worker(cell) for cell in WORKER_CELLS]
    used += [layout.row(number) + cell for number in range(listeners) for cell in CELL.values()]
    assert sorted(used) == list(range(layout.size))


def test_rows_of_listeners_do_not_move_when_there_are_more_of_them() -> None:
    assert [Layout(2).row(number) for number in range(2)] == [Layout(50).row(number) for number in range(2)]


def test_bytes_received_and_sent_are_neighbours_because_the_core_counts_them_by_one_index() -> None:
    for side in ("downstream", "upstream"):
        assert CELL[f"{side}_sent_bytes"] == CELL[f"{side}_received_bytes"] + 1
    assert CELL["downstream_received_bytes"] == 0


def test_every_reason_hook_and_bucket_has_a_cell() -> None:
    wanted = [f"closed_{reason}" for reason in CLOSE_REASONS]
    wanted += [f"rejected_{reason}" for reason in REJECT_REASONS]
    wanted += [f"accept_error_{name}" for name in ACCEPT_ERRORS]
    wanted += [f"handler_error_{hook}" for hook in HOOKS]
    wanted += [f"duration_le_{bound}" for bound in (*DURATION_BOUNDS_S, "inf")]
    assert set(wanted) <= set(CELL)
    first = CELL[f"duration_le_{DURATION_BOUNDS_S[0]}"]
    assert [CELL[name] for name in wanted[-len(DURATION_BOUNDS_S) - 1 :]] == list(
        range(first, first + len(DURATION_BOUNDS_S) + 1)
    )


@pytest.mark.parametrize(
    ("value", "bucket"), [(-1.0, 0), (0.0, 0), (1.0, 0), (1.0001, 1), (2.0, 1), (4.0, 2), (4.1, 3), (float("inf"), 3)]
)
def test_bucket_is_the_first_whose_bound_is_not_exceeded(value: float, bucket: int) -> None:
    assert bucket_of(value, (1.0, 2.0, 4.0)) == bucket


def test_bucket_is_the_unbounded_one_when_there_are_no_bounds() -> None:
    assert bucket_of(1.0, ()) == 0
