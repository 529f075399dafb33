"""Lines of a file, a FIFO, standard input or a unix socket: each is a message."""

from gaiod import Conn, Handler, OpResult, Outlet

from ..options import LinesOptions
from .alike import AlikeSource
from .cutting import Cutter
from .publisher import Publisher
from .reading import Reader

RESUME_S = 0.02
"""How often it is looked whether workers that were behind have caught up."""

QUIET_MAX_S = 86_400.0
"""How long one who writes to the unix socket may say nothing: it cannot know that it was closed, and loses a line."""


class LinesSource(AlikeSource):
    """Takes lines from where its options say."""

    def __init__(self, options: LinesOptions, topic: str, line_max_bytes: int, suffix: str) -> None:
        super().__init__(options, topic, line_max_bytes, suffix)
        self._suffix = suffix
        self.name = options.label
        self.listens_on = (options.lines,) if options.is_socket else ()
        self._options = options
        self._topic = topic
        self._line_max_bytes = line_max_bytes
        self._reader: Reader | None = None

    def start(self, outlet: Outlet) -> None:
        cutter = Cutter(self._line_max_bytes)
        publisher = Publisher(outlet, self._topic)
        if self._options.is_socket:
            lines = LinesHandler(publisher, self._line_max_bytes)
            outlet.serve(self._options.lines, lines, idle_timeout_s=QUIET_MAX_S)
        else:
            self._reader = Reader(self._options, self._suffix, cutter, publisher)
            self._reader.start()

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


class LinesHandler(Handler):
    """Takes lines from whoever connects, and reads no further while workers are behind."""

    def __init__(self, publisher: Publisher, line_max_bytes: int) -> None:
        super().__init__()
        self._publisher = publisher
        self._line_max_bytes = line_max_bytes

    def on_open(self, conn: Conn) -> None:
        conn.data = Cutter(self._line_max_bytes)
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self._publisher.publish(conn.data.feed(bytes(result.buffer)))
        self._read_on(conn)

    def on_timer(self, data: Conn) -> None:
        if not data.closed:
            self._read_on(data)

    def on_eof(self, conn: Conn) -> None:
        self._publisher.publish(conn.data.end())
        conn.close()

    def _read_on(self, conn: Conn) -> None:
        if self._publisher.outlet.is_behind:
            self.timer(RESUME_S, conn)
        else:
            conn.read()
