"""What a certificate says of itself: as much of DER as that takes. `ssl` tells it of a peer that it believes only."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SEQUENCE, CONTEXT_0, CONTEXT_3, BOOLEAN, OID, OCTETS, UTC_TIME = 0x30, 0xA0, 0xA3, 0x01, 0x06, 0x04, 0x17
DNS_NAME, IP_ADDRESS = 0x82, 0x87
COMMON_NAME, SUBJECT_ALT_NAME = b"\x55\x04\x03", b"\x55\x1d\x11"
"""Tags and identifiers of a certificate (X.690; RFC 5280, appendix A)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says of itself.

    Attributes:
        names: of the servers that it is for, in lower case: `example.org`, `*.example.org`, `192.0.2.1`.
        not_before_s: when it begins, in seconds since 1970.
        not_after_s: when it ends.
    """

    names: tuple[str, ...]
    not_before_s: float
    not_after_s: float


def facts_of(certificate: bytes) -> Facts:
    """Return what a certificate, in DER, says of itself. Its common name counts if it has no other (RFC 6125, 6.4.4).

    Raises:
        ValueError, IndexError: it is none.
    """
    fields = _parts(_parts(_parts(certificate)[0][1])[0][1])
    if fields[0][0] == CONTEXT_0:  # the version
        del fields[0]
    validity, subject = fields[3][1], fields[4][1]
    names = []
    for tag, extensions in fields[6:]:
        if tag == CONTEXT_3:
            for _, extension in _parts(_parts(extensions)[0][1]):
                identifier, *_, (_, text) = _parts(extension)
                if identifier == (OID, SUBJECT_ALT_NAME):
                    names = [name for part in _parts(_parts(text)[0][1]) if (name := _name(*part)) is not None]
    if not names:
        names = [text.decode().lower() for text in _common_names(subject)]
    begins, ends = _parts(validity)
    return Facts(tuple(names), _time(*begins), _time(*ends))


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and the contents of the elements that follow each other in some bytes."""
    parts = []
    while data:
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        if start + size > len(data):
            raise ValueError("an element is longer than what it is in")
        parts.append((tag, data[start : start + size]))
        data = data[start + size :]
    return parts


def _name(tag: int, value: bytes) -> str | None:
    if tag == DNS_NAME:
        return value.decode("ascii").lower()
    if tag == IP_ADDRESS and len(value) == 4:
        return ".".join(map(str, value))
    return None


def _common_names(subject: bytes) -> list[bytes]:
    found = []
    for _, group in _parts(subject):
        for _, pair in _parts(group):
            (_, identifier), (_, text) = _parts(pair)
            if identifier == COMMON_NAME:
                found.append(text)
    return found


def _time(tag: int, value: bytes) -> float:
    text: Any = value.decode("ascii")
    if tag == UTC_TIME:  # its years have two digits: from 50 on they are of the 20th century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
