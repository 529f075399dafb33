"""Endings of members of a group: what waits is sent before a FIN or a close, and nothing after an abort."""

import socket
from collections.abc import Callable, Iterator

import pytest

from core.support.groups import BIG, Cells, Member, drain, message, settle, split
from core.support.sockets import NewPair
from core.support.waiting import LIMIT_S, collect_one
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed
from gaiod.core.group import Group
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def watcher(cells: Cells) -> Iterator[Watcher]:
    with Watcher(counters=cells.memory) as watcher:
        yield watcher


@pytest.fixture
def group(watcher: Watcher) -> Group:
    return watcher.group(limit=2 * BIG)


@pytest.fixture
def member(watcher: Watcher, group: Group, stream_pair: NewPair) -> Member:
    """It is in the middle of message 0, and message 1 waits."""
    member = Member(watcher, stream_pair)
    group.add(member.conn)
    group.publish(message(0, BIG))
    group.publish(message(1))
    settle(watcher, group)
    assert 0 < member.conn.bytes_sent < BIG
    return member


def test_what_was_published_before_a_close_is_sent(
    watcher: Watcher, group: Group, stream_pair: NewPair, cells: Cells
) -> None:
    """Though no pass has dealt it out yet: as a write before a close is."""
    member, other = Member(watcher, stream_pair), Member(watcher, stream_pair)
    for each in (member, other):
        group.add(each.conn)
    group.publish(message(0))
    group.publish(message(1))
    member.conn.close()
    group.publish(message(2))
    drain(watcher, group, member, other)
    assert (member.numbers, other.numbers, cells["deliveries"]) == ([0, 1], [0, 1, 2], 5)


def test_what_was_published_before_an_abort_is_counted_as_dropped(
    watcher: Watcher, group: Group, stream_pair: NewPair, cells: Cells
) -> None:
    member = Member(watcher, stream_pair)
    group.add(member.conn)
    group.publish(message(0))
    member.conn.abort()
    settle(watcher, group)
    assert (cells["deliveries"], cells.dropped, group.waiting_bytes) == (0, {"closed": 1}, 0)


@pytest.mark.parametrize("end", [Conn.close, Conn.shutdown_write])
def test_what_waits_is_sent_before_the_end(
    watcher: Watcher, group: Group, member: Member, cells: Cells, end: Callable[[Conn], None]
) -> None:
    end(member.conn)
    assert (len(group), group.publish(message(2))) == (0, 0)
    drain(watcher, group, member)
    assert (member.numbers, member.at_end, cells.dropped) == ([0, 1], True, {})
    assert member.conn.closed == (end is Conn.close)
    assert (group.waiting_bytes, group.held_bytes) == (0, 0)


def test_write_goes_between_two_messages(watcher: Watcher, group: Group, member: Member) -> None:
    """After the one that was begun, before the others."""
    member.conn.write(message(7, BIG))
    member.conn.write(message(8))
    drain(watcher, group, member)
    assert member.numbers == [0, 7, 8, 1]
    assert (member.conn.pending_write_bytes, group.waiting_bytes) == (0, 0)


def test_close_sends_writes_and_messages_first(watcher: Watcher, group: Group, member: Member) -> None:
    member.conn.write(message(7, BIG))
    member.conn.close()
    drain(watcher, group, member)
    assert (member.numbers, member.at_end, member.conn.closed) == ([0, 7, 1], True, True)


def test_message_waits_for_a_write_that_was_begun(watcher: Watcher, group: Group, stream_pair: NewPair) -> None:
    member = Member(watcher, stream_pair)
    group.add(member.conn)
    member.conn.write(message(0, BIG))
    watcher.wait_io(0)
    group.publish(message(1))
    settle(watcher, group)
    assert group.waiting_bytes == 100
    drain(watcher, group, member)
    assert member.numbers == [0, 1]


def test_cancelled_write_lets_messages_go(watcher: Watcher, group: Group, member: Member) -> None:
    member.conn.write(message(7))
    member.conn.cancel(OpType.WRITE)
    drain(watcher, group, member)
    assert member.numbers == [0, 1]


@pytest.mark.parametrize("end", [Conn.abort, Conn.reset])
def test_abort_drops_what_waits(
    watcher: Watcher, group: Group, member: Member, cells: Cells, end: Callable[[Conn], None]
) -> None:
    end(member.conn)
    assert (member.conn.pending_write_bytes, group.waiting_bytes, group.held_bytes) == (0, 0, 0)
    assert cells.dropped == {"closed": 2}
    drain(watcher, group, member)
    assert member.numbers == []


def test_reset_of_the_peer_ends_a_member(watcher: Watcher, group: Group, tcp_pair: NewPair, cells: Cells) -> None:
    member = Member(watcher, tcp_pair)
    group.add(member.conn)
    member.conn.read()
    group.publish(message(0, BIG))
    settle(watcher, group)
    member.far.close()  # with bytes unread: that is a RST
    result = collect_one(watcher)
    assert isinstance(result.error, OSError)
    group.publish(message(1))
    settle(watcher, group)
    assert (member.conn.closed, len(group), cells.dropped) == (True, 0, {"closed": 1}) or cells.dropped == {"closed": 2}


def test_member_leaves_with_messages_waiting_and_gets_them(watcher: Watcher, group: Group, member: Member) -> None:
    group.remove(member.conn)
    assert len(group) == 0
    drain(watcher, group, member)
    assert member.numbers == [0, 1]
    other = watcher.group()
    other.add(member.conn)
    assert other.publish(message(2)) == 1
    drain(watcher, other, member)
    assert member.numbers == [0, 1, 2]


def test_messages_wait_for_a_connect(watcher: Watcher, group: Group) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        conn = watcher.connect(server.getsockname())
        group.add(conn)
        group.publish(message(1))
        assert collect_one(watcher).error is None
        settle(watcher, group)
        watcher.wait_io(0)
        with server.accept()[0] as far:
            far.settimeout(LIMIT_S)
            assert split(far.recv(1000)) == ([1], b"")
            conn.abort()


def test_failed_connect_takes_its_messages_along(watcher: Watcher, group: Group, cells: Cells) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    conn = watcher.connect(address)
    group.add(conn)
    group.publish(message(1))
    assert isinstance(collect_one(watcher).error, ConnectionRefusedError)
    conn.abort()
    watcher.wait_io(0)
    with pytest.raises(ConnClosed):
        group.add(conn)
    assert (len(group), group.waiting_bytes, cells["published"]) == (0, 0, 1)
