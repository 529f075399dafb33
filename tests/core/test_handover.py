"""Connections that are detached from one watcher and attached to another: every byte once, whatever was under way."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from core.support.moving import move, offer
from core.support.relaying import STREAM, fill
from core.support.sockets import NewPair, pattern, receive, reset
from core.support.sockets import fill as fill_kernel
from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    assert_quiet,
    collect,
    collect_one,
    later,
    soon,
)
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, NotQuiet, UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


@pytest.fixture
def taker() -> Iterator[Watcher]:
    """A second watcher, as another process has one."""
    with Watcher() as taker:
        yield taker


def pump_both(watchers: list[Watcher], sock: socket.socket, n: int) -> bytes:
    """Receive `n` bytes while the watchers pass."""
    sock.setblocking(False)
    received = bytearray()
    until_s = time.monotonic() + LIMIT_S
    while len(received) < n:
        assert time.monotonic() < until_s, f"{len(received)} of {n} bytes came"
        for watcher in watchers:
            watcher.wait_io(0)
        try:
            received += sock.recv(n - len(received))
        except BlockingIOError:
            pass
    sock.settimeout(LIMIT_S)
    return bytes(received)


# -- one connection ------------------------------------------------------------------------------------


def test_bytes_go_to_whoever_has_the_connection(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(context="first")
    [moved] = move(watcher, taker, conn)
    result = collect_one(watcher)
    assert (result.operation, result.context) == (OpType.READ, "first")
    assert isinstance(result.error, ConnClosed)
    assert conn.closed
    moved.read(context="second")
    far.sendall(b"hello")
    result = collect_one(taker)
    assert (bytes(result.buffer), result.context, result.conn) == (b"hello", "second", moved)
    moved.write(b"world")
    assert collect_one(taker).error is None
    assert receive(far, 5) == b"world"
    assert_quiet(watcher)


def test_bytes_that_come_meanwhile_are_read_after_it(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    """The edge was told to the giver, or to nobody: adding to the poller tells it again."""
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"before ")
    watcher.wait_io(0)
    unit = watcher.detach(conn)
    told = offer(unit)
    far.sendall(b"between")
    far.shutdown(socket.SHUT_WR)
    arrived = taker.attach(*told)
    [moved] = arrived.conns
    moved.read_full(bytearray(14))
    assert_quiet(taker)
    unit.release()
    arrived.resume()
    assert collect_one(taker).buffer == b"before between"
    moved.read()
    assert isinstance(collect_one(taker).error, EOFError)


def test_resumed_connection_is_as_it_was(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(context="kept", deadline=later())
    unit = watcher.detach(conn)
    far.sendall(b"word")
    assert_quiet(watcher)
    unit.resume()
    result = collect_one(watcher)
    assert (bytes(result.buffer), result.context, result.error) == (b"word", "kept", None)
    assert unit.is_over
    unit.release()  # over is over
    assert not conn.closed


def test_what_is_asked_of_a_detached_connection_waits(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    unit = watcher.detach(conn)
    assert not unit.is_touched
    conn.write(b"written ")
    assert unit.is_touched
    conn.write(b"meanwhile")
    conn.read()
    conn.close()
    assert_quiet(watcher)
    assert not conn.closed
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    unit.resume()
    results = collect(watcher, 3)
    assert [result.error for result in results if result.operation is OpType.WRITE] == [None, None]
    far.settimeout(LIMIT_S)
    assert receive(far, 17) == b"written meanwhile"
    assert far.recv(1) == b""
    assert conn.closed


@pytest.mark.parametrize("request_of", [Conn.abort, Conn.close, Conn.shutdown_write, Conn.cancel, Conn.reset])
def test_every_request_touches(watcher: Watcher, stream_pair: NewPair, request_of: object) -> None:
    near, _far = stream_pair()
    conn = watcher.delegate(near)
    conn.read()
    unit = watcher.detach(conn)
    request_of(conn)  # type: ignore[operator]
    assert unit.is_touched
    assert_quiet(watcher)
    unit.release()
    assert isinstance(collect_one(watcher).error, ConnClosed)


def test_half_written_bytes_are_carried(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    sent_by_kernel = fill_kernel(near, far)
    conn = watcher.delegate(near)
    data, more = pattern(3 << 20, 1), pattern(1 << 20, 2)
    conn.write(data)
    conn.write(bytearray(more))
    conn.shutdown_write()
    receive(far, sent_by_kernel // 2)
    for _ in range(5):
        watcher.wait_io(0.001)
    [moved] = move(watcher, taker, conn)
    rest = sent_by_kernel - sent_by_kernel // 2
    assert pump_both([watcher, taker], far, rest + len(data) + len(more))[rest:] == data + more
    assert far.recv(1) == b""
    assert moved.bytes_sent == len(data) + len(more)
    assert moved.pending_write_bytes == 0


def test_write_of_a_swap_buffer_is_carried(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read()
    far.sendall(b"echo me")
    conn.write(collect_one(watcher).buffer)
    [moved] = move(watcher, taker, conn)
    assert isinstance(collect_one(watcher).error, ConnClosed)
    result = collect_one(taker)
    assert (result.operation, result.size, result.conn) == (OpType.WRITE, 7, moved)
    assert receive(far, 7) == b"echo me"


def test_deadline_of_a_write_is_carried(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill_kernel(near, far)
    conn = watcher.delegate(near)
    conn.write(b"late", deadline=time.monotonic() + MOMENT_S)
    [moved] = move(watcher, taker, conn)
    collect_one(watcher)
    result = collect_one(taker)
    assert isinstance(result.error, DeadlineExceeded)
    assert result.conn is moved


def test_deadline_that_passes_meanwhile_rings_after_it(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(deadline=soon())
    unit = watcher.detach(conn)
    assert_quiet(watcher)
    assert_quiet(watcher)
    far.sendall(b"in time")
    unit.resume()
    assert bytes(collect_one(watcher).buffer) == b"in time"  # bytes that are there win
    conn.read(deadline=soon())
    unit = watcher.detach(conn)
    assert_quiet(watcher)
    assert_quiet(watcher)
    unit.resume()
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)


def test_facts_are_carried(watcher: Watcher, taker: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    far.sendall(b"abc")
    far.shutdown(socket.SHUT_WR)
    conn.read()
    collect_one(watcher)
    conn.read()
    collect_one(watcher)
    conn.write(b"hello")
    collect_one(watcher)
    before = (conn.opened_s, conn.active_s, conn.bytes_received, conn.bytes_sent, conn.at_eof)
    [moved] = move(watcher, taker, conn)
    assert (moved.opened_s, moved.active_s, moved.bytes_received, moved.bytes_sent, moved.at_eof) == before
    assert before[2:] == (3, 5, True)
    assert moved.peer_address == far.getsockname()


def test_time_of_a_stall_is_carried(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill_kernel(near, far)
    conn = watcher.delegate(near)
    conn.write(b"x" * 1000)
    watcher.wait_io(MOMENT_S)
    before_s = conn.stalled_s(time.monotonic())
    assert before_s > 0
    [moved] = move(watcher, taker, conn)
    taker.wait_io(MOMENT_S)
    assert moved.stalled_s(time.monotonic()) >= before_s + MOMENT_S


def test_reset_of_a_moved_connection_is_told(watcher: Watcher, stream_pair: NewPair, tcp_pair: NewPair) -> None:
    with Watcher(report_hangups=True) as taker:
        near, far = tcp_pair()
        conn = watcher.delegate(near)
        unit = watcher.detach(conn)
        told = offer(unit)
        reset(far)
        arrived = taker.attach(*told)
        unit.release()
        arrived.resume()
        result = collect_one(taker)
        assert result.operation is OpType.HANGUP
        assert isinstance(result.error, ConnectionResetError)


def test_discarded_unit_leaves_the_connection_to_the_giver(
    watcher: Watcher, taker: Watcher, stream_pair: NewPair
) -> None:
    """Closing a copy is no word to the peer."""
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read()
    unit = watcher.detach(conn)
    arrived = taker.attach(*offer(unit))
    [copy] = arrived.conns
    copy.read(context="never")
    copy.write(b"never")
    arrived.release()
    assert copy.closed
    assert all(isinstance(result.error, ConnClosed) for result in collect(taker, 2))
    unit.resume()
    far.sendall(b"still here")
    assert bytes(collect_one(watcher).buffer) == b"still here"
    conn.write(b"yes")
    collect_one(watcher)
    assert receive(far, 3) == b"yes"


@pytest.mark.parametrize("end", [Conn.close, Conn.abort])
def test_end_of_a_resumed_connection_is_seen_although_another_process_has_a_copy(
    watcher: Watcher, stream_pair: NewPair, end: Callable[[Conn], None]
) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    unit = watcher.detach(conn)
    copy = os.dup(conn.fileno())
    try:
        unit.resume(has_copies=True)
        conn.write(b"bye")
        assert collect_one(watcher).error is None
        end(conn)
        watcher.wait_io(0)
        assert receive(far, 4) == b"bye"
    finally:
        os.close(copy)


def test_reset_of_a_resumed_connection_of_which_there_is_a_copy_is_no_end_in_order(
    watcher: Watcher, tcp_pair: NewPair
) -> None:
    """It comes with the last copy: before, a FIN would say that everything was sent."""
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    unit = watcher.detach(conn)
    copy = os.dup(conn.fileno())
    unit.resume(has_copies=True)
    conn.reset()
    watcher.wait_io(0)
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    os.close(copy)
    with pytest.raises(ConnectionResetError):
        far.recv(1)


def test_detached_connection_is_nobodys_idle_one(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, _far = stream_pair()
    conn = watcher.delegate(near)
    unit = watcher.detach(conn)
    arrived = taker.attach(*offer(unit))
    assert watcher.connections() == []
    assert taker.connections() == []
    arrived.release()
    unit.resume()
    assert watcher.connections() == [conn]


def test_connection_is_kept_while_it_is_detached(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    unit = watcher.detach(watcher.delegate(near))
    assert_quiet(watcher)
    far.sendall(b"x")
    assert watcher.get_gc() == (0, 0)
    unit.resume()
    unit.conns[0].read()
    assert bytes(collect_one(watcher).buffer) == b"x"


# -- what is not quiet ---------------------------------------------------------------------------------


def test_part_of_a_read_is_not_quiet(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read_full(bytearray(10))
    far.sendall(b"half")
    while conn.bytes_received < 4:
        watcher.wait_io(0.01)
    with pytest.raises(NotQuiet, match="a part of what it reads"):
        watcher.detach(conn)
    far.sendall(b"second")
    assert collect_one(watcher).buffer == b"halfsecond"
    watcher.detach(conn).resume()


def test_closing_and_connecting_are_not_quiet(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill_kernel(near, far)
    conn = watcher.delegate(near)
    conn.write(b"x")
    conn.close()
    with pytest.raises((NotQuiet, ConnClosed)):
        watcher.detach(conn)
    connecting = watcher.connect(("192.0.2.1", 9))
    with pytest.raises(NotQuiet, match="is being connected"):
        watcher.detach(connecting)
    connecting.abort()


def test_detached_twice_is_not_quiet(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _far = stream_pair()
    conn = watcher.delegate(near)
    unit = watcher.detach(conn)
    with pytest.raises(NotQuiet, match="detached already"):
        watcher.detach(conn)
    unit.resume()


def test_completion_that_was_not_taken_is_not_quiet(watcher: Watcher, stream_pair: NewPair) -> None:
    """Its bytes, or its error, would be delivered here while the connection goes on there."""
    near, _far = stream_pair()
    conn = watcher.delegate(near)
    conn.read()
    conn.cancel()
    with pytest.raises(NotQuiet, match="not taken"):
        watcher.detach(conn)
    collect_one(watcher)
    watcher.detach(conn).resume()


def test_failed_detach_changes_nothing(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    other_near, other_far = stream_pair()
    fine, reading = watcher.delegate(near), watcher.delegate(other_near)
    fine.read()
    reading.read_full(bytearray(2))
    other_far.sendall(b"x")
    while not reading.bytes_received:
        watcher.wait_io(0.01)
    with pytest.raises(NotQuiet):
        watcher.detach(fine, reading)
    far.sendall(b"served")
    assert bytes(collect_one(watcher).buffer) == b"served"


def test_listener_cannot_be_detached(watcher: Watcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conn = watcher.accept(listener)
        with pytest.raises(UsageError):
            watcher.detach(conn)
        watcher.free(conn)


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.clear(),
        lambda told: told[0].pop("opened_s"),
        lambda told: told[0].update(writes=[[7, None, False]]),
        lambda told: told[0].update(writes=[["x", None, False]]),
        lambda told: told[0].update(relay={"to": 0}),
        lambda told: told[0].update(sent="many"),
        lambda told: told.append(dict(told[0])),
    ],
)
def test_nonsense_is_refused_and_its_descriptors_closed(
    watcher: Watcher, taker: Watcher, stream_pair: NewPair, damage: object
) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read()
    unit = watcher.detach(conn)
    told, descriptors, blobs = offer(unit)
    damage(told)  # type: ignore[operator]
    with pytest.raises(ValueError, match="no unit of connections"):
        taker.attach(told, descriptors, blobs)
    for fd in descriptors:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    assert_quiet(taker)
    unit.resume()
    far.sendall(b"fine")
    assert bytes(collect_one(watcher).buffer) == b"fine"


def test_closed_watcher_takes_nothing(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _far = stream_pair()
    unit = watcher.detach(watcher.delegate(near))
    told = offer(unit)
    taker = Watcher()
    taker.close()
    with pytest.raises(WatcherClosed):
        taker.attach(*told)
    unit.resume()


def test_watcher_that_closes_closes_what_is_detached(stream_pair: NewPair) -> None:
    near, far = stream_pair()
    watcher = Watcher()
    conn = watcher.delegate(near)
    watcher.detach(conn)
    watcher.close()
    assert conn.closed
    assert far.recv(1) == b""


# -- relays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 300_000, 20 << 20])
def test_relay_goes_on_with_what_it_holds(watcher: Watcher, taker: Watcher, stream_pair: NewPair, size: int) -> None:
    """In memory or in a pipe: what it has taken is not in the kernel's queue any more."""
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    one, other = watcher.delegate(source), watcher.delegate(sink)
    one.relay_to(other, context="forth")
    other.relay_to(one)
    data = STREAM[:size]
    sent = fill(watcher, far_source, data)
    here = [one, other]
    there = move(watcher, taker, one)
    assert len(there) == 2
    assert all(conn.closed for conn in here)
    assert all(isinstance(result.error, ConnClosed) for result in collect(watcher, 2))
    received = pump_both([taker], far_sink, sent)
    assert received == data[:sent]
    far_source.shutdown(socket.SHUT_WR)
    result = collect_one(taker)
    assert (result.operation, result.size, result.error) == (OpType.RELAY, sent, None)
    assert far_sink.recv(1) == b""
    far_sink.sendall(b"answer")
    far_sink.shutdown(socket.SHUT_WR)
    result = collect_one(taker)
    assert (result.size, result.error) == (6, None)
    assert receive(far_source, 6) == b"answer"


def test_relay_that_was_resumed_goes_on(watcher: Watcher, stream_pair: NewPair) -> None:
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    one, other = watcher.delegate(source), watcher.delegate(sink)
    one.relay_to(other)
    sent = fill(watcher, far_source)
    unit = watcher.detach(other)
    assert set(unit.conns) == {one, other}
    unit.describe()
    unit.resume()
    assert pump_both([watcher], far_sink, sent) == STREAM[:sent]


def test_counters_of_held_bytes_come_and_go(stream_pair: NewPair) -> None:
    here, there = bytearray(8 * counters.SIZE), bytearray(8 * counters.SIZE)
    with Watcher(counters=here) as watcher, Watcher(counters=there) as taker:
        source, far_source = stream_pair()
        sink, _far_sink = stream_pair()
        one, other = watcher.delegate(source), watcher.delegate(sink)
        one.relay_to(other)
        fill(watcher, far_source)
        first = other.traffic + counters.BUFFERED
        held = memoryview(here).cast("q")[first]
        assert held > 0
        moved = move(watcher, taker, one)
        assert memoryview(here).cast("q")[first] == 0
        assert memoryview(there).cast("q")[first] == held
        for conn in moved:
            conn.abort()
        assert memoryview(there).cast("q")[first] == 0


def test_relay_to_a_detached_connection_waits(watcher: Watcher, stream_pair: NewPair) -> None:
    source, far_source = stream_pair()
    sink, far_sink = stream_pair()
    one, other = watcher.delegate(source), watcher.delegate(sink)
    unit = watcher.detach(other)
    one.relay_to(other)
    assert unit.is_touched
    far_source.sendall(b"later")
    assert_quiet(watcher)
    assert not select.select([far_sink], [], [], 0)[0]
    unit.resume()
    assert pump_both([watcher], far_sink, 5) == b"later"


def test_relay_to_a_connection_that_was_handed_over_ends(
    watcher: Watcher, taker: Watcher, stream_pair: NewPair
) -> None:
    source, far_source = stream_pair()
    sink, _far_sink = stream_pair()
    one, other = watcher.delegate(source), watcher.delegate(sink)
    unit = watcher.detach(other)
    arrived = taker.attach(*offer(unit))
    one.relay_to(other, context="in vain")
    unit.release()
    arrived.resume()
    result = collect_one(watcher)
    assert (result.operation, result.context) == (OpType.RELAY, "in vain")
    assert isinstance(result.error, ConnClosed)
    far_source.sendall(b"mine")
    one.read()
    assert bytes(collect_one(watcher).buffer) == b"mine"


# -- groups --------------------------------------------------------------------------------------------


def test_time_for_which_a_member_is_detached_is_not_its_own(watcher: Watcher, stream_pair: NewPair) -> None:
    """Nobody sends to it: who closes those that take nothing must not find it."""
    near, _ = stream_pair()
    conn = watcher.delegate(near)
    group = watcher.group(limit=1 << 25, memory_limit=1 << 26)
    group.add(conn)
    group.publish(pattern(16 << 20))
    for _ in range(20):
        watcher.wait_io(0)
    assert conn.pending_write_bytes > 0
    unit = watcher.detach(conn)
    time.sleep(3 * MOMENT_S)
    assert group.disconnect_stalled(2 * MOMENT_S) == 0
    assert not unit.is_touched
    unit.resume()
    assert group.disconnect_stalled(2 * MOMENT_S) == 0
    time.sleep(3 * MOMENT_S)
    assert group.disconnect_stalled(2 * MOMENT_S) == 1


def test_messages_that_wait_are_carried(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    taken = fill_kernel(near, far)
    conn = watcher.delegate(near)
    group, other = watcher.group(limit=64 << 20), taker.group(limit=64 << 20)
    group.add(conn, "a")
    messages = [pattern(100_000, number) for number in range(8)]
    for message in messages[:6]:
        group.publish(message, "a")
        watcher.wait_io(0)
    receive(far, taken // 2)
    watcher.wait_io(0.01)
    watcher.wait_io(0)
    group.publish(messages[6], "a")  # published, and not dealt out
    unit = watcher.detach(conn)
    told, descriptors, blobs = offer(unit)
    assert told[0]["topics"] == ["a"]
    arrived = taker.attach(told, descriptors, blobs)
    [moved] = arrived.conns
    other.add(moved, "a")
    unit.release()
    arrived.resume()
    assert len(group) == 0
    assert group.waiting_bytes == 0
    other.publish(messages[7], "a")
    expected = b"".join(messages)
    rest = taken - taken // 2
    got = pump_both([watcher, taker], far, rest + len(expected))
    assert got[rest:] == expected


def test_messages_of_the_pause_are_forwarded_once(watcher: Watcher, taker: Watcher, stream_pair: NewPair) -> None:
    """Both processes have the feed. What the taker gets by itself is not forwarded; what it does not, is."""
    near, far = stream_pair()
    conn = watcher.delegate(near)
    group, other = watcher.group(), taker.group()
    group.add(conn, "a")

    def publish(to: object, text: bytes, position: int) -> None:
        to.position = position  # type: ignore[attr-defined]
        to.publish(text, "a")  # type: ignore[attr-defined]
        to.position = 0  # type: ignore[attr-defined]

    publish(group, b"1", 1)
    unit = watcher.detach(conn)  # at position 1
    arrived = taker.attach(*offer(unit))
    publish(group, b"2", 2)
    publish(group, b"L", 0)  # of this process only
    watcher.wait_io(0)
    publish(other, b"2", 2)
    [moved] = arrived.conns
    other.add(moved, "a")  # from position 3 on
    publish(other, b"3", 3)
    taker.wait_io(0)
    publish(group, b"3", 3)
    messages = unit.messages_until(conn, 2)
    assert messages == [("a", b"2"), ("a", b"L")]
    arrived.expect(moved, messages)
    unit.release()
    arrived.resume()
    assert pump_both([watcher, taker], far, 4) == b"12L3"
    assert_quiet(taker)
    assert not select.select([far], [], [], 0)[0]
