"""Where to listen, as the configuration says it. What is said of wrong addresses: see refused/bind-*.yaml."""

import pytest

from gaiod.config.addresses import parse_bind, parse_control, parse_place
from gaiod.config.errors import Refused


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        ("[0:0:0:0:0:0:0:1]:7000", "[::1]:7000"),
        ("unix:/run/./gaiod//x/../echo.sock", "unix:/run/gaiod/echo.sock"),
        ("systemd:echo.socket", "systemd:echo.socket"),
    ],
)
def test_bind_is_written_in_one_way(text: str, bind: str) -> None:
    assert parse_bind(text) == bind
    assert str(parse_place(text)) == bind


@pytest.mark.parametrize("port", [0, 65535])
def test_bind_that_is_only_a_port_is_refused_with_the_address_it_may_mean(port: int) -> None:
    with pytest.raises(Refused, match=rf"^{port} is only a port; write 127.0.0.1:{port} or \[::1\]:{port}$"):
        parse_bind(port)


@pytest.mark.parametrize("value", ["", "localhost:7000", "unix:a", "systemd:", None, True, -1, 70000, 0.5, [], {}])
def test_bind_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match=r"; write "):
        parse_bind(value)


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
