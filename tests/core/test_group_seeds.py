"""Groups under random use: streams of whole messages in the order of their topics, and every message accounted for.

What a seed does is printed when it fails: `SEED` in the message.
"""

import random
import socket
import time

import pytest

from core.support.groups import Cells, Member, message, split
from core.support.sockets import NewPair, Pair, connected_pair
from core.support.waiting import LIMIT_S
from gaiod.core.errors import ConnClosed
from gaiod.core.group import POLICIES
from gaiod.core.watcher import Watcher

STEPS = 120
TOPICS = ("a", "b", "c")
SIZES = (20, 21, 100, 5000, 70_000, 300_000)
OWN = 90_000_000
"""Numbers from here on are of a connection's own writes."""


class Subscriber(Member):
    """A member, and what is for it."""

    def __init__(self, watcher: Watcher, new_pair: NewPair) -> None:
        super().__init__(watcher, new_pair)
        self.topics: set[str] = set()
        self.expected: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self.own: list[int] = []
        self.left_by = ""

    def check(self, policy: str, drops: bool) -> None:
        """See that what came is what was published for it, whole and in order, and if nothing may be dropped all.

        Of what a policy promises to keep, the last comes, unless the member was disconnected.
        """
        numbers, rest = split(self.stream)
        assert rest == b"" or self.left_by in ("abort", "slow_consumer")
        for topic, expected in self.expected.items():
            came = [number for number in numbers if number in set(expected)]
            assert came == sorted(came), f"out of order in {topic}"
            if not drops and self.left_by in ("", "close"):
                assert came == expected
            if policy == "latest_only" and self.left_by in ("", "close"):
                assert came[-1:] == expected[-1:], f"not the latest of {topic}"
        newest = {expected[-1] for expected in self.expected.values() if expected}
        if policy == "drop_oldest" and self.left_by in ("", "close") and newest:
            assert newest & set(numbers), "not the newest: of one topic at least, for topics overtake each other"
        own = [number for number in numbers if number >= OWN]
        assert own == self.own[: len(own)]
        if self.left_by in ("", "close"):
            assert own == self.own
        assert len(numbers) == len(set(numbers))
        everything = {number for numbers in self.expected.values() for number in numbers} | set(self.own)
        assert set(numbers) <= everything


class Play:
    """Some members of a group, and what happens to them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.cells = Cells()
        self.published = self.deliverable = 0
        self.policy = policy = self.dice.choice(list(POLICIES))
        limit = self.dice.choice((300_000, 1_000_000, 50_000_000))
        memory_limit = limit * self.dice.choice((1, 3))
        self.drops = policy != "disconnect" or memory_limit < 50_000_000
        family = self.dice.choice((socket.AF_INET, socket.AF_UNIX))
        self.ends: list[socket.socket] = []

        def new_pair() -> Pair:
            pair = connected_pair(family)
            self.ends += pair
            return pair

        try:
            with Watcher(counters=self.cells.memory, report_closes=True) as self.watcher:
                self.group = self.watcher.group(policy=policy, limit=limit, memory_limit=memory_limit)
                self.members = [Subscriber(self.watcher, new_pair) for _ in range(self.dice.choice((1, 3, 8)))]
                for _ in range(STEPS):
                    self.step(self.dice.choice(self.members))
                    self.turn()
                self.end()
        finally:
            for end in self.ends:
                end.close()

    def step(self, member: Subscriber) -> None:
        dice = self.dice
        topic = dice.choice(TOPICS)
        is_gone = member.conn.closed or bool(member.left_by)
        match dice.choices(("publish", "read", "join", "part", "write", "close", "abort"), (40, 25, 12, 5, 6, 1, 1))[0]:
            case "publish":
                for _ in range(dice.choice((1, 1, 3, 20))):
                    self.publish(topic)
            case "read":
                member.read(dice.choice((1, 1000, 100_000, 1 << 22)))
            case "join" if not is_gone:
                self.group.add(member.conn, topic)
                member.topics.add(topic)
            case "part" if not is_gone:
                self.group.remove(member.conn, topic)
                member.topics.discard(topic)
            case "write" if not is_gone:
                number = OWN + len(member.own)
                member.conn.write(message(number, dice.choice(SIZES)))
                member.own.append(number)
            case "close" if not is_gone:
                member.left_by = "close"
                member.conn.close()
            case "abort" if not is_gone:
                member.left_by = "abort"
                member.conn.abort()

    def publish(self, topic: str) -> None:
        size = self.dice.choice(SIZES)
        if self.group.pending_bytes + size > self.group.memory_limit:
            return
        to = [each for each in self.members if topic in each.topics and not each.left_by and not each.conn.closed]
        assert self.group.publish(message(self.published, size), topic) == len(to)
        for member in to:
            member.expected[topic].append(self.published)
        self.published += 1
        self.deliverable += len(to)

    def turn(self) -> None:
        for _ in range(self.dice.randrange(3)):
            self.watcher.wait_io(0)
        for member in self.members:
            if member.conn.closed and member.left_by in ("", "close"):  # who is about to close can be too slow, too
                reason = member.conn.close_reason
                assert reason == "slow_consumer" or (reason is None and member.left_by == "close")
                member.left_by = reason or member.left_by
        group = self.group
        assert (group.waiting_bytes, group.held_bytes) == (self.cells["queued_bytes"], self.cells["held_bytes"])
        assert 0 <= group.held_bytes <= group.memory_limit + sum(SIZES) * 20

    def end(self) -> None:
        until_s = time.monotonic() + LIMIT_S
        while self.group.pending_bytes or not all(each.conn.closed or each.has_everything() for each in self.members):
            assert time.monotonic() < until_s, "something is still on its way"
            self.watcher.wait_io(0.001)
            for member in self.members:
                member.read()
        self.turn()
        for member in self.members:
            while member.conn.closed and not member.at_end:
                member.read()
            member.check(self.policy, self.drops)
        assert self.deliverable == self.cells["deliveries"] + sum(self.cells.dropped.values())
        assert (self.group.waiting_bytes, self.group.held_bytes, self.group.pending_bytes) == (0, 0, 0)


def run(seed: int) -> None:
    try:
        Play(seed)
    except (AssertionError, ConnClosed, OSError) as failure:
        raise AssertionError(f"SEED {seed}") from failure


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_use_of_groups_accounts_for_every_message(first: int) -> None:
    for seed in range(first, first + 20):
        run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 11_000, 500))
def test_much_random_use_of_groups_accounts_for_every_message(first: int) -> None:
    for seed in range(first, first + 500):
        run(seed)
