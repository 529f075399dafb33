"""What sources count in, and what is left of it when the feeder is gone."""

import os
from collections.abc import Iterator

import pytest

from gaiod.stats.feeder_cells import CODE_CHANGED, FORGOTTEN, HEARTBEAT, SOURCE_CELL, row
from gaiod.supervisor.processes import feeder_counts as module
from gaiod.supervisor.processes.feeder_counts import FeederMemory, SourceCounts, SourceKey

ONE, TWO, THREE = ("ticks", "one"), ("ticks", "two"), ("ticks", "three")


def _set(memory: FeederMemory, number: int, cell: str, value: int) -> None:
    """Count as the feeder does: through the descriptor."""
    os.pwrite(memory.fd, value.to_bytes(8, "little"), 8 * (row(number) + SOURCE_CELL[cell]))


@pytest.fixture
def memory() -> Iterator[FeederMemory]:
    """Memory of a feeder."""
    memory = FeederMemory()
    yield memory
    memory.close()


@pytest.fixture
def counts() -> Iterator[SourceCounts]:
    """Counts of no feeder yet."""
    counts = SourceCounts()
    yield counts
    if counts._live is not None:
        counts.retire(has_died=False)


def _of(counts: SourceCounts, key: SourceKey, cell: str) -> int:
    return counts.rows()[key][SOURCE_CELL[cell]]


# -- memory ----------------------------------------------------------------------------------------------


def test_source_keeps_its_row_as_long_as_it_is_there(memory: FeederMemory) -> None:
    first = memory.assign([ONE, TWO], 1)
    assert len(set(first.values())) == 2
    second = memory.assign([THREE, TWO], 2)
    assert second[TWO] == first[TWO]
    assert second[THREE] not in first.values(), "the feeder may count there yet"


def test_row_is_given_away_again_when_the_feeder_no_longer_counts_in_it_and_is_zero_then(memory: FeederMemory) -> None:
    first = memory.assign([ONE, TWO], 1)
    _set(memory, first[ONE], "published", 7)
    memory.assign([TWO], 2)
    memory.settled(1)
    assert memory.assign([TWO, THREE], 3)[THREE] != first[ONE]
    memory.settled(2)
    third = memory.assign([TWO, THREE, ONE], 4)
    assert third[ONE] == first[ONE]
    assert memory.rows()[ONE][SOURCE_CELL["published"]] == 0


def test_rows_do_not_run_out_however_often_sources_change(
    memory: FeederMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 4)
    small = FeederMemory()
    try:
        for number in range(100):
            small.assign([("ticks", f"s{number}"), TWO], number)
            small.settled(number)
    finally:
        small.close()


def test_heartbeat_is_told_in_seconds(memory: FeederMemory) -> None:
    assert memory.heartbeat_s == 0
    os.pwrite(memory.fd, (1_500_000_000).to_bytes(8, "little"), 8 * HEARTBEAT)
    assert memory.heartbeat_s == 1.5


# -- counts that outlive a feeder --------------------------------------------------------------------------


def test_counts_are_summed_over_feeders_and_a_source_is_up_in_one_that_runs_only(counts: SourceCounts) -> None:
    for published in (5, 7):
        numbers = counts.open().assign([ONE], 1)
        memory = counts._live
        assert memory is not None
        _set(memory, numbers[ONE], "published", published)
        _set(memory, numbers[ONE], "up", 1)
        assert _of(counts, ONE, "up") == 1
        counts.retire(has_died=False)
        assert _of(counts, ONE, "up") == 0
    assert _of(counts, ONE, "published") == 12
    assert _of(counts, ONE, "gaps") == 0


def test_source_of_a_feeder_that_has_died_may_have_missed_something_unless_it_keeps_positions(
    counts: SourceCounts,
) -> None:
    memory = counts.open()
    _set(memory, memory.assign([ONE, TWO], 1)[TWO], "keeps", 1)
    counts.retire(has_died=True)
    assert (_of(counts, ONE, "gaps"), _of(counts, TWO, "gaps")) == (1, 0)


def test_last_messages_that_were_dropped_are_summed_over_feeders(counts: SourceCounts) -> None:
    for number in (3, 4):
        os.pwrite(counts.open().fd, number.to_bytes(8, "little"), 8 * FORGOTTEN)
        counts.retire(has_died=True)
    assert counts.forgotten == 7
    os.pwrite(counts.open().fd, (5).to_bytes(8, "little"), 8 * FORGOTTEN)
    assert counts.forgotten == 12


def test_counts_of_a_source_that_is_not_configured_any_more_are_forgotten(counts: SourceCounts) -> None:
    memory = counts.open()
    numbers = memory.assign([ONE, TWO], 1)
    _set(memory, numbers[ONE], "published", 5)
    counts.retire(has_died=False)
    counts.forget([TWO])
    assert set(counts.rows()) == {TWO}


def test_changed_code_is_that_of_the_feeder_that_runs(counts: SourceCounts) -> None:
    assert counts.code_changed == 0
    memory = counts.open()
    os.pwrite(memory.fd, (2).to_bytes(8, "little"), 8 * CODE_CHANGED)
    assert counts.code_changed == 2
    counts.retire(has_died=True)
    assert counts.code_changed == 0
