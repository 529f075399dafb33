"""shout: say everything back, louder. A handler of one's own, in a file next to the configuration."""

from dataclasses import dataclass

from gaiod import Conn, Handler, OpResult


class Shout(Handler):
    """Answer in capitals, up to `bytes_max` per connection."""

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
