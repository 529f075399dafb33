"""postgresql: speak TLS for a PostgreSQL server that does not. Clients ask for it within the protocol.

A client's first message is 8 bytes that ask for TLS (SSLRequest), and the server answers with one byte. That is why
proxies which know only bytes cannot do this. From the startup message on both sides are relayed.
"""

import time
from dataclasses import dataclass
from struct import Struct
from typing import Annotated

from gaiod import Check, Conn, ConnClosed, Duration, Handler, OpResult, Termination, parse_address

HEAD = Struct("!II")
"""The length of a first message, these 8 bytes included, and what it asks for."""

CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST = 80877102, 80877103, 80877104
CANCEL_BYTES = 16
STARTUP_MAX_BYTES = 10_000
"""As in the server."""

UNENCRYPTED = Termination("unencrypted", who="client", how="error", phase="startup")

TLS, NO_GSS, REFUSED = "tls", "no gss", "refused"
"""What is under way with a client that is not relayed yet."""


@dataclass
class Options:
    """The keys of `with:`."""

    server: Annotated[str, Check(parse_address)] = "127.0.0.1:5432"
    """A numeric address or `unix:/path`. What goes there is not encrypted: no other machine should see it."""
    startup_timeout: Duration = 10.0
    """From the connect to the startup message."""
    connect_timeout: Duration = 2.0


def error_response(code: str, text: str) -> bytes:
    """Return the message that a client shows its user."""
    fields = b"".join(f"{field}\0".encode() for field in ("SFATAL", "VFATAL", f"C{code}", f"M{text}")) + b"\0"
    return b"E" + (4 + len(fields)).to_bytes(4, "big") + fields


class Postgresql(Handler):
    """A client's `data` is what is under way with it; once it is served, its server, whose `data` it is.

    Each message is read to its last byte and no further. So whoever puts more behind a request for TLS, in the client's
    name, has that taken for a handshake, which fails (CVE-2021-23222).
    """

    Options = Options

    @classmethod
    def servers_of(cls, options: Options) -> tuple[str, ...]:
        address = parse_address(options.server)
        if address.kind == "name":
            raise ValueError(f"server: {address} is a name; write a numeric address")
        return (str(address),)

    def on_start(self) -> None:
        if not self.offers_tls:
            raise ValueError("the listener has no tls: {start: handler, ...}, so there is no TLS to offer")

    def on_open(self, conn: Conn) -> None:
        self._read(conn, HEAD.size)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        if conn.data == REFUSED:
            self._end(conn, UNENCRYPTED, "28000", "connections without encryption are refused; use sslmode=verify-full")
            return
        length, code = HEAD.unpack(result.buffer)
        is_request = length == HEAD.size and conn.tls is None
        if code == SSL_REQUEST and is_request:
            conn.data = TLS
            conn.write(b"S")
        elif code == GSSENC_REQUEST and is_request:
            conn.data = NO_GSS
            conn.write(b"N")
        elif code == CANCEL_REQUEST and length == CANCEL_BYTES:
            self._serve(conn, bytes(result.buffer))  # many clients never encrypt it; it has a secret, and no answer
        elif not HEAD.size < length <= STARTUP_MAX_BYTES:
            conn.close()
        elif conn.tls is not None:
            self._serve(conn, bytes(result.buffer))
        else:
            conn.data = REFUSED
            self._read(conn, length - HEAD.size)  # or the kernel resets the connection, and the answer is lost

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data == TLS:
            conn.start_tls(server=True, unread=b"")
        elif conn.data == NO_GSS:
            self._read(conn, HEAD.size)

    def on_tls(self, conn: Conn) -> None:
        self._read(conn, HEAD.size)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        client = conn.data
        if result.error is not None or client is None:
            if client is not None:
                self._end(client, "no_server", "08006", "the database server cannot be reached")
            conn.abort()
            return
        try:
            client.relay_to(conn)
            conn.relay_to(client)
        except ConnClosed:
            conn.abort()  # the client went meanwhile

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

    def partner_of(self, conn: Conn) -> Conn | None:
        return conn.data if isinstance(conn.data, Conn) else None

    def phase_of(self, conn: Conn) -> str:
        return super().phase_of(conn) if isinstance(conn.data, Conn) else "startup"

    def _read(self, conn: Conn, size: int) -> None:
        conn.read_full(bytearray(size), deadline=conn.opened_s + self.options.startup_timeout)

    def _serve(self, client: Conn, message: bytes) -> None:
        target = parse_address(self.options.server).target
        deadline_s = time.monotonic() + self.options.connect_timeout
        client.data = self.connect(target, data=client, deadline=deadline_s)
        client.data.write(message)  # when it is connected

    def _end(self, client: Conn, reason: str, code: str, text: str) -> None:
        client.close_reason = client.close_reason or reason
        try:
            client.write(error_response(code, text))
        except ConnClosed:
            return
        client.close()  # once that is sent
