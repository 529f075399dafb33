"""shout: say everything back, louder. A handler of one's own, in a file next to the configuration."""

from dataclasses import dataclass

from gaiod import Arrival, Conn, Handler, OpResult


class Shout(Handler):
    """Answer in capitals, up to `bytes_max` per connection, whichever worker serves it: see `on_leave`."""

    state_version = 1

    @dataclass
    class Options:
        """What `with:` may say."""

        greeting: str = "hello"
        bytes_max: int = 1_000_000

    def on_open(self, conn: Conn) -> None:
        conn.data = 0  # bytes answered so far
        conn.write(f"{self.options.greeting}\n".encode())

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data += result.size
        conn.write(bytes(result.buffer).upper())

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data < self.options.bytes_max:
            conn.read()
        else:
            conn.close()

    def on_leave(self, conn: Conn) -> bytes:
        """Say what another worker has to know: after a reload, one of the new workers goes on with the connection."""
        return b"%d" % conn.data

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        """Go on where the other worker was: with a write that it has begun, or with a read."""
        conn.data = int(arrival.state)
        if not conn.pending_write_bytes:
            conn.read()
