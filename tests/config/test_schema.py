"""The keys and their limits. What is said of wrong ones: see refused/."""

import os

import pytest

from gaiod.config.errors import Report
from gaiod.config.schema import CONNECTIONS_MAX, WORKERS_MAX, Config, Listener, check_schema, usable_cpus
from gaiod.config.yaml import read_document
from gaiod.runtime.settings import ListenerSettings, Settings

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


def test_defaults_are_those_of_the_settings() -> None:
    given = listener()
    default = ListenerSettings("echo", "127.0.0.1:7000", "echo")
    assert given.connections_max == default.connections_max
    assert given.idle_timeout == default.idle_timeout_s
    assert given.backlog == default.backlog
    assert given.nodelay == default.nodelay
    assert given.keepalive == default.keepalive_s
    config, _ = check("listeners: {echo: {bind: 127.0.0.1:7000, handler: echo}}")
    assert config
    assert (config.workers, config.metrics.listen) == (Settings(()).workers, Settings(()).metrics_listen)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("connections_max: 1", "connections_max", 1),
        ("connections_max: 1000000", "connections_max", CONNECTIONS_MAX),
        ("idle_timeout: 10ms", "idle_timeout", 0.01),
        ("idle_timeout: 1d", "idle_timeout", 86400.0),
        ("backlog: 1", "backlog", 1),
        ("backlog: 65535", "backlog", 65535),
        ("nodelay: false", "nodelay", False),
        ("keepalive: 1s", "keepalive", 1.0),
        ("keepalive: 1d", "keepalive", 86400.0),
        ("keepalive: false", "keepalive", None),
        ("with: {a: 1}", "options", {"a": 1}),
    ],
)
def test_values_are_taken_up_to_both_ends_of_their_range(line: str, name: str, value: object) -> None:
    assert getattr(listener(line), name) == value


def test_workers_auto_is_the_cpus_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "workers: auto\nlisteners: {echo: {bind: 127.0.0.1:7000, handler: echo}}"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    config, _ = check(text)
    assert config
    assert config.workers == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5000)), raising=False)
    config, _ = check(text)
    assert config
    assert config.workers == WORKERS_MAX


def test_usable_cpus_is_the_cpu_count_when_the_system_has_no_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus() == 7


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("key", ["workers", "metrics", "metrics.listen", "listeners", "listeners.echo"])
def test_odd_value_of_any_key_is_reported_in_our_words(key: str, value: str) -> None:
    first, _, rest = key.partition(".")
    config, problems = check(f"{first}: {{{rest}: {value}}}\n" if rest else f"{first}: {value}\n")
    assert config is None
    assert all("; " in problem and "Input should" not in problem for problem in problems)


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


def test_listeners_may_share_port_zero_and_differ_in_address_only() -> None:
    config, problems = check(
        "listeners:\n"
        "  a: {bind: 127.0.0.1:0, handler: echo}\n"
        "  b: {bind: 127.0.0.1:0, handler: echo}\n"
        "  c: {bind: 127.0.0.1:7000, handler: echo}\n"
        "  d: {bind: 127.0.0.2:7000, handler: echo}\n"
        "  e: {bind: '[::1]:7000', handler: echo}\n"
    )
    assert problems == []
    assert config
    assert len(config.listeners) == 5


def test_unix_sockets_that_end_like_port_zero_are_still_compared() -> None:
    _, problems = check(
        "listeners: {a: {bind: 'unix:/run/x:0', handler: echo}, b: {bind: 'unix:/run/x:0', handler: echo}}"
    )
    assert len(problems) == 1
    assert "listeners.b.bind: is the address of listeners.a.bind too; write another" in problems[0]
