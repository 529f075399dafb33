"""Strict YAML: plain values with their places, or what is wrong with it. Refused files: see refused/."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.errors import Place, Report
from gaiod.config.yaml import DEPTH_MAX, VALUES_MAX, Document, read_document

NUMBERS = st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
# YAML ends a key after 1024 characters; an escape has 6 for each of ours, or 12.
KEYS = st.text(max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> Document:
    report = Report("f")
    document = read_document(text, report)
    report.raise_if_any()
    assert document
    return document


def problems(text: str) -> list[str]:
    report = Report("f")
    read_document(text, report)
    return [str(error) for error in report.errors]


def test_places_are_those_an_editor_shows() -> None:
    document = read("a:\n  b: [x, 'ü', {c: 1}]\n  d: y\n")
    assert document.value == {"a": {"b": ["x", "ü", {"c": 1}], "d": "y"}}
    assert document.place_of_key(("a",)) == Place(1, 1)
    assert document.place_of(("a",)) == Place(2, 3)
    assert document.place_of(("a", "b", 1)) == Place(2, 10)
    assert document.place_of_key(("a", "b", 1)) == Place(2, 10)
    assert document.place_of_key(("a", "b", 2, "c")) == Place(2, 16)
    assert document.place_of(("a", "d")) == Place(3, 6)


def test_places_are_right_behind_a_byte_order_mark_and_windows_line_ends() -> None:
    document = read("\ufeffa: 1\r\nb: 2\r\n")
    assert document.value == {"a": 1, "b": 2}
    assert document.place_of_key(("b",)) == Place(2, 1)


def test_quoted_text_is_text_whatever_it_looks_like() -> None:
    assert read("""["1", 'true', "22:22", 'no', "~", '<<']""").value == [
        "1",
        "true",
        "22:22",
        "no",
        "~",
        "<<",
    ]
    assert read("a: |\n  10\n  yes\nb: >-\n  off\n").value == {"a": "10\nyes\n", "b": "off"}
    assert read("'1': x\n\"on\": y\n'<<': z\n").value == {"1": "x", "on": "y", "<<": "z"}


def test_surrogate_pairs_become_the_character_that_json_means() -> None:
    assert read(r'{"\ud83d\ude00": "\ud83d\ude00"}').value == {"😀": "😀"}


@given(JSON, st.sampled_from([None, 2]))
def test_json_means_the_same_as_yaml(value: object, indent: int | None) -> None:
    assert read(json.dumps(value, indent=indent)).value == value


def test_all_refused_values_are_reported_and_the_rest_is_read() -> None:
    report = Report("f")
    document = read_document("a: yes\nb: [010, 5]\nc: 1\nc: .inf\n", report)
    assert document
    assert document.value == {"a": None, "b": [None, 5], "c": 1}
    assert document.refused == {("a",), ("b", 0), ("c",)}
    assert document.incomplete == {()}
    assert [(error.line, error.column) for error in report.errors] == [(1, 4), (2, 5), (4, 1), (4, 4)]


def test_nesting_is_allowed_up_to_the_limit_and_no_deeper() -> None:
    assert read("[" * DEPTH_MAX + "]" * DEPTH_MAX).value
    assert problems("[" * DEPTH_MAX + "1" + "]" * DEPTH_MAX) == []
    deeper = DEPTH_MAX + 1
    assert problems("[" * deeper + "1" + "]" * deeper) == [
        f"f:1:{deeper + 1}: nested too deeply; write at most {DEPTH_MAX} levels"
    ]


@pytest.mark.parametrize("opening", ["[", "- ", "? ", "{a: ", "[{a: "])
def test_nesting_without_end_is_refused_at_once(opening: str) -> None:
    start = time.process_time()
    assert len(problems(opening * 100_000)) == 1
    assert time.process_time() - start < 1


def test_values_are_allowed_up_to_the_limit_and_no_more() -> None:
    within = "[" + "1," * (VALUES_MAX - 1) + "]"
    assert problems(within) == []
    assert problems(within.replace("]", "1]")) == [
        f"f:1:{len(within)}: too many values; write at most {VALUES_MAX} in a file"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: \0", "f:1:4: the character U+0000 is not allowed; remove it"),
        ("a: 1\nb: \x1b", "f:2:4: the character U+001B is not allowed; remove it"),
        ("a: \ud800", "f:1:4: the character U+D800 is not allowed; remove it"),
        (
            "%YAML " + "9" * 5000 + ".1\n---\na: 1",
            "f:1:7: an escape or a version is out of range; correct it",
        ),
        ('a: "\\U00110000"', "f:1:7: an escape or a version is out of range; correct it"),
        ("", "f:1:1: the file is empty; start with listeners:"),
        ("*a : 1", 'f:1:1: "*a": *a is an alias; write the value out'),
        ("&a a: 1", "f:1:1: a: &a is an anchor; remove it and write the value out where it is used"),
        ("!!str a: 1", "f:1:1: a: the tag !!str is not supported; remove it"),
        (
            '"\\ud800": 1',
            'f:1:1: "\\ud800": an escape is half of a surrogate pair; write the character itself',
        ),
        ("a: !<x", "f:1:7: expected '>', but found '\\x00'; check quotes, brackets and indentation"),
    ],
)
def test_text_that_no_file_of_refused_can_hold(text: str, problem: str) -> None:
    assert problems(text) == [problem]
