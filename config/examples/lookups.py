"""lookups: answers from a SQLite database, which blocks: it is asked in threads, each with a connection of its own."""

import sqlite3
import threading
from dataclasses import dataclass

from gaiod import CoroutineHandler, Duration, Stream


class Lookups(CoroutineHandler):
    """A client sends a key in a line, and gets its value, or `nothing`; `busy` if that takes too long."""

    threads_max = 4

    @dataclass
    class Options:
        """What `with:` may say."""

        database: str
        query: str = "SELECT value FROM entries WHERE key = ?"
        timeout: Duration = 2.0

    async def on_start(self) -> None:
        self.threads = threading.local()
        await self.run(self.look_up, "")  # a database that cannot be asked fails the start

    async def handle(self, conn: Stream) -> None:
        async for line in conn.lines(limit=1024):
            try:
                found = await self.run(self.look_up, line.decode().strip(), timeout=self.options.timeout)
            except TimeoutError:
                found = "busy"
            except UnicodeDecodeError:
                found = None
            await conn.write(f"{'nothing' if found is None else found}\n".encode())

    def look_up(self, key: str) -> str | None:
        """Ask the database, in the thread that calls this."""
        if not hasattr(self.threads, "database"):
            self.threads.database = sqlite3.connect(f"file:{self.options.database}?mode=ro", uri=True)
        row = self.threads.database.execute(self.options.query, (key,)).fetchone()
        return None if row is None else str(row[0])
