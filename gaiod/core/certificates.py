"""What a certificate says of itself: as much of DER as that takes. `ssl` tells it of a peer that it believes only."""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Any

SEQUENCE, CONTEXT_0, CONTEXT_3, BOOLEAN, OID, OCTETS, UTC_TIME = 0x30, 0xA0, 0xA3, 0x01, 0x06, 0x04, 0x17
INTEGER, GENERALIZED_TIME = 0x02, 0x18
GOOD = 0x80
DNS_NAME, IP_ADDRESS = 0x82, 0x87
COMMON_NAME, SUBJECT_ALT_NAME = b"\x55\x04\x03", b"\x55\x1d\x11"
"""Tags and identifiers of a certificate (X.690; RFC 5280, appendix A)."""

ATTRIBUTES = {
    COMMON_NAME: "CN", b"\x55\x04\x05": "serialNumber", b"\x55\x04\x06": "C", b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST", b"\x55\x04\x09": "street", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU",
    b"\x55\x04\x0c": "title", bytes.fromhex("0992268993f22c640119"): "DC", bytes.fromhex("0992268993f22c640101"): "UID",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}  # fmt: skip
"""Of a distinguished name, those that have a short name: as OpenSSL writes it."""

ENCODINGS = {0x14: "latin-1", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
"""Of the kinds of text that are not UTF-8: T61String as everybody takes it, UniversalString, BMPString."""

SPECIAL = frozenset(',+"\\<>;')
"""What has a meaning in a distinguished name (RFC 4514, 2.4)."""


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
    fields = fields_of(certificate)
    validity, subject = fields[3][1], fields[4][1]
    names = []
    for tag, extensions in fields[6:]:
        if tag == CONTEXT_3:
            for _, extension in parts_of(parts_of(extensions)[0][1]):
                identifier, *_, (_, text) = parts_of(extension)
                if identifier == (OID, SUBJECT_ALT_NAME):
                    names = [name for part in parts_of(parts_of(text)[0][1]) if (name := _name(*part)) is not None]
    if not names:
        names = [text.decode().lower() for text in _common_names(subject)]
    begins, ends = parts_of(validity)
    return Facts(tuple(names), time_of(*begins), time_of(*ends))


def subject_of(certificate: bytes) -> str:
    """Return whose a certificate, in DER, is: `CN=gate 7,O=Example,C=DE` (RFC 4514). Nothing in it breaks a line.

    Raises:
        ValueError, IndexError: it is none.
    """
    return text_of_name(fields_of(certificate)[4][1])


def issuer_of(certificate: bytes) -> str:
    """Return who has issued a certificate, in DER, as `subject_of` does.

    Raises:
        ValueError, IndexError: it is none.
    """
    return text_of_name(fields_of(certificate)[2][1])


def serial_of(certificate: bytes) -> str:
    """Return the number that its issuer has given a certificate, in DER: hexadecimal, as OpenSSL shows it.

    Raises:
        ValueError, IndexError: it is none.
    """
    return _serial(fields_of(certificate)[0][1])


def _serial(value: bytes) -> str:
    number = int.from_bytes(value, "big", signed=True)
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + digits.zfill(len(digits) + len(digits) % 2)


@dataclass(frozen=True, slots=True)
class RevocationFacts:
    """What a list of revoked certificates says of itself.

    Attributes:
        issuer: the authority whose list it is, as `subject_of` has it.
        not_after_s: when there is to be the next one, in seconds since 1970; infinity: it does not say.
    """

    issuer: str
    not_after_s: float


def revocation_facts_of(revocations: bytes) -> RevocationFacts:
    """Return what a list of revoked certificates, in DER, says of itself (RFC 5280, 5.1).

    Raises:
        ValueError, IndexError: it is none.
    """
    fields = parts_of(parts_of(parts_of(revocations)[0][1])[0][1])
    if fields[0][0] == INTEGER:
        del fields[0]  # the version
    _, (_, issuer), _, *more = fields
    ends_s = time_of(*more[0]) if more and more[0][0] in (UTC_TIME, GENERALIZED_TIME) else inf
    return RevocationFacts(text_of_name(issuer), ends_s)


@dataclass(frozen=True, slots=True)
class StatusFacts:
    """What an OCSP response says of a certificate.

    Attributes:
        serial: which one of its issuer's, as `serial_of` has it.
        is_good: it is not revoked.
        not_after_s: when there is to be the next response, in seconds since 1970; infinity: it does not say.
    """

    serial: str
    is_good: bool
    not_after_s: float


def status_facts_of(response: bytes) -> StatusFacts:
    """Return what an OCSP response, in DER, says of the first certificate in it (RFC 6960, 4.2.1).

    Raises:
        ValueError, IndexError: it is none, or says that the responder could not answer.
    """
    (_, outcome), (_, answer) = parts_of(parts_of(response)[0][1])
    if outcome != b"\0":
        raise ValueError("the responder could not answer")
    basic = parts_of(parts_of(answer)[0][1])[1][1]
    fields = parts_of(parts_of(parts_of(basic)[0][1])[0][1])
    (responses,) = [value for tag, value in fields if tag == SEQUENCE]
    (_, certificate), (status, _), _, *more = parts_of(parts_of(responses)[0][1])
    ends_s = inf
    if more and more[0][0] == CONTEXT_0:
        ends_s = time_of(*parts_of(more[0][1])[0])
    return StatusFacts(_serial(parts_of(certificate)[3][1]), status == GOOD, ends_s)


def common_name_of(certificate: bytes) -> str | None:
    """Return the common name of whose a certificate, in DER, is: the last, if it has more; None: it has none.

    Raises:
        ValueError, IndexError: it is none.
    """
    found = None
    for _, group in parts_of(fields_of(certificate)[4][1]):
        for _, pair in parts_of(group):
            (_, identifier), value = parts_of(pair)
            if identifier == COMMON_NAME:
                found = _string(*value)
    return found


def fields_of(certificate: bytes) -> list[tuple[int, bytes]]:
    """Return what a certificate, in DER, has from its serial number on: the issuer is 2, the subject 4, by index.

    Raises:
        ValueError, IndexError: it is none.
    """
    fields = parts_of(parts_of(parts_of(certificate)[0][1])[0][1])
    return fields[1:] if fields[0][0] == CONTEXT_0 else fields  # the version


def text_of_name(name: bytes) -> str:
    """Return the text of a distinguished name (RFC 4514), given what is in its element."""
    groups = []
    for _, group in parts_of(name):
        pairs = []
        for _, pair in parts_of(group):
            (_, identifier), (tag, value) = parts_of(pair)
            key = ATTRIBUTES.get(identifier)
            if key is None:
                number = f"{identifier[0] // 40}.{identifier[0] % 40}{_dotted(identifier[1:])}"
                pairs.append(f"{number}=#{_element(tag, value).hex()}")
            else:
                pairs.append(f"{key}={_escaped(_string(tag, value))}")
        groups.append("+".join(pairs))
    return ",".join(reversed(groups))


def parts_of(data: bytes) -> list[tuple[int, bytes]]:
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
    for _, group in parts_of(subject):
        for _, pair in parts_of(group):
            (_, identifier), (_, text) = parts_of(pair)
            if identifier == COMMON_NAME:
                found.append(text)
    return found


def time_of(tag: int, value: bytes) -> float:
    """Return a time of a certificate in seconds since 1970, given its element's tag and content."""
    text: Any = value.decode("ascii")
    if tag == UTC_TIME:  # its years have two digits: from 50 on they are of the 20th century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _string(tag: int, value: bytes) -> str:
    return value.decode(ENCODINGS.get(tag, "utf-8"), "replace")


def _escaped(text: str) -> str:
    """Return a value of a distinguished name, with what has a meaning or ends a line escaped (RFC 4514, 2.4)."""
    return "".join(
        f"\\{char}"
        if char in SPECIAL or (place == 0 and char in " #") or (place == len(text) - 1 and char == " ")
        else char
        if char.isprintable()
        else "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for place, char in enumerate(text)
    )


def _dotted(data: bytes) -> str:
    """Return the rest of an object identifier: each number after a dot."""
    dotted, number = "", 0
    for byte in data:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            dotted += f".{number}"
            number = 0
    return dotted


def _element(tag: int, value: bytes) -> bytes:
    size = len(value)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, size]) + value if size < 0x80 else bytes([tag, 0x80 | len(octets)]) + octets + value
