"""The words of the messages."""

import pytest

from gaiod.config.words import NAMES, mismatch, one_of, unknown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "is empty; write text"),
        (True, "is a boolean; write text (put it in quotes)"),
        (5, "is a whole number; write text (put it in quotes)"),
        (0.5, "is a number; write text (put it in quotes)"),
        ([], "is a list; write text"),
        ({}, "is a mapping (key: value); write text"),
    ],
)
def test_mismatch_names_what_is_there_and_what_is_wanted(value: object, text: str) -> None:
    assert mismatch(value, NAMES[str]) == text


def test_unknown_name_suggests_the_nearest_else_lists_all() -> None:
    assert unknown("bnid", ["bind", "handler"]) == "unknown key; did you mean bind?"
    assert unknown("daemonize", ["bind", "handler"]) == "unknown key; write bind or handler"
    assert unknown("daemonize", []) == "unknown key; remove it"


def test_unknown_name_of_a_megabyte_costs_no_time_at_all() -> None:
    assert unknown("bind" * 250_000, ["bind"]) == "unknown key; write bind"


def test_names_are_joined_as_one_would_say_them() -> None:
    assert [one_of(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]
