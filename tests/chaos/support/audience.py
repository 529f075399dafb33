"""An audience: subscribers in the test's own thread, each of whose bytes is compared with what was published.

Nothing here runs beside the test: who publishes also reads, so what is under way is as much as the test wants.
A message is a line: its number, when it was published, and bytes that depend on the number.
"""

import select
import socket
import struct
import time
from array import array
from collections.abc import Iterator
from types import TracebackType

from core.support.waiting import LIMIT_S
from e2e.support.clients import connect

NUMBER_DIGITS = 10
LINE_MIN_BYTES = 40
SEGMENT_BYTES = 1400
"""Of a slow client, as over Ethernet. With the loopback's 64 KiB the kernel takes 2.5 MiB for each."""

RECEIVE_BUFFER_BYTES = 4096


class Script:
    """What is published: numbered lines, each of whose bytes is known."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.sent_s = array("d")

    def write(self, size: int) -> bytes:
        """Return the next line, of `size` bytes with its newline."""
        number = len(self.lines)
        now_s = time.monotonic()
        head = f"{number:0{NUMBER_DIGITS}} {now_s:.6f} ".encode()
        filler = b"%c" % (97 + number % 26)
        line = head.ljust(size - 1, filler) + b"\n"
        self.lines.append(line)
        self.sent_s.append(now_s)
        return line


class Listener:
    """One subscriber.

    Attributes:
        numbers: of the messages it has got, all of them whole and as they were published.
        rest: what it has got of the next.
        ended: its connection has: in order, or by a reset.
        delays_s: of each message, from its publishing.
    """

    def __init__(self, address: str, script: Script, *, is_slow: bool = False) -> None:
        self._script = script
        self.sock = _slow_connect(address) if is_slow else connect(address)
        self.sock.setblocking(False)
        self.numbers = array("q")
        self.delays_s = array("d")
        self.rest = b""
        self.ended = False

    def read(self, most: int = 1 << 20) -> int:
        """Take what has come, `most` bytes of it, and compare it; return how many bytes that were."""
        try:
            data = self.sock.recv(most)
        except BlockingIOError:
            return 0
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return 0
        now_s = time.monotonic()
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            number = int(line[:NUMBER_DIGITS])
            assert line == self._script.lines[number][:-1], f"not what was published: {line[:80]!r}"
            assert not self.numbers or number > self.numbers[-1], f"{number} after {self.numbers[-1]}"
            self.numbers.append(number)
            self.delays_s.append(now_s - self._script.sent_s[number])
        return len(data)

    @property
    def is_rest_the_begin_of_a_message(self) -> bool:
        """Tell whether what it has got last is the begin of a message, or nothing."""
        if len(self.rest) < NUMBER_DIGITS:
            return True
        return self._script.lines[int(self.rest[:NUMBER_DIGITS])].startswith(self.rest)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The messages that are missing between two that it has got: (first, last)."""
        pairs = zip(self.numbers, self.numbers[1:], strict=False)
        return [(before + 1, after - 1) for before, after in pairs if after != before + 1]


def _slow_connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.settimeout(LIMIT_S)
        sock.connect((host, int(port)))
    except BaseException:
        sock.close()
        raise
    return sock


class Audience:
    """Subscribers that read whenever they are asked to, and others that never do by themselves."""

    def __init__(self, address: str, script: Script, fast: int, slow: int = 0) -> None:
        self.fast: list[Listener] = []
        self.slow: list[Listener] = []
        self._poll = select.epoll()
        self._by_fd: dict[int, Listener] = {}
        try:
            for _ in range(slow):
                self.slow.append(Listener(address, script, is_slow=True))
            for _ in range(fast):
                self.fast.append(Listener(address, script))
        except BaseException:
            self.close()
            raise
        for each in self.fast:
            self._by_fd[each.sock.fileno()] = each
            self._poll.register(each.sock.fileno(), select.EPOLLIN)

    def __enter__(self) -> "Audience":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect with a reset: after a FIN only, a subscriber might still listen, and a daemon that stops waits."""
        for each in self:
            each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.sock.close()
        self._poll.close()

    def __iter__(self) -> Iterator[Listener]:
        yield from self.fast
        yield from self.slow

    def read(self, timeout_s: float = 0.0) -> None:
        """Have the fast ones read what is there, or what comes soon."""
        for fd, _ in self._poll.poll(timeout_s):
            each = self._by_fd[fd]
            each.read()
            if each.ended:
                self._poll.unregister(fd)

    def forget_delays(self) -> None:
        """Begin to measure anew."""
        for each in self:
            del each.delays_s[:]

    def read_until(self, number: int) -> None:
        """Have the fast ones read until each has the message of that number; fail if one's connection ends."""
        until_s = time.monotonic() + LIMIT_S
        missing = [each for each in self.fast if not each.numbers or each.numbers[-1] < number]
        while missing:
            assert time.monotonic() < until_s, f"{len(missing)} have not got message {number}"
            assert not any(each.ended for each in missing), "a connection has ended"
            self.read(0.1)
            missing = [each for each in missing if not each.numbers or each.numbers[-1] < number]


def read_on(each: Listener, number: int) -> None:
    """Have a slow one read until it has the message of that number, or its connection ends."""
    until_s = time.monotonic() + LIMIT_S
    each.sock.settimeout(LIMIT_S)
    while not each.ended and (not each.numbers or each.numbers[-1] < number):
        assert time.monotonic() < until_s, f"it has not got message {number}"
        each.read()


def percentile_s(listeners: list[Listener], share: float) -> float:
    """Return how late this share of the messages was at most."""
    delays = sorted(delay for each in listeners for delay in each.delays_s)
    return delays[min(int(share * len(delays)), len(delays) - 1)]
