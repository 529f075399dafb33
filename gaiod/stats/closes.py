"""The connections of a worker that closed lately, and why: shared memory, which the worker writes and others read.

    HEAD | words: JSON, a line each | entries: a ring, the newest in the place of the oldest

An entry refers to words by number: the name of a listener, the label of a server, a termination state. A word is there
before the first entry that refers to it. The memory outlives its worker, so others do not depend on how that ended.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from gaiod.core.sockets import peer_of_name, peer_text

HEAD = struct.Struct("=8sIIII")
"""MAGIC, the slot of the worker, bytes of words, where the entries begin, how many there is room for."""

MAGIC = b"closes01"
"""Of another version of this format another one."""

WORDS_USED_AT = 12
"""Where HEAD has the bytes of words."""

ENTRY = struct.Struct("=qddqqIHHH28s2x")
"""Serial number, opened and closed in `time.monotonic()`, bytes received and sent, instance, listener, termination,
server, the peer. The serial number of an entry that was never used is 0."""

CELLS = ENTRY.size // 8
"""Of an entry, 8 bytes each: the first is the serial number."""

CLOSINGS_MAX = 4096
"""320 KiB for a worker, of which the system gives what is used. A closing costs 1 us here, and as much for asking the
kernel who it was (CPython 3.11)."""

WORDS_MAX = 1000
"""Listeners, servers and terminations that are remembered by number, each. A handler could make up a reason for every
connection."""

WORDS_BYTES = 256 * 1024

FILE_BYTES = HEAD.size + WORDS_BYTES + CLOSINGS_MAX * ENTRY.size

OTHER = ("handler", "handler", "close", "", "data")
"""The termination of a connection for whose own there was no room."""


class Writer:
    """Remembers connections that close.

    Args:
        memory: of `FILE_BYTES`, zeros.
        slot: of the worker.
        entries: how many are remembered.
    """

    def __init__(self, memory: Any, slot: int = 0, entries: int = CLOSINGS_MAX) -> None:
        self._memory = memory
        self._entries = entries
        self._count = 0
        self._words_end = HEAD.size
        self._numbers: dict[str, dict[object, int]] = {"listener": {}, "server": {}, "ending": {}}
        HEAD.pack_into(memory, 0, MAGIC, slot, 0, HEAD.size + WORDS_BYTES, entries)

    def add(
        self,
        parts: tuple[int, int],
        times: tuple[float, float],
        moved: tuple[int, int],
        *,
        listener: str,
        server: str | None,
        ending: tuple[str, ...],
        peer: bytes,
    ) -> None:
        """Remember one.

        Args:
            parts: of its name: instance and serial number.
            times: when it was opened and closed, in `time.monotonic()`.
            moved: bytes received and sent.
            listener: its listener's name.
            server: the label of its server; None: it had none.
            ending: its termination state: reason, who, how, cause, phase.
            peer: its peer's address as the kernel has it.
        """
        numbers = self._numbers
        ENTRY.pack_into(
            self._memory,
            HEAD.size + WORDS_BYTES + self._count % self._entries * ENTRY.size,
            parts[1],
            *times,
            *moved,
            parts[0],
            numbers["listener"].get(listener) or self._number("listener", listener),
            numbers["ending"].get(ending) or self._number("ending", ending),
            0 if server is None else numbers["server"].get(server) or self._number("server", server),
            peer,
        )
        self._count += 1

    def _number(self, kind: str, word: Any) -> int:
        """Return the number of a word; 0: it is one of too many."""
        numbers = self._numbers[kind]
        line = json.dumps([kind, word]).encode() + b"\n"
        end = self._words_end + len(line)
        if len(numbers) >= WORDS_MAX or end > HEAD.size + WORDS_BYTES:
            return 0
        self._memory[self._words_end : end] = line
        self._words_end = end
        struct.pack_into("=I", self._memory, WORDS_USED_AT, end - HEAD.size)  # from now on it is there
        number = numbers[word] = len(numbers) + 1
        return number


def find(image: bytes, name: str, now_s: float) -> dict[str, Any] | None:
    """Return what is remembered of a connection, by its name; None: nothing.

    Args:
        image: a copy of the memory, or what `compacted` returned.
        name: the connection's.
        now_s: `time.monotonic()`.
    """
    instance, serial = (int(part) for part in name.split("-"))
    if not image.startswith(MAGIC) or serial == 0:
        return None
    _, slot, words_used, at, entries = HEAD.unpack_from(image)
    serials = memoryview(image)[at : at + entries * ENTRY.size].cast("q")[::CELLS].tolist()
    for place, each in enumerate(serials):
        if each == serial:
            entry = ENTRY.unpack_from(image, at + place * ENTRY.size)
            if entry[5] == instance:
                return {"worker": slot, **_told(entry, image[HEAD.size : HEAD.size + words_used], now_s)}
    return None


def compacted(image: bytes) -> bytes:
    """Return what is used of an image, as one that is as short as it can be; nothing if no connection closed."""
    if not image.startswith(MAGIC):
        return b""
    magic, slot, words_used, at, entries = HEAD.unpack_from(image)
    used = [entry for entry in _entries(image, at, entries) if any(entry[:8])]
    words = image[HEAD.size : HEAD.size + words_used]
    head = HEAD.pack(magic, slot, words_used, HEAD.size + words_used, len(used))
    return b"".join((head, words, *used)) if used else b""


def count(image: bytes) -> int:
    """Return how many connections a compacted image has."""
    entries: int = HEAD.unpack_from(image)[4]
    return entries


def ending_of(ending: Sequence[str]) -> dict[str, str]:
    """Return the fields that tell of a termination state: those of them that say something."""
    reason, who, how, cause, phase = ending
    told = {"reason": reason, "who": who, "how": how}
    told |= {"cause": cause} if cause else {}
    return {**told, "phase": phase}


def _entries(image: bytes, at: int, entries: int) -> Iterator[bytes]:
    for place in range(at, at + entries * ENTRY.size, ENTRY.size):
        yield image[place : place + ENTRY.size]


def _told(entry: tuple[Any, ...], lines: bytes, now_s: float) -> dict[str, Any]:
    _, opened_s, closed_s, received, sent, _, listener, ending, server, peer = entry
    words: dict[str, list[Any]] = {"listener": [None], "server": [None], "ending": [OTHER]}
    for line in lines.splitlines():
        kind, word = json.loads(line)
        words[kind].append(word)
    return {
        "listener": words["listener"][listener],
        "peer": peer_text(peer_of_name(peer)),
        "server": words["server"][server],
        **ending_of(words["ending"][ending]),
        "closed_ago_s": round(now_s - closed_s, 3),
        "age_s": round(closed_s - opened_s, 3),
        "received_bytes": received,
        "sent_bytes": sent,
    }
