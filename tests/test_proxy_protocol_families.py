"""PROXY headers whose ends are of two families, or IPv4 written as IPv6."""

import pytest
from test_proxy_protocol import PAYLOAD, V4, V6, read, v1, v2

from gaiod import ProxyHeader
from gaiod.proxy_protocol import SIGNATURE, ProxyProtocolError

BELIEVED = {
    "v1, of nginx with an IPv6 client at an IPv4 listener": (
        v1("TCP6 2001:db8::7 127.0.0.1 56324 443"),
        ProxyHeader(("2001:db8::7", 56324, 0, 0), ("127.0.0.1", 443)),
    ),
    "v1, of nginx with an IPv4 client at an IPv6 listener": (
        v1("TCP4 192.0.2.7 ::1 56324 443"),
        ProxyHeader(("192.0.2.7", 56324), ("::1", 443, 0, 0)),
    ),
    "v1, of nginx, the shortest": (v1("TCP4 0.0.0.0 :: 0 0"), ProxyHeader(("0.0.0.0", 0), ("::", 0, 0, 0))),
    "v2, mapped addresses": (
        v2((bytes(10) + b"\xff\xff\xc0\0\x02\x07") * 2 + bytes((0, 1, 0, 2)), family=0x21),
        ProxyHeader(("192.0.2.7", 1), ("192.0.2.7", 2)),
    ),
}


@pytest.mark.parametrize(("stream", "header"), BELIEVED.values(), ids=BELIEVED)
def test_each_end_is_of_the_family_that_it_is_written_in(stream: bytes, header: ProxyHeader) -> None:
    found, used, reads = read(stream + PAYLOAD)
    assert (found, used) == (header, len(stream))
    assert reads <= (3 if stream.startswith(SIGNATURE) else 16)


@pytest.mark.parametrize(
    "line", ["TCP6 192.0.2.7 2001:db8::1 1 2", "TCP4 2001:db8::7 192.0.2.1 1 2", "TCP6 2001:db8::7 192.0.2 1 2"]
)
def test_source_is_of_the_family_that_the_line_names(line: str) -> None:
    with pytest.raises(ProxyProtocolError, match=r"is no IPv[46] address"):
        read(v1(line) + PAYLOAD)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (ProxyHeader(V4.source, V6.destination), b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 56324 443\r\n"),
        (ProxyHeader(V6.source, V4.destination), b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 56324 443\r\n"),
    ],
)
def test_ends_of_two_families_are_written_as_ipv6_and_read_as_they_were(header: ProxyHeader, line: bytes) -> None:
    assert header.encode_v1() == line
    assert read(header.encode_v1())[0] == header
    assert read(header.encode_v2())[0] == header
