"""Cancelling: what is pending ends with ECANCELED, of the kind that was named, and no more."""

import errno

import pytest

from core.support.sockets import NewPair, fill, pump, receive
from core.support.waiting import assert_quiet, collect, collect_one, contexts, later, soon
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


def is_cancelled(result: OpResult) -> bool:
    return isinstance(result.error, OSError) and result.error.errno == errno.ECANCELED


def test_cancel_ends_both_directions_in_order(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    for number in range(3):
        conn.read(context=f"read {number}")
        conn.write(b"a", context=f"write {number}")
    conn.cancel()
    done = collect(watcher, 6)
    assert all(map(is_cancelled, done))
    for kind in ("read", "write"):
        of_kind = [str(context) for context in contexts(done) if str(context).startswith(kind)]
        assert of_kind == [f"{kind} {number}" for number in range(3)]


@pytest.mark.parametrize(("kind", "left"), [(OpType.READ, OpType.WRITE), (OpType.WRITE, OpType.READ)])
def test_cancel_of_one_kind_leaves_the_other(
    watcher: Watcher, stream_pair: NewPair, kind: OpType, left: OpType
) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read()
    conn.write(b"a")
    conn.cancel(kind)
    result = collect_one(watcher)
    assert result.operation is kind
    assert is_cancelled(result)
    conn.abort()
    assert collect_one(watcher).operation is left


def test_cancel_with_nothing_pending_is_a_no_op(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.cancel()
    conn.cancel(OpType.READ)
    conn.abort()
    conn.cancel()
    assert_quiet(watcher, 0)


def test_cancel_leaves_the_connection_usable(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(bytearray(5))
    conn.cancel()
    assert is_cancelled(collect_one(watcher))
    far.sendall(b"hello")
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"hello"
    conn.write(b"hello")
    assert collect_one(watcher).error is None
    assert receive(far, 5) == b"hello"


def test_cancel_takes_back_no_byte_that_is_sent(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(20_000_000))
    assert_quiet(watcher, 0)
    conn.cancel(OpType.WRITE)
    result = collect_one(watcher)
    assert is_cancelled(result)
    conn.write(b"end")
    received, _ = pump(watcher, far, result.size + 3)
    assert received[-4:] == b"\0end"


def test_cancel_before_the_first_pass_sends_nothing(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.write(b"never")
    conn.cancel()
    result = collect_one(watcher)
    assert is_cancelled(result)
    assert result.size == 0
    conn.write(b"sent")
    collect_one(watcher)
    assert far.recv(10) == b"sent"


def test_operations_submitted_after_a_cancel_are_not_cancelled(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    conn.read(context="old")
    conn.cancel()
    conn.read(context="new")
    assert contexts(collect(watcher, 1)) == ["old"]
    far.sendall(b"a")
    assert contexts(collect(watcher, 1)) == ["new"]


def test_cancelled_operation_does_not_expire_too(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.read(deadline=soon())
    conn.cancel()
    assert is_cancelled(collect_one(watcher))
    conn.read(deadline=later())
    assert_quiet(watcher, 0.06)


def test_deadline_after_a_cancel_still_expires(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.read(deadline=later())
    conn.cancel()
    assert is_cancelled(collect_one(watcher))
    conn.read(deadline=soon())
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)


def test_cancel_during_a_close_that_waits_keeps_the_close(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"first", context="first")
    conn.close()
    assert_quiet(watcher, 0)
    conn.cancel(OpType.READ)
    received, done = pump(watcher, far, filled + 6)
    assert received[filled:] == b"first"
    assert contexts(done) == ["first"]
    assert conn.closed
