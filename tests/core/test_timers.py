"""Timers: the heap behind timers and deadlines, looked at lazily."""

import gc
import math
import socket
import weakref
from collections.abc import Iterator

import pytest

from core.support.sockets import NewPair
from core.support.waiting import interpreted_only, later
from gaiod.core.connection import Conn
from gaiod.core.engine import Poller
from gaiod.core.timers import Timers
from gaiod.core.watcher import Watcher


@pytest.fixture
def poller() -> Iterator[Poller]:
    """A poller of the engine in use, beside the watcher's own."""
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def conn(watcher: Watcher, unix_pair: NewPair, poller: Poller) -> Conn:
    """A connection that the poller knows."""
    conn = watcher.delegate(unix_pair()[0])
    poller.add(conn.fileno(), conn)
    return conn


def test_nothing_is_due_where_nothing_is_set(poller: Poller) -> None:
    timers = Timers(poller)
    assert timers.next_s == math.inf
    assert timers.due(1e9) == []
    assert timers.pending_timers() == []


def test_timers_are_due_in_the_order_of_their_times(watcher: Watcher, poller: Poller) -> None:
    timers = Timers(poller)
    start_s = later()
    operations = [watcher.timer(start_s + number) for number in (3, 1, 2)]
    for operation in operations:
        timers.set_timer(operation)
    assert timers.next_s == start_s + 1
    assert timers.due(start_s + 0.5) == []
    assert timers.due(start_s + 2) == [operations[1], operations[2]]
    assert timers.pending_timers() == [operations[0]]
    assert timers.next_s == start_s + 3
    assert timers.due(start_s + 9) == [operations[0]]
    assert timers.next_s == math.inf


def test_cancelled_timer_is_neither_pending_nor_due(watcher: Watcher, poller: Poller) -> None:
    timers = Timers(poller)
    operation = watcher.timer(later())
    timers.set_timer(operation)
    watcher.cancel(operation)
    assert timers.pending_timers() == []
    assert timers.due(math.inf) == []


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "writing"])
def test_direction_is_due_at_its_deadline_once(poller: Poller, conn: Conn, reading: bool) -> None:
    timers = Timers(poller)
    timers.arm(conn, reading, 5.0)
    assert timers.next_s == 5.0
    assert timers.due(4.0) == []
    assert timers.due(5.0) == [(conn, reading)]
    assert timers.due(9.0) == []


def test_directions_of_one_connection_are_independent(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    timers.arm(conn, True, 5.0)
    timers.arm(conn, False, 3.0)
    assert timers.due(4.0) == [(conn, False)]
    assert timers.due(6.0) == [(conn, True)]


def test_later_deadline_behind_an_earlier_one_rings_with_that_one_only(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    timers.arm(conn, True, 5.0)
    timers.arm(conn, True, 7.0)
    timers.arm(conn, True, 5.0)
    assert timers.next_s == 5.0
    assert timers.due(9.0) == [(conn, True)]
    assert timers.next_s == math.inf


def test_earlier_deadline_replaces_a_later_one(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    for deadline in (7.0, 5.0, 3.0):
        timers.arm(conn, True, deadline)
    assert timers.next_s == 3.0
    assert timers.due(4.0) == [(conn, True)]
    assert timers.due(9.0) == []


def test_direction_can_be_armed_again_after_it_rang(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    for deadline in (1.0, 2.0, 3.0):
        timers.arm(conn, True, deadline)
        assert timers.due(deadline) == [(conn, True)]


def test_connection_that_is_gone_is_not_due(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    timers.arm(conn, True, 1.0)
    timers.disarm(conn)
    poller.remove(conn.fileno())
    assert timers.due(9.0) == []


def test_alarm_keeps_no_connection_alive(watcher: Watcher, unix_pair: NewPair, poller: Poller) -> None:
    timers = Timers(poller)
    conn = watcher.delegate(unix_pair()[0])
    poller.add(conn.fileno(), conn)
    timers.arm(conn, True, 1.0)
    reference = weakref.ref(conn)
    poller.remove(conn.fileno())
    del conn
    gc.collect()
    assert reference() is None
    assert timers.due(9.0) == []


def test_alarm_of_a_descriptor_is_not_that_of_its_next_owner(watcher: Watcher, poller: Poller) -> None:
    timers = Timers(poller)
    near, far = socket.socketpair()
    old = watcher.delegate(near)
    fd = old.fileno()
    poller.add(fd, old)
    timers.arm(old, True, 1.0)
    poller.remove(fd)
    old.abort()
    far.close()
    near, far = socket.socketpair()
    new = watcher.delegate(near)
    poller.add(new.fileno(), new)
    timers.arm(new, True, 5.0)
    assert timers.due(3.0) == []
    assert timers.due(6.0) == [(new, True)]
    far.close()


def test_timers_and_deadlines_share_one_order(watcher: Watcher, poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    start_s = later()
    first, last = watcher.timer(start_s + 1), watcher.timer(start_s + 3)
    timers.set_timer(last)
    timers.arm(conn, True, start_s + 2)
    timers.set_timer(first)
    assert timers.due(start_s + 9) == [first, (conn, True), last]


@interpreted_only
def test_stale_entries_are_swept_when_they_are_most_of_the_heap(poller: Poller, conn: Conn) -> None:
    timers = Timers(poller)
    for number in range(1_000):
        timers.arm(conn, True, 1_000.0 - number)
    assert len(timers.heap) < 200
    assert timers.due(2_000.0) == [(conn, True)]
    assert timers.heap == []
