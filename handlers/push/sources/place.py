"""How far a file was read, and whether it is still the same file."""

import os

TAIL_MAX_BYTES = 4096
"""How much of what was read last is remembered: all of a small file that holds a state, and some lines of a log."""


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
        self._position = position
        begin = max(0, position - TAIL_MAX_BYTES)
        self._tail = os.pread(fd, position - begin, begin)

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
