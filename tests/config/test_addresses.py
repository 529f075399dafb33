"""Addresses to listen on. What is said of wrong ones: see refused/bind-*.yaml."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.addresses import UNIX_PATH_MAX_BYTES, parse_bind
from gaiod.config.errors import Refused


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
        ("[::]:7000", "[::]:7000"),
        ("[0:0:0:0:0:0:0:1]:7000", "[::1]:7000"),
        ("[2001:DB8::1]:7000", "[2001:db8::1]:7000"),
        ("unix:/run/gaiod/echo.sock", "unix:/run/gaiod/echo.sock"),
        ("unix:/run/./gaiod//x/../echo.sock", "unix:/run/gaiod/echo.sock"),
        ("unix:/run/a b:7", "unix:/run/a b:7"),
    ],
)
def test_bind_is_written_in_one_way(text: str, bind: str) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize("port", [0, 65535])
def test_bind_that_is_only_a_port_is_refused_with_the_address_it_may_mean(port: int) -> None:
    with pytest.raises(Refused, match=rf"is only a port; write 127.0.0.1:{port} or \[::1\]:{port}"):
        parse_bind(port)


def test_bind_to_a_unix_socket_fits_into_what_the_kernel_takes() -> None:
    longest = "unix:/" + "x" * (UNIX_PATH_MAX_BYTES - 1)
    assert parse_bind(longest) == longest
    with pytest.raises(Refused, match="the path has 108 bytes; write one of at most 107"):
        parse_bind(longest + "x")


NO_ADDRESSES = """
    : :7000 7000 127.0.0.1: 127.0.0.1:-1 127.0.0.1:65536 127.0.0.1:7_0 127.0.0.1:٣ 127.1:7000 127.0.0.01:7000
    [127.0.0.1]:7000 []:7000 [::1] [::1]7000 [[::1]]:7000 ::1 echo localhost:7000 tcp://127.0.0.1:7000
    unix: unix:@abstract unix:/
"""


@pytest.mark.parametrize(
    "value",
    [*NO_ADDRESSES.split(), "", " 127.0.0.1:1", "unix:/a\0b", None, True, 7000, -1, 70000, 0.5, [], {}],
)
def test_bind_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match=r"; write "):
        parse_bind(value)


@given(st.text() | st.text("0123456789abcdef:.[]/%* ", max_size=40))
def test_bind_is_its_own_only_form_or_refused(text: str) -> None:
    try:
        bind = parse_bind(text)
    except Refused:
        return
    assert parse_bind(bind) == bind
