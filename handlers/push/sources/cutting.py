"""Lines, cut from a stream of bytes."""


class Cutter:
    """Cuts a stream into its lines, without their newlines.

    Of a line that is too long only the beginning is kept, one byte more than is permitted: enough to be refused.

    Args:
        line_max_bytes: the longest line that may be published.
    """

    def __init__(self, line_max_bytes: int) -> None:
        self._max = line_max_bytes
        self._part = b""
        self._is_skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has come, and return the lines that are whole."""
        return [line for line, _ in self.cut(data)]

    def cut(self, data: bytes) -> list[tuple[bytes, int | None]]:
        """As `feed`, with the place in `data` behind each line's newline; None: its newline has not come."""
        *ends, rest = data.split(b"\n")
        lines: list[tuple[bytes, int | None]] = []
        at = 0
        for end in ends:
            at += len(end) + 1
            if not self._is_skipping:
                lines.append(((self._part + end)[: self._max + 1], at))
            self._part, self._is_skipping = b"", False
        if not self._is_skipping:
            self._part += rest
            if len(self._part) > self._max:
                lines.append((self._part[: self._max + 1], None))
                self._part, self._is_skipping = b"", True
        return lines

    def end(self) -> list[bytes]:
        """Take the end of the stream: what is there without a newline is a line, too."""
        lines = [self._part] if self._part else []
        self._part, self._is_skipping = b"", False
        return lines

    def forget(self) -> None:
        """Begin anew: what comes next does not go on from what came."""
        self._part, self._is_skipping = b"", False
