"""Members that do not take what is published: what waits for them, its limits, and what each policy does.

Every test here has a member that stops reading in the middle of a message: its stream must go on with the rest of
that message, or end there.
"""

import socket
from collections.abc import Iterator

import pytest

from core.support.groups import BIG, Cells, Member, drain, message, settle, split
from core.support.sockets import NewPair
from gaiod.core.group import POLICIES, Group
from gaiod.core.watcher import Watcher

SMALL = 1000
LIMIT = 2 * BIG
"""Room for the rest of one big message, and for some small ones."""


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def watcher(cells: Cells) -> Iterator[Watcher]:
    with Watcher(counters=cells.memory, report_closes=True) as watcher:
        yield watcher


class Pair:
    """A group with a member that reads and one that does not, and has begun message 0."""

    def __init__(self, watcher: Watcher, new_pair: NewPair, policy: str, limit: int = LIMIT) -> None:
        self.watcher = watcher
        self.group: Group = watcher.group(policy=policy, limit=limit)
        self.fast, self.slow = Member(watcher, new_pair), Member(watcher, new_pair)
        for member in (self.fast, self.slow):
            self.group.add(member.conn, "a")
            self.group.add(member.conn, "b")
        self.publish(0, BIG)
        assert 0 < self.begun < BIG, "the test is about the middle of a message"

    @property
    def begun(self) -> int:
        return int(self.slow.conn.bytes_sent)

    def publish(self, number: int, size: int = SMALL, topic: str = "a") -> None:
        self.group.publish(message(number, size), topic)
        drain(self.watcher, self.group, self.fast)

    def check(self, cells: Cells, slow: list[int], dropped: dict[str, int]) -> None:
        """Let the slow member read on: it gets these, and everything is accounted for."""
        assert (self.group.waiting_bytes, self.slow.conn.pending_write_bytes) == (cells["queued_bytes"],) * 2
        drain(self.watcher, self.group, self.slow)
        assert self.slow.numbers == slow
        assert split(self.slow.stream)[1] == b""
        assert cells.dropped == dropped
        assert cells["deliveries"] == len(self.fast.numbers) + len(slow)
        assert cells["deliveries"] + sum(dropped.values()) == 2 * cells["published"]
        assert (self.group.waiting_bytes, self.group.held_bytes, cells["held_bytes"]) == (0, 0, 0)
        assert self.slow.conn.pending_write_bytes == 0


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest", "drop_newest"])
def test_slow_member_gets_everything_within_its_limit(
    watcher: Watcher, stream_pair: NewPair, cells: Cells, policy: str
) -> None:
    pair = Pair(watcher, stream_pair, policy)
    for number in range(1, 500):
        pair.publish(number)
    assert pair.fast.numbers == list(range(500))
    pair.check(cells, list(range(500)), {})


def test_waiting_messages_are_held_once(watcher: Watcher, unix_pair: NewPair) -> None:
    group = watcher.group(policy="drop_oldest", limit=BIG)
    members = [Member(watcher, unix_pair) for _ in range(20)]
    for member in members:
        group.add(member.conn)
    group.publish(message(0, BIG))
    settle(watcher, group)
    assert group.waiting_bytes > 15 * BIG
    assert BIG <= group.held_bytes < BIG + 1000


def test_drop_oldest_keeps_the_message_that_was_begun_and_the_latest(
    watcher: Watcher, stream_pair: NewPair, cells: Cells
) -> None:
    pair = Pair(watcher, stream_pair, "drop_oldest")
    for number in range(1, 5):
        pair.publish(number, BIG // 2)
    pair.check(
        cells, [0, 3, 4] if pair.begun < BIG // 2 else [0, 2, 3, 4], {"oldest": 2 if pair.begun < BIG // 2 else 1}
    )


def test_drop_newest_keeps_what_came_first(watcher: Watcher, stream_pair: NewPair, cells: Cells) -> None:
    pair = Pair(watcher, stream_pair, "drop_newest")
    for number in range(1, 5):
        pair.publish(number, BIG // 2)
    pair.publish(5, 100)
    kept = [0, 1, 2, 5] if pair.begun < BIG // 2 else [0, 1, 2, 3]
    pair.check(cells, kept, {"newest": 6 - len(kept)})


def test_latest_only_keeps_one_message_of_each_topic(watcher: Watcher, stream_pair: NewPair, cells: Cells) -> None:
    pair = Pair(watcher, stream_pair, "latest_only")
    for number in range(1, 10):
        pair.publish(number, topic="a" if number % 3 else "b")
    pair.check(cells, [0, 8, 9], {"replaced": 7})


def test_message_that_was_begun_is_not_replaced_by_the_latest(
    watcher: Watcher, stream_pair: NewPair, cells: Cells
) -> None:
    pair = Pair(watcher, stream_pair, "latest_only", limit=4 * BIG)
    pair.publish(1, BIG)
    pair.publish(2, BIG)
    pair.slow.read(SMALL)
    settle(watcher, pair.group)
    pair.publish(3, SMALL)
    pair.check(cells, [0, 3], {"replaced": 2})


@pytest.mark.parametrize(("policy", "reason"), [("drop_oldest", "oldest"), ("latest_only", "replaced")])
def test_newest_message_waits_behind_the_rest_of_one_that_was_begun_whatever_the_limit(
    watcher: Watcher, stream_pair: NewPair, cells: Cells, policy: str, reason: str
) -> None:
    pair = Pair(watcher, stream_pair, policy, limit=BIG)
    for number in range(1, 4):
        pair.publish(number, BIG)
    pair.check(cells, [0, 3], {reason: 2})


def test_latest_of_every_topic_waits_whatever_the_limit(watcher: Watcher, stream_pair: NewPair, cells: Cells) -> None:
    pair = Pair(watcher, stream_pair, "latest_only", limit=BIG)
    for topic in "cdef":
        pair.group.add(pair.slow.conn, topic)
        pair.group.add(pair.fast.conn, topic)
    for number, topic in enumerate("abcdefabc", 1):
        pair.publish(number, BIG // 2, topic)
    pair.check(cells, [0, 7, 8, 9, 4, 5, 6], {"replaced": 3})


def test_disconnect_closes_whoever_is_over_the_limit(watcher: Watcher, stream_pair: NewPair, cells: Cells) -> None:
    pair = Pair(watcher, stream_pair, "disconnect", limit=BIG)
    conn = pair.slow.conn
    pair.publish(1, BIG)
    assert (conn.closed, conn.close_reason) == (True, "slow_consumer")
    pair.publish(2, BIG)
    drain(watcher, pair.group, pair.slow)
    assert pair.slow.numbers == []
    assert pair.slow.at_end
    assert split(pair.slow.stream)[1] == message(0, BIG)[: len(pair.slow.stream)]
    assert cells.dropped == {"disconnect": 2}
    assert pair.fast.numbers == [0, 1, 2]
    assert (len(pair.group), pair.group.waiting_bytes, pair.group.held_bytes) == (1, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_rest_of_a_message_is_not_dropped_when_memory_is_short(
    watcher: Watcher, stream_pair: NewPair, cells: Cells, policy: str
) -> None:
    """The slowest loses what waits for it; the others lose nothing."""
    memory_limit = 2 * BIG + BIG // 4  # what is begun of three, the fast one's included, and not of one more
    group = watcher.group(policy=policy, limit=memory_limit, memory_limit=memory_limit)
    slow, slower, fast = (Member(watcher, stream_pair) for _ in range(3))
    topics = [str(number) for number in range(5)]  # latest_only keeps them all
    group.add(slower.conn, topics[0])
    group.publish(message(0, BIG), topics[0])
    settle(watcher, group)
    for topic in topics:
        group.add(fast.conn, topic)
        group.add(slow.conn, topic)
        group.add(slower.conn, topic)
    for topic in topics[1:]:
        group.publish(message(int(topic), BIG // 2), topic)
        drain(watcher, group, fast)
        assert group.held_bytes <= memory_limit
    assert fast.numbers == [1, 2, 3, 4]
    drain(watcher, group, slow, slower)
    if policy in ("disconnect", "latest_only"):
        assert (slower.conn.close_reason, slower.numbers) == ("slow_consumer", [])
        assert set(cells.dropped) <= {"memory", "disconnect"}
    else:
        assert policy == "drop_newest" or slower.numbers[-1] == 4, "the newest is kept"
        assert cells["deliveries"] + sum(cells.dropped.values()) == 13
        assert slower.numbers[0] == 0
        assert split(slower.stream)[1] == split(slow.stream)[1] == b""
    assert (group.waiting_bytes, group.held_bytes) == (0, 0)


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest_only"])
def test_who_is_in_the_middle_of_a_message_is_disconnected_when_memory_is_short(
    watcher: Watcher, stream_pair: NewPair, policy: str
) -> None:
    """Each in another one, and none can be dropped: the limit holds all the same."""
    group = watcher.group(policy=policy, limit=2 * BIG, memory_limit=3 * BIG)
    stuck = [Member(watcher, stream_pair) for _ in range(6)]
    for number, member in enumerate(stuck):
        group.add(member.conn, str(number))
        group.publish(message(number, BIG), str(number))
        settle(watcher, group)
        assert group.held_bytes <= 3 * BIG
    closed = [member for member in stuck if member.conn.closed]
    assert 3 <= len(closed) < 6
    assert {member.conn.close_reason for member in closed} == {"slow_consumer"}
    drain(watcher, group, *stuck)
    assert all(member.numbers == [number] for number, member in enumerate(stuck) if member not in closed)


def test_many_small_messages_are_bounded_by_their_number(watcher: Watcher, unix_pair: NewPair, cells: Cells) -> None:
    """A reference costs more than a message of one byte."""
    group = watcher.group(policy="drop_oldest", limit=8 * 100)
    member = Member(watcher, unix_pair)
    group.add(member.conn)
    while group.waiting_bytes == 0:
        group.publish(b"x" * 800)
        settle(watcher, group)
    for _ in range(1000):
        group.publish(b"y")
    settle(watcher, group)
    assert cells.dropped["oldest"] >= 900
    assert group.waiting_bytes <= 800
    drain(watcher, group, member)
    assert member.stream.count(b"y") <= 100


def test_messages_that_wait_go_in_few_sends(watcher: Watcher, unix_pair: NewPair) -> None:
    """The kernel takes again: all that waits goes at once, not a message a pass."""
    pair = Pair(watcher, unix_pair, "drop_oldest")
    for number in range(1, 60):
        pair.publish(number, 20)
    pair.slow.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BIG)
    passes = 0
    while pair.group.waiting_bytes:
        pair.slow.read()
        watcher.wait_io(0.01)
        passes += pair.slow.conn.bytes_sent >= BIG
    assert passes <= 2


def test_member_that_takes_nothing_is_disconnected_after_the_grace(
    watcher: Watcher, stream_pair: NewPair, cells: Cells
) -> None:
    pair = Pair(watcher, stream_pair, "disconnect")
    pair.publish(1)
    assert pair.group.disconnect_stalled(60.0) == 0
    assert pair.group.disconnect_stalled(0.0) == 1
    assert (pair.slow.conn.closed, pair.slow.conn.close_reason) == (True, "slow_consumer")
    assert cells.dropped == {"disconnect": 2}
    assert pair.group.disconnect_stalled(0.0) == 0
    pair.publish(2)
    assert pair.fast.numbers == [0, 1, 2]


def test_member_that_takes_a_little_is_not_stalled(watcher: Watcher, stream_pair: NewPair) -> None:
    pair = Pair(watcher, stream_pair, "disconnect")
    before = pair.begun
    while pair.begun == before:
        pair.slow.read(SMALL)
        watcher.wait_io(0.001)
    assert pair.group.disconnect_stalled(0.5) == 0
    assert not pair.slow.conn.closed
