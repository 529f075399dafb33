"""Addresses to listen on. What is said of wrong ones: see refused/bind-*.yaml."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.addresses import UNIX_PATH_MAX_BYTES, file_path, is_any_port, parse_bind, parse_control
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
        ("unix:///run/echo.sock", "unix:/run/echo.sock"),
        ("systemd:echo.socket", "systemd:echo.socket"),
        (r"systemd:echo@1-a\x2db+~_/=!.socket", r"systemd:echo@1-a\x2db+~_/=!.socket"),
        ("systemd:7000", "systemd:7000"),
        ("systemd:" + "x" * 255, "systemd:" + "x" * 255),
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
    unix: unix:@abstract unix:/ systemd systemd: systemd:a:b systemd:a,b systemd:[a] systemd:{a} systemd:é systemd:a\x7f
    SYSTEMD:a systemd/a
"""


@pytest.mark.parametrize(
    "value",
    [
        *NO_ADDRESSES.split(),
        "systemd:a b",
        "systemd:a\n",
        "systemd:" + "x" * 256,
        "",
        " 127.0.0.1:1",
        "unix:/a\0b",
        None,
        True,
        7000,
        -1,
        70000,
        0.5,
        [],
        {},
    ],
)
def test_bind_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match=r"; write "):
        parse_bind(value)


def test_bind_says_where_a_relative_unix_socket_may_have_been_meant_to_be() -> None:
    with pytest.raises(Refused, match=r"^run/web\.sock is not an absolute path; write unix:/run/gaiod/web\.sock$"):
        parse_bind("unix:run/web.sock")


def test_port_zero_is_any_port_and_a_name_that_ends_like_it_is_not() -> None:
    assert [is_any_port(bind) for bind in ("127.0.0.1:0", "[::1]:0")] == [True, True]
    assert not any(is_any_port(bind) for bind in ("127.0.0.1:10", "unix:/run/x:0", "systemd::0", "systemd:0"))


@pytest.mark.parametrize(
    ("value", "control"),
    [("auto", "auto"), ("unix:/run/gaiod/c.sock", "unix:/run/gaiod/c.sock"), ("unix:/run//c", "unix:/run/c")],
)
def test_control_listens_on_a_unix_socket(value: str, control: str) -> None:
    assert parse_control(value) == control


NO_CONTROLS: list[object] = [
    "127.0.0.1:1",
    "systemd:a",
    "unix:a",
    "unix:/a/",
    "/a",
    "Auto",
    "",
    None,
    False,
    True,
    1,
    [],
    {},
]


@pytest.mark.parametrize("value", NO_CONTROLS)
def test_control_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match=r"; write .*unix:/run/gaiod/"):
        parse_control(value)


@pytest.mark.parametrize(
    ("path", "file"),
    [("/a/b", "/a/b"), ("/a//./b", "/a/b"), ("//a", "/a"), ("///a", "/a"), ("/a/../b", "/b"), ("/../a", "/a")],
)
def test_path_is_written_in_one_way(path: str, file: str) -> None:
    assert file_path(path) == file


@pytest.mark.parametrize("path", ["/", "/a/", "/a/.", "/a/..", "/a\n", "/\ud800"])
def test_path_that_names_no_file_is_none(path: str) -> None:
    assert file_path(path) is None


@given(
    st.text()
    | st.text("0123456789abcdef:.[]/%* ", max_size=40)
    | st.text("ab./ ", max_size=9).map("unix:/{}".format)
    | st.text().map("systemd:{}".format)
)
def test_bind_is_its_own_only_form_or_refused(text: str) -> None:
    try:
        bind = parse_bind(text)
    except Refused:
        return
    assert parse_bind(bind) == bind
