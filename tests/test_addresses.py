"""Addresses: what is one to connect to, what is one to listen on, and what is said of what is neither."""

import socket
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod import Address, parse_address
from gaiod.addresses import file_path
from gaiod.core.sockets import UNIX_PATH_MAX_BYTES

LONGEST = "/" + "p" * (UNIX_PATH_MAX_BYTES - 1)

BOTH = [
    ("127.0.0.1:5432", Address("ipv4", "127.0.0.1", 5432)),
    ("0.0.0.0:1", Address("ipv4", "0.0.0.0", 1)),
    ("127.0.0.1:65535", Address("ipv4", "127.0.0.1", 65535)),
    ("[::1]:1", Address("ipv6", "::1", 1)),
    ("[::]:7000", Address("ipv6", "::", 7000)),
    ("[0:0::1]:1", Address("ipv6", "::1", 1)),
    ("[0:0:0:0:0:0:0:1]:7000", Address("ipv6", "::1", 7000)),
    ("[2001:DB8::1]:65535", Address("ipv6", "2001:db8::1", 65535)),
    ("[::ffff:a00:1]:80", Address("ipv6", "::ffff:10.0.0.1", 80)),
    ("unix:/run/db.sock", Address("unix", path="/run/db.sock")),
    ("unix:/run/./gaiod//x/../db.sock", Address("unix", path="/run/gaiod/db.sock")),
    ("unix:/run/a b:7", Address("unix", path="/run/a b:7")),
    ("unix:///run/db.sock", Address("unix", path="/run/db.sock")),
    (f"unix:{LONGEST}", Address("unix", path=LONGEST)),
]

ONLY_CONNECT = [
    ("localhost:80", Address("name", "localhost", 80)),
    ("DB.Internal:80", Address("name", "db.internal", 80)),
    ("db.internal.:80", Address("name", "db.internal.", 80)),
    ("my_app-1:80", Address("name", "my_app-1", 80)),
    ("1and1.example:80", Address("name", "1and1.example", 80)),
    ("systemd:7000", Address("name", "systemd", 7000)),
]

ONLY_LISTEN = [
    ("0.0.0.0:0", Address("ipv4", "0.0.0.0", 0)),
    ("[::]:0", Address("ipv6", "::", 0)),
    ("systemd:echo.socket", Address("systemd", path="echo.socket")),
    (r"systemd:echo@1-a\x2db+~_/=!.socket", Address("systemd", path=r"echo@1-a\x2db+~_/=!.socket")),
    ("systemd:7000", Address("systemd", path="7000")),
    ("systemd:" + "x" * 255, Address("systemd", path="x" * 255)),
]


@pytest.mark.parametrize(("text", "address"), [*BOTH, *ONLY_CONNECT])
def test_address_to_connect_to_is_taken_apart(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(("text", "address"), [*BOTH, *ONLY_LISTEN])
def test_address_to_listen_on_is_taken_apart(text: str, address: Address) -> None:
    assert parse_address(text, listen=True) == address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("ipv4", "127.0.0.1", 80), "127.0.0.1:80"),
        (Address("ipv6", "::1", 80), "[::1]:80"),
        (Address("name", "db.internal", 80), "db.internal:80"),
        (Address("unix", path="/run/a b"), "unix:/run/a b"),
        (Address("systemd", path="echo.socket"), "systemd:echo.socket"),
    ],
)
def test_address_is_written_in_one_way(address: Address, text: str) -> None:
    assert str(address) == text


def test_target_is_what_connect_and_bind_take() -> None:
    assert parse_address("127.0.0.1:5432").target == ("127.0.0.1", 5432)
    assert parse_address("[::1]:5432").target == ("::1", 5432)
    assert parse_address("unix:/run/db.sock").target == "/run/db.sock"


def test_port_zero_is_any_port_and_a_name_that_ends_like_it_is_not() -> None:
    def is_any_port(text: str) -> bool:
        return parse_address(text, listen=True).is_any_port

    assert [is_any_port(text) for text in ("127.0.0.1:0", "[::1]:0")] == [True, True]
    assert not any(is_any_port(text) for text in ("127.0.0.1:10", "unix:/run/x:0", "systemd:0"))


def test_address_is_local_when_no_other_machine_can_reach_it() -> None:
    def is_local(text: str) -> bool:
        return parse_address(text, listen=True).is_local

    assert all(is_local(text) for text in ("127.0.0.1:1", "[::1]:0", "[0::1]:1", "unix:/run/x"))
    assert not any(is_local(text) for text in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:7f00:1]:1", "systemd:x"))


CONNECT_WORDS = [
    ("", '"" is not an address; write one such as 127.0.0.1:5432'),
    ("db", "db has no port; write db:5432"),
    ("5432", "5432 is only a port; write 127.0.0.1:5432 or [::1]:5432"),
    ("0", "0 is not an address; write one such as 127.0.0.1:5432"),
    (":5432", "names no host; write 127.0.0.1:5432 for this machine"),
    ("*:5432", "* is not the name of a host; write an address such as"),
    ("a:0", "0 is not a port to connect to; write 1 to 65535"),
    ("a:65536", "65536 is not a port to connect to; write 1 to 65535"),
    ("a:http", "a:http is not an address; write one such as"),
    ("a b:1", "a b is not the name of a host; write an address such as"),
    ("-a:1", "-a is not the name of a host; write an address such as"),
    (f"{'a' * 64}:1", f"{'a' * 60}... is not the name of a host; write an address such as"),
    ("a..b:1", "a..b is not the name of a host; write an address such as"),
    ("a\nb:1", "a\\nb is not the name of a host; write an address such as"),
    ("[fe80::1%eth0]:1", "fe80::1%eth0 names an interface; write an address without %"),
    ("systemd:echo.socket", "systemd:echo.socket is not an address; write one such as"),
    ("unix:db.sock", "db.sock is not an absolute path; write unix:/run/db.sock"),
    ("unix:", '"" is not an absolute path; write unix:/run/db.sock'),
    ("unix:/run/", "/run/ is not the path of a socket; write unix:/run/db.sock"),
]

LISTEN_WORDS = [
    ("", '"" is not an address; write one such as 127.0.0.1:7000'),
    ("echo", "echo is not an address; write one such as 127.0.0.1:7000"),
    ("0", "0 is only a port; write 127.0.0.1:0 or [::1]:0"),
    (":80", "names no address; write 0.0.0.0:80 or [::]:80 for all of them, or 127.0.0.1:80 for this machine alone"),
    ("*:80", "names no address; write 0.0.0.0:80 or [::]:80 for all of them, or 127.0.0.1:80 for this machine alone"),
    ("localhost:80", "localhost is a host name; write 127.0.0.1:80 or [::1]:80"),
    (" 127.0.0.1:1", " 127.0.0.1:1 is not an address; write one such as"),
    ("127.0.0.1:65536", "65536 is not a port; write 0 to 65535"),
    ("[fe80::1%eth0]:1", "fe80::1%eth0 names an interface; write [::]:1 or an address without %"),
    ("SYSTEMD:a", "SYSTEMD:a is not an address; write one such as"),
    ("systemd:", "the name is missing; write that of FileDescriptorName="),
    ("systemd:a:b", "a:b is no name of a socket; write that of FileDescriptorName="),
    ("systemd:a b", "a b is no name of a socket; write "),
    ("systemd:a\n", "a\\n is no name of a socket; write "),
    ("systemd:é", "é is no name of a socket; write "),
    ("systemd:[a]", "[a] is no name of a socket; write "),
    ("systemd:" + "x" * 256, f"{'x' * 60}... is no name of a socket; write "),
    ("unix:run/web.sock", "run/web.sock is not an absolute path; write unix:/run/gaiod/web.sock"),
    ("unix:@web", "@web is not an absolute path; write unix:/run/gaiod/web"),
    ("unix:..", ".. is not an absolute path; write unix:/run/gaiod/echo.sock"),
    ("unix:/", "/ is not the path of a socket; write unix:/run/gaiod/echo.sock"),
    ("unix:/a\0b", "/a\\x00b is not the path of a socket; write unix:/run/gaiod/echo.sock"),
]

WORDS_OF_BOTH = [
    ("127.0.0.1", "127.0.0.1 has no port; write 127.0.0.1:"),
    ("::1", "::1 has no port; write [::1]:"),
    ("[::1]", "::1 has no port; write [::1]:"),
    ("2001:db8::1", "2001:db8::1 has no port; write [2001:db8::1]:"),
    ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8 has no port; write [1:2:3:4:5:6:7:8]:"),
    ("::1:5432", "::1 needs brackets; write [::1]:5432"),
    ("::1:70000", "70000 is not a port"),
    ("1:2:3:4:5:6:7:8:80", "1:2:3:4:5:6:7:8 needs brackets; write [1:2:3:4:5:6:7:8]:80"),
    ("[::1]7000", "[::1]7000 is not an address; write one such as"),
    ("[[::1]]:7000", "[[::1]]:7000 is not an address; write one such as"),
    ("[::g]:1", "::g is not an IPv6 address; write it as in [::1]:1"),
    ("[127.0.0.1]:1", "127.0.0.1 is not an IPv6 address; write it as in [::1]:1"),
    ("[]:1", '"" is not an IPv6 address; write it as in [::1]:1'),
    ("127.0.0.256:1", "127.0.0.256 is not an IPv4 address; write one such as 127.0.0.1"),
    ("127.0.0.01:1", "127.0.0.01 is not an IPv4 address; write one such as 127.0.0.1"),
    ("10.1:1", "10.1 is not an IPv4 address; write one such as 127.0.0.1"),
    ("7000:7000", "7000 is not an IPv4 address; write one such as 127.0.0.1"),
    ("70000", "70000 is not an address; write one such as"),
    ("127.0.0.1:", "127.0.0.1: is not an address; write one such as"),
    ("127.0.0.1:-1", "127.0.0.1:-1 is not an address; write one such as"),
    ("127.0.0.1:7_0", "127.0.0.1:7_0 is not an address; write one such as"),
    ("127.0.0.1:٣", "127.0.0.1:٣ is not an address; write one such as"),
    ("127.0.0.1:080", "080 is not a port; write 80"),
    ("a:b:80", "a:b:80 is not an address; write one such as"),
    ("tcp://a:1", "tcp://a:1 is a URL; write only its host and port, such as"),
    ("http://a/", "http://a/ is a URL; write only its host and port, such as"),
    ("/run/db.sock", "/run/db.sock is not an address; write unix: and the absolute path of the socket"),
    ("./db.sock:1", "./db.sock:1 is not an address; write unix: and the absolute path of the socket"),
    ("@db", "@db is not an address; write unix: and the absolute path of the socket"),
    (f"unix:{LONGEST}p", "the path has 108 bytes; write one of at most 107"),
]


@pytest.mark.parametrize(("text", "message"), [*CONNECT_WORDS, *WORDS_OF_BOTH])
def test_what_is_no_address_to_connect_to_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="; write ") as refused:
        parse_address(text)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(("text", "message"), [*LISTEN_WORDS, *WORDS_OF_BOTH])
def test_what_is_no_address_to_listen_on_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="; write ") as refused:
        parse_address(text, listen=True)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "file"),
    [("/a/b", "/a/b"), ("/a//./b", "/a/b"), ("//a", "/a"), ("///a", "/a"), ("/a/../b", "/b"), ("/../a", "/a")],
)
def test_path_is_written_in_one_way(path: str, file: str) -> None:
    assert file_path(path) == file


@pytest.mark.parametrize("path", ["/", "/a/", "/a/.", "/a/..", "/a\n", "/\ud800"])
def test_path_that_names_no_file_is_none(path: str) -> None:
    assert file_path(path) is None


TEXTS = (
    st.text()
    | st.text("0123456789abcdef:.[]/%* ", max_size=40)
    | st.from_regex(r"[a-z0-9_.-]{1,12}:[0-9]{1,5}", fullmatch=True)
    | st.from_regex(r"\[[0-9a-fA-F:.]{1,40}\]:[0-9]{1,5}", fullmatch=True)
    | st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(0, 65535))
    | st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(0, 65535))
    | st.text("ab./ ", max_size=9).map("unix:/{}".format)
    | st.text().map("unix:{}".format)
    | st.text().map("systemd:{}".format)
)


@given(TEXTS, st.booleans())
def test_any_text_is_an_address_with_one_form_or_refused_on_one_line(text: str, listen: bool) -> None:
    try:
        address = parse_address(text, listen=listen)
    except ValueError as error:
        assert type(error) is ValueError
        assert "; write " in str(error)
        assert str(error).isprintable()
        return
    assert parse_address(str(address), listen=listen) == address
    assert str(parse_address(str(address), listen=listen)) == str(address)


@given(st.text("0123456789.", max_size=16) | st.ip_addresses(v=4).map(str))
def test_ipv4_address_is_what_python_takes_for_one(host: str) -> None:
    try:
        number = str(IPv4Address(host))
    except AddressValueError:
        with pytest.raises(ValueError, match="; write "):
            parse_address(f"{host}:1")
    else:
        assert parse_address(f"{host}:1") == Address("ipv4", number, 1)


@given(
    st.text("0123456789abcF:.", max_size=40) | st.ip_addresses(v=6).map(str) | st.ip_addresses(v=6).map("{0:x}".format)
)
def test_ipv6_address_is_what_python_takes_for_one(host: str) -> None:
    try:
        number = IPv6Address(host)
    except AddressValueError:
        with pytest.raises(ValueError, match="; write "):
            parse_address(f"[{host}]:1")
    else:
        address = parse_address(f"[{host}]:1")
        assert (address.kind, IPv6Address(address.host)) == ("ipv6", number)
        assert address.host == socket.inet_ntop(socket.AF_INET6, number.packed), "as the kernel's are told"
