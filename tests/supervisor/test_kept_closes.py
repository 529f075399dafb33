"""What is remembered of connections that closed, whoever served them."""

import mmap
import os
from collections.abc import Iterator

import pytest

from gaiod.stats import closes
from gaiod.supervisor.processes.kept_closes import KeptCloses


@pytest.fixture
def kept() -> Iterator[KeptCloses]:
    """Nothing remembered yet."""
    kept = KeptCloses()
    yield kept
    close(kept)


def close(kept: KeptCloses) -> None:
    for fd in (*kept._live, *kept._inherited, kept._for_successor):
        if fd is not None:
            os.close(fd)


class Worker:
    """Who writes into the memory of one worker."""

    def __init__(self, fd: int, slot: int = 0, instance: int = 3) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._writer = closes.Writer(self._memory, slot)
        self._instance = instance

    def ends(self, *serials: int) -> None:
        for serial in serials:
            ending = ("idle", "gaiod", "timeout", "idle_timeout", "data")
            parts = self._instance, serial
            self._writer.add(parts, (1.0, 2.0), (3, 4), listener="a", server=None, ending=ending, peer=b"")


def test_connections_of_a_worker_are_known_while_it_runs_and_when_it_has_ended(kept: KeptCloses) -> None:
    first, second = kept.open(), kept.open()
    Worker(first, 0, 3).ends(1, 2)
    Worker(second, 1, 4).ends(1)
    for _ in range(2):
        told = [kept.find(name) for name in ("3-1", "3-2", "4-1", "4-2")]
        assert [each and each["worker"] for each in told] == [0, 0, 1, None]
        if first in kept._live:
            kept.retire(first)


def test_worker_that_never_served_leaves_nothing(kept: KeptCloses) -> None:
    kept.retire(kept.open())
    assert not kept._past


def test_oldest_workers_are_forgotten_once_the_newer_ones_had_enough(
    kept: KeptCloses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closes, "CLOSINGS_MAX", 3)
    for instance in range(1, 6):
        fd = kept.open()
        Worker(fd, 0, instance).ends(1, 2)
        kept.retire(fd)
    known = [instance for instance in range(1, 6) if kept.find(f"{instance}-1")]
    assert known == [4, 5], "2 and 2: without the older 2, it would be less than 3"


def test_daemon_that_follows_knows_all_and_what_ends_later(kept: KeptCloses) -> None:
    ended, draining = kept.open(), kept.open()
    Worker(ended, 0, 3).ends(1)
    kept.retire(ended)
    worker = Worker(draining, 1, 4)
    worker.ends(1)
    given = kept.handed_over()
    after = KeptCloses()
    after.adopt({"past": os.dup(given["past"]), "live": [os.dup(fd) for fd in given["live"]]})
    try:
        worker.ends(2)
        assert [bool(after.find(name)) for name in ("3-1", "4-1", "4-2", "4-3")] == [True, True, True, False]
        again = after.handed_over()
        assert again["live"] == [], "one daemon's descriptors are not the next but one's"
        last = KeptCloses()
        last.adopt({"past": os.dup(again["past"]), "live": []})
        assert [bool(last.find(name)) for name in ("3-1", "4-1", "4-2", "4-3")] == [True, True, True, False]
        close(last)
    finally:
        close(after)


def test_upgrade_that_came_to_nothing_leaves_no_descriptor(kept: KeptCloses) -> None:
    kept.handed_over()
    before = len(os.listdir("/proc/self/fd"))
    kept.handed_over()
    assert len(os.listdir("/proc/self/fd")) == before


def test_daemon_that_is_too_old_to_remember_hands_nothing_over(kept: KeptCloses) -> None:
    kept.adopt(None)
    assert kept.find("1-1") is None
