"""Shared values: plain, small, and together not more than a megabyte."""

import re
from math import nan
from typing import Any

import pytest

from gaiod.handler.shared_values import TOTAL_MAX_BYTES, VALUE_MAX_BYTES, SharedValues


def test_last_value_of_a_key_is_kept_and_told_apart_from_the_same() -> None:
    values = SharedValues({"a": 1})
    assert values.put("a", 2)
    assert not values.put("a", 2)
    assert values.put("b", {"x": (1, 2)})
    assert values.values == {"a": 2, "b": {"x": [1, 2]}}, "as JSON has them"
    assert not values.put("b", {"x": [1, 2]})


def test_true_is_not_one() -> None:
    values = SharedValues({"a": 1})
    assert values.put("a", True)
    assert values.values["a"] is True


def test_none_takes_a_value_back() -> None:
    values = SharedValues({"a": 1})
    assert values.put("a", None)
    assert not values.put("a", None)
    assert dict(values.values) == {}


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("", 1, "'' is no key of a shared value; write 1 to 512 printable characters"),
        ("a\n", 1, "is no key"),
        ("k" * 513, 1, "is no key"),
        (7, 1, "7 is no key"),
        ("a", {1, 2}, "shared value 'a' cannot be JSON: Object of type set is not JSON serializable"),
        ("a", nan, "cannot be JSON"),
        ("a", "x" * VALUE_MAX_BYTES, f"shared value 'a' has {VALUE_MAX_BYTES + 2} bytes as JSON; share at most"),
    ],
)
def test_what_cannot_be_shared_is_refused_and_changes_nothing(key: Any, value: Any, why: str) -> None:
    values = SharedValues({"a": 0})
    with pytest.raises(ValueError, match=re.escape(why)):
        values.put(key, value)
    assert dict(values.values) == {"a": 0}


def test_all_together_have_a_limit_and_what_is_taken_back_makes_room() -> None:
    values = SharedValues()
    long = "x" * (VALUE_MAX_BYTES - 2)
    with pytest.raises(ValueError, match=f"and at most {TOTAL_MAX_BYTES}; share fewer or shorter values"):
        for number in range(100):
            values.put(f"{number:03}", long)
    count = len(values.values)
    assert count == TOTAL_MAX_BYTES // (VALUE_MAX_BYTES + 3)
    assert values.put("000", None)
    assert values.put("099", long)
    assert values.put("100", long, total_max=float("inf"))
    assert len(values.values) == count + 1
