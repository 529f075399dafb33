"""store: what Redis' clients speak (RESP), in a coroutine: GET, SET, DEL, INCR, PING, and few others; in memory."""

from dataclasses import dataclass

from gaiod import CoroutineHandler, Size, Stream


class ProtocolError(Exception):
    """A client says what no client says; its connection ends."""


class Store(CoroutineHandler):
    """Keeps values by key, for the worker that it runs in. Pipelines are answered in order."""

    @dataclass
    class Options:
        """What `with:` may say."""

        value_max: Size = 1 << 20

    def on_start(self) -> None:
        self.values: dict[bytes, bytes] = {}

    async def handle(self, conn: Stream) -> None:
        try:
            async for line in conn.lines():
                words = await self.words(conn, line.rstrip(b"\r\n"))
                if words:
                    await conn.write(self.answer(words))
                if words[:1] == [b"QUIT"]:
                    break
        except ProtocolError as error:
            await conn.write(b"-ERR Protocol error: %b\r\n" % str(error).encode())

    async def words(self, conn: Stream, line: bytes) -> list[bytes]:
        """Return the words of the command that begins with a line."""
        if not line.startswith(b"*"):
            return line.split()
        words = []
        for _ in range(self.number(line[1:], 1024)):
            size = await conn.read_until(b"\r\n", limit=32)
            if not size.startswith(b"$"):
                raise ProtocolError(f"expected '$', got {size[:1]!r}")
            words.append((await conn.read_exactly(self.number(size[1:-2], self.options.value_max) + 2))[:-2])
        return words

    def number(self, text: bytes, most: int) -> int:
        if not text.isdigit() or int(text) > most:
            raise ProtocolError(f"invalid length {text[:20]!r}")
        return int(text)

    def answer(self, words: list[bytes]) -> bytes:
        match words[0].upper(), *words[1:]:
            case b"PING", *rest:
                return b"$%d\r\n%b\r\n" % (len(rest[0]), rest[0]) if rest else b"+PONG\r\n"
            case b"SET", key, value:
                self.values[key] = value
                return b"+OK\r\n"
            case b"GET", key:
                found = self.values.get(key)
                return b"$-1\r\n" if found is None else b"$%d\r\n%b\r\n" % (len(found), found)
            case b"DEL", *keys if keys:
                return b":%d\r\n" % sum(self.values.pop(key, None) is not None for key in keys)
            case b"INCR", key:
                before = self.values.get(key, b"0")
                if not before.lstrip(b"-").isdigit():
                    return b"-ERR value is not an integer or out of range\r\n"
                self.values[key] = b"%d" % (int(before) + 1)
                return b":%b\r\n" % self.values[key]
            case b"QUIT", *_:
                return b"+OK\r\n"
            case b"COMMAND" | b"CONFIG", *_:
                return b"*0\r\n"  # what redis-cli and redis-benchmark ask before anything else
        return b"-ERR unknown command or wrong number of arguments: %b\r\n" % words[0][:64]
