"""The reader and its kinds, with a table of their own: what is taken, and every mistake with its place."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from gaiod.config.errors import Refused, Report
from gaiod.config.reader import (
    Checked,
    Chosen,
    Items,
    Key,
    Kind,
    Named,
    Reader,
    Section,
    Value,
    a_list,
    a_mapping,
    of_type,
)
from gaiod.config.yaml import read_document


@dataclass(frozen=True)
class Animal:
    """What a section makes."""

    legs: int
    sound: str = "none"


def _no_capitals(name: str) -> None:
    if not name.islower():
        raise Refused("has capitals; write a-z")


def _ascending(numbers: list[int]) -> None:
    if numbers != sorted(numbers):
        raise Refused(f"do not ascend; write {sorted(numbers)}")


def _one_or_several(value: Any) -> Kind:
    if value is None:
        raise Refused("is empty; write one or several")
    return Items(NUMBER) if isinstance(value, list) else NUMBER


NUMBER = Value(partial(of_type, kind=int))
TEXT = Value(partial(of_type, kind=str, wanted="a sound such as moo"))
ANIMAL = Section({"legs": Key("legs", NUMBER, example="4"), "says": Key("sound", TEXT)}, Animal)
GATE = Section({"open": Key("gate_open", Value(partial(of_type, kind=bool))), "width": Key("gate_width", NUMBER)})
FARM = Section(
    {
        "acres": Key("acres", NUMBER, example="10"),
        "gate": Key("", GATE),
        "sizes": Key("sizes", Checked(Items(NUMBER, make=tuple), (lambda sizes: _ascending(list(sizes)),))),
        "wells": Key("wells", Chosen(_one_or_several)),
        "animals": Key("animals", Named(ANIMAL, check_name=_no_capitals)),
        "barns": Key("barns", Named(Named(ANIMAL))),
    },
    noun="field",
    misplaced={"tractor": "belongs into the shed; write it there"},
)


def read(text: str, kind: Kind = FARM) -> tuple[Any, list[str]]:
    """Return what a text means, and what is wrong with it as `LINE:COLUMN: KEY: MESSAGE`, in the file's order."""
    report = Report("f")
    document = read_document(text, report)
    assert document
    plain = Reader(document, report).read(kind, document.value, ())
    return plain, [str(error).removeprefix("f:") for error in sorted(report.errors)]


def test_fields_are_those_that_are_given() -> None:
    assert read("acres: 3") == ({"acres": 3}, [])


def test_every_kind_is_read_however_deep_it_is_nested() -> None:
    text = """\
acres: 3
gate: {open: true}
sizes: [1, 2]
wells: 7
animals: {cow: {legs: 4, says: moo}, hen: {legs: 2}}
barns: {old: {}, new: {cow: {legs: 4}}}
"""
    assert read(text) == (
        {
            "acres": 3,
            "gate_open": True,
            "sizes": (1, 2),
            "wells": 7,
            "animals": {"cow": Animal(4, "moo"), "hen": Animal(2)},
            "barns": {"old": {}, "new": {"cow": Animal(4)}},
        },
        [],
    )


def test_unknown_key_is_refused_with_the_one_that_was_probably_meant() -> None:
    assert read("acres: 3\nanimal: {}\n") == (None, ["2:1: animal: unknown field; did you mean animals?"])


def test_unknown_key_that_is_like_none_is_refused_with_all_there_are() -> None:
    assert read("legs: 4\nplough: 1\n", ANIMAL) == (None, ["2:1: plough: unknown key; write legs or says"])


def test_key_that_belongs_elsewhere_is_told_so() -> None:
    assert read("tractor: 1\nacres: 3\n") == (None, ["1:1: tractor: belongs into the shed; write it there"])


def test_missing_key_is_refused_where_its_section_begins() -> None:
    assert read("animals:\n  cow: {says: moo}\nacres: 3\n") == (
        None,
        ["2:3: animals.cow.legs: missing; add legs: 4"],
    )


def test_missing_key_of_the_whole_file_is_refused_at_its_start() -> None:
    assert read("\n\nsizes: []\n") == (None, ["3:1: acres: missing; add acres: 10"])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("acres: text", "1:8: acres: is text; write a whole number"),
        ("acres: true", "1:8: acres: is a boolean; write a whole number"),
        ("acres:", "1:7: acres: is empty; write a whole number"),
        ("{acres: 3, gate: 5}", "1:18: gate: is a whole number; write a mapping (key: value)"),
        ("{acres: 3, sizes: {a: 1}}", "1:19: sizes: is a mapping (key: value); write a list"),
        ("{acres: 3, sizes: [1, a]}", "1:23: sizes[1]: is text; write a whole number"),
        ("{acres: 3, animals: [cow]}", "1:21: animals: is a list; write a mapping (key: value)"),
        ("{acres: 3, animals: {cow: moo}}", "1:27: animals.cow: is text; write a mapping (key: value)"),
        (
            "animals: {a: {legs: 4, says: 5}}\nacres: 3",
            "1:30: animals.a.says: is a whole number; write a sound such as moo",
        ),
        ("{acres: 3, wells: }", "1:18: wells: is empty; write one or several"),
        ("{acres: 3, wells: [~]}", "1:20: wells[0]: is empty; write a whole number"),
        ("[]", "1:1: the file is a list; write a mapping (key: value)"),
    ],
)
def test_value_of_the_wrong_kind_is_refused_with_its_place(text: str, wrong: str) -> None:
    assert read(text) == (None, [wrong])


def test_name_that_is_none_is_refused_and_what_it_names_is_read_nevertheless() -> None:
    assert read("acres: 3\nanimals:\n  Cow:\n    legs: four\n") == (
        None,
        ["3:3: animals.Cow: has capitals; write a-z", "4:11: animals.Cow.legs: is text; write a whole number"],
    )


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = """\
acre: 3
gate:
  open: 1
  width: wide
sizes: [1, two, {}]
animals:
  cow: {leg: 4}
  hen: {legs: 2, says: [cluck]}
barns:
  new:
    cow: {}
  old: 1
"""
    assert read(text) == (
        None,
        [
            "1:1: acre: unknown field; did you mean acres?",
            "1:1: acres: missing; add acres: 10",
            "3:9: gate.open: is a whole number; write true or false",
            "4:10: gate.width: is text; write a whole number",
            "5:12: sizes[1]: is text; write a whole number",
            "5:17: sizes[2]: is a mapping (key: value); write a whole number",
            "7:3: animals.cow.legs: missing; add legs: 4",
            "7:9: animals.cow.leg: unknown key; did you mean legs?",
            "8:24: animals.hen.says: is a list; write a sound such as moo",
            "11:5: barns.new.cow.legs: missing; add legs: 4",
            "12:8: barns.old: is a whole number; write a mapping (key: value)",
        ],
    )


def test_whole_is_checked_when_nothing_in_it_was_refused() -> None:
    assert read("{acres: 3, sizes: [2, 1]}") == (None, ["1:19: sizes: do not ascend; write [1, 2]"])
    assert read("{acres: 3, sizes: [2, a, 1]}") == (None, ["1:23: sizes[1]: is text; write a whole number"])


def test_section_with_a_mistake_is_not_made() -> None:
    made = []

    def make(**fields: object) -> None:
        made.append(fields)

    kind = Named(Section({"legs": Key("legs", NUMBER)}, make))
    _, problems = read("{cow: {legs: 4}, hen: {legs: two}, cat: {leg: 4}, dog: {legs: 04}}", kind)
    assert len(problems) == 3
    assert made == [{"legs": 4}]


def test_value_that_yaml_refused_gets_no_second_complaint() -> None:
    assert read("acres: !!str 3") == (None, ["1:8: acres: the tag !!str is not supported; remove it"])


def test_collection_that_yaml_refused_is_read_nevertheless() -> None:
    plain, problems = read("acres: 3\nsizes: &a [x]\nwells: !!set {}\n")
    assert plain is None
    assert [problem.partition(";")[0] for problem in problems] == [
        "2:8: sizes: &a is an anchor",
        "2:12: sizes[0]: is text",
        "3:8: wells: the tag !!set is not supported",
    ]


def test_mapping_in_which_yaml_refused_a_key_lacks_nothing_and_is_of_no_wrong_kind() -> None:
    plain, problems = read("acres: {<<: 3}\nanimals: {cow: {<<: 4}}\n")
    assert plain is None
    assert problems == [
        '1:9: acres."<<": merge keys are not supported; write the keys out',
        '2:17: animals.cow."<<": merge keys are not supported; write the keys out',
    ]


def test_lists_and_mappings_are_taken_whatever_is_in_them() -> None:
    assert (a_list(["a", 1]), a_mapping({"a": []})) == (["a", 1], {"a": []})
    for parse, value in ((a_list, {}), (a_mapping, [])):
        with pytest.raises(Refused, match="; write a "):
            parse(value)
