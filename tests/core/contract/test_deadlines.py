"""Point 5: deadlines end what waits, lose to data that is there, and cost next to nothing."""

import ast
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.support.descriptors import open_descriptors
from core.support.sockets import NewPair, fill, listen, pump, receive
from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    TIME_UNIT,
    assert_quiet,
    collect,
    collect_one,
    collect_until,
    compiled_only,
    contexts,
    interpreted_only,
    later,
    pass_time_until,
    soon,
)
from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.watcher import Watcher

READS: dict[str, Callable[[Conn, float], object]] = {
    "read": lambda conn, deadline: conn.read(deadline=deadline),
    "read_into": lambda conn, deadline: conn.read(bytearray(4), deadline=deadline),
    "read_full": lambda conn, deadline: conn.read_full(bytearray(4), deadline=deadline),
}


@pytest.mark.parametrize("way", READS)
def test_read_expires_at_its_deadline_and_not_before(watcher: Watcher, stream_pair: NewPair, way: str) -> None:
    conn = watcher.delegate(stream_pair()[0])
    deadline = soon()
    READS[way](conn, deadline)
    result = collect_one(watcher)
    assert time.monotonic() >= deadline
    assert isinstance(result.error, DeadlineExceeded)
    assert isinstance(result.error, TimeoutError)
    assert result.size == 0


@pytest.mark.parametrize("way", READS)
def test_connection_stays_usable_after_a_deadline(watcher: Watcher, stream_pair: NewPair, way: str) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    for _ in range(3):
        READS[way](conn, time.monotonic() - 1)
        assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    far.sendall(b"ping")
    READS[way](conn, later())
    assert bytes(collect_one(watcher).buffer) == b"ping"
    conn.write(b"pong", deadline=later())
    assert collect_one(watcher).error is None
    assert receive(far, 4) == b"pong"


def test_write_expires_while_queued_and_the_connection_stays_usable(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"expired", deadline=soon())
    result = collect_one(watcher)
    assert isinstance(result.error, DeadlineExceeded)
    assert result.size == 0
    conn.write(b"in time")
    assert pump(watcher, far, filled + 7)[0][filled:] == b"in time"


@pytest.mark.parametrize("way", READS)
def test_data_that_is_there_beats_a_deadline_that_is_past(watcher: Watcher, stream_pair: NewPair, way: str) -> None:
    """The loop was away past the deadline; the bytes came in time, and must not be thrown away."""
    near, far = stream_pair()
    conn = watcher.delegate(near)
    deadline = soon()
    READS[way](conn, deadline)
    assert_quiet(watcher, 0)
    far.sendall(b"ping")
    pass_time_until(deadline)
    result = collect_one(watcher)
    assert result.error is None
    assert bytes(result.buffer) == b"ping"


@pytest.mark.parametrize("way", READS)
def test_data_that_is_there_beats_a_deadline_that_was_past_at_submit(
    watcher: Watcher, stream_pair: NewPair, way: str
) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"ping")
    READS[way](conn, time.monotonic() - 1)
    assert bytes(collect_one(watcher).buffer) == b"ping"


def test_room_that_is_there_beats_a_deadline_that_is_past(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    deadline = soon()
    conn.write(b"ping", deadline=deadline)
    assert_quiet(watcher, 0)
    receive(far, filled)
    pass_time_until(deadline)
    assert collect_one(watcher).error is None
    assert receive(far, 4) == b"ping"


def test_many_connections_with_data_at_a_past_deadline_all_get_it(watcher: Watcher, unix_pair: NewPair) -> None:
    """More than one batch, and more than one poll tells of: those whose turn comes later must not expire meanwhile."""
    pairs = [unix_pair() for _ in range(600)]
    deadline = soon()
    for near, far in pairs:
        watcher.delegate(near).read(bytearray(10), deadline=deadline)
        far.sendall(b"ping")
    pass_time_until(deadline)
    done = collect(watcher, len(pairs))
    assert [result for result in done if result.error is not None] == []


@pytest.mark.parametrize("size", [4, 60_000])
def test_burst_with_data_at_a_past_deadline_is_received_though_one_batch_is_too_small_for_it(
    watcher: Watcher, unix_pair: NewPair, size: int
) -> None:
    """After a quiet time batches are short, and large messages fill one soon: the rest has its turn later."""
    near, far = unix_pair()
    quiet = watcher.delegate(near)
    for _ in range(5):
        far.sendall(b"a")
        quiet.read()
        collect_one(watcher)
    pairs = [unix_pair() for _ in range(100)]
    deadline = soon()
    for near, far in pairs:
        watcher.delegate(near).read(deadline=deadline)
        far.sendall(bytes(size))
    pass_time_until(deadline)
    done = collect(watcher, len(pairs))
    assert [result for result in done if result.error is not None or result.size != size] == []


def test_deadlines_of_one_connection_expire_each_at_its_time(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    start_s = time.monotonic()
    for name, units in (("last", 3), ("first", 1), ("middle", 2)):
        conn.read(context=name, deadline=start_s + units * MOMENT_S)
    assert contexts(collect(watcher, 3)) == ["first", "middle", "last"]
    assert time.monotonic() >= start_s + 3 * MOMENT_S


def test_read_without_a_deadline_waits_on_beside_one_that_expires(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(context="for ever")
    conn.read(context="expires", deadline=soon())
    conn.read(context="for ever too")
    assert contexts(collect(watcher, 1)) == ["expires"]
    far.sendall(b"a")
    assert contexts(collect(watcher, 1)) == ["for ever"]
    far.sendall(b"b")
    assert contexts(collect(watcher, 1)) == ["for ever too"]


def test_earlier_deadline_behind_a_later_one_expires_first(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.read(context="late", deadline=later())
    conn.read(context="early", deadline=soon())
    assert contexts(collect(watcher, 1)) == ["early"]


def test_deadlines_of_the_two_directions_are_independent(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"a", context="write", deadline=soon())
    conn.read(context="read", deadline=later())
    assert contexts(collect(watcher, 1)) == ["write"]
    conn.read(context="read too", deadline=soon())
    assert contexts(collect(watcher, 1)) == ["read too"]


@pytest.mark.parametrize("deadline", [math.nan, "soon", [1]], ids=repr)
def test_deadline_that_is_no_number_is_refused_at_submit(watcher: Watcher, unix_pair: NewPair, deadline: float) -> None:
    conn = watcher.delegate(unix_pair()[0])
    listener = listen()
    for submit in (
        lambda: conn.read(deadline=deadline),
        lambda: conn.read_full(bytearray(1), deadline=deadline),
        lambda: conn.write(b"a", deadline=deadline),
        lambda: watcher.connect(listener.getsockname(), deadline=deadline),
        lambda: watcher.timer(deadline),
    ):
        with pytest.raises((ValueError, TypeError)):
            submit()
    listener.close()
    assert_quiet(watcher, 0)
    assert watcher.get_gc() == (0, 0), "a connection that was never made counts as forgotten"


def test_deadlines_of_ten_thousand_operations_all_expire(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    deadline = soon()
    for number in range(10_000):
        conn.read(context=number, deadline=deadline)
    done = collect_until(watcher, lambda done: len(done) >= 10_000)
    assert contexts(done) == list(range(10_000))
    assert {type(result.error) for result in done} == {DeadlineExceeded}


def test_ten_thousand_deadlines_cost_little_to_set_and_to_miss(watcher: Watcher, unix_pair: NewPair) -> None:
    """An idle timeout that moves with every message: 10,000 of them while 10,000 timers wait."""
    for number in range(10_000):
        watcher.timer(later() + number % 100)
    near, far = unix_pair()
    conn = watcher.delegate(near)
    begin_s = time.monotonic()
    for _ in range(10_000):
        conn.write(b"a", deadline=later())
        conn.read(bytearray(1), deadline=later())
        far.sendall(b"b")
        collect_until(watcher, lambda done: len(done) >= 1)
        far.recv(1)
    assert time.monotonic() - begin_s < 5 * TIME_UNIT


@interpreted_only
def test_deadline_that_moves_with_every_message_grows_no_heap(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    for number in range(10_000):
        conn.read(deadline=later() + number)
        if number % 100 == 0:
            far.sendall(b"a")
            collect_one(watcher)
        else:
            conn.cancel()
            watcher.wait_io(0)
    assert len(watcher.timers.heap) <= 2


@interpreted_only
def test_deadlines_that_come_closer_are_swept_out_of_the_heap(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    first = later()
    for number in range(2_000):
        conn.read(deadline=first - number / 1000)
    assert len(watcher.timers.heap) < 300


@interpreted_only
def test_deadlines_of_closed_connections_are_swept_out_of_the_heap(watcher: Watcher, unix_pair: NewPair) -> None:
    for _ in range(2_000):
        near, far = unix_pair()
        conn = watcher.delegate(near)
        conn.read(deadline=later())
        conn.abort()
        watcher.wait_io(0)
        far.close()
    assert len(watcher.timers.heap) < 300


def test_idle_timeout_expires_once_the_messages_stop(watcher: Watcher, unix_pair: NewPair) -> None:
    """Each read's deadline is behind the last one's: the alarm that rings for the first finds it moved."""
    near, far = unix_pair()
    conn = watcher.delegate(near)
    begin_s = time.monotonic()
    last_s = 0.0
    while time.monotonic() < begin_s + 3 * MOMENT_S:
        last_s = soon()
        conn.read(deadline=last_s)
        far.sendall(b"a")
        assert collect_one(watcher).error is None
    last_s = soon()
    conn.read(deadline=last_s)
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    assert time.monotonic() >= last_s


# -- what the poller waits for ---------------------------------------------------------------------------


def alarm_s(before: dict[int, str]) -> float:
    """Return when the alarm rings that was opened since `before`, in `time.monotonic()` seconds."""
    (fd,) = (fd for fd, target in open_descriptors().items() if "timerfd" in target and fd not in before)
    lines = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    seconds, nanoseconds = ast.literal_eval(lines["it_value"].strip())  # from now on
    return time.monotonic() + float(seconds) + 1e-9 * float(nanoseconds)


def exchange_one(watcher: Watcher, conn: Conn, far: socket.socket, timeout: float) -> None:
    """Have the watcher wait for a message that is there."""
    conn.read()
    far.sendall(b"a")
    assert [result.error for result in watcher.wait_io(timeout)] == [None]


@compiled_only
def test_messages_do_not_set_the_alarm_anew(unix_pair: NewPair) -> None:
    """A timer of the kernel's costs more than the rest of a wait."""
    before = open_descriptors()
    with Watcher() as watcher:
        near, far = unix_pair()
        conn = watcher.delegate(near)
        exchange_one(watcher, conn, far, LIMIT_S)
        first_s = alarm_s(before)
        pass_time_until(soon())
        exchange_one(watcher, conn, far, LIMIT_S)
        assert alarm_s(before) == pytest.approx(first_s, abs=MOMENT_S / 3)
        exchange_one(watcher, conn, far, LIMIT_S / 2)
        assert alarm_s(before) < first_s - LIMIT_S / 3


def test_wait_does_not_end_by_the_alarm_of_one_that_a_message_ended(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    exchange_one(watcher, conn, far, MOMENT_S)  # the alarm is set, and rings later
    begin_s = time.monotonic()
    assert watcher.wait_io(3 * MOMENT_S) == []
    assert time.monotonic() - begin_s >= 3 * MOMENT_S


def test_nearer_timer_rings_on_time_after_a_long_wait_has_begun(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    exchange_one(watcher, conn, far, LIMIT_S)
    wanted_s = soon()
    watcher.timer(wanted_s, context="nearer")
    assert contexts(watcher.wait_io(LIMIT_S)) == ["nearer"]
    assert wanted_s <= time.monotonic() < wanted_s + LIMIT_S / 2
