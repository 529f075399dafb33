"""Connections under random use that move between two watchers: every byte and message once, in order.

What a seed does is printed when it fails: `SEED` in the message.
"""

import random
import socket
import time

import pytest

from core.support.moving import offer
from core.support.sockets import connected_pair, pattern
from core.support.waiting import LIMIT_S
from gaiod.core.connection import Conn
from gaiod.core.errors import NotQuiet
from gaiod.core.group import Group
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

STREAM = pattern(4 << 20)
EVERYTHING = 1 << 20
STEPS = 80


def new_pair(dice: random.Random) -> tuple[socket.socket, socket.socket]:
    near, far = connected_pair(dice.choice((socket.AF_INET, socket.AF_UNIX)))
    if dice.random() < 0.6:
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, dice.choice((4096, 65536)))
    far.setblocking(False)
    return near, far


def receive(sock: socket.socket, size: int) -> bytes:
    """Receive what is there, at most `size` bytes."""
    try:
        return sock.recv(size)
    except BlockingIOError:
        return b""


def send(sock: socket.socket, first: int, size: int) -> int:
    """Send that part of the stream; return how many bytes it took."""
    try:
        return sock.send(STREAM[first : first + size])
    except BlockingIOError:
        return 0


class Relayed:
    """Two far ends whose connections are relayed to each other, both ways."""

    def __init__(self, watcher: Watcher, dice: random.Random) -> None:
        self.fars = []
        conns = []
        for _ in range(2):
            near, far = new_pair(dice)
            conns.append(watcher.delegate(near))
            self.fars.append(far)
        limit = dice.choice((500, 20_000, 262_144))
        self.first = conns[0]
        conns[0].relay_to(conns[1], limit=limit)
        conns[1].relay_to(conns[0], limit=limit)
        self.sent, self.received = [0, 0], [bytearray(), bytearray()]

    def step(self, dice: random.Random) -> None:
        side, size = dice.randrange(2), dice.choice((1, 100, 5000, 200_000))
        if dice.random() < 0.6:
            self.sent[side] += send(self.fars[side], self.sent[side], size)
        else:
            self.received[side] += receive(self.fars[side], size)

    def take_rest(self) -> bool:
        """Receive what is there; tell whether everything has come."""
        for side in range(2):
            self.received[side] += receive(self.fars[side], EVERYTHING)
        return [len(each) for each in self.received] == self.sent[::-1]

    def moved(self, conns: list[Conn]) -> None:
        self.first = conns[0]

    def check(self) -> None:
        for side in range(2):
            assert self.received[side] == STREAM[: self.sent[1 - side]]

    def close(self) -> None:
        for far in self.fars:
            far.close()


class Echoed:
    """A far end whose connection writes back what it reads."""

    def __init__(self, watcher: Watcher, dice: random.Random) -> None:
        near, self.far = new_pair(dice)
        self.first = watcher.delegate(near)
        self.first.read()
        self.sent, self.received = 0, bytearray()

    def step(self, dice: random.Random) -> None:
        size = dice.choice((1, 100, 5000, 200_000))
        if dice.random() < 0.6:
            self.sent += send(self.far, self.sent, size)
        else:
            self.received += receive(self.far, size)

    def take_rest(self) -> bool:
        self.received += receive(self.far, EVERYTHING)
        return len(self.received) == self.sent

    def moved(self, conns: list[Conn]) -> None:
        [self.first] = conns
        if not self.first.pending_write_bytes:
            self.first.read()  # else it is read when that is written, as always

    def check(self) -> None:
        assert self.received == STREAM[: self.sent]

    def close(self) -> None:
        self.far.close()


class Subscribed:
    """A far end whose connection is in a group: in whichever watcher it is, it gets every message."""

    def __init__(self, watcher: Watcher, dice: random.Random, groups: dict[Watcher, Group]) -> None:
        near, self.far = new_pair(dice)
        self.groups = groups
        self.first = watcher.delegate(near)
        groups[watcher].add(self.first)
        self.expected, self.received = bytearray(), bytearray()

    def step(self, dice: random.Random) -> None:
        self.received += receive(self.far, dice.choice((100, 20_000)))

    def take_rest(self) -> bool:
        self.received += receive(self.far, EVERYTHING)
        return len(self.received) == len(self.expected)

    def moved(self, conns: list[Conn]) -> None:
        [self.first] = conns

    def check(self) -> None:
        assert self.received == self.expected

    def close(self) -> None:
        self.far.close()


class Run:
    """Two watchers, and those who use them."""

    def __init__(self, seed: int, watchers: list[Watcher]) -> None:
        self.dice = dice = random.Random(seed)
        self.watchers = watchers
        self.groups = {watcher: watcher.group(limit=1 << 30, memory_limit=1 << 30) for watcher in watchers}
        self.where: dict[Relayed | Echoed | Subscribed, Watcher] = {}
        for _ in range(dice.randint(1, 4)):
            kind, watcher = dice.randrange(3), dice.choice(watchers)
            if kind == 0:
                self.where[Relayed(watcher, dice)] = watcher
            elif kind == 1:
                self.where[Echoed(watcher, dice)] = watcher
            else:
                self.where[Subscribed(watcher, dice, self.groups)] = watcher

    def serve(self, watcher: Watcher) -> None:
        for result in watcher.wait_io(0):
            if result.error is not None or result.conn is None or result.conn.closed:
                continue
            if result.operation is OpType.READ:
                result.conn.write(result.buffer)
            elif result.operation is OpType.WRITE:
                result.conn.read()

    def step(self) -> None:
        dice = self.dice
        each = dice.choice(list(self.where))
        what = dice.random()
        if what < 0.25:
            self.move(each)
        elif what < 0.4:
            message = pattern(dice.choice((10, 1000, 60_000)), dice.randrange(100))
            watcher = dice.choice(self.watchers)
            self.groups[watcher].publish(message)
            for member, home in self.where.items():
                if isinstance(member, Subscribed) and home is watcher:
                    member.expected += message
        elif what < 0.65:
            self.serve(dice.choice(self.watchers))
        else:
            each.step(dice)

    def move(self, each: Relayed | Echoed | Subscribed) -> None:
        giver = self.where[each]
        taker = self.watchers[1 - self.watchers.index(giver)]
        try:
            unit = giver.detach(each.first)
            arrived = taker.attach(*offer(unit))
            if self.dice.random() < 0.2:  # an offer that is cancelled
                arrived.release()
                unit.resume()
                return
            if isinstance(each, Subscribed):
                self.groups[taker].add(arrived.conns[0])
            unit.release()
            arrived.resume()
        except NotQuiet:
            return
        each.moved(arrived.conns)
        self.where[each] = taker

    def end(self) -> None:
        until_s = time.monotonic() + LIMIT_S
        while {each.take_rest() for each in self.where} != {True}:
            assert time.monotonic() < until_s, "not everything came"
            for watcher in self.watchers:
                self.serve(watcher)
        for each in self.where:
            each.check()


def run(seed: int) -> None:
    with Watcher() as one, Watcher() as other:
        this = Run(seed, [one, other])
        try:
            for _ in range(STEPS):
                this.step()
            this.end()
        except BaseException as error:
            raise AssertionError(f"SEED {seed}") from error
        finally:
            for each in this.where:
                each.close()


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_nothing_is_lost_or_doubled(first: int) -> None:
    for seed in range(first, first + 50):
        run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 11_000, 1000))
def test_nothing_is_lost_or_doubled_in_ten_thousand(first: int) -> None:
    for seed in range(first, first + 1000):
        run(seed)
