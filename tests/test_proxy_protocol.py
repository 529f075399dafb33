"""PROXY headers: what is believed, what is refused, and that no byte behind one is asked for."""

from dataclasses import replace
from ssl import PEM_cert_to_DER_cert
from typing import Any

import pytest
from core.support.authority import authority
from hypothesis import example, given
from hypothesis import strategies as st

from gaiod import GaiodError, ProxyHeader, TlsFacts
from gaiod.core.sockets import plain
from gaiod.proxy_protocol import SIGNATURE, V2_MAX_BYTES, HeaderReader, ProxyProtocolError, crc32c

V4 = ProxyHeader(("192.0.2.7", 56324), ("198.51.100.1", 443))
V6 = ProxyHeader(("2001:db8::7", 56324, 0, 0), ("2001:db8::1", 443, 0, 0))
NOBODY = ProxyHeader(None, None)

PAYLOAD = b"PROXY TCP4 9.9.9.9 9.9.9.9 9 9\r\nhello"
"""What follows a header may look like one."""


def read(stream: bytes) -> tuple[ProxyHeader, int, int]:
    """Return the header that a stream begins with, how many bytes were asked for, and in how many reads."""
    reader = HeaderReader()
    at = reads = 0
    while reader.missing:
        assert at + reader.missing <= len(stream), "it asks for more than there is"
        part = stream[at : at + reader.missing]
        at += len(part)
        reads += 1
        header = reader.take(part)
        if header is not None:
            return header, at, reads
    raise AssertionError("it says neither that the header is complete nor what it is")


def v1(rest: str) -> bytes:
    return b"PROXY " + rest.encode("latin-1") + b"\r\n"


def v2(block: bytes = b"", *, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


ENDS = bytes((192, 0, 2, 7, 198, 51, 100, 1)) + (56324).to_bytes(2, "big") + (443).to_bytes(2, "big")


# -- what is believed -----------------------------------------------------------------------------------

BELIEVED = {
    "v1 over IPv4": (v1("TCP4 192.0.2.7 198.51.100.1 56324 443"), V4),
    "v1, the shortest": (v1("TCP4 0.0.0.0 0.0.0.0 0 0"), ProxyHeader(("0.0.0.0", 0), ("0.0.0.0", 0))),
    "v1, the longest over IPv4": (
        v1("TCP4 255.255.255.255 255.255.255.255 65535 65535"),
        ProxyHeader(("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "v1 over IPv6": (v1("TCP6 2001:db8::7 2001:db8::1 56324 443"), V6),
    "v1 over IPv6, the shortest": (v1("TCP6 :: :: 0 0"), ProxyHeader(("::", 0, 0, 0), ("::", 0, 0, 0))),
    "v1 over IPv6, in capitals": (v1("TCP6 2001:DB8::7 2001:DB8::1 56324 443"), V6),
    "v1 over IPv6, the longest": (
        v1(f"TCP6 {':'.join(['ffff'] * 8)} {':'.join(['ffff'] * 8)} 65535 65535"),
        ProxyHeader((":".join(["ffff"] * 8), 65535, 0, 0), (":".join(["ffff"] * 8), 65535, 0, 0)),
    ),
    "v1, a mapped address": (
        v1("TCP6 ::ffff:192.0.2.7 ::1 1 2"),
        ProxyHeader(("192.0.2.7", 1), ("::1", 2, 0, 0)),
    ),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", NOBODY),
    "v1, unknown and more": (v1("UNKNOWN ffff::1 ffff::2 65535 65535"), NOBODY),
    "v1, unknown and anything": (v1("UNKNOWN \r \n\0\xff  x"), NOBODY),
    "v1, unknown, the longest": (v1("UNKNOWN ".ljust(99, "x")), NOBODY),
    "v2 over IPv4": (v2(ENDS), V4),
    "v2, local": (v2(command=0x20, family=0x00), NOBODY),
    "v2, local with a block": (v2(b"whatever", command=0x20, family=0xFF), NOBODY),
    "v2, unspecified": (v2(b"whatever", family=0x00), NOBODY),
    "v2 with what follows the addresses": (
        v2(ENDS + tlv(0x04, b"\0\0") + tlv(0x02, b"example.com") + tlv(0xE0, b"")),
        ProxyHeader(V4.source, V4.destination, ((0x02, b"example.com"), (0xE0, b""))),
    ),
    "v2 over unix": (
        v2(b"/run/a".ljust(108, b"\0") + b"/" * 108, family=0x31),
        ProxyHeader("/run/a", "/" * 108),
    ),
    "v2 over unix, without names": (v2(bytes(216), family=0x31), ProxyHeader("", "")),
    "v2 over unix, abstract": (
        v2(b"\0name".ljust(108, b"\0") + bytes(108), family=0x31),
        ProxyHeader(b"\0name", ""),
    ),
}


@pytest.mark.parametrize(("stream", "header"), BELIEVED.values(), ids=BELIEVED)
def test_header_says_whom_the_connection_is_from(stream: bytes, header: ProxyHeader) -> None:
    found, used, _ = read(stream + PAYLOAD)
    assert found == header
    assert used == len(stream)


@pytest.mark.parametrize(("stream", "header"), BELIEVED.values(), ids=BELIEVED)
def test_header_may_come_in_two_parts_wherever_it_is_cut(stream: bytes, header: ProxyHeader) -> None:
    for cut in range(len(stream) + 1):
        assert _read_in_parts([stream[:cut], stream[cut:]]) == header


@pytest.mark.parametrize(("stream", "header"), BELIEVED.values(), ids=BELIEVED)
def test_header_may_come_byte_by_byte(stream: bytes, header: ProxyHeader) -> None:
    assert _read_in_parts([bytes((byte,)) for byte in stream]) == header


@pytest.mark.parametrize("stream", [stream for stream, _ in BELIEVED.values()], ids=BELIEVED)
def test_header_takes_few_reads(stream: bytes) -> None:
    _, _, reads = read(stream)
    assert reads <= (3 if stream.startswith(SIGNATURE) else 47 if b"UNKNOWN" in stream else 16)


def _read_in_parts(parts: list[bytes]) -> ProxyHeader | None:
    """Read as a connection does: what is there, but no more than is missing. The header must end with the parts."""
    reader, header = HeaderReader(), None
    for part in parts:
        rest = part
        while rest:
            assert header is None, "bytes were left over"
            now, rest = rest[: reader.missing], rest[reader.missing :]
            header = reader.take(now)
    assert reader.missing == 0
    return header


def test_more_bytes_than_are_missing_are_the_callers_mistake() -> None:
    reader = HeaderReader()
    with pytest.raises(ValueError, match="were asked for"):
        reader.take(bytes(reader.missing + 1))


# -- what is refused ------------------------------------------------------------------------------------

REFUSED = {
    "http": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "it begins with b'GET / HTTP/1.1\\r', not with a PROXY header"),
    "lower case": (b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "not with a PROXY header"),
    "udp": (v1("UDP4 192.0.2.7 198.51.100.1 56324 443"), "not with a PROXY header"),
    "unknown in lower case": (v1("unknown 1 2 3"), "not with a PROXY header"),
    "unknown and a letter": (v1("UNKNOWNx"), "not with a PROXY header"),
    "two spaces in front": (v1(" TCP4 192.0.2.7 198.51.100.1 1 2"), "not with a PROXY header"),
    "two spaces": (v1("TCP4 192.0.2.7  198.51.100.1 1 2"), "with one space before each"),
    "a space at the end": (v1("TCP4 192.0.2.7 198.51.100.1 1 2 "), "with one space before each"),
    "a tab": (v1("TCP4 192.0.2.7\t198.51.100.1 1 2"), "with one space before each"),
    "a port short": (v1("TCP4 192.0.2.7 198.51.100.100 65535"), "with one space before each"),
    "a field too many": (v1("TCP4 192.0.2.7 198.51.100.1 1 2 3"), "with one space before each"),
    "a word too many that goes on": (
        v1("TCP4 1.1.1.1 2.2.2.2 1 2 3 4 5 6 7 8 9"),
        "is not two addresses and two ports",
    ),
    "a line feed alone": (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\nabcdefgh",
        "is not two addresses and two ports",
    ),
    "a carriage return alone": (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\rabcdefgh",
        "is not two addresses and two ports",
    ),
    "an early end": (b"PROXY TCP4\r\n1234567890", "not with a PROXY header"),
    "an early end behind a space": (b"PROXY TCP4 \r\n1234567890", "is not two addresses and two ports"),
    "v6 as v4": (v1("TCP4 2001:db8::7 2001:db8::1 1 2"), "b'2001:db8::7' is no IPv4 address"),
    "v4 as v6": (v1("TCP6 192.0.2.7 198.51.100.1 1 2"), "b'192.0.2.7' is no IPv6 address"),
    "zero in front": (v1("TCP4 192.0.2.07 198.51.100.1 1 2"), "b'192.0.2.07' is no IPv4 address"),
    "three parts": (v1("TCP4 192.0.512 198.51.100.1 1 2"), "no IPv4 address"),
    "an interface": (v1("TCP6 fe80::1%lo ::1 1 2"), "no IPv6 address"),
    "a nul": (v1("TCP4 192.0.2.7\0 198.51.100.1 1 2"), "b'192.0.2.7\\x00' is no IPv4 address"),
    "not ascii": (v1("TCP4 192.0.2.\xb2 198.51.100.1 1 2"), "no IPv4 address"),
    "port with zero in front": (v1("TCP4 192.0.2.7 198.51.100.1 01 2"), "b'01' is no port"),
    "port too large": (v1("TCP4 192.0.2.7 198.51.100.1 1 65536"), "b'65536' is no port"),
    "port with sign": (v1("TCP4 192.0.2.7 198.51.100.1 +1 2"), "b'+1' is no port"),
    "port that is none": (v1("TCP4 192.0.2.7 198.51.100.1 1 http"), "b'http' is no port"),
    "line too long": (v1("TCP6 ".ljust(200, "f")), "longer than 107 bytes"),
    "unknown, a byte too long": (v1("UNKNOWN ".ljust(100, "x")), "longer than 107 bytes"),
    "signature cut": (SIGNATURE[:11] + b"\0" * 8, "not with a PROXY header"),
    "version 3": (v2(ENDS, command=0x31), "version 3; versions 1 and 2 are known"),
    "version 1 in binary": (v2(ENDS, command=0x11), "version 1; versions 1 and 2 are known"),
    "unknown command": (v2(ENDS, command=0x22), "its command is 2"),
    "datagrams": (v2(ENDS, family=0x12), "it announces datagrams"),
    "unknown family": (v2(ENDS, family=0x41), "family and protocol 0x41, which is unknown"),
    "family without protocol": (v2(ENDS, family=0x10), "family and protocol 0x10, which is unknown"),
    "protocol without family": (v2(ENDS, family=0x01), "family and protocol 0x01, which is unknown"),
    "addresses too short": (v2(ENDS[:-1]), "its length of 11 bytes is too short for its addresses"),
    "v6 addresses too short": (v2(bytes(35), family=0x21), "too short for its addresses"),
    "unix addresses too short": (v2(bytes(215), family=0x31), "too short for its addresses"),
    "a byte over the most": (v2(b"", length=V2_MAX_BYTES - 15), "it has 4097 bytes; at most 4096 are taken"),
    "as long as can be": (v2(b"", command=0x20, length=65535), "at most 4096 are taken"),
    "tlv cut in its header": (v2(ENDS + b"\xe0\0"), "its TLV at byte 28 ends behind the header"),
    "tlv cut in its value": (v2(ENDS + b"\xe0\0\x02x"), "its TLV at byte 28 ends behind the header"),
    "checksum wrong": (v2(ENDS + tlv(0x03, bytes(4))), "its checksum is wrong"),
    "checksum short": (v2(ENDS + tlv(0x03, bytes(3))), "its checksum has 3 bytes instead of 4"),
    "padding cut": (v2(ENDS + b"\x04\0\x01"), "ends behind the header"),
}


@pytest.mark.parametrize(("stream", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_header_is_refused_and_said(stream: bytes, message: str) -> None:
    with pytest.raises(ProxyProtocolError) as refusal:
        read(stream + bytes(200))
    assert message in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_second_checksum_is_refused() -> None:
    """Each would be computed with the other as it is: only one of the two could be right."""
    good = V4.encode_v2()
    with pytest.raises(ProxyProtocolError, match=r"its checksum is wrong|it has two checksums"):
        read(v2(good[16:] + good[-7:]))


def test_error_is_one_of_ours_and_of_values() -> None:
    assert issubclass(ProxyProtocolError, GaiodError)
    assert issubclass(ProxyProtocolError, ValueError)


@pytest.mark.parametrize("version", [1, 2])
def test_header_that_is_not_complete_gives_nothing(version: int) -> None:
    whole = V6.encode_v1() if version == 1 else V6.encode_v2()
    for size in range(len(whole)):
        reader, at = HeaderReader(), 0
        while at < size:
            part = whole[at : min(size, at + reader.missing)]
            assert reader.take(part) is None
            at += len(part)
        assert 0 < reader.missing <= len(whole) - size


@given(st.binary(max_size=300))
@example(SIGNATURE + b"\x21\x11")
def test_random_bytes_are_refused_or_not_enough(data: bytes) -> None:
    _feed(data)


@given(
    st.sampled_from(
        [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN ", SIGNATURE + b"\x21", SIGNATURE + b"\x21\x11\0"]
    ),
    st.one_of(st.binary(max_size=300), st.text("0123456789:.abf \r\n", max_size=110).map(str.encode)),
)
def test_random_bytes_behind_a_good_beginning_are_refused_or_not_enough_or_fine(beginning: bytes, data: bytes) -> None:
    _feed(beginning + data)


@given(st.integers(0, len(V6.encode_v2()) * 8 - 1))
def test_flipped_bit_is_never_believed(bit: int) -> None:
    """But where it makes a header that is not to be looked at, or one that has no checksum."""
    whole = bytearray(V6.encode_v2())
    whole[bit // 8] ^= 1 << bit % 8
    found = _feed(bytes(whole))
    command, family, checksum = 12, 13, 52
    if bit // 8 in (command, family):
        assert found in (None, NOBODY)
    elif bit // 8 != checksum:
        assert found is None


def _feed(data: bytes) -> ProxyHeader | None:
    reader, at = HeaderReader(), 0
    try:
        while at < len(data) and reader.missing:
            part = data[at : at + reader.missing]
            at += len(part)
            if (header := reader.take(part)) is not None:
                return header
    except ProxyProtocolError as error:
        assert str(error).isprintable()
        return None
    assert 0 < reader.missing <= V2_MAX_BYTES
    return None


# -- what is written ------------------------------------------------------------------------------------


def test_v1_is_a_line_of_text() -> None:
    assert V4.encode_v1() == b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
    assert V6.encode_v1() == b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"


@pytest.mark.parametrize("header", [NOBODY, ProxyHeader("/run/a", ""), ProxyHeader(V4.source, None)])
def test_v1_says_unknown_where_it_cannot_say_more(header: ProxyHeader) -> None:
    assert header.encode_v1() == b"PROXY UNKNOWN\r\n"


def test_v2_is_what_the_protocol_says() -> None:
    encoded = V4.encode_v2()
    assert encoded[:28] == v2(ENDS, length=19)
    assert encoded[28:31] == b"\x03\0\x04"
    assert int.from_bytes(encoded[31:], "big") == crc32c(encoded[:31] + bytes(4))


def test_v2_is_local_where_an_end_is_not_known() -> None:
    encoded = ProxyHeader(None, None, ((2, b"a"),)).encode_v2()
    assert encoded[:16] == v2(command=0x20, family=0x00, length=7)
    assert ProxyHeader(V4.source, None).encode_v2() == encoded


def test_interface_of_an_address_is_left_out() -> None:
    """As `getpeername` has it, and nobody else knows it."""
    header = ProxyHeader(("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 2, 0, 2))
    assert read(header.encode_v2())[0] == ProxyHeader(("fe80::1", 1, 0, 0), ("fe80::2", 2, 0, 0))
    assert header.encode_v1() == b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (ProxyHeader(V4.source, "/run/a"), "not of one family"),
        (ProxyHeader(("localhost", 1), ("127.0.0.1", 2)), "no numeric address"),
        (ProxyHeader(("127.0.0.1", 65536), ("127.0.0.1", 2)), "a port is a number from 0 to 65535"),
    ],
)
def test_header_that_makes_no_sense_is_not_written(header: ProxyHeader, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        header.encode_v1()
    with pytest.raises(ValueError, match=message):
        header.encode_v2()


@pytest.mark.parametrize("header", [ProxyHeader("/" * 109, ""), ProxyHeader("/run\0a", "")])
def test_path_that_does_not_fit_is_not_written(header: ProxyHeader) -> None:
    with pytest.raises(ValueError, match="at most 108 bytes, no NUL"):
        header.encode_v2()


@pytest.mark.parametrize("size", [4059, 70_000])
def test_header_that_nobody_takes_is_not_written(size: int) -> None:
    assert len(ProxyHeader(V4.source, V4.destination, ((2, bytes(4058)),)).encode_v2()) == V2_MAX_BYTES
    with pytest.raises(ValueError, match="at most 4096; drop some TLVs"):
        ProxyHeader(V4.source, V4.destination, ((2, bytes(size)),)).encode_v2()


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_checksum_is_that_of_rfc_3720(data: bytes, value: int) -> None:
    assert crc32c(data) == value


PORTS = st.integers(0, 65535)
TLVS = st.lists(st.tuples(st.sampled_from([1, 2, 5, 0x20, 0x30, 0xE0, 0xFF]), st.binary(max_size=200)), max_size=4)


def _pair(kind: int) -> st.SearchStrategy[tuple[Any, Any]]:
    rest = () if kind == 4 else (0, 0)
    ips = st.ip_addresses(v=4 if kind == 4 else 6)
    ends = st.builds(lambda ip, port: plain((_spelt(str(ip)), port, *rest)), ips, PORTS)
    return st.tuples(ends, ends)


def _spelt(host: str) -> str:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, host))


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=27)
HEADERS = st.builds(
    lambda ends, tlvs: ProxyHeader(ends[0], ends[1], tuple(tlvs)),
    st.one_of(_pair(4), _pair(6), st.tuples(PATHS, PATHS)),
    TLVS,
)


@given(HEADERS)
def test_v2_comes_back_as_it_was_wherever_it_is_cut(header: ProxyHeader) -> None:
    encoded = header.encode_v2()
    assert read(encoded + PAYLOAD)[:2] == (header, len(encoded))
    for cut in range(len(encoded)):
        assert _read_in_parts([encoded[:cut], encoded[cut:]]) == header


@given(st.one_of(_pair(4), _pair(6)))
def test_v1_comes_back_as_it_was_wherever_it_is_cut(ends: tuple[Any, Any]) -> None:
    header = ProxyHeader(*ends)
    encoded = header.encode_v1()
    assert read(encoded + PAYLOAD)[:2] == (header, len(encoded))
    for cut in range(len(encoded)):
        assert _read_in_parts([encoded[:cut], encoded[cut:]]) == header


# -- what is said of TLS --------------------------------------------------------------------------------

AGREED = TlsFacts("1.3", "TLS_AES_128_GCM_SHA256", "h2", "app.example.org", resumed=False)
SPOKEN = tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")


def said_of(facts: TlsFacts) -> dict[int, bytes]:
    """Return the TLVs that arrive."""
    header, _, _ = read(V4.with_tls(facts).encode_v2() + PAYLOAD)
    assert (header.source, header.destination) == (V4.source, V4.destination)
    return dict(header.tlvs)


def test_what_was_agreed_with_the_client_is_said() -> None:
    assert said_of(AGREED) == {2: b"app.example.org", 1: b"h2", 0x20: b"\x01\x00\x00\x00\x01" + SPOKEN}


def test_what_it_has_not_said_is_left_out() -> None:
    assert said_of(replace(AGREED, alpn=None, server_name=None)) == {0x20: b"\x01\x00\x00\x00\x01" + SPOKEN}


@pytest.mark.parametrize(
    ("resumed", "is_verified", "client", "verdict"), [(False, True, 7, 0), (True, True, 5, 0), (False, False, 7, 1)]
)
def test_certificate_of_the_client_is_named(resumed: bool, is_verified: bool, client: int, verdict: int) -> None:
    der = PEM_cert_to_DER_cert(authority().sign("DNS:gate 7").chain)
    facts = replace(AGREED, peer_certificate=der, resumed=resumed, is_verified=is_verified)
    said = tlv(0x21, b"TLSv1.3") + tlv(0x22, b"gate 7") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
    assert said_of(facts)[0x20] == bytes((client,)) + verdict.to_bytes(4, "big") + said


def test_common_name_that_is_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TlsFacts, "common_name", "x" * 5000)
    facts = replace(AGREED, peer_certificate=b"", is_verified=True)
    assert said_of(facts)[0x20] == b"\x07\x00\x00\x00\x00" + SPOKEN


def test_line_of_version_1_is_the_same() -> None:
    assert V4.with_tls(AGREED).encode_v1() == V4.encode_v1()
