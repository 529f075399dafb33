"""Groups: who is in them, what they get, and what is refused."""

import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from core.support.groups import Cells, Member, drain, message, settle
from core.support.sockets import NewPair
from core.support.waiting import LIMIT_S, collect_one
from gaiod.core import counters
from gaiod.core.errors import ConnClosed, EmptyBuffer, TooManyOperations, UsageError, WatcherClosed
from gaiod.core.group import Group
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def watcher(cells: Cells) -> Iterator[Watcher]:
    with Watcher(counters=cells.memory, report_closes=True) as watcher:
        yield watcher


@pytest.fixture
def group(watcher: Watcher) -> Group:
    return watcher.group()


@pytest.fixture
def members(watcher: Watcher, stream_pair: NewPair) -> list[Member]:
    return [Member(watcher, stream_pair) for _ in range(3)]


def test_every_member_gets_every_message_in_order(
    watcher: Watcher, group: Group, members: list[Member], cells: Cells
) -> None:
    for member in members:
        group.add(member.conn)
    assert [group.publish(message(number)) for number in range(20)] == [3] * 20
    drain(watcher, group, *members)
    assert all(member.numbers == list(range(20)) for member in members)
    assert [member.conn.bytes_sent for member in members] == [2000] * 3
    assert (cells["published"], cells["deliveries"], cells.dropped) == (20, 60, {})
    assert (group.waiting_bytes, group.held_bytes, group.pending_bytes) == (0, 0, 0)


def test_publishing_does_no_io_before_the_next_pass(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn)
    group.publish(message(0))
    assert (members[0].conn.bytes_sent, group.pending_bytes) == (0, 100)
    settle(watcher, group)
    assert members[0].conn.bytes_sent == 100


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(data)[::1]])
def test_published_buffer_may_be_changed_at_once(
    watcher: Watcher, group: Group, members: list[Member], make: Any
) -> None:
    group.add(members[0].conn)
    own = bytearray(message(7))
    data = make(own)
    group.publish(data)
    own[:] = bytes(len(own))
    drain(watcher, group, members[0])
    assert members[0].numbers == [7]


def test_swap_buffer_may_be_published(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn)
    members[1].conn.read()
    members[1].far.send(message(3))
    group.publish(collect_one(watcher).buffer)
    drain(watcher, group, members[0])
    assert members[0].numbers == [3]


def test_topics_are_apart(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn, "a")
    group.add(members[1].conn, "a")
    group.add(members[1].conn, "b")
    assert (group.publish(message(1), "a"), group.publish(message(2), "b"), group.publish(message(3))) == (2, 1, 0)
    drain(watcher, group, *members)
    assert [sorted(member.numbers) for member in members] == [[1], [1, 2], []]
    assert (group.topics, group.members("a"), group.members("b"), group.members("c")) == (["a", "b"], 2, 1, 0)
    assert len(group) == 2


def test_member_that_joins_twice_gets_each_message_once(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn, "a")
    group.add(members[0].conn, "a")
    assert group.publish(message(1), "a") == 1
    drain(watcher, group, members[0])
    assert members[0].numbers == [1]


def test_what_was_published_before_is_not_for_who_joins(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn)
    group.publish(message(0))
    group.add(members[1].conn)
    group.publish(message(1))
    drain(watcher, group, *members)
    assert (members[0].numbers, members[1].numbers) == ([0, 1], [1])


def test_who_left_gets_no_more(watcher: Watcher, group: Group, members: list[Member], cells: Cells) -> None:
    for topic in ("a", "b"):
        group.add(members[0].conn, topic)
    group.remove(members[0].conn, "a")
    group.remove(members[0].conn, "never joined")
    assert (group.publish(message(1), "a"), group.publish(message(2), "b"), len(group)) == (0, 1, 1)
    settle(watcher, group)
    group.remove(members[0].conn)
    group.remove(members[0].conn)
    assert (group.publish(message(3), "b"), len(group), group.topics, cells["subscribers"]) == (0, 0, [], 0)
    drain(watcher, group, members[0])
    assert members[0].numbers == [2]


def test_closed_member_leaves_by_itself(watcher: Watcher, group: Group, members: list[Member], cells: Cells) -> None:
    for member in members:
        group.add(member.conn)
    assert cells["subscribers"] == 3
    members[0].conn.abort()
    members[1].conn.close()
    assert (len(group), group.publish(message(1)), cells["subscribers"]) == (1, 1, 1)
    drain(watcher, group, *members)
    assert [member.numbers for member in members] == [[], [], [1]]


def test_member_whose_peer_is_gone_is_closed_by_a_message(
    watcher: Watcher, group: Group, members: list[Member], cells: Cells
) -> None:
    """Nobody reads from it: the failing send is the first to tell."""
    conn = members[0].conn
    group.add(conn)
    members[0].far.close()
    until_s = time.monotonic() + LIMIT_S
    while not conn.closed:
        assert time.monotonic() < until_s
        group.publish(message(0))
        closes = watcher.wait_io(0)
    assert [(result.operation, result.conn) for result in closes] == [(OpType.CLOSE, conn)]
    assert (conn.close_reason, len(group), group.waiting_bytes) == ("peer_reset", 0, 0)
    assert cells["published"] == cells["deliveries"] + sum(cells.dropped.values())


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux gives up who takes nothing")
def test_member_that_the_kernel_gives_up_was_not_reset_by_its_peer(
    watcher: Watcher, group: Group, tcp_pair: NewPair
) -> None:
    near, far = tcp_pair()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    conn = watcher.delegate(near)
    group.add(conn)
    until_s = time.monotonic() + LIMIT_S
    while not conn.closed:
        assert time.monotonic() < until_s
        if group.waiting_bytes < 100_000:
            group.publish(bytes(10_000))
        watcher.wait_io(0.01)
    assert conn.close_reason == "user_timeout"
    far.close()


def test_group_keeps_its_members_open(watcher: Watcher, group: Group, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    group.add(watcher.delegate(near))
    gc.collect()
    group.publish(message(1))
    settle(watcher, group)
    assert (far.recv(1000), watcher.get_gc()) == (message(1), (0, 0))


def test_forgotten_group_lets_its_members_go(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    group = watcher.group()
    group.add(watcher.delegate(near))
    known = weakref.ref(group)
    del group
    gc.collect()
    assert known() is None
    assert (watcher.get_gc(), far.recv(1)) == ((1, 1), b"")


def test_connection_is_in_one_group_at_most(watcher: Watcher, group: Group, members: list[Member]) -> None:
    other = watcher.group()
    group.add(members[0].conn)
    with pytest.raises(UsageError, match="in another group"):
        other.add(members[0].conn)
    other.remove(members[0].conn)
    assert len(group) == 1
    group.remove(members[0].conn)
    other.add(members[0].conn)
    assert (len(group), len(other)) == (0, 1)


def test_relays_and_groups_keep_apart(watcher: Watcher, group: Group, members: list[Member]) -> None:
    source, sink, other = (member.conn for member in members)
    source.relay_to(sink)
    with pytest.raises(UsageError, match="sink of a relay"):
        group.add(sink)
    group.add(other)
    with pytest.raises(UsageError, match="in a group"):
        source.cancel()
        source.relay_to(other)


def test_connection_that_is_closed_cannot_join(group: Group, members: list[Member]) -> None:
    members[0].conn.abort()
    members[1].conn.close()
    for member in members[:2]:
        with pytest.raises(ConnClosed):
            group.add(member.conn)
    assert len(group) == 0


def test_messages_that_cannot_be_are_refused(watcher: Watcher, members: list[Member]) -> None:
    group = watcher.group(limit=100, memory_limit=250)
    group.add(members[0].conn)
    with pytest.raises(EmptyBuffer):
        group.publish(b"")
    with pytest.raises(TypeError):
        group.publish("text")  # type: ignore[arg-type,unused-ignore]
    with pytest.raises(ValueError, match="101 bytes is longer than the queues, of 100"):
        group.publish(bytes(101))
    group.publish(message(1))
    group.publish(message(2))
    with pytest.raises(TooManyOperations, match="200 bytes are published and not dealt out"):
        group.publish(message(3))
    drain(watcher, group, members[0])
    assert members[0].numbers == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"policy": "drop"}, "disconnect, drop_oldest, drop_newest, latest_only"),
        ({"limit": 63}, "64 bytes or more"),
        ({"limit": 1000, "memory_limit": 999}, "must not be below limit=1000"),
        ({"cells": counters.GROUP + 1}, "cells="),
        ({"cells": -1}, "cells="),
    ],
)
def test_limits_that_cannot_be_are_refused(watcher: Watcher, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        watcher.group(**arguments)


def test_other_threads_are_refused(watcher: Watcher, group: Group, members: list[Member]) -> None:
    refused = []
    for action in (
        lambda: group.publish(b"message"),
        lambda: group.add(members[0].conn),
        lambda: group.remove(members[0].conn),
        lambda: group.disconnect_stalled(1.0),
    ):

        def attempt(action: Any = action) -> None:
            with pytest.raises(UsageError, match="post"):
                action()
            refused.append(action)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    assert len(refused) == 4


def test_closed_watcher_publishes_nothing(watcher: Watcher, group: Group, members: list[Member]) -> None:
    group.add(members[0].conn)
    watcher.close()
    assert len(group) == 0
    with pytest.raises(WatcherClosed):
        group.publish(b"message")


def test_watcher_that_closes_drops_what_waits(
    watcher: Watcher, group: Group, members: list[Member], cells: Cells
) -> None:
    for member in members:
        group.add(member.conn)
    group.publish(message(1, 1 << 20))
    settle(watcher, group)
    assert group.held_bytes > 0
    watcher.close()
    assert (group.waiting_bytes, group.held_bytes, len(group)) == (0, 0, 0)
    assert (cells["queued_bytes"], cells["held_bytes"], cells.dropped) == (0, 0, {"closed": 3})


def test_topic_that_nobody_has_is_forgotten(watcher: Watcher, group: Group, members: list[Member]) -> None:
    for number in range(1000):
        group.add(members[0].conn, str(number))
        group.publish(message(number), str(number))
        group.remove(members[0].conn)
    settle(watcher, group)
    assert group.topics == []
    group.add(members[0].conn, "7")
    assert (group.publish(message(0), "7"), group.topics) == (1, ["7"])


def test_topic_with_many_holes_is_laid_out_anew(watcher: Watcher, group: Group, unix_pair: NewPair) -> None:
    """Members that come and go for ever: those who stay get everything, and who comes gets nothing from before."""
    stayed = Member(watcher, unix_pair)
    group.add(stayed.conn)
    sent = 0
    for _ in range(5):
        passing = [Member(watcher, unix_pair) for _ in range(100)]
        for member in passing:
            group.add(member.conn)
        group.publish(message(sent))
        for member in passing[:-1]:
            group.remove(member.conn)
        last = Member(watcher, unix_pair)
        group.add(last.conn)
        group.publish(message(sent + 1))
        settle(watcher, group)
        passing[-1].conn.abort()
        group.publish(message(sent + 2))
        drain(watcher, group, stayed, last, *passing)
        assert last.numbers == [sent + 1, sent + 2]
        assert passing[-1].numbers == [sent, sent + 1]
        assert all(member.numbers == [sent] for member in passing[:-1])
        group.remove(last.conn)
        sent += 3
    assert stayed.numbers == list(range(sent))


def topics_in_memory() -> int:
    return sum(type(each).__name__ == "Topic" for each in gc.get_objects())


def test_topics_that_nobody_has_any_more_do_not_wait_for_the_garbage_collector(
    watcher: Watcher, group: Group, members: list[Member]
) -> None:
    """It comes seldom to a worker, and clients can make up topics as fast as they connect."""
    gc.collect()
    gc.disable()
    try:
        before = topics_in_memory()
        for number in range(50):
            group.add(members[0].conn, str(number))
        assert topics_in_memory() == before + 50
        group.publish(message(0), "0")
        settle(watcher, group)
        members[0].conn.close()
        assert collect_one(watcher).operation is OpType.CLOSE
        assert topics_in_memory() == before
    finally:
        gc.enable()
