"""How far a file was read, and whether it is still the same file."""

import os
import zlib

TAIL_MAX_BYTES = 4096
"""How much of what was read last is remembered: all of a small file that holds a state, and some lines of a log."""

CHECK_BYTES = 1024
"""How much of that a position has a checksum of, which takes a microsecond: for one who reads on in another process."""


class Place:
    """Where reading a file goes on.

    Its size alone does not tell that a file was written anew in place: the new content can be as long, or longer. So
    what stands before the place is compared with what was read there.

    Args:
        fd: the file, open.
        position: where to begin.
    """

    def __init__(self, fd: int, position: int) -> None:
        self._fd = fd
        state = os.fstat(fd)
        self._file = f"{state.st_dev} {state.st_ino}"
        self._position = position
        begin = max(0, position - TAIL_MAX_BYTES)
        self._tail = os.pread(fd, position - begin, begin)

    @classmethod
    def kept(cls, fd: int, text: str) -> "Place | None":
        """Return the place that is meant by the `text` of one; None: it is not in this file, or not any more."""
        place = cls(fd, int(text.split(" ")[2]))
        return place if place.text == text else None

    @property
    def text(self) -> str:
        """What tells another process the place: the file, the position, and what stands before it."""
        return f"{self._file} {self._position} {zlib.crc32(self._tail[-CHECK_BYTES:])}"

    def read(self, size: int) -> bytes:
        """Return what comes next, b"" at the end; `advance` goes on behind it."""
        return os.pread(self._fd, size, self._position)

    def is_intact(self) -> bool:
        """Tell whether what was read last still stands before the place.

        Asked after `read`: then what that returned goes on from there.
        """
        return os.pread(self._fd, len(self._tail), self._position - len(self._tail)) == self._tail

    def advance(self, data: bytes) -> None:
        """Go on behind what was read."""
        self._position += len(data)
        self._tail = (self._tail + data)[-TAIL_MAX_BYTES:]

    def rewind(self) -> None:
        """Go back to the start."""
        self._position = 0
        self._tail = b""
