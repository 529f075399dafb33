"""Seats: who gets which, and what becomes of them when workers and daemons end."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from worker.support.tallying import close

from gaiod.stats.tally_layout import OWNERS, SEATS_MAX, start_of
from gaiod.supervisor.processes.seats import Seats


@pytest.fixture
def seats() -> Iterator[Seats]:
    """Nobody has a seat yet."""
    seats = Seats()
    yield seats
    close(seats)


def mark(seats: Seats, seat: int, data: bytes = b"counted") -> None:
    os.pwrite(seats.fd, data, start_of(seat))


def what_is_in(seats: Seats, seat: int) -> bytes:
    return os.pread(seats.fd, 7, start_of(seat)).rstrip(b"\0")


def owner_of(seats: Seats, seat: int) -> int:
    return int.from_bytes(os.pread(seats.fd, 8, 8 * (OWNERS + seat)), sys.byteorder)


def successor_of(seats: Seats) -> Seats:
    handed_over = seats.handed_over()
    assert handed_over is not None
    successor = Seats()
    successor.adopt({**handed_over, "fd": os.dup(seats.fd)})
    return successor


def test_no_memory_is_made_before_the_first_seat(seats: Seats) -> None:
    assert seats.handed_over() is None
    seats.look()
    seats.retire(None)
    assert seats.fd == -1


def test_seat_is_emptied_when_its_worker_is_gone_and_given_again(seats: Seats) -> None:
    first, second = seats.open(), seats.open()
    for seat in (first, second):
        mark(seats, seat)
    seats.retire(first)
    assert (what_is_in(seats, first), what_is_in(seats, second)) == (b"", b"counted")
    assert seats.open() == first


def test_two_daemons_never_deal_out_the_same_seat(seats: Seats) -> None:
    before = [seats.open() for _ in range(2)]
    successor = successor_of(seats)
    after = [successor.open() for _ in range(2)]
    before.append(seats.open())
    assert not set(before) & set(after)
    third = successor_of(successor)
    assert third.open() not in {*before, *after}
    for each in (successor, third):
        close(each)


def test_seats_of_a_daemon_that_was_killed_are_emptied_by_the_next(seats: Seats) -> None:
    mine = seats.open()
    successor = successor_of(seats)
    others = successor.open()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    os.pwrite(seats.fd, gone.pid.to_bytes(8, sys.byteorder), 8 * (OWNERS + others))
    for seat in (mine, others):
        mark(seats, seat)
    seats.look()
    assert (what_is_in(seats, mine), what_is_in(seats, others)) == (b"counted", b"")
    assert (owner_of(seats, mine), owner_of(seats, others)) == (os.getpid(), 0)
    close(successor)


def test_seats_of_a_daemon_that_lives_are_left_alone(seats: Seats) -> None:
    seat = seats.open()
    os.pwrite(seats.fd, os.getppid().to_bytes(8, sys.byteorder), 8 * (OWNERS + seat))
    mark(seats, seat)
    seats.look()
    assert what_is_in(seats, seat) == b"counted"


def test_memory_of_another_version_is_not_taken_over(seats: Seats) -> None:
    seats.open()
    successor = Seats()
    os.pwrite(seats.fd, b"tallies0", 0)
    successor.adopt({"fd": os.dup(seats.fd), "side": 0})
    assert successor.handed_over() is None
    successor.adopt(None)
    assert successor.handed_over() is None


def test_worker_for_which_there_is_no_seat_cannot_start(seats: Seats) -> None:
    seat = seats.open()
    os.pwrite(seats.fd, os.getpid().to_bytes(8, sys.byteorder) * SEATS_MAX, 8 * OWNERS)
    with pytest.raises(OSError, match="2048 processes count"):
        seats.open()
    assert owner_of(seats, seat) == os.getpid()
