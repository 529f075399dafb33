"""The PROXY protocol: what a load balancer says in front of a connection's bytes, versions 1 and 2.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Where it leaves a choice, the strict one is
taken: these bytes decide whom a connection is said to be from.
"""

import os
import re
import socket
from dataclasses import dataclass, replace
from typing import Any

from gaiod.core.errors import GaiodError
from gaiod.core.sockets import MAPPED, plain
from gaiod.core.tls import TlsFacts

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""What version 2 begins with: no version 1 line, and the beginning of no other protocol."""

FIRST_BYTES = len(b"PROXY UNKNOWN\r\n")
"""The shortest header: less than the fixed part of version 2, so a first read of it never reads beyond either."""

FIXED_BYTES = 16
"""Version 2: signature, version and command, family, length."""

V1_MAX_BYTES = 107
V2_MAX_BYTES = 4096
"""What is said of a client takes some hundred bytes, with the certificate of its TLS a few thousand."""

LOCAL, PROXY = 0, 1
UNSPECIFIED, TCP4, TCP6, UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
ADDRESS_BYTES = {TCP4: 12, TCP6: 36, UNIX_STREAM: 216}
UNIX_PATH_BYTES = 108
DATAGRAMS = (0x12, 0x22, 0x32)

ALPN, AUTHORITY, CRC32C, NOOP, SSL = 0x01, 0x02, 0x03, 0x04, 0x20
SSL_VERSION, SSL_CN, SSL_CIPHER = 0x21, 0x22, 0x23
CLIENT_SSL, CLIENT_CERT_CONN, CLIENT_CERT_SESS = 0x01, 0x02, 0x04
"""Of the client field of SSL: it speaks TLS, has shown a certificate in this connection, or in this session."""

COMMON_NAME_MAX_BYTES = 1024
"""A longer one is left out: a client chooses its name, and must not make a header that nobody takes."""

CRC_BYTES = 4
TLV_HEADER_BYTES = 3

SHORTEST = {
    b"TCP4": (len("PROXY"), len("TCP4"), len("0.0.0.0"), len("::"), 1, 1),
    b"TCP6": (len("PROXY"), len("TCP6"), len("::"), len("::"), 1, 1),
}
"""The least that each field of a version 1 line can have. The word is the source's family; nginx writes it so, and a
destination of the other one behind it, where it has the client's address from a header or from elsewhere."""

V1_BEGINNING = re.compile(rb"PROXY (?:(TCP4|TCP6) |UNKNOWN(?: |\r\n))")
PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
PORT_MAX = 65_535
NOT_V1 = "is not two addresses and two ports with one space before each, and CRLF"

SHOWN_BYTES = 24
"""Enough of what came to recognise another protocol: GET / HTTP/1.1, a TLS ClientHello."""

_CRC_TABLE = [0] * 256
for _byte in range(256):
    _remainder = _byte
    for _ in range(8):
        _remainder = _remainder >> 1 ^ (0x82F63B78 if _remainder & 1 else 0)
    _CRC_TABLE[_byte] = _remainder


class ProxyProtocolError(GaiodError, ValueError):
    """What came is no PROXY header; the text says what is wrong, and shows its bytes escaped."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Whom a connection is from, and where it went, as the load balancer in between says.

    Attributes:
        source, destination: the client's address and the one it connected to, each by itself: `(host, port)` for IPv4,
            `(host, port, 0, 0)` for IPv6, the path of a unix socket (bytes: an abstract one); None: not said.
        tlvs: what version 2 adds, as (type, value): the TLS name that was asked for, an id, ... Those that
            only hold the header together (checksum, padding) are left out.
    """

    source: Any
    destination: Any
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def with_tls(self, tls: TlsFacts) -> "ProxyHeader":
        """Return the header with what was agreed with the client, whose TLS ends here: AUTHORITY, ALPN and SSL.

        A version 1 line cannot say it.
        """
        has_shown, is_verified = tls.peer_certificate is not None, tls.is_verified
        shown = (CLIENT_CERT_SESS | (0 if tls.resumed else CLIENT_CERT_CONN)) if has_shown else 0
        said = [(SSL_VERSION, f"TLSv{tls.version}".encode()), (SSL_CIPHER, tls.suite.encode())]
        name = (tls.common_name or "").encode() if has_shown else b""
        if 0 < len(name) <= COMMON_NAME_MAX_BYTES:
            said.insert(1, (SSL_CN, name))
        verdict = int(not (has_shown and is_verified)).to_bytes(4, "big")
        ssl = bytes((CLIENT_SSL | shown,)) + verdict + b"".join(_tlv(*each) for each in said)
        named = [] if tls.server_name is None else [(AUTHORITY, tls.server_name.encode())]
        spoken = [] if tls.alpn is None else [(ALPN, tls.alpn.encode())]
        return replace(self, tlvs=(*self.tlvs, *named, *spoken, (SSL, ssl)))

    def encode_v1(self) -> bytes:
        """Return the header as version 1, a line of text; UNKNOWN for a unix socket, or where an end is None.

        Where one end is IPv4 and the other IPv6, both are written as IPv6.

        Raises:
            ValueError: one end is a unix socket and the other is not, or they are no addresses.
        """
        family = self._family()
        if family not in (TCP4, TCP6):
            return b"PROXY UNKNOWN\r\n"
        kind = socket.AF_INET if family == TCP4 else socket.AF_INET6
        hosts = [socket.inet_ntop(kind, _packed(kind, each)) for each in (self.source, self.destination)]
        ports = [_checked_port(each) for each in (self.source, self.destination)]
        name = "TCP4" if family == TCP4 else "TCP6"
        return f"PROXY {name} {hosts[0]} {hosts[1]} {ports[0]} {ports[1]}\r\n".encode()

    def encode_v2(self) -> bytes:
        """Return the header as version 2, with a checksum; LOCAL where an end is None.

        LOCAL has no TLVs: whoever receives it must not look at them. Ends of two families are IPv6, as in version 1.

        Raises:
            ValueError: one end is a unix socket and the other is not, they are no addresses, or the TLVs are too long.
        """
        family = self._family()
        block = _encoded_ends(family, self.source, self.destination)
        tlvs = () if family == UNSPECIFIED else tuple(each for each in self.tlvs if each[0] != CRC32C)
        tlvs = (*tlvs, (CRC32C, bytes(CRC_BYTES)))
        size = FIXED_BYTES + len(block) + sum(TLV_HEADER_BYTES + len(value) for _, value in tlvs)
        if size > V2_MAX_BYTES:
            raise ValueError(f"the header would have {size} bytes: at most {V2_MAX_BYTES}; drop some TLVs")
        block += b"".join(_tlv(kind, value) for kind, value in tlvs)
        command = LOCAL if family == UNSPECIFIED else PROXY
        header = SIGNATURE + bytes((2 << 4 | command, family)) + len(block).to_bytes(2, "big") + block
        return header[:-CRC_BYTES] + crc32c(header).to_bytes(CRC_BYTES, "big")

    def _family(self) -> int:
        families = {_family_of(self.source), _family_of(self.destination)}
        if UNSPECIFIED in families:
            return UNSPECIFIED
        if families == {TCP4, TCP6}:
            return TCP6
        if len(families) > 1:
            raise ValueError(f"{self.source!r} and {self.destination!r} are not of one family")
        return families.pop()


class HeaderReader:
    """Takes a header apart as it comes in.

    It never asks for a byte behind the header, so what follows can be left where it is: the first of it may be
    for somebody else, such as TLS. A line of version 1 takes some reads for that: 16 at most, or 47 where
    text follows UNKNOWN.

    Attributes:
        missing: how many bytes to read next; 0 once the header is complete.
    """

    __slots__ = ("_data", "missing")

    def __init__(self) -> None:
        self._data = bytearray()
        self.missing = FIRST_BYTES

    def take(self, data: bytes | bytearray | memoryview) -> ProxyHeader | None:
        """Take bytes, at most `missing`; return the header once it is complete.

        Raises:
            ProxyProtocolError: it is none. The reader is of no further use.
            ValueError: these are more bytes than were asked for.
        """
        if len(data) > self.missing:
            raise ValueError(f"{len(data)} bytes: {self.missing} were asked for, the others are not the header's")
        self._data += data
        self.missing -= len(data)
        if self.missing:
            return None
        so_far = bytes(self._data)
        if so_far.startswith(SIGNATURE):
            self.missing = _missing_v2(so_far)
            return None if self.missing else _parsed_v2(so_far)
        self.missing = _missing_v1(so_far)
        return None if self.missing else _parsed_v1(so_far)


def crc32c(data: bytes) -> int:
    """Return the CRC-32c of `data`: Castagnoli's polynomial, as in iSCSI (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[crc & 0xFF ^ byte]
    return crc ^ 0xFFFFFFFF


# -- version 1 ------------------------------------------------------------------------------------------


def _missing_v1(line: bytes) -> int:
    """Return how many bytes must still come, at least: every field that is not there, in its shortest form."""
    match = V1_BEGINNING.match(line)
    if match is None:
        raise ProxyProtocolError(f"it begins with {_shown(line)}, not with a PROXY header")
    if line.endswith(b"\r\n"):
        return 0
    if line.endswith(b"\r"):
        missing = 1
    elif match[1] is None:
        missing = 2
    else:
        shortest = SHORTEST[match[1]]
        fields = line.split(b" ")
        if b"\n" in line or b"\r" in line or len(fields) > len(shortest):
            raise ProxyProtocolError(f"the line {_shown(line)} {NOT_V1}")
        missing = max(0, shortest[len(fields) - 1] - len(fields[-1])) + 2
        missing += sum(1 + length for length in shortest[len(fields) :])
    if len(line) + missing > V1_MAX_BYTES:
        raise ProxyProtocolError(f"the line {_shown(line)} is longer than {V1_MAX_BYTES} bytes")
    return missing


def _parsed_v1(line: bytes) -> ProxyHeader:
    _, name, *rest = line[:-2].split(b" ")
    if name == b"UNKNOWN":
        return ProxyHeader(None, None)  # the rest of the line is to be ignored, whatever it is
    if len(rest) != 4:
        raise ProxyProtocolError(f"the line {_shown(line)} {NOT_V1}")
    kind = socket.AF_INET if name == b"TCP4" else socket.AF_INET6
    other = socket.AF_INET6 if b":" in rest[1] else socket.AF_INET
    source, destination = _host_v1(kind, rest[0]), _host_v1(other, rest[1])
    ports = [_port_v1(text) for text in rest[2:]]
    return ProxyHeader(_address(kind, source, ports[0]), _address(other, destination, ports[1]))


def _host_v1(kind: socket.AddressFamily, text: bytes) -> bytes:
    try:
        return socket.inet_pton(kind, text.decode("ascii"))
    except (OSError, ValueError):  # ValueError: not ASCII, or a NUL in it
        name = "IPv4" if kind == socket.AF_INET else "IPv6"
        raise ProxyProtocolError(f"{_shown(text)} is no {name} address") from None


def _port_v1(text: bytes) -> int:
    if PORT.fullmatch(text) is None or int(text) > PORT_MAX:
        raise ProxyProtocolError(f"{_shown(text)} is no port")
    return int(text)


# -- version 2 ------------------------------------------------------------------------------------------


def _missing_v2(header: bytes) -> int:
    """Return how many bytes must still come; refuse what is wrong already."""
    version, command, family = header[12] >> 4, header[12] & 0xF, header[13]
    if version != 2:
        raise ProxyProtocolError(f"it is of version {version}; versions 1 and 2 are known")
    if command not in (LOCAL, PROXY):
        raise ProxyProtocolError(f"its command is {command}; LOCAL (0) and PROXY (1) are known")
    if command == PROXY and family in DATAGRAMS:
        raise ProxyProtocolError("it announces datagrams; this is a stream")
    if command == PROXY and family != UNSPECIFIED and family not in ADDRESS_BYTES:
        raise ProxyProtocolError(f"it announces a connection of family and protocol 0x{family:02x}, which is unknown")
    if len(header) < FIXED_BYTES:
        return FIXED_BYTES - len(header)
    size = FIXED_BYTES + int.from_bytes(header[14:16], "big")
    if size > V2_MAX_BYTES:
        raise ProxyProtocolError(f"it has {size} bytes; at most {V2_MAX_BYTES} are taken")
    if command == PROXY and size - FIXED_BYTES < ADDRESS_BYTES.get(family, 0):
        raise ProxyProtocolError(f"its length of {size - FIXED_BYTES} bytes is too short for its addresses")
    return size - len(header)


def _parsed_v2(header: bytes) -> ProxyHeader:
    command, family = header[12] & 0xF, header[13]
    if command == LOCAL or family == UNSPECIFIED:
        return ProxyHeader(None, None)  # "must discard the protocol block": it is not even looked at
    at = FIXED_BYTES + ADDRESS_BYTES[family]
    source, destination = _decoded_ends(family, header[FIXED_BYTES:at])
    tlvs = []
    has_checksum = False
    while at < len(header):
        end = at + TLV_HEADER_BYTES + int.from_bytes(header[at + 1 : at + 3], "big")
        if at + TLV_HEADER_BYTES > len(header) or end > len(header):
            raise ProxyProtocolError(f"its TLV at byte {at} ends behind the header")
        kind, value = header[at], header[at + TLV_HEADER_BYTES : end]
        if kind == CRC32C:
            if has_checksum:
                raise ProxyProtocolError("it has two checksums")
            _check_crc(header, end, value)
            has_checksum = True
        elif kind != NOOP:
            tlvs.append((kind, value))
        at = end
    return ProxyHeader(source, destination, tuple(tlvs))


def _check_crc(header: bytes, end: int, value: bytes) -> None:
    if len(value) != CRC_BYTES:
        raise ProxyProtocolError(f"its checksum has {len(value)} bytes instead of {CRC_BYTES}")
    if crc32c(header[: end - CRC_BYTES] + bytes(CRC_BYTES) + header[end:]) != int.from_bytes(value, "big"):
        raise ProxyProtocolError("its checksum is wrong: the header was damaged on its way")


def _decoded_ends(family: int, block: bytes) -> tuple[Any, Any]:
    if family == UNIX_STREAM:
        return _decoded_path(block[:UNIX_PATH_BYTES]), _decoded_path(block[UNIX_PATH_BYTES:])
    kind, size = (socket.AF_INET, 4) if family == TCP4 else (socket.AF_INET6, 16)
    ports = [int.from_bytes(block[-4:-2], "big"), int.from_bytes(block[-2:], "big")]
    return _address(kind, block[:size], ports[0]), _address(kind, block[size : 2 * size], ports[1])


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def _decoded_path(field: bytes) -> str | bytes:
    """Return the name of a unix socket as `getpeername` has it; empty: it has none."""
    if field.startswith(b"\0"):
        return field.rstrip(b"\0") or ""
    return os.fsdecode(field.partition(b"\0")[0])


def _encoded_ends(family: int, source: Any, destination: Any) -> bytes:
    if family == UNSPECIFIED:
        return b""
    if family == UNIX_STREAM:
        return _encoded_path(source) + _encoded_path(destination)
    kind = socket.AF_INET if family == TCP4 else socket.AF_INET6
    ports = [_checked_port(each).to_bytes(2, "big") for each in (source, destination)]
    return _packed(kind, source) + _packed(kind, destination) + b"".join(ports)


def _encoded_path(name: str | bytes) -> bytes:
    path = os.fsencode(name)
    if len(path) > UNIX_PATH_BYTES or b"\0" in path.lstrip(b"\0"):
        raise ValueError(f"{name!r}: the path of a unix socket has at most {UNIX_PATH_BYTES} bytes, no NUL among them")
    return path.ljust(UNIX_PATH_BYTES, b"\0")


# -- addresses ------------------------------------------------------------------------------------------


def _address(kind: socket.AddressFamily, packed: bytes, port: int) -> tuple[Any, ...]:
    """Return an address as `Conn.peer_address` has it."""
    host = socket.inet_ntop(kind, packed)
    return (host, port) if kind == socket.AF_INET else plain((host, port, 0, 0))


def _family_of(address: Any) -> int:
    if address is None:
        return UNSPECIFIED
    if isinstance(address, str | bytes):
        return UNIX_STREAM
    return TCP6 if ":" in address[0] else TCP4


def _packed(kind: socket.AddressFamily, address: Any) -> bytes:
    host = address[0].partition("%")[0]  # fe80::1%eth0: interfaces are this machine's own affair
    if kind == socket.AF_INET6 and ":" not in host:
        host = MAPPED + host
    try:
        return socket.inet_pton(kind, host)
    except (OSError, ValueError):
        raise ValueError(f"{address!r}: the host is no numeric address") from None


def _checked_port(address: Any) -> int:
    port: int = address[1]
    if not 0 <= port <= PORT_MAX:
        raise ValueError(f"{address!r}: a port is a number from 0 to {PORT_MAX}")
    return port


def _shown(data: bytes) -> str:
    """Return some of the bytes, escaped: they may be anything, and go into a log."""
    return repr(data[:SHOWN_BYTES]) + ("..." if len(data) > SHOWN_BYTES else "")
