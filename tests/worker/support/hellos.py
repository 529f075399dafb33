"""ClientHellos, written byte by byte."""

import struct
from collections.abc import Sequence

GREASE = 0x3A3A


def sized(data: bytes, size: int) -> bytes:
    """Write a field that says its length first."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(body, 2)


def names(*texts: bytes, kind: int = 0) -> bytes:
    """Write a server_name extension."""
    return extension(0, sized(b"".join(bytes([kind]) + sized(text, 2) for text in texts), 2))


def protocols(*texts: bytes) -> bytes:
    """Write an ALPN extension."""
    return extension(16, sized(b"".join(sized(text, 1) for text in texts), 2))


def message(*extensions: bytes, after: bytes = b"", kind: int = 1) -> bytes:
    """Write a ClientHello, without records."""
    body = (
        b"\x03\x03" + bytes(32) + sized(bytes(32), 1) + sized(struct.pack("!HH", GREASE, 0x1301), 2) + sized(b"\0", 1)
    )
    if extensions:
        body += sized(b"".join(extensions), 2)
    return bytes([kind]) + sized(body + after, 3)


def records(data: bytes, sizes: Sequence[int] = ()) -> bytes:
    """Cut a message into records of these sizes, and the rest."""
    written, place = b"", 0
    for size in (*sizes, len(data)):
        part = data[place : place + size]
        place += size
        written += b"\x16\x03\x01" + sized(part, 2) if part else b""
    return written
