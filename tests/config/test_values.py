"""Values that one key or two take. What is said of wrong ones: see refused/."""

import pytest

from gaiod.config import values
from gaiod.config.errors import Refused
from gaiod.config.values import (
    WORKERS_MAX,
    parse_account,
    parse_choice,
    parse_keepalive,
    parse_log_file,
    parse_workers,
)

ODD: list[object] = [None, True, 1.5, [], {}]


def test_workers_are_a_number_or_as_many_as_usable_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "usable_cpus", lambda: 3)
    assert [parse_workers(value) for value in (1, WORKERS_MAX, "auto")] == [1, WORKERS_MAX, 3]
    monkeypatch.setattr(values, "usable_cpus", lambda: 5000)
    assert parse_workers("auto") == WORKERS_MAX


@pytest.mark.parametrize("value", [*ODD, 0, WORKERS_MAX + 1, "Auto", "1"])
def test_workers_are_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match="; write "):
        parse_workers(value)


def test_keepalive_is_in_whole_seconds() -> None:
    assert [parse_keepalive(text) for text in ("1s", "2000ms", "9h")] == [1.0, 2.0, 32400.0]
    for text in ("1500ms", "999ms", "25h"):
        with pytest.raises(Refused, match="; write "):
            parse_keepalive(text)


def test_choice_is_one_of_its_names_exactly() -> None:
    assert parse_choice("json", ("text", "json")) == "json"
    for value in ("JSON", "", "yaml", *ODD):
        with pytest.raises(Refused, match=r"; (write text or json|did you mean json)"):
            parse_choice(value, ("text", "json"))


@pytest.mark.parametrize(
    "name", ["gaiod", "_gaiod", "web-1", "a.b", "1and1", "Müller", "host$", r"CORP\gaiod", "domain users"]
)
def test_account_may_be_called_whatever_a_directory_calls_it(name: str) -> None:
    assert parse_account(name, "user") == name


@pytest.mark.parametrize(
    "name", [*ODD, 0, "", "0", "1000", "٣", "-a", " a", "a ", "a:b", "a/b", "a\0", "a\nb", "\ud800"]
)
def test_account_is_refused_with_what_to_write(name: object) -> None:
    with pytest.raises(Refused, match=r"; write the name of a group such as gaiod, or false$"):
        parse_account(name, "group")


def test_log_file_is_none_for_stderr_and_else_a_path_written_in_one_way() -> None:
    assert parse_log_file("stderr") is None
    assert parse_log_file("/var/log//gaiod/./gaiod.log") == "/var/log/gaiod/gaiod.log"


@pytest.mark.parametrize("value", [*ODD, "", "stdout", "a.log", "./a.log", "~/a.log", "/", "/a/", "/a/..", "/a\0"])
def test_log_file_is_refused_with_what_to_write(value: object) -> None:
    with pytest.raises(Refused, match="; write stderr or an absolute path such as "):
        parse_log_file(value)
