"""The cells of sources: nobody's are another's."""

from gaiod.stats.feeder_cells import HEARTBEAT, ROWS_MAX, SIZE, SOURCE_CELL, SOURCE_CELLS, row


def test_rows_lie_side_by_side_behind_the_heartbeat_and_end_with_the_memory() -> None:
    assert row(0) > HEARTBEAT
    assert all(row(number + 1) - row(number) == len(SOURCE_CELLS) for number in (0, 1, ROWS_MAX - 2))
    assert row(ROWS_MAX - 1) + len(SOURCE_CELLS) == SIZE
    assert [SOURCE_CELL[name] for name in SOURCE_CELLS] == list(range(len(SOURCE_CELLS)))
