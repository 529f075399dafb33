"""Operations: what a completion tells, and the ones that handlers' tests make by hand."""

import weakref

import pytest

from core.support.sockets import NewPair
from core.support.waiting import collect, collect_one, contexts, soon
from gaiod.core.operations import (
    ACCEPT,
    CLOSED,
    CONNECT,
    HANDSHAKE,
    HANGUP,
    POST,
    READ,
    RELAY,
    TIMER,
    WRITE,
    OpType,
)
from gaiod.core.results import OpResult  # fmt: skip
from gaiod.core.watcher import Watcher


def test_plain_kinds_are_the_values_of_the_enum() -> None:
    kinds = [READ, WRITE, ACCEPT, CONNECT, RELAY, HANDSHAKE, TIMER, POST, CLOSED, HANGUP]
    assert kinds == list(OpType)


@pytest.mark.parametrize("kind", list(OpType))
def test_operation_made_by_hand_has_what_it_was_given(kind: OpType) -> None:
    error = EOFError("over")
    result = OpResult(kind, None, buffer=b"hello", size=3, error=error, context="context", is_swap_buffer=True)
    assert result.operation is kind
    assert (result.conn, result.buffer, result.size, result.error) == (None, b"hello", 3, error)
    assert (result.context, result.is_swap_buffer) == ("context", True)


def test_operation_made_by_hand_counts_its_buffer_where_no_size_is_given() -> None:
    assert OpResult(OpType.READ, buffer=b"hello").size == 5
    assert OpResult(OpType.TIMER).size == 0
    assert OpResult(OpType.TIMER).error is None


def test_repr_tells_kind_size_outcome_and_connection(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    conn.write(b"hello")
    result = collect_one(watcher)
    assert repr(result) == f"<OpResult WRITE 5 bytes, ok, {conn!r}>"
    conn.read(deadline=soon())
    assert "READ 0 bytes, DeadlineExceeded(" in repr(collect_one(watcher))


def test_repr_of_a_pending_timer_says_so(watcher: Watcher) -> None:
    assert "TIMER 0 bytes, pending" in repr(watcher.timer(soon()))


def test_read_that_failed_has_no_buffer(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    far.close()
    watcher.delegate(near).read()
    assert collect_one(watcher).buffer is None


def test_operation_has_its_own_context_before_its_connections(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0], context="old")
    conn.write(b"a")
    conn.context = "new"
    conn.write(b"a", context="own")
    conn.write(b"a")
    assert contexts(collect(watcher, 3)) == ["old", "own", "new"]


def test_contexts_are_passed_through_untouched(watcher: Watcher) -> None:
    for context in (None, 0, "", [], object()):
        watcher.post(context)
        assert collect_one(watcher).context is context


def test_completions_do_not_keep_each_other_alive(watcher: Watcher, unix_pair: NewPair) -> None:
    """Operations of a queue are linked; a completion must not hold on to those behind it."""

    class Canary:
        pass

    near, far = unix_pair()
    conn = watcher.delegate(near)
    canary = Canary()
    conn.read(bytearray(1), context="first")
    conn.read(bytearray(1), context=canary)
    dead = weakref.ref(canary)
    far.sendall(b"ab")
    done = [collect_one(watcher), collect_one(watcher)]
    del canary
    done.pop()
    assert dead() is None
    assert done[0].context == "first"
