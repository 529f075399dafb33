"""A relay of two streams: what either side sends, the other gets."""

from typing import Any, NamedTuple

from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.handler.coroutines.waits import Wait


class Relayed(NamedTuple):
    """What a relay moved.

    Attributes:
        sent: bytes that went to the other stream.
        received: bytes that came from it.
        error: why it ended; None: both streams did, in order.
    """

    sent: int
    received: int
    error: BaseException | None


class Relay:
    """Both directions of it. It ends when both have, or when one fails.

    Args:
        first: a `Stream`.
        second: another.

    Attributes:
        wait: for its end.
    """

    def __init__(self, first: Any, second: Any) -> None:
        self._streams = (first, second)
        self.wait = Wait(first)
        self._running: set[int] = set()  # `id` of the streams whose bytes are on their way
        self._before = [_asked(stream.conn) for stream in self._streams]
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Send on what was received and not read, and let the core do the rest."""
        first, second = self._streams
        for source, sink in ((first, second), (second, first)):
            data = source.take_buffer()
            if data:
                sink.conn.write(data)
            if source.at_eof:
                sink.conn.shutdown_write()
            else:
                source.conn.relay_to(sink.conn)
                self._running.add(id(source.conn))
        self._look()

    def ended(self, conn: Any, result: OpResult) -> None:
        """Take the end of one direction."""
        self._running.discard(id(conn))
        if result.error is not None and self._error is None:
            self._error = result.error
            self.withdraw()
        self._look()

    def withdraw(self) -> None:
        """End both directions."""
        for stream in self._streams:
            if id(stream.conn) in self._running and not stream.conn.closed:
                stream.conn.cancel(OpType.RELAY)

    def finish(self, error: BaseException | None) -> None:
        """End it: one of its connections is closed, say."""
        for stream in self._streams:
            stream.relaying = None
            stream.at_eof = stream.at_eof or stream.conn.at_eof
        moved = [stream.conn.bytes_sent - before for stream, before in zip(self._streams, self._before, strict=True)]
        self.wait.finish(Relayed(max(0, moved[1]), max(0, moved[0]), self._error or error))

    def _look(self) -> None:
        if not self._running:
            self.finish(None)


def _asked(conn: Any) -> int:
    """Return how many bytes of a connection were written so far, sent or not."""
    return int(conn.bytes_sent + conn.pending_write_bytes)
