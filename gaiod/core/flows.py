"""The system calls of relays, interpreted: the standard library, nothing compiled.

`_flows.pyx` is the same interface for the compiled engine. Bytes go through memory (`recv`, `send`) or,
where there is much of them, through a pipe (`splice`), which moves pages instead of copying them.
"""

import errno
import fcntl
import os
from typing import Any

TURN_MAX = 256 * 1024
"""Most bytes that one flow receives in a turn: its share of a pass, and so the most that can be left over."""

PIPE_BYTES = 256 * 1024
PIPE_BYTES_MIN = 64 * 1024
"""A pipe holds so much, or at least so much, or it is not used: a user who has many gets pipes of a page or two
(pipe-user-pages-soft, 64 MiB for all of a user's pipes: man 7 pipe)."""

PIPES_MAX = 64
"""Pipes of one watcher: 16 MiB. Flows that find none left copy."""

BULK_MIN = 32 * 1024
"""A turn that receives so much is a sign of bulk: from here on splicing costs less CPU than copying."""

BULK_LEAST = 16 * 1024
"""A turn that splices less is a sign of the opposite. Splicing 16 KiB costs as much as copying it."""

BULK_AFTER = 4
"""Signs in a row until a flow splices."""

BULK_CERTAIN = 8
"""Signs that are remembered: so many less `BULK_AFTER` small turns are forgiven."""

SPLICE_NONBLOCK = 2
"""SPLICE_F_NONBLOCK (linux/splice.h), which the standard library does not name before Python 3.13."""

_splice: Any = getattr(os, "splice", None)

Pipe = tuple[int, int]


class Flow:
    """One direction of a relay: what was received and not yet sent, and the outcome of its last turn.

    Attributes:
        sink: the connection it goes to.
        received: bytes that the last turn received, or `-errno`.
        drained: 1 if it received less than it asked for, 2 if the kernel said that there is no more.
        sent: bytes that it sent.
        error: the errno of a send that failed, else 0.
        ended: the end of the stream was received.
        left: bytes that were received and not yet sent.
        left_before: the same before the turn.
        wanted: most bytes that a turn receives, and so the most that can be left.
        paused_s: when something was left over last; its owner's.
        bulk: turns in a row that were a sign of bulk; -1: these sockets cannot splice.
    """

    def __init__(self, sink: Any, limit: int) -> None:
        self.sink = sink
        self.received = self.drained = self.sent = self.error = self.left = self.left_before = 0
        self.ended = False
        self.paused_s = 0.0
        self.wanted = min(limit, TURN_MAX)
        self._data = memoryview(b"")
        self._pipe: Pipe | None = None
        self.bulk = 0
        self._fds = (-1, -1)
        self._sessions: tuple[Any, Any] = (None, None)
        self._may_receive = False

    def prepare(self, source_fd: int, sink_fd: int, may_receive: bool) -> None:
        """Say between which descriptors the next turn is."""
        self._fds = (source_fd, sink_fd)
        self._sessions = (None, None)
        self._may_receive = may_receive

    def secure(self, source: Any, sink: Any) -> None:
        """Let the next turn go through the TLS sessions of the source and the sink; None: that one has none."""
        self._sessions = (source, sink)

    def move(self, plumbing: "Plumbing") -> None:
        """Have a turn: send what is left, and if all of it went, receive and send once more."""
        self.received = self.drained = self.sent = self.error = 0
        self.left_before = self.left
        if self._pipe is not None:
            self._send_pipe(plumbing, self._pipe)
        elif self.left:
            self._send_copy()
        if self.left or self.error or self.ended or not self._may_receive:
            return
        is_plain = self._sessions == (None, None)
        pipe = plumbing.borrow_pipe() if self.bulk >= BULK_AFTER and is_plain else None
        if pipe is not None:
            self._splice(plumbing, pipe)
        else:
            self._copy()

    def _copy(self) -> None:
        session = self._sessions[0]
        try:
            data = os.read(self._fds[0], self.wanted) if session is None else self._decrypt(session)
        except OSError as error:
            self._note_failure(error)
            if session is not None:
                self.drained = session.drained
            return
        if session is not None:
            self.drained = session.drained
        if not data:
            self.ended = True
            return
        self.received = self.left = len(data)
        if session is None:
            self.drained = int(self.received < self.wanted)
        if self.received < BULK_MIN:
            self.bulk = min(self.bulk, 0)
        elif 0 <= self.bulk < BULK_CERTAIN:
            self.bulk += 1
        self._data = memoryview(data)
        self._send_copy()

    def _decrypt(self, session: Any) -> bytes:
        """Return what a session has received; b"" at the end of its stream."""
        memory = memoryview(bytearray(self.wanted))
        size = session.receive(self._fds[0], memory)
        if size < 0:
            raise OSError(-size, os.strerror(-size))
        return bytes(memory[:size])

    def _splice(self, plumbing: "Plumbing", pipe: Pipe) -> None:
        self._pipe = pipe
        while True:
            try:
                received = _splice(self._fds[0], pipe[1], self.wanted, flags=SPLICE_NONBLOCK)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    self.bulk = -1
                else:
                    self._note_failure(error)
                break
            if received == 0:
                self.ended = True
                break
            self.received += received
            self.left = received
            self._drain_pipe(pipe)
            if self.left or self.error or self.received >= TURN_MAX:
                break
        if self.bulk > 0:
            if 0 <= self.received < BULK_LEAST:
                self.bulk -= 1
            elif self.bulk < BULK_CERTAIN:
                self.bulk += 1
        self._return_if_empty(plumbing, pipe)

    def _note_failure(self, error: OSError) -> None:
        """Take the outcome of a receive that failed."""
        number = error.errno or errno.EIO
        if number == errno.EAGAIN:
            self.drained = 2  # without TLS
        elif number != errno.EINTR and self.received == 0:
            self.received = -number

    def _send_copy(self) -> None:
        session = self._sessions[1]
        try:
            sent = os.write(self._fds[1], self._data) if session is None else self._encrypt(session)
        except OSError as error:
            self.error = error.errno or errno.EIO
        else:
            self.sent += sent
            self.left -= sent
            self._data = self._data[sent:] if self.left else memoryview(b"")

    def _encrypt(self, session: Any) -> int:
        """Return how many bytes a session has taken."""
        taken: int = session.take(self._fds[1], (self._data,))
        if taken < 0:
            raise OSError(-taken, os.strerror(-taken))
        return taken

    def _send_pipe(self, plumbing: "Plumbing", pipe: Pipe) -> None:
        self._drain_pipe(pipe)
        self._return_if_empty(plumbing, pipe)

    def _return_if_empty(self, plumbing: "Plumbing", pipe: Pipe) -> None:
        if self.left == 0:
            self._return(plumbing, pipe)

    def _return(self, plumbing: "Plumbing", pipe: Pipe) -> None:
        plumbing.return_pipe(pipe)
        self._pipe = None

    def _drain_pipe(self, pipe: Pipe) -> None:
        while self.left:
            try:
                # No SPLICE_F_MORE: the kernel would hold the end of a message back for 200 ms.
                sent = _splice(pipe[0], self._fds[1], self.left, flags=SPLICE_NONBLOCK)
            except OSError as error:
                self.error = error.errno or errno.EIO
                return
            self.sent += sent
            self.left -= sent

    def copy_leftover(self) -> bytes:
        """Return a copy of what is left."""
        if self._pipe is None:
            return bytes(self._data)
        copy = bytearray()
        while len(copy) < self.left:
            copy += os.read(self._pipe[0], self.left - len(copy))
        return bytes(copy)

    def hold(self, plumbing: "Plumbing") -> None:
        """Have what is left in memory, if it is in a pipe: it is about to be handed to another process."""
        if self._pipe is not None:
            self._data = memoryview(self.copy_leftover())
            self._return(plumbing, self._pipe)

    def restore(self, data: bytes, ended: bool, bulk: int) -> None:
        """Go on with what another flow had: `left` bytes of data, `ended`, `bulk`."""
        self._data = memoryview(data)
        self.left = len(data)
        self.ended = ended
        self.bulk = bulk

    def close(self, plumbing: "Plumbing") -> None:
        """Forget what is left."""
        self.sink = None
        self._sessions = (None, None)
        self._data = memoryview(b"")
        if self._pipe is not None:
            plumbing.discard_pipe(self._pipe)  # there may be something in it
            self._pipe = None
        self.left = 0


class Plumbing:
    """What the flows of a watcher share: pipes to splice through.

    A turn uses one for as long as it lasts; a flow keeps it only while something is in it.
    """

    def __init__(self) -> None:
        self._spares: list[Pipe] = []
        self._count = 0  # those lent included
        self._turns: list[Flow] = []

    def reset(self) -> None:
        """Forget whose turn it was."""
        self._turns.clear()

    def add(self, flow: Flow) -> None:
        """Let a flow have the next turn."""
        self._turns.append(flow)

    def turn(self) -> None:
        """Give each flow that was added its turn."""
        for flow in self._turns:
            flow.move(self)

    def borrow_pipe(self) -> Pipe | None:
        """Lend an empty pipe; None if there is none, and none can be had."""
        if self._spares:
            return self._spares.pop()
        if _splice is None or self._count >= PIPES_MAX:
            return None
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        self._count += 1
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # the user has too many: what it is now decides
        if fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) < PIPE_BYTES_MIN:
            self.discard_pipe(pipe)
            return None
        return pipe

    def return_pipe(self, pipe: Pipe) -> None:
        """Take a pipe back, empty."""
        self._spares.append(pipe)

    def discard_pipe(self, pipe: Pipe) -> None:
        """Take a pipe back that may have something in it."""
        for fd in pipe:
            os.close(fd)
        self._count -= 1

    def close(self) -> None:
        """Close the pipes that are not in use."""
        while self._spares:
            self.discard_pipe(self._spares.pop())
