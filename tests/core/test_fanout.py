"""The fan-out: rounds over many members, a share in each pass, and everybody served alike."""

import time
from collections.abc import Iterator

import pytest

from core.support.groups import Cells, Member, drain, message, settle
from core.support.sockets import NewPair
from core.support.waiting import collect_one
from gaiod.core.counters import FANOUT, FANOUT_BOUNDS_S, GROUP, GROUP_CELLS
from gaiod.core.group import Group
from gaiod.core.watcher import Watcher

TURNS = 512
"""Members that one pass serves at most."""

MANY = TURNS + 100
"""Members that one pass does not serve."""


@pytest.fixture
def cells() -> Cells:
    return Cells()


@pytest.fixture
def watcher(cells: Cells) -> Iterator[Watcher]:
    with Watcher(counters=cells.memory) as watcher:
        yield watcher


@pytest.fixture
def group(watcher: Watcher) -> Group:
    return watcher.group(policy="drop_oldest")


@pytest.fixture
def crowd(watcher: Watcher, group: Group, unix_pair: NewPair) -> list[Member]:
    crowd = [Member(watcher, unix_pair) for _ in range(MANY)]
    for member in crowd:
        group.add(member.conn)
    for _ in range(3):
        watcher.wait_io(0)  # see that they can be written to: one poll tells of 512
    return crowd


def served(crowd: list[Member], size: int) -> list[int]:
    """Return the places of members that were sent so many bytes."""
    return [place for place, member in enumerate(crowd) if member.conn.bytes_sent >= size]


def test_round_is_spread_over_passes(watcher: Watcher, group: Group, crowd: list[Member]) -> None:
    group.publish(message(1))
    watcher.wait_io(0)
    assert len(served(crowd, 1)) == TURNS
    watcher.wait_io(0)
    assert len(served(crowd, 1)) == MANY


def test_others_are_served_between_the_passes_of_a_round(
    watcher: Watcher, group: Group, crowd: list[Member], unix_pair: NewPair
) -> None:
    near, far = unix_pair()
    other = watcher.delegate(near)
    other.read()
    far.send(b"ping")
    group.publish(message(1))
    assert bytes(collect_one(watcher).buffer) == b"ping"
    assert len(served(crowd, 1)) == TURNS


def test_messages_published_during_a_round_go_in_one_send_of_the_next(
    watcher: Watcher, group: Group, crowd: list[Member], cells: Cells
) -> None:
    group.publish(message(0))
    watcher.wait_io(0)
    for number in range(1, 11):
        group.publish(message(number))
    settle(watcher, group)
    drain(watcher, group, *crowd)
    assert all(member.numbers == list(range(11)) for member in crowd)
    assert sum(cells.memory[GROUP + FANOUT : GROUP + len(GROUP_CELLS)]) == 2


def test_nobody_is_always_last(watcher: Watcher, group: Group, crowd: list[Member]) -> None:
    """Who is served by the second pass of a round changes from round to round."""
    late = set()
    for number in range(12):
        group.publish(message(number))
        watcher.wait_io(0)
        late |= set(range(MANY)) - set(served(crowd, 100 * (number + 1)))
        settle(watcher, group)
        watcher.wait_io(0)
        drain(watcher, group, *crowd)
    assert len(late) > 0.8 * MANY


def test_members_that_come_and_go_during_a_round(
    watcher: Watcher, group: Group, crowd: list[Member], unix_pair: NewPair
) -> None:
    group.publish(message(0))
    watcher.wait_io(0)
    first = set(served(crowd, 1))
    second = [member for place, member in enumerate(crowd) if place not in first]
    second[0].conn.abort()
    group.remove(second[1].conn)
    late = Member(watcher, unix_pair)
    group.add(late.conn)
    group.publish(message(1))
    drain(watcher, group, *crowd, late)
    assert (second[0].numbers, second[1].numbers, late.numbers) == ([], [0], [1])
    gone = {second[0], second[1]}
    assert all(member.numbers == [0, 1] for member in crowd if member not in gone)


def test_round_of_which_everybody_has_gone_ends(watcher: Watcher, group: Group, crowd: list[Member]) -> None:
    group.publish(message(0))
    watcher.wait_io(0)
    group.publish(message(1))
    for member in crowd:
        group.remove(member.conn)
    settle(watcher, group)
    assert (group.topics, len(group)) == ([], 0)
    drain(watcher, group, *crowd)
    assert all(member.numbers == [0, 1] for member in crowd), "it was published before they went"
    assert (group.pending_bytes, group.held_bytes) == (0, 0)
    group.add(crowd[0].conn)
    group.publish(message(2))
    settle(watcher, group)
    crowd[0].read()
    assert crowd[0].numbers[-1] == 2


def test_batch_larger_than_one_send_arrives_whole(watcher: Watcher, group: Group, unix_pair: NewPair) -> None:
    members = [Member(watcher, unix_pair) for _ in range(3)]
    for member in members:
        group.add(member.conn)
    sizes = [100, 300_000, 50, 200_000, 100_000, 30, 400_000, 20]
    for number, size in enumerate(sizes):
        group.publish(message(number, size))
    drain(watcher, group, *members)
    assert all(member.numbers == list(range(len(sizes))) for member in members)


def test_topics_take_turns(watcher: Watcher, group: Group, unix_pair: NewPair) -> None:
    """A topic with much to do does not keep the others waiting for longer than a round."""
    member = Member(watcher, unix_pair)
    for topic in ("busy", "quiet"):
        group.add(member.conn, topic)
    for number in range(100):
        group.publish(message(number), "busy")
    group.publish(message(1000), "quiet")
    watcher.wait_io(0)
    drain(watcher, group, member)
    assert sorted(member.numbers) == [*range(100), 1000]


def test_duration_is_counted_from_the_first_message_of_a_round(
    watcher: Watcher, group: Group, unix_pair: NewPair, cells: Cells
) -> None:
    member = Member(watcher, unix_pair)
    group.add(member.conn)
    group.publish(message(0))
    until_s = time.monotonic() + 0.011
    while time.monotonic() < until_s:
        pass
    group.publish(message(1))
    drain(watcher, group, member)
    assert cells["fanout_ns"] >= 11_000_000
    buckets = dict(zip((*FANOUT_BOUNDS_S, "inf"), cells.memory[GROUP + FANOUT : GROUP + len(GROUP_CELLS)], strict=True))
    assert sum(buckets.values()) == 1
    assert buckets[0.005] == 0


def test_publisher_in_a_hook_sends_without_another_event(watcher: Watcher, group: Group, unix_pair: NewPair) -> None:
    """The loop does not sleep while something is to be dealt out, though nothing else happens."""
    member = Member(watcher, unix_pair)
    group.add(member.conn)
    watcher.timer(time.monotonic(), context="now")
    collect_one(watcher)
    group.publish(message(1))
    watcher.timer(time.monotonic() + 0.02, context="later")
    collect_one(watcher)
    member.read()
    assert member.numbers == [1]
