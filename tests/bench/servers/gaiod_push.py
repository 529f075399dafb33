"""The gaiod publisher under test: a handler that publishes to a group, without the process around it."""

from gaiod_worker import make_listener, serve
from publication import SEND_BUFFER_BYTES, Publication, answer

from gaiod import Conn, Handler, OpResult

LIMIT_BYTES = 8 * 1024 * 1024
"""More than any burst: no subscriber of the benchmark is too slow."""
RETRY_S = 0.0005
"""How soon to look again whether something waits that the kernel had no room for."""


class Publisher(Handler):
    """Publishes to every subscriber, as push_epoll.c describes it."""

    def on_start(self) -> None:
        self._group = self.group(limit=LIMIT_BYTES)
        self._publication: Publication | None = None
        self._asker: Conn | None = None

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        request = bytes(result.buffer)
        if request == b"subscribe\n":
            self._group.add(conn)
        elif request == b"count\n":
            conn.write(answer(len(self._group)))
        else:
            self._publication, self._asker = Publication(request), conn
            self.timer(0.0, None)
        conn.read()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Go on reading: that has been begun."""

    def on_timer(self, data: object) -> None:
        """Publish what is due, unless a subscriber's socket has no room."""
        publication = self._publication
        assert publication is not None
        if self._group.pending_bytes:
            self.timer(0.0, None)  # the loop is at it
        elif self._group.waiting_bytes:
            self.timer(RETRY_S, None)
        elif publication.is_over:
            assert self._asker is not None
            self._asker.write(answer(publication.count))
        elif delay_s := publication.delay_s:
            self.timer(delay_s, None)
        else:
            for message in publication.next_burst():
                self._group.publish(message)
            self.timer(0.0, None)


if __name__ == "__main__":
    watcher, listener = make_listener(Publisher())
    serve(watcher, listener, send_buffer_bytes=SEND_BUFFER_BYTES)
