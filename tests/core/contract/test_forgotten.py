"""Point 8: what nobody references any more is closed, and counted apart from what was freed."""

import gc
import threading
from typing import Any

import pytest

from core.support.descriptors import open_descriptors
from core.support.sockets import NewPair, fill, listen
from core.support.waiting import MOMENT_S, assert_quiet, collect, collect_one, later, soon
from gaiod.core import counters
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


def test_two_hundred_dropped_connections_are_found_and_closed(watcher: Watcher, stream_pair: NewPair) -> None:
    before = len(open_descriptors())
    peers = []
    for _ in range(200):
        near, far = stream_pair()
        peers.append(far)
        watcher.delegate(near)
    assert watcher.get_gc() == (200, 200)
    assert len(open_descriptors()) == before + 200
    assert all(far.recv(1) == b"" for far in peers)
    assert_quiet(watcher, 0)


def test_dropped_connection_is_closed_after_it_moved_bytes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(b"hello")
    far.sendall(b"hello")
    conn.read()
    done = collect(watcher, 2)
    del conn, done
    assert watcher.get_gc() == (1, 1)
    assert far.recv(10) == b"hello"
    assert far.recv(10) == b""


def test_dropped_connection_in_a_cycle_is_closed_by_the_collector(watcher: Watcher, stream_pair: NewPair) -> None:
    class Session:
        def __init__(self, conn: Any) -> None:
            self.conn = conn
            self.conn.data = self

    gc.collect()
    for _ in range(10):
        Session(watcher.delegate(stream_pair()[0]))
    gc.collect()
    assert watcher.get_gc() == (10, 10)


def test_freed_connections_are_not_counted_as_forgotten(watcher: Watcher, stream_pair: NewPair) -> None:
    for end in (watcher.free, lambda conn: conn.abort(), lambda conn: conn.close()):
        for _ in range(10):
            end(watcher.delegate(stream_pair()[0]))
    watcher.wait_io(0)
    gc.collect()
    assert watcher.get_gc() == (0, 0)


def test_forgotten_and_freed_are_counted_apart(stream_pair: NewPair) -> None:
    cells = memoryview(bytearray(8 * counters.SIZE)).cast("q")
    with Watcher(counters=cells) as watcher:
        for number in range(9):
            conn = watcher.delegate(stream_pair()[0])
            if number < 4:
                conn.abort()
        del conn
        names = ("conn_gc_found", "conn_gc_closed", "conn_freed")
        assert [cells[counters.index(name)] for name in names] == [5, 5, 4]


@pytest.mark.parametrize("kind", ["read", "write"])
def test_connection_with_a_pending_operation_is_not_collected(
    watcher: Watcher, stream_pair: NewPair, kind: str
) -> None:
    near, far = stream_pair()
    if kind == "write":
        fill(near, far)
        watcher.delegate(near).write(b"a", deadline=soon())
    else:
        watcher.delegate(near).read(deadline=soon())
    gc.collect()
    assert watcher.get_gc() == (0, 0)
    result = collect_one(watcher)
    assert isinstance(result.error, DeadlineExceeded)
    assert result.conn is not None
    assert not result.conn.closed
    del result
    assert watcher.get_gc() == (1, 1)


def test_connection_with_a_read_pending_is_closed_when_its_last_completion_is_dropped(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    watcher.delegate(near).read()
    far.sendall(b"a")
    collect_one(watcher)
    assert watcher.get_gc() == (1, 1)
    assert far.recv(1) == b""


def test_connection_is_kept_by_the_socket_that_it_was_made_from_on_first_use(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    watcher.write(near, b"a")
    collect_one(watcher)
    gc.collect()
    assert watcher.get_gc() == (0, 0)
    watcher.write(near, b"b")
    collect_one(watcher)
    assert far.recv(1) == b"a"
    assert far.recv(1) == b"b"


def test_listener_that_accepts_is_not_collected(watcher: Watcher) -> None:
    watcher.accept(listen())
    gc.collect()
    assert_quiet(watcher)
    assert watcher.get_gc() == (0, 0)


def test_dropped_connection_tells_its_reason_where_closes_are_reported(stream_pair: NewPair) -> None:
    with Watcher(report_closes=True) as watcher:
        watcher.delegate(stream_pair()[0], context="forgotten one")
        result = collect_one(watcher)
        assert (result.operation, result.context) == (OpType.CLOSE, "forgotten one")
        assert result.conn is not None
        assert result.conn.close_reason == "forgotten"


def test_connection_dropped_in_another_thread_is_reported_to_a_loop_that_sleeps(unix_pair: NewPair) -> None:
    with Watcher(report_closes=True) as watcher:
        dropped = [watcher.delegate(unix_pair()[0], context="forgotten one")]
        dropper = threading.Timer(MOMENT_S, dropped.clear)
        dropper.start()
        assert collect_one(watcher).context == "forgotten one"
        dropper.join()


def test_connections_dropped_in_another_thread_are_closed(watcher: Watcher, stream_pair: NewPair) -> None:
    pairs = [stream_pair() for _ in range(100)]
    conns = [watcher.delegate(near) for near, _ in pairs]
    dropper = threading.Thread(target=conns.clear)
    dropper.start()
    dropper.join()
    assert watcher.get_gc() == (100, 100)
    assert all(far.recv(1) == b"" for _, far in pairs)


def make_work(watcher: Watcher, new_pair: NewPair) -> None:
    near, far = new_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read(deadline=later())
    conn.write(b"a")
    watcher.accept(listen())
    watcher.timer(later())
    watcher.post("message")
    with listen() as listener:
        watcher.connect(listener.getsockname())


@pytest.mark.parametrize("has_run", [False, True], ids=["at_once", "after_a_pass"])
def test_watcher_that_nobody_references_closes_everything(stream_pair: NewPair, has_run: bool) -> None:
    before = len(open_descriptors())
    watcher = Watcher()
    make_work(watcher, stream_pair)
    if has_run:
        watcher.wait_io(0)
    del watcher
    gc.collect()
    assert len(open_descriptors()) == before + 1  # the peer; the socket itself was the watcher's


def test_watcher_without_connections_closes_with_its_last_reference() -> None:
    before = open_descriptors()
    watcher = Watcher()
    watcher.timer(later())
    watcher.wait_io(0)
    del watcher
    assert open_descriptors() == before


def test_watcher_stays_while_one_of_its_connections_is_referenced(stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = Watcher().delegate(near)
    gc.collect()
    assert not conn.closed
    conn.abort()
    assert far.recv(1) == b""


def test_watcher_that_was_never_made_leaves_nothing() -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match="cells"):
        Watcher(counters=bytearray(8))
    gc.collect()
    assert open_descriptors() == before
