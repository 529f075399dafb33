"""rewrite: connect every client to one server, and change what goes by. Bytes by hand, where proxy would relay."""

import time
from dataclasses import dataclass

from gaiod import Conn, ConnClosed, Duration, Handler, OpResult


@dataclass
class Options:
    """The keys of `with:`."""

    host: str = "127.0.0.1"
    port: int = 7000
    connect_timeout: Duration = 2.0
    hide: str = "0123456789"
    """Each of these characters arrives as #, in both directions. One byte each: where a read ends matters not."""


class Rewrite(Handler):
    """A client and its server are each other's `data`, from `on_open` until one of them closes.

    The next bytes of a side are read when the other has taken those before: whoever does not read slows the
    other down, and costs one buffer.
    """

    Options = Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        hidden = options.hide.encode("ascii")
        self._table = bytes.maketrans(hidden, b"#" * len(hidden))

    def on_open(self, conn: Conn) -> None:
        address = (self.options.host, self.options.port)
        conn.data = self.connect(address, data=conn, deadline=time.monotonic() + self.options.connect_timeout)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        if result.error is not None:
            conn.abort()  # and on_close lets the client go
            return
        conn.read()
        self._read(conn.data)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self._write(conn.data, bytes(result.buffer).translate(self._table))

    def on_write(self, conn: Conn, result: OpResult) -> None:
        self._read(conn.data)

    def on_eof(self, conn: Conn) -> None:
        partner = conn.data
        if partner is None or partner.at_eof:
            conn.close()  # both have said everything
        else:
            partner.shutdown_write()  # it may still answer

    def on_close(self, conn: Conn, reason: str) -> None:
        partner, conn.data = conn.data, None
        if partner is not None:
            partner.data = None
            partner.close()

    def _read(self, conn: Conn | None) -> None:
        if conn is not None:
            try:
                conn.read()
            except ConnClosed:
                pass  # its on_close is on its way

    def _write(self, conn: Conn | None, data: bytes) -> None:
        if conn is not None:
            try:
                conn.write(data)
            except ConnClosed:
                pass
