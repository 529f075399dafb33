"""What the collector tells of sources, and of the feeder."""

import pytest

from gaiod.observe.push_metrics import SourceKey
from gaiod.stats.feeder_cells import SOURCE_CELL
from observe.support.slots import FakeDaemon, samples_of, value_of

SOURCE = {"listener": "l0", "source": "s0"}
KEY: SourceKey = ("l0", "s0")


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("published", "gaiod_push_published_total"),
        ("refused", "gaiod_push_refused_total"),
        ("up", "gaiod_push_source_up"),
        ("reconnects", "gaiod_push_source_reconnects_total"),
        ("gaps", "gaiod_push_source_gaps_total"),
    ],
)
def test_what_a_source_counts_is_told_by_listener_and_source(fake: FakeDaemon, cell: str, name: str) -> None:
    fake.all_source_rows[KEY][SOURCE_CELL[cell]] = 1
    assert value_of(fake.collector, name, **SOURCE) == 1
    assert value_of(fake.collector, name, listener="l0", source="publish") == 0


@pytest.mark.parametrize("kind", ["restored", "anew"])
def test_resets_are_told_by_what_they_were(fake: FakeDaemon, kind: str) -> None:
    fake.all_source_rows[KEY][SOURCE_CELL[kind]] = 2
    assert value_of(fake.collector, "gaiod_push_source_resets_total", **SOURCE, kind=kind) == 2
    assert value_of(fake.collector, "gaiod_push_source_resets_total", listener="l0", source="publish", kind=kind) == 0


def test_source_that_has_counted_nothing_yet_is_told_as_nothing(fake: FakeDaemon) -> None:
    del fake.all_source_rows[KEY]
    assert value_of(fake.collector, "gaiod_push_source_up", **SOURCE) == 0


def test_messages_that_workers_missed_are_summed_over_them() -> None:
    daemon = FakeDaemon(workers=2)
    try:
        daemon.set("feed_gaps", 3, worker=0)
        daemon.set("feed_gaps", 4, worker=1)
        assert value_of(daemon.collector, "gaiod_push_feed_gaps_total", listener="l0") == 7
        daemon.set("feed_resent", 5, worker=1)
        assert value_of(daemon.collector, "gaiod_push_feed_resent_total", listener="l0") == 5
    finally:
        daemon.close()


@pytest.mark.parametrize("is_up", [True, False])
def test_feeder_is_told_of_where_there_is_one_to_be(fake: FakeDaemon, is_up: bool) -> None:
    fake.feeder_state = (is_up, 5, 2, 3)
    assert value_of(fake.collector, "gaiod_feeder_up") == is_up
    assert value_of(fake.collector, "gaiod_feeder_restarts_total") == 5
    assert value_of(fake.collector, "gaiod_feeder_code_changed") == 2
    assert value_of(fake.collector, "gaiod_feeder_last_messages_forgotten_total") == 3


def test_nothing_is_told_of_messages_where_nobody_takes_any() -> None:
    daemon = FakeDaemon(sources=())
    daemon.feeder_state = None
    try:
        names = {name for name, _ in samples_of(daemon.collector)}
    finally:
        daemon.close()
    assert not {name for name in names if name.startswith(("gaiod_push", "gaiod_feeder"))}
