"""Statistics slots: one for each worker, in memory that all of them map."""

import mmap
import os

import pytest

from gaiod.runtime.stats import Layout
from gaiod.supervisor.slots import Slots
from supervisor.conftest import NewSlots


@pytest.fixture(params=["memfd", "file"])
def slots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, new_slots: NewSlots) -> Slots:
    """Three slots of two listeners each; also as where there is no memfd_create."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    return new_slots(3, Layout(2))


def test_slots_are_zero_at_first_and_of_the_layouts_size(slots: Slots) -> None:
    for worker in range(3):
        assert slots.cells(worker).tolist() == [0] * Layout(2).size


def test_slots_do_not_overlap(slots: Slots) -> None:
    for worker in range(3):
        cells = slots.cells(worker)
        for position in range(len(cells)):
            cells[position] += worker + 1
    assert [set(slots.cells(worker)) for worker in range(3)] == [{1}, {2}, {3}]


def test_what_a_worker_counts_is_seen_by_whoever_maps_the_same_memory(slots: Slots) -> None:
    """A worker maps the descriptor, and begins where it is told to."""
    with mmap.mmap(slots.fd, 0) as memory:
        first = 8 * slots.first_cell(1)
        memory[first : first + 8] = (12345).to_bytes(8, "little")
    assert slots.cells(1)[0] == 12345
    assert slots.cells(0)[0] == slots.cells(2)[0] == 0


def test_counts_are_64_bits_wide(slots: Slots) -> None:
    slots.cells(2)[0] = 2**63 - 1
    assert slots.cells(2)[0] == 2**63 - 1


def test_memory_has_no_name_and_is_not_inherited(slots: Slots) -> None:
    """It is passed on to workers on purpose, and goes with the last process that has it."""
    target = os.readlink(f"/proc/self/fd/{slots.fd}")
    assert "(deleted)" in target
    assert not os.get_inheritable(slots.fd)
