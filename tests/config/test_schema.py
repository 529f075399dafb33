"""The keys and their limits. What is said of wrong ones: see refused/."""

import re
from dataclasses import asdict

import pytest

from gaiod.config.errors import Keys, Report, dotted
from gaiod.config.schema import CONNECTIONS_MAX, SECTIONS, Config, Listener, check_schema
from gaiod.config.yaml import read_document
from gaiod.settings import ListenerSettings, Settings

ODD_VALUES = ("~", "true", "5", "0.5", "text", "[a]", "{a: b}", "[]", "{}", "''")


def check(text: str) -> tuple[Config | None, list[str]]:
    report = Report("f")
    document = read_document(text, report)
    assert document
    config = check_schema(document, report)
    return config, [str(error) for error in report.errors]


def listener(line: str = "") -> Listener:
    config, problems = check(f"listeners:\n  e:\n    bind: 127.0.0.1:7000\n    handler: echo\n    {line}\n")
    assert config
    assert not problems
    return config.listeners["e"]


def daemon(line: str = "") -> Config:
    config, problems = check(f"{line}\nlisteners: {{echo: {{bind: 127.0.0.1:7000, handler: echo}}}}")
    assert not problems
    assert config
    return config


def test_defaults_of_a_listener_are_those_of_the_settings() -> None:
    given = listener()
    default = ListenerSettings("echo", "127.0.0.1:7000", "echo")
    assert given.connections_max == default.connections_max
    assert given.idle_timeout == default.idle_timeout_s
    assert given.backlog == default.backlog
    assert given.socket_mode == default.socket_mode
    assert given.nodelay == default.nodelay
    assert given.keepalive == default.keepalive_s
    assert given.user_timeout == default.user_timeout_s
    assert given.congestion == default.congestion
    assert given.notsent_lowat == default.notsent_lowat_bytes
    assert (given.proxy_protocol, default.proxy_protocol) == (None, None)


def test_defaults_of_the_daemon_are_those_of_the_settings() -> None:
    given, default = daemon().model_dump(exclude={"listeners"}), asdict(Settings(()))
    assert given.pop("recycle") == {
        "age": default["recycle"]["age_s"],
        "memory": default["recycle"]["memory_bytes"],
        "connections": default["recycle"]["connections"],
    }
    assert given.pop("metrics") == {"listen": default["metrics_listen"]}
    assert given.pop("control") == {"listen": default["control_listen"]}
    log, lines = default["log"], default["log"]["connections"]
    assert given.pop("log") == {
        "format": log["format"],
        "file": log["file"],
        "connections": {
            "open": lines["opened"],
            "close": lines["closed"],
            "every": lines["every_s"],
            "rate": lines["rate"],
        },
    }
    assert given == {key: default[key if key in default else f"{key}_s"] for key in given}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("connections_max: 1", "connections_max", 1),
        ("connections_max: 1000000", "connections_max", CONNECTIONS_MAX),
        ("idle_timeout: 10ms", "idle_timeout", 0.01),
        ("idle_timeout: 1d", "idle_timeout", 86400.0),
        ("backlog: 1", "backlog", 1),
        ("backlog: 65535", "backlog", 65535),
        ('socket_mode: "0666"', "socket_mode", 0o666),
        ('socket_mode: "700"', "socket_mode", 0o700),
        ("nodelay: false", "nodelay", False),
        ("keepalive: 1s", "keepalive", 1.0),
        ("keepalive: 9h", "keepalive", 32400.0),
        ("keepalive: false", "keepalive", None),
        ("user_timeout: 1s", "user_timeout", 1.0),
        ("user_timeout: 1h", "user_timeout", 3600.0),
        ("user_timeout: false", "user_timeout", None),
        ("congestion: bbr", "congestion", "bbr"),
        ("congestion: a23456789012345", "congestion", "a23456789012345"),
        ("congestion: false", "congestion", None),
        ("notsent_lowat: 4096", "notsent_lowat", 4096),
        ("notsent_lowat: 1GiB", "notsent_lowat", 1 << 30),
        ("notsent_lowat: false", "notsent_lowat", None),
        ("with: {a: 1}", "options", {"a": 1}),
        ("proxy_protocol: false", "proxy_protocol", None),
    ],
)
def test_values_are_taken_up_to_both_ends_of_their_range(line: str, name: str, value: object) -> None:
    assert getattr(listener(line), name) == value


@pytest.mark.parametrize(
    ("text", "networks", "timeout"),
    [
        ("{from: [10.0.0.0/8]}", ["10.0.0.0/8"], 5.0),
        ("{from: ['unix:', 10.0.0.0/8], timeout: 100ms}", ["unix:", "10.0.0.0/8"], 0.1),
        ("{from: [" + ", ".join(["0.0.0.0/0"] * 64) + "], timeout: 1m}", ["0.0.0.0/0"] * 64, 60.0),
    ],
)
def test_proxy_protocol_is_taken_up_to_both_ends_of_its_range(text: str, networks: list[str], timeout: float) -> None:
    given = listener(f"proxy_protocol: {text}").proxy_protocol
    assert given
    assert (given.networks, given.timeout) == (networks, timeout)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("workers: 1", 1),
        ("workers: 1024", 1024),
        ("pin_workers: true", True),
        ("heartbeat_timeout: 500ms", 0.5),
        ("heartbeat_timeout: 1h", 3600.0),
        ("drain_timeout: 0s", 0.0),
        ("drain_timeout: 1d", 86400.0),
        ("stop_grace: 0s", 0.0),
        ("stop_grace: 1h", 3600.0),
        ("recycle: {age: 1s}", 1.0),
        ("recycle: {age: 365d}", 365 * 86400.0),
        ("recycle: {age: false}", None),
        ("recycle: {memory: 32MiB}", 32 << 20),
        ("recycle: {memory: 1024GiB}", 1 << 40),
        ("recycle: {memory: false}", None),
        ("recycle: {connections: 1}", 1),
        ("recycle: {connections: 1000000000000}", 10**12),
        ("recycle: {connections: false}", None),
        ("user: gaiod", "gaiod"),
        ("user: false", None),
        ("metrics: {listen: systemd:metrics}", "systemd:metrics"),
        ("control: {listen: auto}", "auto"),
        ("control: {listen: unix:/run/c.sock}", "unix:/run/c.sock"),
        ("control: {listen: false}", None),
        ("log: {format: text}", "text"),
        ("log: {format: json}", "json"),
        ("log: {format: journald}", "journald"),
        ("log: {file: stderr}", None),
        ("log: {file: /var/log/gaiod.log}", "/var/log/gaiod.log"),
        ("log: {connections: {open: true}}", True),
        ("log: {connections: {close: true}}", True),
        ("log: {connections: {every: 1s}}", 1.0),
        ("log: {connections: {every: 1d}}", 86400.0),
        ("log: {connections: {every: false}}", None),
        ("log: {connections: {rate: 1}}", 1),
        ("log: {connections: {rate: 100000}}", 100_000),
    ],
)
def test_values_of_the_daemon_are_taken_up_to_both_ends_of_their_range(line: str, value: object) -> None:
    found: object = daemon(line)
    for key in re.findall(r"(\w+):(?= )", line):
        found = getattr(found, key)
    assert found == value
    assert type(found) is type(value)


def test_group_is_taken_with_a_user() -> None:
    config = daemon("user: gaiod\ngroup: adm")
    assert (config.user, config.group) == ("gaiod", "adm")


def nested(keys: Keys, value: str) -> str:
    """Return YAML with one value, at `keys`."""
    *above, last = keys
    return "".join(f"{key}: {{" for key in above) + f"{last}: {value}" + "}" * len(above) + "\n"


KEYS_OF_SECTIONS = [(*keys, name) for keys, model in SECTIONS.items() for name in model.model_fields]


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("keys", [*KEYS_OF_SECTIONS, ("listeners", "echo")], ids=dotted)
def test_odd_value_of_any_key_is_reported_in_our_words(keys: Keys, value: str) -> None:
    config, problems = check(nested(keys, value))
    assert config is None
    assert all("; " in problem and "Input should" not in problem for problem in problems)


@pytest.mark.parametrize("keys", KEYS_OF_SECTIONS, ids=dotted)
def test_key_with_a_letter_too_many_is_told_which_one_was_meant(keys: Keys) -> None:
    wrong = f"{keys[-1]}x"
    _, problems = check(nested((*keys[:-1], wrong), "1"))
    assert any(
        problem.endswith(f"{dotted((*keys[:-1], wrong))}: unknown key; did you mean {keys[-1]}?")
        for problem in problems
    )


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("key", [field.alias or name for name, field in Listener.model_fields.items()])
def test_odd_value_of_any_key_of_a_listener_is_reported_in_our_words(key: str, value: str) -> None:
    _, problems = check(f"listeners:\n  echo:\n    {key}: {value}\n")
    assert all("; " in problem and "Input should" not in problem for problem in problems)
    absent = "handler" if key == "bind" else "bind"
    assert any(f"echo.{absent}: missing; add " in problem for problem in problems)


def test_missing_key_is_not_reported_where_a_refused_key_may_be_it() -> None:
    report = Report("f")
    document = read_document("listeners:\n  e:\n    <<: {bind: 127.0.0.1:7000}\n    handler: echo\n", report)
    assert document
    assert check_schema(document, report) is None
    assert [error.message for error in report.errors] == ["merge keys are not supported; write the keys out"]
