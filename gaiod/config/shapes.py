"""Type annotations of a handler's options, taken apart: what may stand there, and how to say so."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from gaiod.config import units
from gaiod.config.errors import Refused
from gaiod.config.words import NAMES, mismatch, one_of
from gaiod.handler.option_types import Check, PemFile, Unit

LISTS = (list, tuple, Sequence)
MAPPINGS = (dict, Mapping)
WANTED = {"duration": units.DURATION_WANTED, "size": units.SIZE_WANTED, "count": NAMES[int]}

FILE_WANTED = "the absolute path of a PEM file"


@dataclass(frozen=True, slots=True)
class Shape:
    """One annotation."""

    bare: Any
    """Without Annotated and None: `list[int]`, `str`, a dataclass, ..."""
    unit: Unit | None
    optional: bool
    checks: tuple[Check, ...] = ()

    @property
    def family(self) -> Any:
        """`list` of `list[int]`; a type without arguments is its own family."""
        return get_origin(self.bare) or self.bare

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal."""
        return get_args(self.bare)

    @property
    def alternatives(self) -> tuple["Shape", ...]:
        """The shapes of a union such as `str | Server`, which a value is one of; () for anything else."""
        return tuple(map(shape_of, get_args(self.bare))) if _is_union(self.bare) else ()

    @property
    def item(self) -> Any:
        """The annotation of a list's items or a mapping's values."""
        arguments = get_args(self.bare) or (Any, Any)
        return arguments[1] if self.family in MAPPINGS else arguments[0]

    @property
    def is_list(self) -> bool:
        """Whether a list of any length can be it: `tuple[int, str]` is none."""
        uniform = self.family is not tuple or get_args(self.bare)[1:] in ((), (...,))
        return self.family in LISTS and uniform

    @property
    def is_mapping(self) -> bool:
        """Whether it takes keys of the user's choice."""
        return self.family in MAPPINGS

    def takes(self, value: object) -> bool:
        """Tell whether a value is of its kind, whatever is in it: a union is the first alternative that takes it."""
        if self.bare is PemFile:
            return isinstance(value, str)
        if self.is_list:
            return isinstance(value, list)
        if self.is_mapping or is_dataclass(self.bare):
            return isinstance(value, dict)
        if self.unit:
            return isinstance(value, int | float | str) and not isinstance(value, bool)
        if self.family is Literal:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        return self.bare is Any or type(value) is self.bare or (self.bare is float and type(value) is int)

    def fitting(self, value: object) -> "Shape":
        """Return the one of a union's alternatives that a value is meant as.

        Several dataclasses are told apart by the keys that each requires and no other has.

        Raises:
            Refused: it is none of them, or could be several.
        """
        taking = [each for each in self.alternatives if each.takes(value)]
        if not taking:
            raise Refused(mismatch(value, self.wanted))
        if len(taking) == 1 or not (isinstance(value, dict) and all(is_dataclass(each.bare) for each in taking)):
            return taking[0]
        marks = _marks([each.bare for each in taking])
        found = [mark for mark in marks if mark in value]
        if not found:
            raise Refused(f"says none of {one_of(marks)}; add one of them")
        if len(found) > 1:
            raise Refused(f"says {' and '.join(found)}; keep one of them")
        return taking[marks.index(found[0])]

    @property
    def wanted(self) -> str:
        """What to write, in words."""
        if self.unit:
            return WANTED[self.unit.kind]
        if self.alternatives:
            return one_of(dict.fromkeys(each.wanted for each in self.alternatives))
        if self.family is Literal:
            return one_of(map(spell, self.choices))
        if self.bare is PemFile:
            return FILE_WANTED
        if self.is_list:
            return NAMES[list]
        if self.is_mapping or is_dataclass(self.bare):
            return NAMES[dict]
        return NAMES.get(self.bare, "a value")


@dataclass(frozen=True, slots=True)
class Option:
    """One field of an options dataclass."""

    annotation: Any
    required: bool


def shape_of(annotation: Any) -> Shape:
    """Take an annotation apart."""
    unit, optional = None, False
    checks: tuple[Check, ...] = ()
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            unit = next((mark for mark in arguments[1:] if isinstance(mark, Unit)), unit)
            checks += tuple(mark for mark in arguments[1:] if isinstance(mark, Check))
            annotation = arguments[0]
        elif _is_union(annotation) and types.NoneType in arguments:
            optional = True
            annotation = Union[tuple(each for each in arguments if each is not types.NoneType)]  # noqa: UP007 - of a tuple
        else:
            return Shape(annotation, unit, optional, checks)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def options_of(kind: Any) -> dict[str, Option]:
    """Return the options that a dataclass declares, by name.

    Raises:
        Refused: an annotation names a type that is not there when the program runs.
    """
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError) as error:
        raise Refused(f"{kind.__qualname__} names a type it lacks, {error}; import it at run time") from None
    return {
        field.name: Option(hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if field.init
    }


def _marks(kinds: list[Any]) -> list[str]:
    """Return for each dataclass the key that tells it from the others.

    Raises:
        Refused: one has no such key.
    """
    options = [options_of(kind) for kind in kinds]
    marks = []
    for kind, own in zip(kinds, options, strict=True):
        known = {name for others in options if others is not own for name in others}
        alone = [name for name, option in own.items() if option.required and name not in known]
        if not alone:
            raise Refused(f"{kind.__qualname__} requires no key that the others lack; change it in the handler")
        marks.append(alone[0])
    return marks


def spell(value: object) -> str:
    """Write a value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)
