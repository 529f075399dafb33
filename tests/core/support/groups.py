"""Members of groups: connections with a far end that reads when it is told to, and messages that can be told apart."""

import socket
import time

from core.support.sockets import NewPair, pattern
from core.support.waiting import LIMIT_S
from gaiod.core import counters
from gaiod.core.group import Group
from gaiod.core.watcher import Watcher

HEAD = 20
"""Bytes before the body of a message: its number and its size."""

BIG = 1 << 20
"""A message that no kernel takes whole while nobody reads, once `Member` has made its buffers small."""


def message(number: int, size: int = 100) -> bytes:
    """Return the message of a number: `size` bytes that no other has."""
    return b"%08d:%010d:" % (number, size) + pattern(size - HEAD, number)


def split(stream: bytes) -> tuple[list[int], bytes]:
    """Return the numbers of the whole messages that a stream begins with, each as it was published, and the rest."""
    numbers = []
    while len(stream) >= HEAD:
        number, size = int(stream[:8]), int(stream[9:19])
        if len(stream) < size:
            assert message(number, size).startswith(stream), "half a message, followed by something else"
            break
        assert stream[:size] == message(number, size), f"message {number} is not what was published"
        numbers.append(number)
        stream = stream[size:]
    return numbers, stream


class Member:
    """A connection of a watcher, and its far end."""

    def __init__(self, watcher: Watcher, new_pair: NewPair) -> None:
        near, self.far = new_pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
        self.far.setblocking(False)
        self.conn = watcher.delegate(near)
        self.stream = b""
        self.at_end = False

    def read(self, most: int = 1 << 24) -> int:
        """Take at most so many bytes that have arrived, and return how many those were."""
        before = len(self.stream)
        while len(self.stream) - before < most and not self.at_end:
            try:
                part = self.far.recv(most + before - len(self.stream))
            except BlockingIOError:
                break
            except ConnectionResetError:
                part = b""
            self.at_end = not part
            self.stream += part
        return len(self.stream) - before

    def has_everything(self) -> bool:
        """Tell whether nothing is on its way; of a connection that has closed, whether its end was seen."""
        if self.conn.closed:
            return self.at_end
        return self.conn.pending_write_bytes == 0 and len(self.stream) == self.conn.bytes_sent

    @property
    def numbers(self) -> list[int]:
        """Of the messages that have arrived whole."""
        return split(self.stream)[0]


def settle(watcher: Watcher, group: Group) -> None:
    """Let the loop deal out everything that was published, without anybody reading."""
    for _ in range(10_000):
        watcher.wait_io(0)
        if group.pending_bytes == 0:
            return
    raise AssertionError(f"{group.pending_bytes} bytes are never dealt out")


def drain(watcher: Watcher, group: Group, *members: Member) -> None:
    """Run the loop and read, until all that is for these members has arrived."""
    until_s = time.monotonic() + LIMIT_S
    while group.pending_bytes or not all(member.has_everything() for member in members):
        assert time.monotonic() < until_s, f"after {LIMIT_S} s something is still on its way"
        watcher.wait_io(0.001)
        for member in members:
            member.read()


class Cells:
    """A watcher's counters, by the names of a group's."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(8 * counters.SIZE)).cast("q")

    def __getitem__(self, name: str) -> int:
        return self.memory[counters.GROUP + counters.GROUP_CELLS.index(name)]

    @property
    def dropped(self) -> dict[str, int]:
        """How many messages were dropped, by why."""
        names = (name for name in counters.GROUP_CELLS if name.startswith("dropped_"))
        return {name.removeprefix("dropped_"): self[name] for name in names if self[name]}
