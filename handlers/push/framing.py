"""What surrounds a message on its way to the subscribers."""

from typing import Literal

Framing = Literal["lines", "length_prefixed", "raw"]

LENGTH_BYTES = 4
"""Of the length in front of a message, most significant first."""


def frame(framing: Framing, data: bytes) -> bytes:
    """Return a message as subscribers get it.

    Raises:
        ValueError: it cannot be framed so; the text says why.
    """
    if framing == "length_prefixed":
        return len(data).to_bytes(LENGTH_BYTES, "big") + data
    if framing == "raw":
        if not data:
            raise ValueError("is empty; with the framing raw nothing would be sent")
        return data
    line = data.removesuffix(b"\n")
    if b"\n" in line:
        where = line.index(b"\n") + 1
        raise ValueError(f"has a newline inside, as byte {where}; with the framing lines it would be two messages")
    return line + b"\n"
