"""What the Python publishers share: the clients' requests, and the messages of a publication (push.h)."""

import struct
import time

HEADER = struct.Struct("=QQ")
LAST = 1 << 63
"""A bit of a message's number: the publication is over."""
BODY_PERIOD = 251
SEND_BUFFER_BYTES = 64 * 1024
"""The kernel's, for each subscriber, as in push_epoll.c: 2.6 MiB is what it would take otherwise on loopback."""
ANSWER_BYTES = 4096


def answer(number: int) -> bytes:
    """Return what a client is told that has asked: a number, and spaces before it for the reason in push_epoll.c."""
    return b"%*d\n" % (ANSWER_BYTES - 1, number)


class Publication:
    """A burst of messages every so often, or as soon as the kernel has all of the one before.

    Attributes:
        due_s: when the next burst is to be published, in `time.monotonic()` seconds.
        count: the messages published so far.
        is_over: the last burst was published.
    """

    def __init__(self, request: bytes) -> None:
        """Begin what `publish BYTES BURST INTERVAL_NS DURATION_NS` asks for."""
        message_bytes, self._burst, interval_ns, duration_ns = map(int, request.split()[1:])
        self._body = bytes(i % BODY_PERIOD for i in range(HEADER.size, message_bytes))
        self._interval_s = interval_ns / 1e9
        self.due_s = time.monotonic()
        self._end_s = self.due_s + duration_ns / 1e9
        self.count = 0
        self.is_over = False

    def next_burst(self) -> list[bytes]:
        """Return the messages that are due now."""
        self.due_s = self.due_s + self._interval_s if self._interval_s else time.monotonic()
        self.is_over = self.due_s >= self._end_s
        numbers = list(range(self.count + 1, self.count + self._burst + 1))
        self.count = numbers[-1]
        if self.is_over:
            numbers[-1] |= LAST
        return [HEADER.pack(number, time.monotonic_ns()) + self._body for number in numbers]

    @property
    def delay_s(self) -> float:
        """The seconds until the next burst is due."""
        return max(0.0, self.due_s - time.monotonic())
