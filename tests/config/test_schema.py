"""The keys and their limits. What is said of wrong ones: see refused/."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from gaiod.config.errors import Keys, Report, dotted
from gaiod.config.reader import Section
from gaiod.config.schema import (
    CONFIG,
    CONNECTIONS_MAX,
    LISTENER,
    LOG,
    LOG_CONNECTIONS,
    PROXY_PROTOCOL,
    RECYCLE,
    check_schema,
)
from gaiod.config.yaml import read_document
from gaiod.settings import (
    ConnectionLogSettings,
    ListenerSettings,
    LogSettings,
    ProxyProtocolSettings,
    RecycleSettings,
    Settings,
)

ODD_VALUES = ("~", "true", "5", "0.5", "text", "[a]", "{a: b}", "[]", "{}", "''")


def check(text: str) -> tuple[dict[str, Any] | None, list[str]]:
    report = Report("f")
    document = read_document(text, report)
    assert document
    given = check_schema(document, report)
    return given, [str(error) for error in report.errors]


def listener(line: str = "") -> dict[str, Any]:
    """Return what a listener with one more line gives, besides where and how it serves."""
    given, problems = check(f"listeners:\n  e:\n    bind: 127.0.0.1:7000\n    handler: echo\n    {line}\n")
    assert given
    assert not problems
    fields: dict[str, Any] = given["listeners"]["e"]
    assert (fields.pop("bind"), fields.pop("handler")) == ("127.0.0.1:7000", "echo")
    return fields


def daemon(line: str = "") -> dict[str, Any]:
    """Return what a file with one more line gives, besides a listener."""
    given, problems = check(f"{line}\nlisteners: {{echo: {{bind: 127.0.0.1:7000, handler: echo}}}}")
    assert not problems
    assert given
    assert list(given.pop("listeners")) == ["echo"]
    return given


def fields_of(section: Section) -> list[str]:
    """Return the fields that the keys of a section fill."""
    fields = []
    for key in section.keys.values():
        if key.setting:
            fields.append(key.setting)
        else:
            assert isinstance(key.kind, Section)
            fields += fields_of(key.kind)
    return fields


def sections_of(section: Section, above: Keys = ()) -> Iterator[tuple[Keys, Section]]:
    yield above, section
    for name, key in section.keys.items():
        if isinstance(key.kind, Section):
            yield from sections_of(key.kind, (*above, name))


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        (CONFIG, Settings),
        (RECYCLE, RecycleSettings),
        (LOG, LogSettings),
        (LOG_CONNECTIONS, ConnectionLogSettings),
        (PROXY_PROTOCOL, ProxyProtocolSettings),
    ],
)
def test_every_field_of_the_settings_is_filled_by_one_key(section: Section, kind: type) -> None:
    assert section.make in (kind, dict)
    assert sorted(fields_of(section)) == sorted(field.name for field in fields(kind))


def test_every_field_of_a_listener_is_filled_by_one_key_or_by_its_name_and_handler() -> None:
    others = ["name", "servers", "sources", "inlets", "buffer_limit_bytes", "takes_admin_state", "has_state"]
    assert sorted([*fields_of(LISTENER), *others]) == sorted(field.name for field in fields(ListenerSettings))


def test_what_the_file_does_not_say_is_left_to_the_defaults_of_the_settings() -> None:
    assert (listener(), daemon()) == ({}, {})


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("connections_max: 1", "connections_max", 1),
        ("connections_max: 1000000", "connections_max", CONNECTIONS_MAX),
        ("idle_timeout: 10ms", "idle_timeout_s", 0.01),
        ("idle_timeout: 1d", "idle_timeout_s", 86400.0),
        ("backlog: 1", "backlog", 1),
        ("backlog: 65535", "backlog", 65535),
        ('socket_mode: "0666"', "socket_mode", 0o666),
        ('socket_mode: "700"', "socket_mode", 0o700),
        ("nodelay: false", "nodelay", False),
        ("keepalive: 1s", "keepalive_s", 1.0),
        ("keepalive: 9h", "keepalive_s", 32400.0),
        ("keepalive: false", "keepalive_s", None),
        ("user_timeout: 1s", "user_timeout_s", 1.0),
        ("user_timeout: 1h", "user_timeout_s", 3600.0),
        ("user_timeout: false", "user_timeout_s", None),
        ("congestion: bbr", "congestion", "bbr"),
        ("congestion: a23456789012345", "congestion", "a23456789012345"),
        ("congestion: false", "congestion", None),
        ("notsent_lowat: 4096", "notsent_lowat_bytes", 4096),
        ("notsent_lowat: 1GiB", "notsent_lowat_bytes", 1 << 30),
        ("notsent_lowat: false", "notsent_lowat_bytes", None),
        ("with: {a: 1}", "options", {"a": 1}),
        ("proxy_protocol: false", "proxy_protocol", None),
    ],
)
def test_values_are_taken_up_to_both_ends_of_their_range(line: str, name: str, value: object) -> None:
    assert listener(line) == {name: value}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("{from: [10.0.0.0/8]}", ProxyProtocolSettings(("10.0.0.0/8",))),
        ("{from: ['unix:', 10.0.0.0/8], timeout: 100ms}", ProxyProtocolSettings(("unix:", "10.0.0.0/8"), 0.1)),
        (
            "{from: [" + ", ".join(["0.0.0.0/0"] * 64) + "], timeout: 1m}",
            ProxyProtocolSettings(("0.0.0.0/0",) * 64, 60.0),
        ),
    ],
)
def test_proxy_protocol_is_taken_up_to_both_ends_of_its_range(text: str, settings: ProxyProtocolSettings) -> None:
    assert listener(f"proxy_protocol: {text}") == {"proxy_protocol": settings}


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("workers: 1", "workers", 1),
        ("workers: 1024", "workers", 1024),
        ("pin_workers: true", "pin_workers", True),
        ("heartbeat_timeout: 500ms", "heartbeat_timeout_s", 0.5),
        ("heartbeat_timeout: 1h", "heartbeat_timeout_s", 3600.0),
        ("drain_timeout: 0s", "drain_timeout_s", 0.0),
        ("drain_timeout: 1d", "drain_timeout_s", 86400.0),
        ("stop_grace: 0s", "stop_grace_s", 0.0),
        ("stop_grace: 1h", "stop_grace_s", 3600.0),
        ("recycle: {age: 1s}", "recycle", RecycleSettings(age_s=1.0)),
        ("recycle: {age: 365d}", "recycle", RecycleSettings(age_s=365 * 86400.0)),
        ("recycle: {age: false}", "recycle", RecycleSettings(age_s=None)),
        ("recycle: {memory: 32MiB}", "recycle", RecycleSettings(memory_bytes=32 << 20)),
        ("recycle: {memory: 1024GiB}", "recycle", RecycleSettings(memory_bytes=1 << 40)),
        ("recycle: {memory: false}", "recycle", RecycleSettings(memory_bytes=None)),
        ("recycle: {connections: 1}", "recycle", RecycleSettings(connections=1)),
        ("recycle: {connections: 1000000000000}", "recycle", RecycleSettings(connections=10**12)),
        ("recycle: {connections: false}", "recycle", RecycleSettings(connections=None)),
        ("user: gaiod", "user", "gaiod"),
        ("user: false", "user", None),
        ("metrics: {listen: systemd:metrics}", "metrics_listen", "systemd:metrics"),
        ("control: {listen: auto}", "control_listen", "auto"),
        ("control: {listen: unix:/run/c.sock}", "control_listen", "unix:/run/c.sock"),
        ("control: {listen: false}", "control_listen", None),
        ("log: {format: text}", "log", LogSettings(format="text")),
        ("log: {format: json}", "log", LogSettings(format="json")),
        ("log: {format: journald}", "log", LogSettings(format="journald")),
        ("log: {file: stderr}", "log", LogSettings(file=None)),
        ("log: {file: /var/log/gaiod.log}", "log", LogSettings(file="/var/log/gaiod.log")),
        ("log: {connections: {open: true}}", "log", LogSettings(connections=ConnectionLogSettings(opened=True))),
        ("log: {connections: {close: true}}", "log", LogSettings(connections=ConnectionLogSettings(closed=True))),
        ("log: {connections: {move: true}}", "log", LogSettings(connections=ConnectionLogSettings(moved=True))),
        ("log: {connections: {every: 1s}}", "log", LogSettings(connections=ConnectionLogSettings(every_s=1.0))),
        ("log: {connections: {every: 1d}}", "log", LogSettings(connections=ConnectionLogSettings(every_s=86400.0))),
        ("log: {connections: {every: false}}", "log", LogSettings(connections=ConnectionLogSettings(every_s=None))),
        ("log: {connections: {rate: 1}}", "log", LogSettings(connections=ConnectionLogSettings(rate=1))),
        ("log: {connections: {rate: 100000}}", "log", LogSettings(connections=ConnectionLogSettings(rate=100_000))),
    ],
)
def test_values_of_the_daemon_are_taken_up_to_both_ends_of_their_range(line: str, field: str, value: object) -> None:
    given = daemon(line)
    assert given == {field: value}
    assert type(given[field]) is type(value)


def test_group_is_taken_with_a_user() -> None:
    assert daemon("user: gaiod\ngroup: adm") == {"user": "gaiod", "group": "adm"}


def nested(keys: Keys, value: str) -> str:
    """Return YAML with one value, at `keys`."""
    *above, last = keys
    return "".join(f"{key}: {{" for key in above) + f"{last}: {value}" + "}" * len(above) + "\n"


KEYS_OF_SECTIONS = [(*keys, name) for keys, section in sections_of(CONFIG) for name in section.keys]


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("keys", [*KEYS_OF_SECTIONS, ("listeners", "echo")], ids=dotted)
def test_odd_value_of_any_key_says_what_to_do(keys: Keys, value: str) -> None:
    given, problems = check(nested(keys, value))
    assert given is None
    assert problems
    assert all("; " in problem for problem in problems)


@pytest.mark.parametrize("keys", KEYS_OF_SECTIONS, ids=dotted)
def test_key_with_a_letter_too_many_is_told_which_one_was_meant(keys: Keys) -> None:
    wrong = f"{keys[-1]}x"
    _, problems = check(nested((*keys[:-1], wrong), "1"))
    assert any(
        problem.endswith(f"{dotted((*keys[:-1], wrong))}: unknown key; did you mean {keys[-1]}?")
        for problem in problems
    )


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("key", LISTENER.keys)
def test_odd_value_of_any_key_of_a_listener_says_what_to_do(key: str, value: str) -> None:
    _, problems = check(f"listeners:\n  echo:\n    {key}: {value}\n")
    assert all("; " in problem for problem in problems)
    absent = "handler" if key == "bind" else "bind"
    assert any(f"echo.{absent}: missing; add " in problem for problem in problems)


def test_missing_key_is_not_reported_where_a_refused_key_may_be_it() -> None:
    report = Report("f")
    document = read_document("listeners:\n  e:\n    <<: {bind: 127.0.0.1:7000}\n    handler: echo\n", report)
    assert document
    assert check_schema(document, report) is None
    assert [error.message for error in report.errors] == ["merge keys are not supported; write the keys out"]
