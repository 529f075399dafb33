"""The queues: first in, first out in each direction, and nothing left behind when some are taken out."""

from core.support.sockets import NewPair, fill
from core.support.waiting import collect, collect_one, collect_until, contexts, later, soon
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


def test_reads_complete_in_their_order_whatever_their_kind(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(bytearray(1), context=1)
    conn.read_full(bytearray(4), context=2)
    conn.read(bytearray(100), context=3)
    far.sendall(b"abcdefgh")
    done = collect(watcher, 3)
    assert contexts(done) == [1, 2, 3]
    assert [bytes(result.buffer[: result.size]) for result in done] == [b"a", b"bcde", b"fgh"]


def test_operation_that_expires_in_the_middle_leaves_its_neighbours(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    conn.read(bytearray(1), context="first")
    conn.read(bytearray(1), context="middle", deadline=soon())
    conn.read(bytearray(1), context="last")
    expired = collect_one(watcher)
    assert (expired.context, type(expired.error)) == ("middle", DeadlineExceeded)
    far.sendall(b"ab")
    assert [(result.context, bytes(result.buffer)) for result in collect(watcher, 2)] == [
        ("first", b"a"),
        ("last", b"b"),
    ]


def test_queue_that_was_emptied_takes_new_operations(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    for _ in range(3):
        conn.read(bytearray(1))
    conn.cancel(OpType.READ)
    assert len(collect(watcher, 3)) == 3
    conn.read(bytearray(1), context="new")
    far.sendall(b"x")
    assert collect_one(watcher).context == "new"


def test_fin_is_sent_behind_the_writes_before_it(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(b"a")
    conn.shutdown_write()
    conn.write(b"b", context="too late")
    done = collect(watcher, 2)
    assert isinstance(done[1].error, BrokenPipeError)
    assert far.recv(10) == b"a"
    assert far.recv(10) == b""


def test_pending_bytes_are_those_the_kernel_has_not_taken(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"12345", deadline=later())
    conn.write(b"678", deadline=soon())
    assert conn.pending_write_bytes == 8
    collect_one(watcher)
    assert conn.pending_write_bytes == 5
    conn.abort()
    assert conn.pending_write_bytes == 0
    assert isinstance(collect_one(watcher).error, ConnClosed)


def test_connection_with_an_operation_stays_though_nobody_references_it(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    watcher.delegate(near).read(bytearray(5), context="kept")
    assert watcher.get_gc() == (0, 0)
    far.sendall(b"hello")
    assert contexts(collect_until(watcher, lambda done: len(done) > 0)) == ["kept"]
