"""What the operator reads: one line for each problem, in the order of the file."""

import pickle

import pytest

from gaiod.config.errors import LISTED_MAX, WHOLE_FILE, ConfigError, ConfigErrors, Keys, Place, Report, dotted
from gaiod.core.errors import GaiodError


def test_text_of_an_error_is_file_place_key_and_message() -> None:
    error = ConfigError("gaiod.yaml", 7, 5, "listeners.echo.bnid", "unknown key; did you mean bind?")
    assert str(error) == "gaiod.yaml:7:5: listeners.echo.bnid: unknown key; did you mean bind?"


def test_text_of_an_error_leaves_out_the_key_when_syntax_is_broken() -> None:
    assert str(ConfigError("gaiod.yaml", 7, 5, "", "no; yes")) == "gaiod.yaml:7:5: no; yes"


def test_text_of_an_error_leaves_out_the_place_when_it_concerns_the_file() -> None:
    report = Report("/etc")
    report.add(WHOLE_FILE, (), "is a directory; no")
    assert str(report.errors[0]) == "/etc: is a directory; no"


def test_errors_are_sorted_by_place_whatever_order_they_were_found_in() -> None:
    report = Report("f")
    for line, column in ((10, 1), (2, 9), (2, 10), (1, 1)):
        report.add(Place(line, column), ("k",), "m")
    errors = ConfigErrors(report.errors)
    assert str(errors) == "f:1:1: k: m\nf:2:9: k: m\nf:2:10: k: m\nf:10:1: k: m"


def test_text_of_errors_ends_when_there_are_too_many_to_read() -> None:
    errors = ConfigErrors(ConfigError("f", line, 1, "", "m") for line in range(1, LISTED_MAX + 3))
    assert str(errors).splitlines()[-2:] == [f"f:{LISTED_MAX}:1: m", "... and 2 more"]
    assert len(errors.errors) == LISTED_MAX + 2
    assert str(ConfigErrors(errors.errors[:LISTED_MAX])).splitlines()[-1] == f"f:{LISTED_MAX}:1: m"


def test_errors_are_caught_with_all_others_of_gaiod_and_survive_pickling() -> None:
    """The supervisor may check a configuration in a process of its own."""
    errors = ConfigErrors([ConfigError("f", 1, 2, "k", "m")])
    assert isinstance(errors, GaiodError)
    assert pickle.loads(pickle.dumps(errors)).errors == errors.errors


def test_report_raises_only_when_there_is_something_to_say() -> None:
    report = Report("f")
    report.raise_if_any()
    report.add(Place(1, 1), (), "m")
    with pytest.raises(ConfigErrors):
        report.raise_if_any()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ((), ""),
        (("listeners", "echo-v4", "bind"), "listeners.echo-v4.bind"),
        (("with", "servers", 0, "port"), "with.servers[0].port"),
        (("a.b", "c d"), '"a.b"."c d"'),
        (("bell\a\n",), '"bell\\x07\\n"'),
    ],
)
def test_keys_are_written_as_an_operator_would(keys: Keys, text: str) -> None:
    assert dotted(keys) == text
