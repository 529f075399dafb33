"""chat: rooms, names, and everybody hears everybody. A coroutine for each client, a group for all of them."""

from dataclasses import dataclass

from gaiod import CoroutineHandler, Duration, LimitExceeded, Stream


class Chat(CoroutineHandler):
    """Asks for a name; `/join ROOM` goes to another room, `/quit` away. Who reads too slowly is disconnected."""

    @dataclass
    class Options:
        """What `with:` may say."""

        patience: Duration = 60.0

    def on_start(self) -> None:
        self.rooms = self.group(limit=64 * 1024, policy="disconnect")
        self.names: set[str] = set()

    async def handle(self, conn: Stream) -> None:
        name = await self.name_of(conn)
        room = "lobby"
        try:
            self.go(conn, name, "", room)
            async for line in conn.lines(limit=1024):
                words = line.decode(errors="replace").split()
                if words[:1] == ["/quit"]:
                    break
                if words[:1] == ["/join"] and len(words) == 2:
                    self.go(conn, name, room, words[1])
                    room = words[1]
                elif words:
                    self.tell(room, f"{name}: {' '.join(words)}")
        except LimitExceeded:
            await conn.write(b"that line is too long; good bye\n")
        finally:
            self.names.discard(name)
            self.rooms.remove(conn.conn)
            self.tell(room, f"{name} is gone")

    async def name_of(self, conn: Stream) -> str:
        await conn.write(b"your name? ")
        while True:
            name = (await conn.read_until(limit=64, timeout=self.options.patience)).decode(errors="replace").strip()
            if name.isalnum() and name not in self.names:
                self.names.add(name)
                return name
            await conn.write(b"taken, or no name; another? ")

    def go(self, conn: Stream, name: str, before: str, room: str) -> None:
        """Let a client hear another room."""
        if before:
            self.rooms.remove(conn.conn, before)
            self.tell(before, f"{name} is gone")
        self.rooms.add(conn.conn, room)
        self.tell(room, f"{name} is here")

    def tell(self, room: str, text: str) -> None:
        self.rooms.publish(f"{text}\n".encode(), room)
