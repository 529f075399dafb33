"""Statistics slots: every number has a cell of its own."""

import pytest

from gaiod.core import counters
from gaiod.stats.cells import (
    ACCEPT_ERRORS,
    CELL,
    CLOSE_REASONS,
    DURATION_BOUNDS_S,
    GC_CELLS,
    GC_GENERATIONS,
    HOOKS,
    LISTENER_GAUGES,
    PAUSE_REASONS,
    REJECT_REASONS,
    SERVER_CELL,
    SERVER_GAUGES,
    SIDES,
    TRAFFIC_CELLS,
    WORKER_CELLS,
    Layout,
    bucket_of,
    open_to_server,
)


@pytest.mark.parametrize("servers", [(), (0,), (0, 0, 0, 0), (3,), (2, 0, 1), (0,) * 100, (256, 1)])
def test_cells_do_not_overlap_and_fill_the_slot(servers: tuple[int, ...]) -> None:
    layout = Layout(servers)
    used = list(range(counters.SIZE))
    used += [layout.gc(generation, cell) for generation in range(GC_GENERATIONS) for cell in GC_CELLS]
    used += [layout.worker(cell) for cell in WORKER_CELLS]
    used += [layout.row(number) + cell for number in range(len(servers)) for cell in CELL.values()]
    used += [
        layout.server(number, server) + cell
        for number, count in enumerate(servers)
        for server in range(count)
        for cell in SERVER_CELL.values()
    ]
    assert sorted(used) == list(range(layout.size))


def test_rows_of_listeners_do_not_move_when_there_are_more_of_them() -> None:
    few, many = Layout((1, 2)), Layout((1, 2, *range(50)))
    assert [few.row(number) for number in range(2)] == [many.row(number) for number in range(2)]


def test_sides_are_counted_alike_because_the_core_counts_them_by_one_index() -> None:
    first = [CELL[f"{side}_received_bytes"] for side in SIDES]
    names = [name.removeprefix("unassigned_") for name in counters.SINGLES if name.startswith("unassigned_")]
    assert list(TRAFFIC_CELLS) == names
    for side, start in zip(SIDES, first, strict=True):
        assert [CELL[f"{side}_{cell}"] for cell in TRAFFIC_CELLS] == list(range(start, start + len(TRAFFIC_CELLS)))
    assert TRAFFIC_CELLS.index("buffered_bytes") == counters.BUFFERED


def test_gauges_are_cells() -> None:
    assert set(LISTENER_GAUGES) <= set(CELL)
    assert set(SERVER_GAUGES) <= set(SERVER_CELL)


def test_bytes_received_and_sent_are_neighbours_because_the_core_counts_them_by_one_index() -> None:
    for side in ("downstream", "upstream"):
        assert CELL[f"{side}_sent_bytes"] == CELL[f"{side}_received_bytes"] + 1
    assert CELL["downstream_received_bytes"] == 0


def test_every_reason_hook_and_bucket_has_a_cell() -> None:
    wanted = [f"closed_{reason}" for reason in CLOSE_REASONS]
    wanted += [f"rejected_{reason}" for reason in REJECT_REASONS]
    wanted += [f"accept_error_{name}" for name in ACCEPT_ERRORS]
    wanted += [f"handler_error_{hook}" for hook in HOOKS]
    wanted += [f"slow_hook_{hook}" for hook in HOOKS]
    wanted += [f"accept_paused_{reason}_ns" for reason in PAUSE_REASONS]
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


@pytest.mark.parametrize(
    ("connections", "arrived", "closed", "is_open"),
    [(0, 0, 0, 0), (5, 0, 2, 3), (5, 4, 2, 7), (0, 3, 1, 2), (1, 0, 2, 0)],
)
def test_connections_to_a_server_are_those_that_came_and_were_not_closed(
    connections: int, arrived: int, closed: int, is_open: int
) -> None:
    """They were established here, or came from another worker."""
    row = [0] * len(SERVER_CELL)
    row[SERVER_CELL["connections"]], row[SERVER_CELL["arrived"]] = connections, arrived
    row[SERVER_CELL["closed"]] = closed
    assert open_to_server(row) == is_open
