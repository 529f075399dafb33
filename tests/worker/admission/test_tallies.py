"""What is counted over all workers: sums, ends of workers, and what many clients do to the memory."""

from collections.abc import Iterator

import pytest

from gaiod.stats.tally_layout import BUCKETS, TAG_MAX, WAYS
from gaiod.worker.admission.tallies import Tallies, tag_of, window_ms_of
from worker.support.tallying import Tables, tables

WINDOW_MS = 1000.0


@pytest.fixture
def memory() -> Iterator[Tables]:
    """A memory without workers."""
    with tables() as made:
        yield made


def test_connections_are_summed_over_workers_those_included_that_come_later(memory: Tables) -> None:
    first = memory.worker()
    first.add(7, 1, 1, 0.0)
    second = memory.worker()
    assert second.of(7, 1, 0.0) == (1, 0.0)
    second.add(7, 1, 1, 0.0)
    assert first.of(7, 1, 0.0) == (2, 0.0)
    first.take_away(7)
    assert [each.of(7, 1, 0.0)[0] for each in (first, second)] == [1, 1]
    assert first.of(8, 1, 0.0) == (0, 0.0)


def test_end_of_a_connection_that_is_not_remembered_is_nothing(memory: Tables) -> None:
    worker = memory.worker()
    worker.take_away(7)
    worker.add(7, 1, 1, 0.0)
    worker.take_away(7)
    worker.take_away(7)
    assert worker.of(7, 1, 0.0)[0] == 0


def test_counts_of_a_worker_go_with_it_and_its_seat_begins_empty(memory: Tables) -> None:
    first, second = memory.worker(), memory.worker()
    first.add(7, 1, 1, 0.0)
    second.add(7, 1, 1, 0.0)
    memory.ends(0)
    assert second.of(7, 1, 0.0)[0] == 1
    third = memory.worker()
    assert memory.taken[2] == memory.taken[0]
    assert [each.of(7, 1, 0.0)[0] for each in (second, third)] == [1, 1]


def test_level_decays_and_is_that_of_all_workers_together(memory: Tables) -> None:
    workers = [memory.worker() for _ in range(2)]
    for worker in workers:
        for _ in range(4):
            worker.add(7, 1, 5000, WINDOW_MS)
    assert workers[0].of(7, 5000, WINDOW_MS)[1] == pytest.approx(8)
    assert workers[0].of(7, 6000, WINDOW_MS)[1] == pytest.approx(8 / 2.71828, rel=1e-3)
    workers[0].add(7, 0, 6000, WINDOW_MS)  # it has come from another worker
    assert workers[0].of(7, 6000, WINDOW_MS)[1] == pytest.approx(8 / 2.71828, rel=1e-2)


@pytest.mark.parametrize(("rate", "burst"), [(20.0, 40), (20.0, 1), (0.5, 3), (1000.0, 2000)])
def test_who_comes_whenever_it_may_gets_its_burst_and_then_its_rate(memory: Tables, rate: float, burst: int) -> None:
    workers = [memory.worker() for _ in range(3)]
    window_ms = window_ms_of(rate, burst)
    now_ms = 10**9

    def come() -> int:
        came = 0
        while workers[0].of(7, now_ms, window_ms)[1] <= burst - 0.5:
            workers[came % 3].add(7, 1, now_ms, window_ms)
            came += 1
        return came

    assert come() == burst
    last_ms = now_ms + int(200 * max(1000 / rate, 1))
    came = 0
    while now_ms < last_ms:
        now_ms += 1
        came += come()
    assert came == pytest.approx(rate * (last_ms - 10**9) / 1000, rel=0.05)


def bucket_of(worker: Tallies, clients: int) -> list[int]:
    """Return tags that fall into one bucket."""
    return [1 + BUCKETS * number for number in range(clients)]


def test_coldest_client_leaves_where_there_is_no_room(memory: Tables) -> None:
    worker = memory.worker()
    tags = bucket_of(worker, WAYS + 2)
    for number, tag in enumerate(tags[:WAYS]):
        worker.add(tag, 1, 1000 + number, 0.0)
    worker.take_away(tags[3])
    worker.take_away(tags[5])
    worker.add(tags[WAYS], 1, 2000, 0.0)  # in the place of one that has no connection, and came before the other one
    counts = {tag: worker.of(tag, 2000, 0.0)[0] for tag in tags}
    assert [counts[tag] for tag in tags] == [1, 1, 1, 0, 1, 0, 1, 1, 1, 0]
    worker.add(tags[5], 1, 2001, 0.0)  # it was still there
    worker.add(tags[WAYS + 1], 1, 2002, 0.0)  # all have connections: the one that came first leaves
    assert [worker.of(tag, 2002, 0.0)[0] for tag in tags] == [0, 1, 1, 0, 1, 1, 1, 1, 1, 1]


def test_many_clients_neither_grow_the_memory_nor_push_out_who_is_connected(memory: Tables) -> None:
    worker = memory.worker()
    factor, summand = worker.tagger("echo")
    here = tag_of(1 << 128, factor, summand)
    worker.add(here, 1, 1, WINDOW_MS)
    for number in range(BUCKETS * WAYS * 2):
        tag = tag_of(number, factor, summand)
        worker.add(tag, 1, 2 + number // 1000, WINDOW_MS)
        worker.take_away(tag)
    assert worker.of(here, 1000, WINDOW_MS)[0] == 1


def test_tags_are_apart_and_the_same_for_all_workers(memory: Tables) -> None:
    first, second = memory.worker(), memory.worker()
    assert first.tagger("echo") == second.tagger("echo")
    of = {name: [tag_of(number, *first.tagger(name)) for number in range(1000)] for name in ("echo", "echp", "a" * 63)}
    tags = [tag for each in of.values() for tag in each]
    assert len(set(tags)) == 3000
    assert all(0 < tag <= TAG_MAX for tag in tags)
    buckets = {tag & BUCKETS - 1 for tag in tags}
    assert len(buckets) > 2000, "they fall into few buckets"


def test_another_memory_has_other_tags() -> None:
    with tables() as one, tables() as other:
        assert one.worker().tagger("echo") != other.worker().tagger("echo")
