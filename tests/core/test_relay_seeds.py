"""Relays under random use: whatever was taken arrives, in order, once; every relay completes once; nothing is left over.

What a seed does is printed when it fails: `SEED` in the message.
"""

import random
import socket
import time
from collections import Counter

import pytest

from core.support.sockets import connected_pair, pattern
from core.support.waiting import LIMIT_S
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

STEPS = 60
STREAM = pattern(4 << 20)


class Side:
    """A far end, the connection that it talks to, and the bytes that have passed it."""

    def __init__(self, watcher: Watcher, dice: random.Random, family: int, traffic: int) -> None:
        near, self.far = connected_pair(family)
        if dice.random() < 0.5:
            for sock in (near, self.far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, dice.choice((4096, 65536)))
        self.conn: Conn = watcher.delegate(near)
        self.conn.traffic = traffic
        self.far.setblocking(False)
        self.sent = 0
        self.received = bytearray()
        self.has_finished = self.at_end = self.was_reset = False

    def send(self, size: int) -> None:
        if not self.has_finished:
            try:
                self.sent += self.far.send(memoryview(STREAM)[self.sent : self.sent + size])
            except BlockingIOError:
                pass

    def receive(self, size: int) -> None:
        try:
            part = self.far.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.at_end = self.was_reset = True
            return
        self.at_end = self.at_end or not part
        self.received += part

    def finish(self) -> None:
        self.has_finished = True
        self.far.shutdown(socket.SHUT_WR)


class Play:
    """Two sides, relayed both ways, and what happens to them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.cells = memoryview(bytearray(8 * (counters.SIZE + 12))).cast("q")
        self.completions: Counter[int] = Counter()
        self.submitted = 0
        family = self.dice.choice((socket.AF_INET, socket.AF_UNIX))
        with Watcher(counters=self.cells) as self.watcher:
            self.sides = [Side(self.watcher, self.dice, family, counters.SIZE + 6 * index) for index in range(2)]
            for index in range(2):
                self.relay(index)
            self.play()
            self.end()
        for side in self.sides:
            side.far.close()
        assert self.completions == {number: 1 for number in range(self.submitted)}

    def relay(self, index: int) -> None:
        source, sink = self.sides[index].conn, self.sides[1 - index].conn
        source.relay_to(sink, limit=self.dice.choice((999, 4096, 65536, 262_144)), context=self.submitted)
        self.submitted += 1

    def turn(self) -> None:
        for result in self.watcher.wait_io(0):
            assert result.operation is OpType.RELAY
            self.completions[result.context] += 1
        for index, side in enumerate(self.sides):
            assert STREAM.startswith(side.received[-65536:], max(0, len(side.received) - 65536))
            held = self.cells[counters.SIZE + 6 * index + counters.BUFFERED]
            assert 0 <= held <= 262_144

    def play(self) -> None:
        for _ in range(STEPS):
            side = self.dice.choice(self.sides)
            index = self.sides.index(side)
            match self.dice.random():
                case much if much < 0.4:
                    side.send(self.dice.choice((1, 1000, 50_000, 300_000)))
                case much if much < 0.65:
                    side.receive(self.dice.choice((1, 1000, 300_000)))
                case much if much < 0.7 and not side.has_finished:
                    side.conn.cancel(OpType.RELAY)
                    self.turn()
                    if not side.conn.at_eof:
                        self.relay(index)
                case much if much < 0.72 and not side.has_finished:
                    side.finish()
            for _ in range(self.dice.randrange(3)):
                self.turn()

    def end(self) -> None:
        """Let it come to its end: by the ends of both streams, or by closing in order."""
        closed = self.dice.random() < 0.5
        if closed:
            first, second = self.dice.sample(self.sides, 2)
            taken = {id(first): second.conn.bytes_received, id(second): first.conn.bytes_received}
            for side in (first, second):
                side.conn.close()
        else:
            taken = {id(side): self.sides[1 - index].sent for index, side in enumerate(self.sides)}
            for side in self.sides:
                if not side.has_finished:
                    side.finish()
        until_s = time.monotonic() + LIMIT_S
        while time.monotonic() < until_s:
            self.turn()
            for side in self.sides:
                side.receive(1 << 20)
            if all(side.at_end for side in self.sides):
                break
        for side in self.sides:
            assert closed or not side.was_reset
            # Who is closed while it sends is reset by the kernel, and may lose what was on its way to it.
            assert len(side.received) == taken[id(side)] or side.was_reset
            assert side.received == memoryview(STREAM)[: len(side.received)]
        self.turn()
        for index in range(2):
            row = self.cells[counters.SIZE + 6 * index : counters.SIZE + 6 * index + 6]
            assert row[counters.BUFFERED] == 0
            assert row[counters.PAUSES] == row[counters.RESUMES]


def run(seed: int) -> None:
    try:
        Play(seed)
    except (AssertionError, ConnClosed, OSError) as failure:
        raise AssertionError(f"SEED {seed}") from failure


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_random_use_of_relays_loses_nothing(first: int) -> None:
    for seed in range(first, first + 20):
        run(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 11_000, 500))
def test_much_random_use_of_relays_loses_nothing(first: int) -> None:
    for seed in range(first, first + 500):
        run(seed)
