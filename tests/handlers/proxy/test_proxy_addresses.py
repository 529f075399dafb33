"""Addresses of servers, and what is said of what is none."""

import pytest
from gaiod.handlers.proxy.addresses import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5432", Address("127.0.0.1", 5432, "", False)),
        ("[::1]:1", Address("::1", 1, "", False)),
        ("[0:0::1]:1", Address("::1", 1, "", False)),
        ("[2001:DB8::1]:65535", Address("2001:db8::1", 65535, "", False)),
        ("localhost:80", Address("localhost", 80, "", True)),
        ("DB.Internal:80", Address("db.internal", 80, "", True)),
        ("db.internal.:80", Address("db.internal.", 80, "", True)),
        ("my_app-1:80", Address("my_app-1", 80, "", True)),
        ("1and1.example:80", Address("1and1.example", 80, "", True)),
        ("unix:/run/db.sock", Address("", 0, "/run/db.sock", False)),
        ("unix:/run/a b:1", Address("", 0, "/run/a b:1", False)),
        ("unix:/" + "p" * 106, Address("", 0, "/" + "p" * 106, False)),
    ],
)
def test_address_is_taken_apart(text: str, address: Address) -> None:
    assert parse_address(text) == address


def test_target_is_what_connect_takes() -> None:
    assert parse_address("127.0.0.1:5432").target == ("127.0.0.1", 5432)
    assert parse_address("unix:/run/db.sock").target == "/run/db.sock"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"" is not an address; write one such as 127.0.0.1:5432'),
        ("127.0.0.1", "127.0.0.1 has no port; write 127.0.0.1:5432"),
        ("db", "db has no port; write db:5432"),
        ("[::1]", "[::1] has no port; write [::1]:5432"),
        ("::1:5432", "::1:5432 is not an address; write an IPv6 address in brackets, as in [::1]:5432"),
        ("[::g]:1", "::g is not an IPv6 address; write it as in [::1]:5432"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0 names an interface; write an address that does without %"),
        ("127.0.0.256:1", "127.0.0.256 is not an IPv4 address; write one such as 127.0.0.1"),
        ("10.1:1", "10.1 is not an IPv4 address; write one such as 127.0.0.1"),
        (":5432", "names no host; write 127.0.0.1:5432 for this machine"),
        ("a:0", "0 is not a port to connect to; write 1 to 65535"),
        ("a:65536", "65536 is not a port to connect to; write 1 to 65535"),
        ("a:080", "080 is not a port to connect to; write 1 to 65535"),
        ("a:http", "a:http is not an address; write one such as"),
        ("a b:1", "a b is not the name of a host; write an address such as"),
        ("-a:1", "-a is not the name of a host; write an address such as"),
        (f"{'a' * 64}:1", f"{'a' * 64} is not the name of a host; write an address such as"),
        ("a..b:1", "a..b is not the name of a host; write an address such as"),
        ("tcp://a:1", "tcp://a:1 is a URL; write only its host and port, such as"),
        ("/run/db.sock", "/run/db.sock is not an address; write unix: and the absolute path of the socket"),
        ("unix:db.sock", "db.sock is not the absolute path of a socket; write one such as unix:/run/db.sock"),
        ("unix:", '"" is not the absolute path of a socket; write one such as unix:/run/db.sock'),
        ("unix:/run/", "/run/ is not the absolute path of a socket; write one such as unix:/run/db.sock"),
        ("unix:/" + "p" * 107, "the path has 108 bytes; write one of at most 107"),
        ("a\nb:1", "a\\nb is not the name of a host; write an address such as"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="; write") as refused:
        parse_address(text)
    assert str(refused.value).startswith(message)
