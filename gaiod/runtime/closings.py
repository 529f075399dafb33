"""The connections that closed lately, and why: a ring in one block of memory, for `gaiod explain`."""

import struct
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.sockets import name_of_peer, peer_of_name
from gaiod.runtime.connlog import peer_text

ENTRY = struct.Struct("=qddqqHH28s")
"""Serial number, opened and closed in `time.monotonic()`, bytes received and sent, listener, reason, the peer."""

CLOSINGS_MAX = 4096
"""288 KiB for a worker, of which the system gives what is used. A closing costs 1 us here, and as much for asking the
kernel who it was (CPython 3.11)."""

CELLS = ENTRY.size // 8
"""Of an entry, 8 bytes each: the first is the serial number, which is never 0."""

WORDS_MAX = 1000
"""Listeners and reasons that are remembered by number. A handler could make up a reason for every connection."""

OTHER = "handler"


class Closings:
    """Remembers the last connections of a worker that closed, the newest in the place of the oldest."""

    def __init__(self, size: int = CLOSINGS_MAX) -> None:
        self._size = size
        self._ring = bytearray(size * ENTRY.size)
        self._count = 0
        self._words = [OTHER]
        self._numbers = {OTHER: 0}

    def add(self, listener: str, conn: Conn, name: bytes | None, reason: str, now_s: float) -> None:
        """Remember one; `name` is its peer's address as the kernel has it."""
        header = conn.proxy_header
        if header is not None and header.source is not None:
            name = name_of_peer(header.source)
        ENTRY.pack_into(
            self._ring,
            self._count % self._size * ENTRY.size,
            conn.serial,
            conn.opened_s,
            now_s,
            conn.bytes_received,
            conn.bytes_sent,
            self._number(listener),
            self._number(reason),
            name or b"",
        )
        self._count += 1

    def find(self, serial: int, now_s: float) -> dict[str, Any] | None:
        """Return what is remembered of a connection; None: nothing."""
        serials = memoryview(self._ring).cast("q")[::CELLS].tolist()
        if serial == 0 or serial not in serials:
            return None
        entry = ENTRY.unpack_from(self._ring, serials.index(serial) * ENTRY.size)
        _, opened_s, closed_s, received, sent, listener, reason, name = entry
        return {
            "listener": self._words[listener],
            "peer": peer_text(peer_of_name(name)),
            "reason": self._words[reason],
            "closed_ago_s": round(now_s - closed_s, 3),
            "age_s": round(closed_s - opened_s, 3),
            "received_bytes": received,
            "sent_bytes": sent,
        }

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            if len(self._words) >= WORDS_MAX:
                return 0
            number = self._numbers[word] = len(self._words)
            self._words.append(word)
        return number
