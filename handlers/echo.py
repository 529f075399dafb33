"""echo: send every byte back to where it came from."""

from gaiod import Arrival, Conn, Handler, OpResult


class Echo(Handler):
    """Read, write the same bytes back, and only then read again.

    A client that stops reading costs one buffer and no CPU: with its write pending there is no
    read to complete. That is the whole of the back-pressure.
    """

    state_version = 1  # of no state: what a connection is in the middle of are its operations

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.write(result.buffer)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read()

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        if not conn.pending_write_bytes:  # else it is read when that is written
            conn.read()
