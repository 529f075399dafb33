"""The connections that closed lately, and why: a ring in one block of memory, for `gaiod explain`."""

import struct
from typing import Any, Generic, TypeVar

from gaiod.core.connection import Conn
from gaiod.core.sockets import name_of_peer, peer_of_name
from gaiod.handler.termination import Termination
from gaiod.worker.connection_log import ending_of, peer_text

ENTRY = struct.Struct("=qddqqIHHH28s2x")
"""Serial number, opened and closed in `time.monotonic()`, bytes received and sent, instance, listener, termination,
server, the peer."""

CLOSINGS_MAX = 4096
"""320 KiB for a worker, of which the system gives what is used. A closing costs 1 us here, and as much for asking the
kernel who it was (CPython 3.11)."""

CELLS = ENTRY.size // 8
"""Of an entry, 8 bytes each: the first is the serial number, which is never 0."""

WORDS_MAX = 1000
"""Listeners, servers and terminations that are remembered by number, each. A handler could make up a reason for every
connection."""

Word = TypeVar("Word")

OTHER = Termination("handler", phase="data")


class Words(Generic[Word]):
    """What is remembered by number: the same word by the same one. Of too many, the later ones are the first.

    Attributes:
        numbers: those that were given, by word or by what was the `key` of one.
    """

    def __init__(self, first: Word) -> None:
        self._words = [first]
        self.numbers: dict[object, int] = {first: 0}

    def number(self, word: Word, key: object = None) -> int:
        """Return the number of a word; `key` is what makes it another than the others, if not the word itself."""
        key = word if key is None else key
        number = self.numbers.get(key)
        if number is None:
            if len(self._words) >= WORDS_MAX:
                return 0
            number = self.numbers[key] = len(self._words)
            self._words.append(word)
        return number

    def word(self, number: int) -> Word:
        """Return the word of a number."""
        return self._words[number]


class RecentCloses:
    """Remembers the last connections of a worker that closed, the newest in the place of the oldest."""

    def __init__(self, size: int = CLOSINGS_MAX) -> None:
        self._size = size
        self._ring = bytearray(size * ENTRY.size)
        self._count = 0
        self._listeners: Words[str | None] = Words(None)
        self._servers: Words[str | None] = Words(None)
        self._terminations = Words(OTHER)

    def add(
        self,
        parts: tuple[int, int],
        listener: str,
        conn: Conn,
        name: bytes | None,
        termination: Termination,
        *,
        server: str | None,
        now_s: float,
    ) -> None:
        """Remember one.

        Args:
            parts: of its name (`Names.parts_of`).
            listener: its listener's name.
            conn: it.
            name: its peer's address as the kernel has it.
            termination: why it closed.
            server: which it was with.
            now_s: when, in `time.monotonic()`.
        """
        instance, serial = parts
        header = conn.proxy_header
        if header is not None and header.source is not None:
            name = name_of_peer(header.source)
        ENTRY.pack_into(
            self._ring,
            self._count % self._size * ENTRY.size,
            serial,
            conn.opened_s,
            now_s,
            conn.bytes_received,
            conn.bytes_sent,
            instance,
            self._listeners.numbers.get(listener) or self._listeners.number(listener),
            self._terminations.numbers.get(termination.key) or self._terminations.number(termination, termination.key),
            self._servers.numbers.get(server) or self._servers.number(server),
            name or b"",
        )
        self._count += 1

    def find(self, name: str, now_s: float) -> dict[str, Any] | None:
        """Return what is remembered of a connection, by its name; None: nothing."""
        wanted, serial = (int(part) for part in name.split("-"))
        serials = memoryview(self._ring).cast("q")[::CELLS].tolist()
        if serial == 0:
            return None
        for place, each in enumerate(serials):
            if each == serial:
                entry = ENTRY.unpack_from(self._ring, place * ENTRY.size)
                if entry[5] == wanted:
                    return self._told(entry, now_s)
        return None

    def _told(self, entry: tuple[Any, ...], now_s: float) -> dict[str, Any]:
        _, opened_s, closed_s, received, sent, _, listener, termination, server, name = entry
        return {
            "listener": self._listeners.word(listener),
            "peer": peer_text(peer_of_name(name)),
            "server": self._servers.word(server),
            **ending_of(self._terminations.word(termination)),
            "closed_ago_s": round(now_s - closed_s, 3),
            "age_s": round(closed_s - opened_s, 3),
            "received_bytes": received,
            "sent_bytes": sent,
        }
