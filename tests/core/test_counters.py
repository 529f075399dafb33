"""Counters: every cell counts what its name says, in memory that others may map."""

import mmap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.support.sockets import NewPair, listen, reset
from core.support.waiting import (
    MOMENT_S,
    TIME_UNIT,
    collect,
    collect_one,
    collect_rest,
    collect_until,
    later,
    pass_time_until,
    soon,
)
from gaiod.core import counters
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

LAG = range(counters.LAG, counters.GROUP)


class Counted:
    """A watcher, and what it counted by name."""

    def __init__(self, start: int = 0) -> None:
        self.cells = memoryview(bytearray(8 * counters.SIZE)).cast("q")
        for cell in range(counters.SIZE):
            self.cells[cell] = start
        self.watcher = Watcher(counters=self.cells)

    def __getitem__(self, name: str) -> int:
        """Return a single counter, or one of an operation: "read eof"."""
        if " " in name:
            return self.cells[counters.operation_index(*name.split())]
        return self.cells[counters.index(name)]

    def outcomes(self, operation: str) -> dict[str, int]:
        return {name: n for name in counters.OUTCOMES if (n := self[f"{operation} {name}"])}


@pytest.fixture
def counted() -> Any:
    """A watcher with counters of its own."""
    counted = Counted()
    yield counted
    counted.watcher.close()


def test_layout_gives_every_counter_a_cell_of_its_own() -> None:
    cells = [counters.operation_index(row, column) for row in counters.OPERATIONS for column in counters.OUTCOMES]
    cells += [counters.index(name) for name in counters.SINGLES]
    cells += LAG
    cells += (counters.GROUP + cell for cell in range(len(counters.GROUP_CELLS)))
    assert cells == list(range(counters.SIZE))
    assert len(LAG) == len(counters.LAG_BOUNDS_S) + 1
    assert counters.GROUP_CELLS.index(f"fanout_le_{counters.FANOUT_BOUNDS_S[0]}") == counters.FANOUT
    assert list(counters.LAG_BOUNDS_S) == sorted(counters.LAG_BOUNDS_S)


def test_layout_has_the_operations_in_the_order_of_their_type() -> None:
    assert [OpType(row).name.lower() for row in range(len(counters.OPERATIONS))] == list(counters.OPERATIONS)


def test_unknown_counter_is_refused() -> None:
    with pytest.raises(ValueError):
        counters.index("no such counter")
    with pytest.raises(ValueError):
        counters.operation_index("read", "no such outcome")


def test_reads_are_counted_by_their_outcome(counted: Counted, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = counted.watcher.delegate(near)
    far.sendall(b"hello")
    conn.read()
    collect_one(counted.watcher)
    conn.read(deadline=soon())
    collect_one(counted.watcher)
    conn.read()
    far.close()
    collect_one(counted.watcher)
    near, far = tcp_pair()
    conn = counted.watcher.delegate(near).read()
    reset(far)
    collect_one(counted.watcher)
    counted.watcher.delegate(tcp_pair()[0]).read(context="pending")
    assert counted.outcomes("read") == {"submitted": 5, "complete": 1, "deadline": 1, "eof": 1, "error": 1}
    assert collect_rest(counted.watcher)[0].context == "pending"
    assert counted["read error"] == 2


def test_writes_are_counted_by_their_outcome(counted: Counted, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = counted.watcher.delegate(near)
    conn.write(b"hello")
    collect_one(counted.watcher)
    conn.write(bytes(20_000_000), deadline=soon())
    collect_one(counted.watcher)
    far.close()
    conn.write(b"hello")
    collect_one(counted.watcher)
    assert counted.outcomes("write") == {"submitted": 3, "complete": 1, "deadline": 1, "error": 1}


def test_connects_and_accepts_are_counted_by_their_outcome(counted: Counted) -> None:
    listener = listen()
    address = listener.getsockname()
    accepting = counted.watcher.accept(listener)
    counted.watcher.connect(address)
    collect(counted.watcher, 2)
    accepting.abort()
    collect_one(counted.watcher)
    counted.watcher.connect(address)
    collect_one(counted.watcher)
    assert counted.outcomes("accept") == {"submitted": 2, "complete": 1, "error": 1}
    assert counted.outcomes("connect") == {"submitted": 2, "complete": 1, "error": 1}


def test_timers_and_posts_are_counted_by_their_outcome(counted: Counted) -> None:
    counted.watcher.timer(0.0)
    counted.watcher.cancel(counted.watcher.timer(later()))
    counted.watcher.post("message")
    collect(counted.watcher, 3)
    assert counted.outcomes("timer") == {"submitted": 2, "complete": 1, "error": 1}
    assert counted.outcomes("post") == {"submitted": 1, "complete": 1}


def test_pending_operations_are_what_was_submitted_less_what_ended(counted: Counted, unix_pair: NewPair) -> None:
    conns = [counted.watcher.delegate(unix_pair()[0]).read() for _ in range(5)]
    counted.watcher.wait_io(0)
    outcomes = counted.outcomes("read")
    assert outcomes.pop("submitted") - sum(outcomes.values()) == 5
    counted.watcher.free(conns[0])
    counted.watcher.wait_io(0)
    collect_rest(counted.watcher)
    for operation in counters.OPERATIONS:
        outcomes = counted.outcomes(operation)
        assert outcomes.pop("submitted", 0) == sum(outcomes.values()), operation


@pytest.mark.parametrize("address", [("127.0.0.1", 70_000), "x" * 300], ids=["port", "path"])
def test_operation_that_was_refused_is_not_counted(counted: Counted, unix_pair: NewPair, address: Any) -> None:
    conn = counted.watcher.delegate(unix_pair()[0])
    refused: list[Callable[[], object]] = [
        lambda: conn.read(bytearray()),
        lambda: conn.write(b""),
        lambda: conn.read(deadline=float("nan")),
        lambda: counted.watcher.connect(address),
    ]
    for submit in refused:
        with pytest.raises((ValueError, TypeError)):
            submit()
    assert [counted.outcomes(operation) for operation in counters.OPERATIONS] == [{}] * len(counters.OPERATIONS)


def test_bytes_are_counted_as_they_move(counted: Counted, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = counted.watcher.delegate(near)
    far.sendall(b"hello")
    conn.read(bytearray(3))
    conn.read(bytearray(3))
    conn.write(b"hi")
    collect(counted.watcher, 3)
    conn.write(bytes(20_000_000))
    counted.watcher.wait_io(0)
    assert counted["unassigned_received_bytes"] == conn.bytes_received == 5
    assert counted["unassigned_sent_bytes"] == conn.bytes_sent > 2


def test_passes_events_and_time_of_the_loop_are_counted(counted: Counted, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = counted.watcher.delegate(near)
    far.sendall(b"a")
    conn.read()
    collect_one(counted.watcher)
    iterations, events, busy_ns = (counted[f"loop_{name}"] for name in ("iterations", "events", "busy_ns"))
    assert iterations >= 1
    assert events >= 1
    assert sum(counted.cells[cell] for cell in LAG) == iterations
    pass_time_until(time.monotonic() + MOMENT_S)
    counted.watcher.wait_io(0)
    assert counted["loop_iterations"] == iterations + 1
    assert counted["loop_busy_ns"] - busy_ns >= 1e9 * MOMENT_S


@pytest.mark.quiet
def test_time_in_the_poller_is_not_time_of_the_loop(counted: Counted) -> None:
    counted.watcher.wait_io(0)
    busy_ns = counted["loop_busy_ns"]
    counted.watcher.wait_io(0.1 * TIME_UNIT)
    counted.watcher.wait_io(0)
    assert counted["loop_busy_ns"] - busy_ns < 0.05e9 * TIME_UNIT


def test_lag_of_the_loop_falls_into_the_bucket_of_its_length(counted: Counted) -> None:
    for bucket, bound_s in enumerate(counters.LAG_BOUNDS_S[3:6], 3):
        before = list(counted.cells[LAG.start : LAG.stop])
        counted.watcher.wait_io(0)
        quick = list(counted.cells[LAG.start : LAG.stop])
        assert sum(quick) == sum(before) + 1
        pass_time_until(time.monotonic() + bound_s * 1.01)
        counted.watcher.wait_io(0)
        after = list(counted.cells[LAG.start : LAG.stop])
        assert sum(after[: bucket + 1]) == sum(quick[: bucket + 1]), "none of the shorter buckets counted it"
        assert sum(after[bucket + 1 :]) == sum(quick[bucket + 1 :]) + 1


def test_counters_are_seen_through_another_mapping_of_the_memory(tmp_path: Path, unix_pair: NewPair) -> None:
    path = tmp_path / "counters"
    path.write_bytes(bytes(8 * (counters.SIZE + 4)))
    with path.open("r+b") as file:
        ours, theirs = mmap.mmap(file.fileno(), 0), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    cells = memoryview(theirs).cast("q")
    sent = counters.index("unassigned_sent_bytes")
    watcher = Watcher(counters=ours)
    watcher.delegate(unix_pair()[0]).write(b"hello")
    collect_one(watcher)
    assert cells[sent] == 5
    assert list(cells[counters.SIZE :]) == [0] * 4, "what follows belongs to its owner"
    watcher.close()
    cells.release()
    theirs.close()


def test_counters_go_on_from_what_they_were(unix_pair: NewPair) -> None:
    """The memory outlives the worker that counted in it: the next one adds, and none ever goes back."""
    start = 1_000
    counted = Counted(start)
    near, far = unix_pair()
    conn = counted.watcher.delegate(near)
    kept = []
    for _ in range(3):
        far.sendall(b"hello")
        conn.read()
        (result,) = collect_until(counted.watcher, lambda done: len(done) == 1)
        kept.append(memoryview(result.buffer))
    counted.watcher.delegate(unix_pair()[0])
    conn.abort()
    counted.watcher.close()
    assert kept == [b"hello"] * 3
    assert [cell for cell in counted.cells if cell < start] == []
    assert counted["conn_gc_found"] == start + 1
    assert counted["read complete"] == start + 3


def test_watcher_without_counters_given_counts_for_itself(watcher: Watcher, unix_pair: NewPair) -> None:
    watcher.delegate(unix_pair()[0])
    assert watcher.get_gc() == (1, 1)
