"""forward: connect every client to one server, and carry the bytes both ways."""

import time
from dataclasses import dataclass

from gaiod import Conn, Duration, Handler, OpResult


@dataclass
class Options:
    """The keys of `with:`."""

    host: str = "127.0.0.1"
    port: int = 7000
    connect_timeout: Duration = 2.0


class Forward(Handler):
    """A client and its server are each other's `data`, from `on_open` until one of them closes.

    The relays hold 256 KiB at most in each direction: whoever does not read slows the other down.
    """

    Options = Options

    def on_open(self, conn: Conn) -> None:
        address = (self.options.host, self.options.port)
        conn.data = self.connect(address, data=conn, deadline=time.monotonic() + self.options.connect_timeout)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        client = conn.data
        if result.error is not None or client is None:
            conn.abort()
        else:
            client.relay_to(conn)
            conn.relay_to(client)

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        partner = conn.data
        if result.error is not None:
            conn.abort()
        elif partner is None or partner.at_eof:
            conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        partner, conn.data = conn.data, None
        if partner is not None:
            partner.data = None
            partner.close()
