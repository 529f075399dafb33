"""Settings: plain frozen data, which survive the way to a worker."""

import dataclasses
import json

import pytest

from gaiod.settings import (
    ListenerSettings,
    ProxyProtocolSettings,
    Settings,
    default_user_timeout_s,
    files_in,
    listener_settings_from,
)

ECHO = ListenerSettings(name="echo", bind="127.0.0.1:7000", handler="echo", options={"a": [1, 2.5, None, "x", True]})


@pytest.mark.parametrize("proxy_protocol", [None, ProxyProtocolSettings(("10.0.0.0/8", "unix:"), timeout_s=2.0)])
def test_listener_is_the_same_after_a_journey_as_json(proxy_protocol: ProxyProtocolSettings | None) -> None:
    """They reach the worker as a line of JSON."""
    settings = dataclasses.replace(ECHO, proxy_protocol=proxy_protocol, servers=("a", "b"), sources=("publish", "c"))
    assert listener_settings_from(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_every_limit_is_finite_when_nothing_is_said() -> None:
    assert 0 < ECHO.connections_max < 1_000_000
    assert 0 < ECHO.idle_timeout_s <= 3600
    assert 0 < ECHO.backlog <= 65_535
    assert ECHO.user_timeout_s == default_user_timeout_s(ECHO.idle_timeout_s)
    assert ECHO.nodelay


@pytest.mark.parametrize(
    ("idle_timeout_s", "expected"), [(0.01, 120.0), (120.0, 120.0), (300.0, 300.0), (900.0, 900.0), (3600.0, None)]
)
def test_kernel_does_not_end_what_the_idle_timeout_lets_live(idle_timeout_s: float, expected: float | None) -> None:
    assert default_user_timeout_s(idle_timeout_s) == expected


def test_metrics_listen_on_the_loopback_when_nothing_is_said() -> None:
    assert Settings(listeners=(ECHO,)).metrics_listen.startswith("127.0.0.1:")


@pytest.mark.parametrize("settings", [ECHO, Settings(listeners=(ECHO,))])
def test_settings_cannot_be_changed(settings: ListenerSettings | Settings) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, dataclasses.fields(settings)[0].name, "other")


def test_numbers_carry_their_unit_in_their_name() -> None:
    """A bare `timeout` could be anything."""
    for field in (*dataclasses.fields(ListenerSettings), *dataclasses.fields(ProxyProtocolSettings)):
        if "timeout" in field.name or "keepalive" in field.name:
            assert field.name.endswith("_s")


def test_files_are_found_wherever_options_name_them() -> None:
    ca, key = {"path": "/ca.pem", "text": "a"}, {"path": "/key.pem", "text": "b"}
    options = {"servers": ["a:1", {"address": "b:1", "tls": {"ca": ca, "certificate": {"key": key}}}], "path": "/no"}
    assert list(files_in(options)) == ["/ca.pem", "/key.pem"]
    assert list(files_in({"path": 5, "text": "/no"})) == []
