"""Annotations of options, taken apart."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from gaiod.config.errors import Refused
from gaiod.config.shapes import Option, options_of, shape_of, spell
from gaiod.handler.option_types import Check, Duration, Size, Unit


@dataclass
class Nested:
    a: int


@pytest.mark.parametrize(
    ("annotation", "bare", "optional"),
    [
        (int, int, False),
        (int | None, int, True),
        (Optional[int], int, True),  # noqa: UP045 - the spelling is what is tested
        (Union[None, str], str, True),  # noqa: UP007 - the spelling is what is tested
        (Annotated[int, "about it"], int, False),
        (Annotated[int | None, "about it"], int, True),
        (int | str, int | str, False),
        (int | str | None, int | str, True),
    ],
)
def test_none_and_annotated_are_peeled_off(annotation: Any, bare: Any, optional: bool) -> None:
    shape = shape_of(annotation)
    assert (shape.bare, shape.optional) == (bare, optional)


@pytest.mark.parametrize(
    "annotation", [Duration, Duration | None, None | Duration, Annotated[float | None, Unit("duration")]]
)
def test_unit_is_found_under_whatever_hides_it(annotation: Any) -> None:
    assert shape_of(annotation).unit == Unit("duration")


@dataclass
class Wider:
    a: int
    b: int


@dataclass
class Timed:
    every: Duration
    name: str = ""


@dataclass
class Read:
    path: str
    name: str = ""


@pytest.mark.parametrize(
    ("annotation", "item"),
    [
        (list[int], int),
        (Sequence[str], str),
        (tuple[int, ...], int),
        (list, Any),
        (dict[str, int], int),
        (Mapping, Any),
    ],
)
def test_item_is_what_a_list_or_mapping_holds(annotation: Any, item: Any) -> None:
    shape = shape_of(annotation)
    assert shape.item == item
    assert shape.is_list != shape.is_mapping


def test_tuple_of_a_fixed_length_is_no_list() -> None:
    assert not shape_of(tuple[int, str]).is_list


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (Duration, "a duration such as 250ms, 30s, 5m, 1h or 1d"),
        (Size, "a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"),
        (Literal["a", 2, True], "a, 2 or true"),
        (list[int], "a list"),
        (dict[str, int], "a mapping (key: value)"),
        (Nested, "a mapping (key: value)"),
        (Any, "a value"),
        (Annotated[int, Unit("count")], "a whole number"),
        (str | Nested, "text or a mapping (key: value)"),
        (bool | list[int] | None, "true or false or a list"),
        (Timed | Read | list[Timed | Read], "a mapping (key: value) or a list"),
    ],
)
def test_wanted_says_what_to_write(annotation: Any, wanted: str) -> None:
    assert shape_of(annotation).wanted == wanted


@pytest.mark.parametrize(
    ("annotation", "value", "taken"),
    [
        (str, "a", True),
        (str, 1, False),
        (int, True, False),
        (float, 1, True),
        (Nested, {}, True),
        (Nested, [], False),
        (list[int], ["whatever"], True),
        (dict[str, int], {"whatever": []}, True),
        (Duration, "1s", True),
        (Duration, True, False),
        (Literal["never"], "ever", False),
        (Literal["never"], "never", True),
        (Literal["never"], 1, False),
        (Any, [], True),
    ],
)
def test_shape_takes_what_is_of_its_kind_whatever_is_in_it(annotation: Any, value: object, taken: bool) -> None:
    assert shape_of(annotation).takes(value) == taken


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"every": "whatever"}, Timed), ({"path": 5, "nmae": "a"}, Read), ([], list[int]), ("text", str)],
)
def test_mapping_is_the_dataclass_of_which_it_has_the_key_that_no_other_requires(value: object, kind: Any) -> None:
    assert shape_of(str | Timed | Read | list[int]).fitting(value).bare == kind


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "is a whole number; write text or a mapping"),
        ({}, "says none of every or path; add one of them"),
        ({"name": "a"}, "says none of every or path; add one of them"),
        ({"path": "a", "every": "1s"}, "says every and path; keep one of them"),
    ],
)
def test_value_that_is_none_of_the_alternatives_or_several_is_refused(value: object, message: str) -> None:
    with pytest.raises(Refused, match=re.escape(message)):
        shape_of(str | Timed | Read).fitting(value)


def test_dataclasses_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(Refused, match="Nested requires no key that the others lack; change it in the handler"):
        shape_of(Nested | Wider).fitting({"a": 1})


def test_checks_and_alternatives_are_found_under_what_hides_them() -> None:
    inner, outer = Check(len), Check(sorted)
    shape = shape_of(Annotated[Annotated[str, inner] | Nested | None, outer])
    assert (shape.checks, shape.optional) == ((outer,), True)
    assert [(each.bare, each.checks) for each in shape.alternatives] == [(str, (inner,)), (Nested, ())]


def test_options_are_the_fields_that_can_be_set() -> None:
    @dataclass
    class Options:
        needed: int
        derived: int = field(init=False)
        seed: InitVar[int] = 0
        _: KW_ONLY
        given: str = "a"
        made: list[int] = field(default_factory=list)

    assert options_of(Options) == {
        "needed": Option(int, required=True),
        "given": Option(str, required=False),
        "made": Option(list[int], required=False),
    }


def test_options_with_a_type_that_is_not_imported_are_refused() -> None:
    @dataclass
    class Options:
        path: "Elsewhere"  # type: ignore[name-defined]  # noqa: F821 - that is the point

    with pytest.raises(Refused, match="names a type it lacks, name 'Elsewhere' is not defined; import it"):
        options_of(Options)


def test_values_are_spelled_as_yaml_does() -> None:
    assert [spell(value) for value in (True, False, 1, "a")] == ["true", "false", "1", "a"]
