"""What the descriptors of the simulated kernel refer to: sockets, pipes and epolls."""

import errno
import select
from typing import Any

IN, OUT, ERR, HUP, RDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP, select.EPOLLRDHUP

NEW, CONNECTING, CONNECTED, LISTENING, DEAD = range(5)

STREAM = bytes((i * 7 + (i >> 3) * 31 + (i >> 6) * 101) & 255 for i in range(8192)) * 2
"""What peers send. A piece tells where in it it is from."""


class Sock:
    """A stream socket at the watcher's end; its far end is what the methods named `far_` do.

    What is written counts as on its way until the far end takes it. What the kernel has told of is remembered, for
    the model to compare with: `told` errors, `told_eof`.
    """

    def __init__(self, key: object, room: int, far_room: int, is_unix: bool) -> None:
        self.key = key
        self.references = 0
        self.state = NEW
        self.is_unix = is_unix
        self.rx = bytearray()
        self.rx_room = room
        self.offset = key * 1237 % 4096 if isinstance(key, int) else 0  # in the stream: where its far end begins
        self.far_sent = 0
        self.fin_in = False
        self.fin_out = False
        self.far_closed = False
        self.error = 0
        self.on_its_way = 0
        self.out_room = far_room
        self.no_space = False
        self.lingers = True
        self.backlog: list[Sock] = []
        self.items: list[Any] = []
        self.told: set[int] = set()
        self.told_eof = False
        self.taken = self.given = 0  # bytes, by the watcher
        self.ready_at = 0  # the number of the poll before which there began to be something to read
        self.was_established = False
        self.is_closed = False
        self.rec: Any = None
        self.lack = (0.0, 0)  # when it had no descriptor for a client, and how many sockets had been closed then

    def mask(self) -> int:
        """Return what poll() tells of it: tcp_poll() and unix_poll() of Linux."""
        state = self.state
        if state == CONNECTED:
            bits = 0
            if self.rx:
                bits = IN
            if self.fin_in:
                bits |= IN | RDHUP
                if self.fin_out or (self.is_unix and self.far_closed):
                    bits |= HUP
            if self.error:
                bits |= ERR
            if self.fin_out or (self.out_room - self.on_its_way) * 3 >= self.out_room:
                bits |= OUT
            return bits
        if state == DEAD:
            return IN | OUT | HUP | RDHUP | (ERR if self.error else 0)
        if state == LISTENING:
            return IN if self.backlog else 0
        return OUT | HUP if state == NEW else 0

    def read(self, size: int) -> bytes:
        if self.rx:
            data = bytes(self.rx[:size])
            del self.rx[:size]
            self.taken += len(data)
            return data
        if not self.fin_in or self.is_unix:  # TCP looks whether the stream has ended first: tcp_recvmsg()
            self.raise_error()
        if self.state in (NEW, CONNECTING):
            self.told.add(errno.ENOTCONN)
            raise OSError(errno.ENOTCONN, "not connected")
        if self.fin_in or self.state == DEAD:
            self.told_eof = True
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing to read")

    def write(self, data: Any) -> int:
        self.raise_error()
        if self.fin_out or self.state != CONNECTED or (self.is_unix and self.far_closed):
            self.told.add(errno.EPIPE)  # also if it never was connected: tcp_sendmsg()
            raise BrokenPipeError(errno.EPIPE, "shut")
        size = len(data)
        sent = min(size, self.out_room - self.on_its_way)
        if sent < size:
            self.no_space = True
        if sent <= 0:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.on_its_way += sent
        self.given += sent
        return sent

    def raise_error(self) -> None:
        if self.error:
            error, self.error = self.error, 0
            self.told.add(error)
            raise OSError(error, "of the socket")

    def is_over(self) -> bool:
        """Tell whether its far end is gone: reset, or closed in both directions."""
        return self.state in (CONNECTED, DEAD) and bool(self.mask() & (HUP | ERR))

    def is_open(self) -> bool:
        return self.references > 0

    # -- the far end ---------------------------------------------------------------------------------

    def far_send(self, size: int) -> None:
        if self.state != CONNECTED or self.fin_in:
            return
        size = min(size, self.rx_room - len(self.rx))
        first = (self.offset + self.far_sent) % 8192
        self.rx += STREAM[first : first + size]
        self.far_sent += size

    def far_take(self, size: int) -> bool:
        """Take what is on its way; tell whether the watcher's end has room again and wants to know."""
        size = min(size, self.on_its_way)
        self.on_its_way -= size
        if size and self.no_space and self.mask() & OUT:
            self.no_space = False
            return True
        return False

    def far_finish(self) -> None:
        if self.state == CONNECTED:
            self.fin_in = True

    def far_close(self) -> None:
        """Close the far end: with something unread, that is a reset."""
        if self.state != CONNECTED or self.far_closed:
            return
        if self.on_its_way:
            self.far_reset()
        else:
            self.far_closed = self.fin_in = True

    def far_reset(self) -> None:
        if self.state == CONNECTED:
            self.state = DEAD
            self.far_closed = True
            self.error = errno.EPIPE if self.fin_in and not self.is_unix else errno.ECONNRESET  # tcp_reset()
            self.on_its_way = 0


class Pipe:
    """One end of a pipe; both share the bytes."""

    def __init__(self, data: bytearray, room: list[int]) -> None:
        self.data = data
        self.room = room
        self.references = 0
