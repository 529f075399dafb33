"""A connection as a coroutine sees it: what it reads and writes, it awaits."""

import errno
import time
from collections.abc import Awaitable
from math import inf
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, GaiodError, UsageError
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.handler.arrival import Arrival
from gaiod.handler.coroutines.relay import Relay, Relayed
from gaiod.handler.coroutines.waits import ForgottenAwait, Wait, come, is_cancelled, new_wait, running

READ_BYTES = 65536
"""The most that one read returns, unless it is told otherwise."""

LINE_BYTES = 65536
"""The longest line, unless it is told otherwise."""

ROOM_BYTES = 65536
"""A write does not wait while no more than this is queued."""

ANY, EXACT, UNTIL, LINE = range(4)
"""What a read waits for: some bytes, a number of them, those up to a separator, a line."""


class EndOfStream(GaiodError, EOFError):
    """The peer's stream ended before what was asked for had come.

    Attributes:
        partial: what had come of it; bytes.
    """

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"the stream ended after {len(partial)} bytes of what was waited for")
        self.partial = partial


class LimitExceeded(GaiodError):
    """No separator came within as many bytes as were allowed. They were not read: the next read returns them."""


class Lines:
    """The lines of a stream, one for each step of an `async for`."""

    def __init__(self, stream: "Stream", limit: int, timeout: float | None) -> None:
        self._stream = stream
        self._limit = limit
        self._timeout = timeout

    def __aiter__(self) -> "Lines":
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._stream._read(LINE, self._limit, b"\n", self._timeout)


class Stream:
    """A connection in a coroutine handler. All its operations are awaited; two of a kind must not wait at a time.

    With a `timeout`, in seconds, an operation raises `TimeoutError` when that has passed. The connection stays usable:
    "421 timeout" can still be said. If the peer resets it, or the network ends it, the coroutine gets a
    `ConnectionError` where it waits; if gaiod ends it (a drain, an idle timeout, `gaiod kill`), an
    `asyncio.CancelledError`.

    Attributes:
        data: free for the handler.
        arrival: what another worker's `leave` has said of the connection (`gaiod.Arrival`); None: it is new here.
    """

    def __init__(self, conn: Any, arrival: Arrival | None = None, is_server: bool = False) -> None:
        self._conn = conn
        self._direct = conn if type(conn) is Conn else None
        self.data: Any = None
        self.arrival = arrival
        self._is_server = is_server  # who waits for it works for a client
        self._buffer: bytearray | None = None  # what was received, and read by nobody yet; None: nothing
        self._reader: Wait | None = None
        self._kind = ANY
        self._size = 0
        self._separator = b""
        self._deadline: float | None = None
        self._pending_reads = 0  # of the connection: more than one, if a read was withdrawn
        self.at_eof = False
        self.error: BaseException | None = None  # why it is closed; each who asks gets one of its own
        self.fault: BaseException | None = None  # the last error that is its peer's doing
        self._writers: list[Wait] | None = None  # who wait for room
        self.relaying: Relay | None = None
        self._handshake: Wait | None = None
        self._is_shaking = False  # it has begun
        self.task: Any = None  # of `handle`; None: it is a server's, or its task is over
        self.owner: Stream | None = None  # of a server: for whom it was opened
        self.others: set[Any] | None = None  # what was opened, or spawned, for it
        self.is_over = False  # the coroutine has ended: nothing more can be opened for it
        self._works = 0  # tasks that work for it

    # -- reading -----------------------------------------------------------------------------------------

    def read(self, n: int = READ_BYTES, *, timeout: float | None = None) -> Awaitable[bytes]:
        """Read some bytes: at least one and at most `n`, as soon as there are any; `b""` at the end of the stream."""
        return self._read(ANY, n, b"", timeout)

    def read_exactly(self, n: int, *, timeout: float | None = None) -> Awaitable[bytes]:
        """Read `n` bytes.

        Raises:
            EndOfStream: the stream ends before; it has what came as its `partial`.
        """
        return self._read(EXACT, n, b"", timeout)

    def read_until(
        self, separator: bytes = b"\n", *, limit: int = LINE_BYTES, timeout: float | None = None
    ) -> Awaitable[bytes]:
        """Read up to a separator; what is returned ends with it.

        Args:
            separator: one byte or more.
            limit: the most bytes, with the separator.
            timeout: in seconds, for all of it.

        Raises:
            LimitExceeded: there is none within the limit. Nothing was read, and the connection stays usable.
            EndOfStream: the stream ends before; it has what came as its `partial`.
        """
        if type(separator) is not bytes or not separator:
            raise ValueError(f"separator={separator!r}: must be bytes, one or more")
        return self._read(UNTIL, limit, separator, timeout)

    def lines(self, *, limit: int = LINE_BYTES, timeout: float | None = None) -> Lines:
        """Iterate over the lines: `async for line in conn.lines():`. Each has its end, but perhaps the last one.

        Args:
            limit: the most bytes of a line.
            timeout: in seconds, for each line.

        Raises:
            LimitExceeded: a line is longer.
        """
        return Lines(self, limit, timeout)

    def _read(self, kind: int, size: int, separator: bytes, timeout: float | None) -> Wait:
        if size < 1:
            if kind == EXACT and size == 0:
                return come(b"")
            raise ValueError(f"cannot read {size} bytes; ask for 1 or more")
        if self._reader is not None or self.relaying is not None or self._handshake is not None:
            self._refuse_second()
        self._kind = kind
        self._size = size
        self._separator = separator
        self._deadline = None if timeout is None else deadline_of(timeout)
        wait = new_wait(self, self._is_server)
        if self._buffer is not None or self.at_eof:
            self._take(wait, 0)
            if wait.done:
                return wait
        if self.error is not None:
            wait.fail(self._refusal())
            return wait
        self._reader = wait
        self._submit()
        return wait

    def _submit(self) -> None:
        """Have the connection read; if it is closed, or closing, `ended` will tell why."""
        direct = self._direct
        try:
            if direct is not None:
                direct.watcher._submit_read(direct, None, None, self._deadline, False)
            else:
                self._conn.read(deadline=self._deadline)
        except ConnClosed:
            return
        self._pending_reads += 1

    def _take(self, wait: Wait, begin: int) -> None:
        """Let a read have what it waits for, if that is in the buffer.

        Args:
            wait: the read.
            begin: how much of the buffer was looked through before.
        """
        buffer = self._buffer
        held = 0 if buffer is None else len(buffer)
        if self._kind == ANY:
            if held:
                wait.finish(self._cut(min(held, self._size)))
            elif self.at_eof:
                wait.finish(b"")
            return
        if self._kind == EXACT:
            if held >= self._size:
                wait.finish(self._cut(self._size))
                return
        elif buffer is not None:
            found = buffer.find(self._separator, max(0, begin - len(self._separator) + 1), self._size)
            if found >= 0:
                wait.finish(self._cut(found + len(self._separator)))
                return
            if held >= self._size:
                self._fail(wait, LimitExceeded(f"no {self._separator!r} came within {self._size} bytes"))
                return
        if self.at_eof:
            self._take_end(wait, held)

    def _take_end(self, wait: Wait, held: int) -> None:
        """Let a read have what is left at the end of the stream, and that this is less than it wants."""
        rest = self._cut(held) if held else b""
        if self._kind != LINE:
            self._fail(wait, EndOfStream(rest))
        elif rest:
            wait.finish(rest)
        else:
            wait.fail(StopAsyncIteration())

    def _fail(self, wait: Wait, error: BaseException) -> None:
        self.fault = error
        wait.fail(error)

    def _cut(self, size: int) -> bytes:
        """Take so many bytes from the front of the buffer."""
        buffer = self._buffer
        assert buffer is not None
        if size == len(buffer):
            self._buffer = None
            return bytes(buffer)
        cut = bytes(buffer[:size])
        del buffer[:size]
        return cut

    def withdraw(self, wait: Wait) -> None:
        """Let a read or a write that nobody waits for any more go: what comes stays in the buffer."""
        if wait is self._reader:
            self._reader = None
            if self._pending_reads and not self._conn.closed:
                self._conn.cancel(OpType.READ)
        elif self._writers is not None and wait in self._writers:
            self._writers.remove(wait)
        elif self.relaying is not None and wait is self.relaying.wait:
            self.relaying.withdraw()
        elif wait is self._handshake:
            self._handshake = None
            if self._is_shaking:
                self._conn.abort()  # half of a handshake is no use to anybody

    # -- writing -----------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> Awaitable[None]:
        """Write all bytes. Await it: it returns at once while little is queued, and else when there is room again.

        What was written is sent, in order, whatever the coroutine does next; also if it returns.
        """
        if self.error is not None:
            raise self._refusal()
        if self._handshake is not None:
            self._refuse_second()
        sent = data if type(data) is bytes else bytes(memoryview(data))
        direct = self._direct
        if len(sent) == 0:
            return come(None)
        try:
            if direct is not None:
                direct.watcher._submit_write(direct, sent, None, None)
                is_room = direct.pending_write_bytes <= ROOM_BYTES
            else:
                self._conn.write(sent)
                is_room = self._conn.pending_write_bytes <= ROOM_BYTES
        except ConnClosed:  # or closing: `ended` will tell why
            is_room = False
        if is_room:
            return come(None)
        wait = new_wait(self, self._is_server)
        if self._writers is None:
            self._writers = []
        self._writers.append(wait)
        return wait

    def shutdown_write(self) -> None:
        """Send the end of the stream after what was written; the peer may go on sending."""
        self._conn.shutdown_write()

    def start_tls(self) -> Awaitable[None]:
        """Speak TLS from now on, as the server that the listener is, once what was written before is sent.

        For a protocol that begins without (STARTTLS), on a listener with `tls: {start: handler}`. Read the client's
        request, write the answer, and await this; a client that has sent more than its request is disconnected.

        Raises:
            gaiod.UsageError: the listener's TLS does not begin when its handler says so.
            ConnectionError: the handshake failed, or took longer than the listener's `tls.handshake_timeout`.
        """
        if self._reader is not None or self.relaying is not None or self._handshake is not None:
            self._refuse_second()
        if self.error is not None:
            raise self._refusal()
        wait = self._handshake = Wait(self)
        if not self._conn.pending_write_bytes:
            self._begin_tls(wait)
        return wait

    def _begin_tls(self, wait: Wait) -> None:
        self._is_shaking = True
        try:
            self._conn.start_tls(server=True, unread=self.take_buffer())
        except Exception as error:
            self._handshake = None
            wait.fail(error)

    def secured(self) -> None:
        """Take note that the handshake is done."""
        wait, self._handshake = self._handshake, None
        if wait is not None:
            wait.finish(None)

    # -- relaying ----------------------------------------------------------------------------------------

    def relay(self, other: "Stream") -> Awaitable[Relayed]:
        """Pass on what either side sends to the other, until both streams have ended, or one side fails.

        What was received and not read goes first. The end of either stream is passed on as such. The core moves the
        bytes: this coroutine sees none of them.

        Returns:
            `Relayed`: how many bytes went to the other and came from it, and the error that ended it; None: none.
        """
        if other is self:
            raise UsageError("a stream cannot be relayed to itself")
        self._check_idle()
        other._check_idle()
        relay = Relay(self, other)
        self.relaying = other.relaying = relay
        try:
            relay.begin()
        except BaseException:
            self.relaying = other.relaying = None
            relay.wait.is_awaited = True  # nobody was given it
            raise
        return relay.wait

    def _check_idle(self) -> None:
        if self.error is not None:
            raise self._refusal()
        if self._reader is not None or self.relaying is not None or self._handshake is not None:
            self._refuse_second()

    def _refuse_second(self) -> None:
        if self._reader is not None and not self._reader.is_awaited:
            raise ForgottenAwait("an await was forgotten: an earlier read of this connection is awaited by nobody")
        raise UsageError("a read of this connection waits already, or it is relayed, or begins TLS: one at a time")

    def _refusal(self) -> BaseException:
        """Return the error for who uses the stream after its end: what ended it; to cancel is for its own tasks."""
        error = self.error
        assert error is not None
        task = running()
        return error_for(error, is_own=task is not None and task.owner is self)

    def peek(self) -> bytes:
        """Return what was received and not read."""
        return b"" if self._buffer is None else bytes(self._buffer)

    def take_buffer(self) -> bytes:
        """Return what was received and not read, and forget it."""
        buffer, self._buffer = self._buffer, None
        return b"" if buffer is None else bytes(buffer)

    # -- ending ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close once what was written is sent. A coroutine that returns does that, too."""
        self._conn.close()

    def abort(self) -> None:
        """Close at once: what was not sent yet is lost."""
        self._conn.abort()

    def __repr__(self) -> str:
        return f"<Stream of {self._conn!r}>"

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def conn(self) -> Any:
        """The connection below it (`gaiod.Conn`): its counters and addresses. Do not read from it or write to it."""
        return self._conn

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._conn.closed)

    @property
    def peer_address(self) -> Any:
        """As `gaiod.Conn.peer_address`: the client's, also behind a load balancer that announces it."""
        return self._conn.peer_address

    @property
    def local_address(self) -> Any:
        """As `gaiod.Conn.local_address`."""
        return self._conn.local_address

    @property
    def tls(self) -> Any:
        """As `gaiod.Conn.tls`: what was agreed with the peer; None: no TLS."""
        return self._conn.tls

    # -- what its handler is told ----------------------------------------------------------------------------

    def feed(self, data: Any) -> None:
        """Take bytes that were received: `data` is valid until this returns."""
        reader = self._reader
        size = len(data)
        if self._buffer is None:
            if reader is not None and (
                (self._kind == ANY and size <= self._size) or (self._kind == EXACT and size == self._size)
            ):
                self._reader = None
                if self._pending_reads:
                    self._conn.cancel(OpType.READ)
                reader.finish(bytes(data))
                return
            self._buffer = bytearray(data)
            begin = 0
        else:
            begin = len(self._buffer)
            self._buffer += data
        if reader is not None:
            self._go_on(reader, begin)

    def _go_on(self, reader: Wait, begin: int) -> None:
        """Let the read that waits have what it wants, or ask for more."""
        self._reader = None  # what it resumes may read again
        self._take(reader, begin)
        if not reader.done:
            self._reader = reader
            if not self._pending_reads:
                self._submit()
        elif self._pending_reads and self._reader is None and not self._conn.closed:
            self._conn.cancel(OpType.READ)

    def eof(self) -> None:
        """Take note that a read found the end of the stream."""
        self._pending_reads -= 1
        self.at_eof = True
        if self._reader is not None:
            self._go_on(self._reader, 0)

    def expired(self, operation: OpType, error: Exception) -> None:
        """Take note that a read has expired, or was cancelled: the one that waits, or one that was withdrawn."""
        if operation is OpType.READ:
            self._pending_reads -= 1
            if self._reader is not None and not self._pending_reads:
                reader, self._reader = self._reader, None
                self._fail(reader, error)

    def give_room(self) -> None:
        """Let who waits for room to write go on, if there is some; or a handshake begin that waits for its turn."""
        if self._handshake is not None and not self._is_shaking and not self._conn.pending_write_bytes:
            self._begin_tls(self._handshake)
        if self._conn.pending_write_bytes <= ROOM_BYTES:
            writers, self._writers = self._writers, None
            for wait in writers or ():
                wait.finish(None)

    def ended(self, error: BaseException) -> None:
        """Take note that the connection is closed: whatever is asked of it from now on raises this error."""
        self.error = error
        if self.owner is not None and self.owner.others is not None:
            self.owner.others.discard(self)
        reader, self._reader = self._reader, None
        writers, self._writers = self._writers, None
        handshake, self._handshake = self._handshake, None
        if self.relaying is not None:
            self.relaying.finish(error)
        for wait in (handshake, reader, *(writers or ())):
            if wait is not None:
                wait.fail(error_for(error, is_own=wait.task is None or wait.task.owner is self))

    def is_quiet(self) -> bool:
        """Whether another worker could go on with it: `handle` waits for bytes of the client, and for nothing else."""
        task = self.task
        waits = self._reader is not None and task is not None and task.waits_for is self._reader
        return waits and not self.others and self._writers is None

    def waits_for(self, wait: Any) -> bool:
        """Whether a wait is for something of this stream."""
        is_relay = self.relaying is not None and wait is self.relaying.wait
        return wait is not None and (wait in (self._reader, self._handshake, *(self._writers or ())) or is_relay)

    def own(self, other: Any) -> None:
        """Let a `Stream` or a `Task` end when the coroutine of this one does."""
        if self.others is None:
            self.others = set()
        self.others.add(other)

    def count_work(self, change: int) -> None:
        """Count a task that works for the connection: then that is busy."""
        self._works += change
        self._conn.busy = self._works > 0


def deadline_of(timeout: float) -> float:
    """Return the time at which a timeout is over.

    Raises:
        ValueError: it is no number of seconds.
    """
    if not 0 <= timeout < inf:
        raise ValueError(f"timeout={timeout!r}: must be a number of seconds; None waits for ever")
    return time.monotonic() + timeout


def error_for(error: BaseException, *, is_own: bool) -> BaseException:
    """Return the error of an end for one of those who are told of it.

    Args:
        error: of the end.
        is_own: whether it is for a task of the connection's: only that is cancelled with it.
    """
    if is_cancelled(error) and not is_own:
        return ConnectionAbortedError(errno.ECONNABORTED, str(error))
    return type(error)(*error.args)


def stream_of(conn: Any) -> Stream:
    """Return the stream of a connection; or of what stands for one, in a script."""
    if type(conn) is Conn:
        direct: Conn = conn
        stream: Stream = direct.data
    else:
        stream = conn.data
    return stream


def arrived(conn: Any, result: OpResult) -> None:
    """Be the `on_read` of a coroutine handler."""
    stream = stream_of(conn)
    stream._pending_reads -= 1
    stream.feed(result.buffer)


def written(conn: Any, result: OpResult) -> None:
    """Be the `on_write` of a coroutine handler."""
    stream = stream_of(conn)
    if stream._writers is not None or stream._handshake is not None:
        stream.give_room()
