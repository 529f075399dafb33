"""route: look at a client's first line, connect to the server that it names, and relay from there on."""

import time
from dataclasses import dataclass

from gaiod import Conn, ConnClosed, Duration, Handler, OpResult

LINE_MAX_BYTES = 1024


@dataclass
class Target:
    """Where a server is."""

    port: int
    host: str = "127.0.0.1"


@dataclass
class Options:
    """The keys of `with:`."""

    routes: dict[str, Target]
    """By the first word of the first line."""
    line_timeout: Duration = 5.0
    connect_timeout: Duration = 2.0


class Route(Handler):
    """A client's `data` is what it has said of its first line so far; then its server, whose `data` it is.

    The line is the server's to read, too. Once both are relayed, this handler sees no byte of them any more.
    """

    Options = Options

    def on_open(self, conn: Conn) -> None:
        conn.data = b""
        conn.read(deadline=conn.opened_s + self.options.line_timeout)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        said = conn.data + bytes(result.buffer)
        line, end, _ = said.partition(b"\n")
        if end:
            self._route(conn, line, said)
        elif len(said) < LINE_MAX_BYTES:
            conn.data = said
            conn.read(deadline=conn.opened_s + self.options.line_timeout)
        else:
            conn.close()

    def _route(self, conn: Conn, line: bytes, said: bytes) -> None:
        words = line.decode("ascii", "replace").split()
        target = self.options.routes.get(words[0]) if words else None
        conn.data = None
        if target is None:
            conn.write(b"no such service\n")
            conn.close()  # once that is sent
            return
        deadline_s = time.monotonic() + self.options.connect_timeout
        conn.data = self.connect((target.host, target.port), data=conn, deadline=deadline_s)
        conn.data.write(said)  # when it is connected

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        client = conn.data
        if result.error is not None or client is None:
            conn.abort()
            return
        try:
            client.relay_to(conn)
            conn.relay_to(client)
        except ConnClosed:
            conn.abort()  # the client went meanwhile

    def on_write(self, conn: Conn, result: OpResult) -> None:
        """Go on: the relay does."""

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        partner = conn.data
        if result.error is not None:
            conn.abort()
        elif partner is None or partner.at_eof:
            conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        partner, conn.data = conn.data, None
        if isinstance(partner, Conn):
            partner.data = None
            partner.close()
