"""The journal: what a feeder knows, in memory that outlives it.

The supervisor holds the memory, and each feeder after the other writes to it: how far sources have read, and the
messages that workers may not have got yet. An entry is written behind the last one, and then one store of one cell
makes it valid. So a feeder that is killed between any two instructions leaves a message *with* its position and its
sequence, or none of the three.

Two halves take turns: what is still worth something is written to the other half, and the same store switches over.
Recent messages are the last entries, so they are copied as they stand.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

Position = tuple[str, str]
"""What is read, as its source calls it, and how far: texts of the source's own."""

Message = tuple[int, str, bytes]
"""Its sequence, its topic, and what was published: not encoded, for workers may want it encoded in several ways."""

POSITION_MAX_BYTES = 4096
"""Of either text of a position: it is written with each message."""

ORIGINS_MAX = 1024
"""Of a listener: 64 sources with 16 streams. Beyond, the position that moved longest ago is forgotten."""

RECENT_MAX_BYTES = 8 * 1024 * 1024
"""Of the messages kept for workers that have not got them: a worker that keeps up is 1 MiB behind at most, and what
threads have published and the loop has not sent is as much."""

LAST_MAX_BYTES = 32 * 1024 * 1024
"""Of the last messages of all topics."""

OVERHEAD_BYTES = 200
"""What a message takes beside its bytes: some 40,000 small ones are recent, and read again in a tenth of a second."""

GROWTH_BYTES = 4 * 1024 * 1024
"""What a half may grow by before it is rewritten; or by what was worth something then, if that is more."""

HALF_BYTES = 96 * 1024 * 1024
"""The last messages, a recent one of 16 MiB, and a new one. Only what was written takes memory."""

_VERSION = 1
_HEADER_BYTES = 65_536
"""Pages: a half can be given back to the system from its first byte on, whatever their size."""

_KEEPS, _PUBLISHES, _FORGETS = range(3)
"""What an entry does: keep a position or a sequence, publish a message as well, or forget a listener."""

_ENTRY = struct.Struct("!BIHHHHQ")
"""What it does; bytes of the message, of the listener, the topic, the origin and the position; the sequence."""


@dataclass(slots=True, eq=False)
class _Stream:
    """What is known of a listener."""

    sequence: int = 0
    positions: OrderedDict[str, str] = field(default_factory=OrderedDict)  # the one that moved longest ago first
    keeps_last: bool = True


class Journal:
    """Keeps what must outlive the feeder, and gives it back. One process at a time writes to it: see `lock`.

    Attributes:
        forgotten: how many topics' last messages were dropped because there were too many.
    """

    def __init__(self, fd: int) -> None:
        """Map it; nothing is read before it is locked.

        Args:
            fd: of a file without a name, which is taken over. It has any size: that of this version is given to it.
        """
        self.forgotten = 0
        self._fd = fd
        size = _HEADER_BYTES + 2 * HALF_BYTES
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        self._memory = mmap.mmap(fd, size)
        self._cells: Any = memoryview(self._memory)[:16].cast("q")  # the version; a half's length, and which half
        self._half = self._length = 0
        self._base = (
            0  # the address of the half's first byte: an entry keeps its address when it moves to the other one
        )
        self._limit = GROWTH_BYTES
        self._streams: dict[str, _Stream] = {}
        self._recent: deque[tuple[int, str, int, str, bytes]] = deque()  # its address, then as it was added
        self._recent_bytes = 0
        self._last: OrderedDict[tuple[str, str], tuple[int, int, bytes]] = OrderedDict()  # published longest ago first
        self._last_bytes = 0

    def lock(self) -> bool:
        """Try to become the one that writes, and read what there is; False: another process does.

        It stays so until this process ends, however it does.
        """
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a process's own: inherited descriptors share none
        except OSError:
            return False
        if self._cells[0] != _VERSION:
            self._cells[1] = 0
            self._cells[0] = _VERSION
        self._length, self._half = self._cells[1] >> 1, self._cells[1] & 1
        self._read()
        self._limit = self._length + GROWTH_BYTES
        return True

    def close(self) -> None:
        """Let go of the memory."""
        self._cells.release()
        self._memory.close()
        os.close(self._fd)

    # -- what is known ---------------------------------------------------------------------------------------

    @property
    def sequences(self) -> dict[str, int]:
        """By listener, of its last message."""
        return {name: stream.sequence for name, stream in self._streams.items()}

    def position(self, listener: str, origin: str) -> str | None:
        """Return how far something was read for a listener; None: it never was. Any thread may ask."""
        stream = self._streams.get(listener)
        return None if stream is None else stream.positions.get(origin)

    def messages(self, listener: str, after: int) -> list[Message]:
        """Return those messages behind a sequence that are still there, in their order."""
        found = {message[0]: message for message in self.last_messages(listener) if message[0] > after}
        for _, name, sequence, topic, data in self._recent:
            if name == listener and sequence > after:
                found[sequence] = sequence, topic, data
        return [found[sequence] for sequence in sorted(found)]

    def last_messages(self, listener: str) -> list[Message]:
        """Return the last message of each topic, in their order."""
        return sorted(
            (sequence, topic, data) for (name, topic), (_, sequence, data) in self._last.items() if name == listener
        )

    # -- what is written -------------------------------------------------------------------------------------

    def add(self, listener: str, sequence: int, topic: str, data: bytes, position: Position | None) -> None:
        """Keep a message, with the position that its source has behind it, in one step."""
        address = self._write(_packed(_PUBLISHES, listener, sequence, position, (topic, data)))
        self._take(listener, sequence, position)
        self._take_message(address, listener, sequence, topic, data)

    def move(self, listener: str, position: Position) -> None:
        """Keep a position alone."""
        sequence = self._stream(listener).sequence
        self._write(_packed(_KEEPS, listener, sequence, position))
        self._take(listener, sequence, position)

    def keep_last(self, listener: str, wanted: bool) -> None:
        """Say whether the last messages of a listener's topics are kept; until then they are."""
        self._stream(listener).keeps_last = wanted
        for key in [] if wanted else [key for key in self._last if key[0] == listener]:
            self._last_bytes -= _size(*key, self._last.pop(key)[2])

    def forget_others(self, listeners: Collection[str]) -> None:
        """Forget what belongs to other listeners than these."""
        for name in self._streams.keys() - set(listeners):
            self._write(_packed(_FORGETS, name, 0, None))
            self._forget(name)

    # -- memory ----------------------------------------------------------------------------------------------

    def _stream(self, listener: str) -> _Stream:
        return self._streams.setdefault(listener, _Stream())

    def _take(self, listener: str, sequence: int, position: Position | None) -> None:
        """Know what an entry says, but for its message."""
        stream = self._stream(listener)
        stream.sequence = max(stream.sequence, sequence)
        if position is not None:
            origin, text = position
            stream.positions[origin] = text
            stream.positions.move_to_end(origin)
            if len(stream.positions) > ORIGINS_MAX:
                stream.positions.popitem(last=False)

    def _take_message(self, address: int, listener: str, sequence: int, topic: str, data: bytes) -> None:
        size = _size(listener, topic, data)
        self._recent.append((address, listener, sequence, topic, data))
        self._recent_bytes += size
        while self._recent_bytes > RECENT_MAX_BYTES and len(self._recent) > 1:
            _, name, _, old_topic, old = self._recent.popleft()
            self._recent_bytes -= _size(name, old_topic, old)
        if self._stream(listener).keeps_last:
            before = self._last.pop((listener, topic), None)
            self._last_bytes += size - (0 if before is None else _size(listener, topic, before[2]))
            self._last[listener, topic] = address, sequence, data
            while self._last_bytes > LAST_MAX_BYTES:
                key, (_, _, oldest) = self._last.popitem(last=False)
                self._last_bytes -= _size(*key, oldest)
                self.forgotten += 1

    def _forget(self, listener: str) -> None:
        self.keep_last(listener, False)
        del self._streams[listener]
        self._recent = deque(each for each in self._recent if each[1] != listener)
        self._recent_bytes = sum(_size(name, topic, data) for _, name, _, topic, data in self._recent)

    def _write(self, entry: bytes) -> int:
        """Write an entry, and return its address."""
        if self._length + len(entry) > self._limit:
            self._rewrite()
        address, start = self._base + self._length, self._start(self._half) + self._length
        self._memory[start : start + len(entry)] = entry
        self._length += len(entry)
        self._cells[1] = self._length << 1 | self._half
        return address

    def _rewrite(self) -> None:
        """Write what is worth something to the other half, and go on there."""
        end = self._base + self._length
        first = self._recent[0][0] if self._recent else end
        old = b"".join(self._older(first))
        before, start = self._start(self._half), self._start(1 - self._half)
        recent = self._memory[before + first - self._base : before + self._length]
        self._memory[start : start + len(old)] = old
        self._memory[start + len(old) : start + len(old) + len(recent)] = recent
        self._half, self._length, self._base = 1 - self._half, len(old) + len(recent), first - len(old)
        self._cells[1] = self._length << 1 | self._half
        self._limit = min(HALF_BYTES, self._length + max(GROWTH_BYTES, self._length))
        if hasattr(mmap, "MADV_REMOVE"):
            with contextlib.suppress(OSError):  # then its pages are used again at the next turn
                self._memory.madvise(mmap.MADV_REMOVE, before, HALF_BYTES)

    def _older(self, first: int) -> Iterator[bytes]:
        """Return what is known from before an address. What moved since then is behind it, and counts."""
        for name, stream in self._streams.items():
            yield _packed(_KEEPS, name, stream.sequence, None)
            for position in stream.positions.items():
                yield _packed(_KEEPS, name, stream.sequence, position)
        for (name, topic), (address, sequence, data) in self._last.items():
            if address < first:
                yield _packed(_PUBLISHES, name, sequence, None, (topic, data))

    def _read(self) -> None:
        """Know what is written."""
        start = at = self._start(self._half)
        end = at + self._length
        while at < end:
            address = at - start
            what, data_size, *sizes, sequence = _ENTRY.unpack_from(self._memory, at)
            at += _ENTRY.size
            texts = []
            for size in sizes:
                texts.append(self._memory[at : at + size].decode())
                at += size
            listener, topic, origin, text = texts
            data = self._memory[at : at + data_size]
            at += data_size
            if what == _FORGETS:
                if listener in self._streams:
                    self._forget(listener)
                continue
            self._take(listener, sequence, (origin, text) if origin else None)
            if what == _PUBLISHES:
                self._take_message(address, listener, sequence, topic, data)

    @staticmethod
    def _start(half: int) -> int:
        return _HEADER_BYTES + half * HALF_BYTES


def check_position(position: Position) -> None:
    """Refuse a position that cannot be kept.

    Raises:
        ValueError: it is one; the text says why.
    """
    origin, text = position
    if not origin:
        raise ValueError("a position belongs to nothing; name what is read, such as its path")
    for each in origin, text:
        if len(each.encode()) > POSITION_MAX_BYTES:
            raise ValueError(f"a position has {len(each.encode())} bytes; give at most {POSITION_MAX_BYTES}")


def _size(listener: str, topic: str, data: bytes) -> int:
    return len(listener) + len(topic) + len(data) + OVERHEAD_BYTES


def _packed(
    what: int, listener: str, sequence: int, position: Position | None, message: tuple[str, bytes] = ("", b"")
) -> bytes:
    topic, data = message
    origin, text = position or ("", "")
    texts = [each.encode() for each in (listener, topic, origin, text)]
    return b"".join((_ENTRY.pack(what, len(data), *map(len, texts), sequence), *texts, data))
