"""Connections: their counts and names, and the ways they end."""

import gc
import math
import os
import time
import weakref
from typing import Any

import pytest

from core.support.sockets import NewPair, fill, listen, pattern, pump, receive
from core.support.waiting import (
    MOMENT_S,
    assert_quiet,
    collect,
    collect_one,
    contexts,
    later,
    pass_time_until,
    soon,
    spin,
)
from gaiod.core import counters
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


def test_repr_tells_serial_and_descriptor_or_that_it_is_closed(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    assert repr(conn) == f"<Conn {conn.serial} fd {conn.fileno()}>"
    conn.abort()
    assert repr(conn) == f"<Conn {conn.serial} closed>"


def test_data_is_the_owners(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    assert conn.data is None
    conn.data = marker = object()
    conn.write(b"a")
    result = collect_one(watcher)
    assert result.conn is not None
    assert result.conn.data is marker


def test_connection_can_be_weakly_referenced_and_hashed(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    reference = weakref.ref(conn)
    assert {conn: "found"}[conn] == "found"
    assert reference() is conn
    del conn
    gc.collect()
    assert reference() is None


def test_pending_write_bytes_are_what_the_kernel_has_not_taken(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    conn.write(bytes(1000))
    conn.write(bytes(500))
    assert conn.pending_write_bytes == 1500
    assert_quiet(watcher, 0)
    assert conn.pending_write_bytes == 1500
    pump(watcher, far, filled + 1500)
    assert conn.pending_write_bytes == 0


def test_pending_write_bytes_shrink_with_a_partial_write(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.write(bytes(20_000_000))
    assert_quiet(watcher, 0)
    assert conn.pending_write_bytes == 20_000_000 - conn.bytes_sent < 20_000_000


def test_bytes_and_times_tell_what_moved(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    begin_s = time.monotonic()
    conn = watcher.delegate(near)
    assert begin_s <= conn.opened_s <= time.monotonic()
    conn.write(b"hello")
    far.sendall(b"hi")
    conn.read()
    collect(watcher, 2)
    assert (conn.bytes_sent, conn.bytes_received) == (5, 2)
    assert conn.opened_s <= conn.active_s <= time.monotonic()


def test_connection_that_receives_is_not_idle_from_then_on(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn, idle = watcher.delegate(near), watcher.delegate(unix_pair()[0])
    moment_s = time.monotonic()
    pass_time_until(moment_s + MOMENT_S / 10)
    far.sendall(b"a")
    conn.read(bytearray(1))
    collect_one(watcher)
    assert conn.active_s > moment_s
    assert watcher.connections(idle_since_s=moment_s) == [idle]


def test_traffic_names_the_counters_that_its_bytes_are_added_to(unix_pair: NewPair) -> None:
    cells = memoryview(bytearray(8 * (counters.SIZE + 2))).cast("q")
    with Watcher(counters=cells) as watcher:
        near, far = unix_pair()
        conn = watcher.delegate(near)
        conn.traffic = counters.SIZE
        conn.write(b"hello")
        far.sendall(b"hi")
        conn.read()
        collect(watcher, 2)
        assert list(cells[counters.SIZE :]) == [2, 5]
        assert cells[counters.index("unassigned_received_bytes")] == 0


def test_end_of_the_stream_is_remembered(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"last words")
    far.close()
    conn.read()
    collect_one(watcher)
    assert not conn.at_eof, "nobody has read so far yet"
    conn.read()
    assert isinstance(collect_one(watcher).error, EOFError)
    assert conn.at_eof


def test_connections_are_selected_by_context_and_by_idle_time(watcher: Watcher, unix_pair: NewPair) -> None:
    ours, theirs = object(), object()
    one = watcher.delegate(unix_pair()[0], context=ours)
    two = watcher.delegate(unix_pair()[0], context=theirs)
    listener = watcher.accept(listen(), context=ours)
    assert set(watcher.connections()) == {one, two}
    assert watcher.connections(context=ours) == [one]
    assert watcher.connections(idle_since_s=0.0) == []
    assert set(watcher.connections(idle_since_s=math.inf)) == {one, two}
    two.abort()
    assert watcher.connections() == [one]
    assert not listener.closed


def test_busy_connection_is_not_idle_and_its_idle_time_begins_when_it_is_no_more(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    conn = watcher.delegate(unix_pair()[0])
    assert not conn.busy
    conn.busy = True
    assert conn.busy
    moment_s = time.monotonic()
    assert watcher.connections(idle_since_s=moment_s) == []
    assert watcher.connections() == [conn]
    conn.busy = False
    assert watcher.connections(idle_since_s=moment_s) == []
    assert watcher.connections(idle_since_s=time.monotonic()) == [conn]


def test_connection_that_is_being_made_is_not_idle_and_its_idle_time_begins_when_it_is_made(watcher: Watcher) -> None:
    with listen(backlog=0) as listener:
        conn = watcher.connect(listener.getsockname())
        moment_s = time.monotonic()
        assert watcher.connections(idle_since_s=moment_s) == []
        assert collect_one(watcher).error is None
        assert conn.active_s >= moment_s
        assert watcher.connections(idle_since_s=time.monotonic()) == [conn]


# -- close() and abort() ----------------------------------------------------------------------------


def test_close_sends_what_is_queued_and_then_a_fin(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    data = pattern(3_000_000)
    conn = watcher.delegate(near)
    conn.write(data[:2_000_000], context=1)
    conn.write(data[2_000_000:], context=2)
    conn.close()
    assert not conn.closed
    received, done = pump(watcher, far, len(data) + 1)
    assert received == data
    assert conn.closed
    assert (contexts(done), [result.error for result in done]) == ([1, 2], [None, None])


def test_close_without_queued_writes_closes_in_the_next_pass(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.close()
    assert_quiet(watcher, 0)
    assert conn.closed
    assert far.recv(1) == b""


def test_close_completes_pending_reads_with_conn_closed(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read(context="read")
    conn.write(b"a", context="write", deadline=later())
    conn.close()
    result = collect_one(watcher)
    assert (result.context, type(result.error)) == ("read", ConnClosed)
    assert_quiet(watcher)
    assert not conn.closed


@pytest.mark.parametrize("way", ["read", "read_full", "write"])
def test_closing_connection_refuses_new_operations(watcher: Watcher, stream_pair: NewPair, way: str) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"a")
    conn.close()
    arguments: tuple[Any, ...] = () if way == "read" else (bytearray(1),)
    with pytest.raises(ConnClosed):
        getattr(conn, way)(*arguments)
    assert_quiet(watcher, 0)


def test_close_survives_the_last_reference(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    data = pattern(2_000_000)
    conn = watcher.delegate(near)
    conn.write(data)
    conn.close()
    del conn
    gc.collect()
    assert pump(watcher, far, len(data) + 1)[0] == data
    assert watcher.get_gc() == (0, 0)


def test_close_twice_is_close_once(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(b"hello")
    conn.close()
    conn.close()
    assert collect_one(watcher).error is None
    assert receive(far, 10) == b"hello"
    assert conn.closed
    assert_quiet(watcher, 0)


def test_close_closes_when_its_last_write_expires(watcher: Watcher, stream_pair: NewPair) -> None:
    """Nothing is queued any more: there is nothing to wait for, whether or not the peer reads."""
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"a", deadline=soon())
    conn.close()
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    spin(watcher, lambda: conn.closed)


def test_close_closes_when_its_last_write_is_cancelled(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"a")
    assert_quiet(watcher, 0)
    conn.close()
    conn.cancel()
    assert isinstance(collect_one(watcher).error, OSError)
    spin(watcher, lambda: conn.closed)


def test_close_closes_though_the_kernel_is_full_of_earlier_bytes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(20_000_000), deadline=soon())
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    conn.close()
    spin(watcher, lambda: conn.closed)
    assert receive(far, conn.bytes_sent + 1) == bytes(conn.bytes_sent)


def test_shutdown_write_needs_no_room_in_the_kernel(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(20_000_000), deadline=soon())
    result = collect_one(watcher)
    conn.shutdown_write()
    assert_quiet(watcher, 0)
    assert len(receive(far, result.size + 1)) == result.size, "the FIN follows though the loop does not run again"


def test_abort_drops_what_is_queued(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"never sent")
    conn.abort()
    assert conn.closed
    assert isinstance(collect_one(watcher).error, ConnClosed)
    assert receive(far, filled + 1) == bytes(filled)


def test_abort_ends_a_close_that_waits(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"never sent")
    conn.close()
    conn.abort()
    assert conn.closed
    assert isinstance(collect_one(watcher).error, ConnClosed)
    assert_quiet(watcher, 0)


def test_close_that_waits_ends_when_the_peer_is_gone(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"never sent")
    conn.close()
    far.close()
    assert isinstance(collect_one(watcher).error, OSError)
    spin(watcher, lambda: conn.closed)


def test_shutdown_write_sends_a_fin_after_the_queued_writes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    data = pattern(2_000_000)
    conn = watcher.delegate(near)
    conn.write(data)
    conn.shutdown_write()
    conn.write(b"after it")
    received, done = pump(watcher, far, len(data) + 1)
    assert received == data
    while len(done) < 2:
        done += watcher.wait_io(1)
    assert [type(result.error) for result in done] == [type(None), BrokenPipeError]
    far.setblocking(True)
    far.sendall(b"still heard")
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"still heard"


def test_closes_are_reported_where_asked_for_once_each_and_not_for_listeners(stream_pair: NewPair) -> None:
    with Watcher(report_closes=True) as watcher:
        conns = [watcher.delegate(stream_pair()[0], context=number) for number in range(3)]
        listener = watcher.accept(listen(), context="listener")
        conns[0].abort()
        conns[1].close()
        watcher.free(listener)
        done = collect(watcher, 3)
        closes = [result for result in done if result.operation is OpType.CLOSE]
        assert sorted(str(result.context) for result in closes) == ["0", "1"]
        watcher.close()
        (last,) = watcher.wait_io(0)
        assert (last.operation, last.conn) == (OpType.CLOSE, conns[2])


def test_descriptor_is_minus_one_once_closed(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    assert os.get_blocking(conn.fileno()) is False
    conn.abort()
    assert conn.fileno() == -1


def test_stall_is_the_time_for_which_the_peer_did_not_take_what_was_written(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    assert conn.stalled_s(time.monotonic()) == 0
    conn.write(bytes(64 << 20))
    spin(watcher, lambda: conn.stalled_s(time.monotonic()) > MOMENT_S)
    watcher.wait_io(0)
    now_s = time.monotonic()
    assert conn.stalled_s(now_s + 5) - conn.stalled_s(now_s) == pytest.approx(5)
    conn.abort()
    del far


def test_stall_is_kept_when_the_peer_takes_again(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    size = 8 << 20
    conn.write(bytes(size))
    spin(watcher, lambda: conn.stalled_s(time.monotonic()) > MOMENT_S)
    far.setblocking(False)
    received = 0
    while received < size:
        try:
            received += len(far.recv(1 << 20))
        except BlockingIOError:
            watcher.wait_io(0.001)
    spin(watcher, lambda: conn.pending_write_bytes == 0)
    now_s = time.monotonic()
    assert conn.stalled_s(now_s) == conn.stalled_s(now_s + 5) > MOMENT_S
