"""What workers count in, and what is left of it when they are gone."""

import mmap
import os
from collections.abc import Iterator

import pytest

from gaiod.core import counters
from gaiod.stats.cells import (
    CELL,
    HEARTBEAT,
    LISTENER_GAUGES,
    SERVER_CELL,
    Layout,
    open_connections,
    open_to_server,
)
from gaiod.supervisor.processes.slots import Memory, ServerKey, Slot

ONE, TWO = ("one", "echo"), ("two", "echo")


@pytest.fixture(params=["memfd", "file"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """Memory of two listeners; also as where there is no memfd_create."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    memory = Memory({ONE: (), TWO: ("a", "b")})
    yield memory
    memory.close()


def _count(memory: Memory, listener: int, **cells: int) -> None:
    for name, amount in cells.items():
        memory.cells[memory.layout.row(listener) + CELL[name]] += amount


def _count_server(memory: Memory, listener: int, server: int, **cells: int) -> None:
    for name, amount in cells.items():
        memory.cells[memory.layout.server(listener, server) + SERVER_CELL[name]] += amount


def _of_servers(slot: Slot, cell: str) -> dict[ServerKey, int]:
    return {server: row[SERVER_CELL[cell]] for server, row in slot.server_rows().items()}


# -- memory ----------------------------------------------------------------------------------------------


def test_memory_is_zero_at_first_and_of_the_layouts_size(memory: Memory) -> None:
    assert memory.cells.tolist() == [0] * Layout((0, 2)).size


def test_what_a_worker_counts_is_seen_by_whoever_maps_the_same_memory(memory: Memory) -> None:
    with mmap.mmap(memory.fd, 0) as mapped:
        mapped[:8] = (12345).to_bytes(8, "little")
    assert memory.worker_cells()[0] == 12345


def test_counts_are_64_bits_wide(memory: Memory) -> None:
    _count(memory, 1, accepted=2**63 - 1)
    assert memory.row(1)[CELL["accepted"]] == 2**63 - 1
    assert memory.row(0) == [0] * len(CELL)


def test_memory_has_no_name_and_is_not_inherited(memory: Memory) -> None:
    """It is passed on to a worker on purpose, and goes with the last process that has it."""
    assert "(deleted)" in os.readlink(f"/proc/self/fd/{memory.fd}")
    assert not os.get_inheritable(memory.fd)


def test_heartbeat_is_in_seconds(memory: Memory) -> None:
    assert memory.heartbeat_s == 0
    memory.cells[memory.layout.worker(HEARTBEAT)] = 2_500_000_000
    assert memory.heartbeat_s == 2.5


def test_connections_are_open_that_were_accepted_and_not_closed(memory: Memory) -> None:
    _count(memory, 0, accepted=10, closed_peer_eof=3, closed_idle=1)
    assert open_connections(memory.row(0)) == 6


def test_servers_are_counted_under_their_listener_and_label(memory: Memory) -> None:
    _count_server(memory, 1, 0, connections=1)
    _count_server(memory, 1, 1, connections=2)
    rows = memory.server_rows()
    assert list(rows) == [(TWO, "a"), (TWO, "b")]
    assert [row[SERVER_CELL["connections"]] for row in rows.values()] == [1, 2]


# -- slots -----------------------------------------------------------------------------------------------


def test_slot_counts_its_workers_together() -> None:
    """While one drains, its successor counts already."""
    slot = Slot(0)
    old, new = slot.open({ONE: (), TWO: ()}), slot.open({TWO: ()})
    try:
        _count(old, 1, accepted=5)
        _count(new, 0, accepted=2)
        old.cells[0] = 100
        new.cells[0] = 10
        assert slot.row(TWO)[CELL["accepted"]] == slot.live_row(TWO)[CELL["accepted"]] == 7
        assert slot.row(ONE)[CELL["accepted"]] == 0
        assert slot.worker_cells()[0] == slot.live_cells()[0] == 110
    finally:
        slot.retire(old)
        slot.retire(new)


def test_counters_do_not_go_back_and_gauges_do_when_a_worker_is_gone() -> None:
    slot = Slot(0)
    memory = slot.open({ONE: ()})
    _count(memory, 0, accepted=5, closed_peer_eof=5, downstream_received_bytes=1000)
    reads = counters.operation_index("read", "submitted")
    memory.cells[reads] = 3
    slot.retire(memory)
    assert slot.row(ONE)[CELL["accepted"]] == 5
    assert slot.row(ONE)[CELL["downstream_received_bytes"]] == 1000
    assert slot.live_row(ONE) == [0] * len(CELL)
    assert slot.worker_cells()[reads] == 3
    assert slot.live_cells()[reads] == 0


def test_connections_that_were_open_when_their_worker_died_are_counted_as_closed() -> None:
    slot = Slot(0)
    memory = slot.open({ONE: ()})
    _count(memory, 0, accepted=5, closed_peer_eof=3)
    slot.retire(memory)
    assert slot.row(ONE)[CELL["closed_worker_lost"]] == 2
    assert open_connections(slot.row(ONE)) == 0


def test_slot_adds_up_every_worker_it_has_had() -> None:
    slot = Slot(0)
    for _ in range(3):
        memory = slot.open({ONE: ()})
        _count(memory, 0, accepted=2, closed_idle=2)
        slot.retire(memory)
    assert slot.row(ONE)[CELL["closed_idle"]] == 6


def test_slot_adds_up_the_cpu_time_of_workers_that_are_gone() -> None:
    slot = Slot(0)
    for used_s in (1.5, 2.0):
        slot.retire(slot.open({ONE: ()}), used_s)
    assert slot.retired_cpu_s == 3.5


def test_listener_with_another_handler_counts_from_zero() -> None:
    """The handler is a label of its series."""
    slot = Slot(0)
    memory = slot.open({ONE: ()})
    _count(memory, 0, accepted=2)
    slot.retire(memory)
    assert slot.row(("one", "shout")) == [0] * len(CELL)


def test_listener_that_is_forgotten_counts_from_zero_and_the_others_go_on() -> None:
    slot = Slot(0)
    memory = slot.open({ONE: (), TWO: ()})
    _count(memory, 0, accepted=1)
    _count(memory, 1, accepted=1)
    slot.retire(memory)
    slot.forget({TWO: ()})
    assert slot.row(ONE)[CELL["accepted"]] == 0
    assert slot.row(TWO)[CELL["accepted"]] == 1


def test_gauges_of_a_listener_are_those_of_workers_that_live() -> None:
    slot = Slot(0)
    old, new = slot.open({ONE: ()}), slot.open({ONE: ()})
    for memory in (old, new):
        _count(memory, 0, **dict.fromkeys(LISTENER_GAUGES, 7), upstream_retries=7)
    slot.retire(old)
    row = slot.row(ONE)
    assert [row[CELL[gauge]] for gauge in LISTENER_GAUGES] == [7] * len(LISTENER_GAUGES)
    assert row[CELL["upstream_retries"]] == 14
    slot.retire(new)


# -- servers ---------------------------------------------------------------------------------------------


def test_servers_counts_are_kept_when_a_worker_is_gone_and_its_open_connections_are_closed() -> None:
    slot = Slot(0)
    memory = slot.open({ONE: ("a",)})
    _count_server(memory, 0, 0, connections=5, arrived=1, closed=2, failed_timeout=3, checks_failed=4, down=1)
    assert _of_servers(slot, "down") == {(ONE, "a"): 1}
    slot.retire(memory)
    (row,) = slot.server_rows().values()
    assert open_to_server(row) == 0
    kept = {name: row[cell] for name, cell in SERVER_CELL.items() if row[cell]}
    assert kept == {"connections": 5, "arrived": 1, "closed": 6, "failed_timeout": 3, "checks_failed": 4}


def test_servers_are_told_apart_by_their_label_wherever_their_row_is() -> None:
    """A reload may put them into another order, and leave some out."""
    slot = Slot(0)
    old = slot.open({ONE: ("a", "b"), TWO: ("a",)})
    for listener, server, connections in ((0, 0, 1), (0, 1, 10), (1, 0, 100)):
        _count_server(old, listener, server, connections=connections)
    slot.retire(old)
    new = slot.open({TWO: ("c", "a"), ONE: ("b", "a")})
    for listener, server, connections in ((0, 0, 5), (0, 1, 200), (1, 0, 20), (1, 1, 2)):
        _count_server(new, listener, server, connections=connections)
    try:
        assert _of_servers(slot, "connections") == {
            (ONE, "a"): 3, (ONE, "b"): 30, (TWO, "a"): 300, (TWO, "c"): 5,
        }  # fmt: skip
    finally:
        slot.retire(new)


def test_server_that_is_forgotten_counts_from_zero_and_the_others_go_on() -> None:
    slot = Slot(0)
    memory = slot.open({ONE: ("a", "b"), TWO: ("a",)})
    for listener, server in ((0, 0), (0, 1), (1, 0)):
        _count_server(memory, listener, server, connections=1)
    slot.retire(memory)
    slot.forget({ONE: {"b", "c"}})
    assert _of_servers(slot, "connections") == {(ONE, "b"): 1}


def test_slot_that_absorbs_another_has_what_both_counted() -> None:
    slot, other = Slot(0), Slot(1)
    for each in (slot, other):
        memory = each.open({ONE: ("a",)})
        _count(memory, 0, accepted=1, closed_idle=1)
        _count_server(memory, 0, 0, connections=1)
        each.retire(memory)
    slot.absorb(other)
    assert slot.row(ONE)[CELL["accepted"]] == 2
    assert _of_servers(slot, "connections") == {(ONE, "a"): 2}


def test_memory_is_given_back_when_a_worker_is_gone() -> None:
    """The descriptors are counted after every test."""
    slot = Slot(0)
    memory = slot.open({ONE: ()})
    slot.retire(memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(memory.fd)
