"""Check a handler's `with:` against the dataclass that declares its options.

The dataclass is the schema: bool, int, float, str, Literal, `X | None`, `str | X`, `X | Y`, list, tuple[X, ...], dict,
nested dataclasses, and the markers of `gaiod.handler.option_types`. Not pydantic's work: the result must be plain
values, only the keys that the file gives, and each problem needs its own place in the file.
"""

from collections.abc import Collection
from dataclasses import is_dataclass
from typing import Any, Literal

from gaiod.config.errors import Keys, Place, Refused, Report
from gaiod.config.shapes import Shape, options_of, shape_of, spell
from gaiod.config.units import COUNT_MAX, DURATION_MAX_S, SIZE_MAX_BYTES, parse_duration, parse_size, parse_whole
from gaiod.config.words import mismatch, unknown
from gaiod.config.yaml import Document
from gaiod.handler.option_types import Check, Unit


def check_options(
    kind: type,
    values: dict[str, Any],
    keys: Keys,
    document: Document,
    report: Report,
    *,
    beside: Collection[str] = (),
) -> dict[str, Any]:
    """Check `values` against the dataclass `kind`.

    `keys` leads to the `with:`, which the document may lack; `beside` are the keys that may stand beside it. What
    does not fit goes into `report`.
    Returns the values with units as numbers (seconds, bytes), and nested options as dicts and lists.
    """
    plain: dict[str, Any] = _Checker(document, report, keys, beside).value(kind, values, keys)
    return plain


def place_of_value(keys: Keys, document: Document) -> Place:
    """Return the place of a value at or below a `with:`; of the handler where the file has no `with:`."""
    return document.values.get(keys) or document.place_of((*keys[:-1], "handler"))


class _Checker:
    """Walks the values and their types together."""

    def __init__(self, document: Document, report: Report, top: Keys, beside: Collection[str]) -> None:
        self._document = document
        self._report = report
        self._top = top
        self._beside = beside
        self._holes = 0  # values that were refused, before or here: what holds one is not checked as a whole

    def value(self, annotation: Any, value: Any, keys: Keys) -> Any:
        """Return the plain value; None after a problem, which is reported."""
        shape = shape_of(annotation)
        if keys in self._document.refused or keys in self._document.incomplete:
            self._holes += 1
        if keys in self._document.refused or (value is None and shape.optional):
            return None
        try:
            return self._checked(shape, value, keys)
        except Refused as refused:
            self._add(place_of_value(keys, self._document), keys, str(refused))
            return None

    def _add(self, place: Place, keys: Keys, message: str) -> None:
        self._holes += 1
        self._report.add(place, keys, message)

    def _checked(self, shape: Shape, value: Any, keys: Keys) -> Any:
        before = self._holes
        plain = self._read(shape, value, keys)
        if self._holes == before:
            for mark in shape.checks:
                _apply(mark, plain)
        return plain

    def _read(self, shape: Shape, value: Any, keys: Keys) -> Any:
        if shape.unit:
            return _with_unit(shape.unit, value)
        if shape.alternatives:
            return self._checked(shape.fitting(value), value, keys)
        if shape.bare is Any:
            return value
        if is_dataclass(shape.bare):
            return self._options(shape, value, keys)
        if shape.is_list:
            _expect(isinstance(value, list), value, shape)
            return [self.value(shape.item, item, (*keys, index)) for index, item in enumerate(value)]
        if shape.is_mapping:
            _expect(isinstance(value, dict), value, shape)
            return {key: self.value(shape.item, item, (*keys, key)) for key, item in value.items()}
        return _choice(shape, value) if shape.family is Literal else _scalar(shape, value)

    def _options(self, shape: Shape, value: Any, keys: Keys) -> dict[str, Any]:
        _expect(isinstance(value, dict), value, shape)
        options = options_of(shape.bare)
        for key in value.keys() - options.keys():
            at = (*keys, key)
            if keys == self._top and key in self._beside:
                message = f"is a key of the listener, and no option of its handler; write it beside {keys[-1]}:"
            else:
                message = unknown(key, list(options), what="unknown option")
            self._add(self._document.place_of_key(at), at, message)
        for key, option in options.items():
            if option.required and key not in value and keys not in self._document.incomplete:
                self._add_missing((*keys, key), shape_of(option.annotation).wanted)
        return {
            key: self.value(options[key].annotation, item, (*keys, key))
            for key, item in value.items()
            if key in options
        }

    def _add_missing(self, keys: Keys, wanted: str) -> None:
        place = self._document.keys.get(keys[:-1]) or place_of_value(keys[:-1], self._document)
        self._add(place, keys, f"missing; add {keys[-1]}: {wanted}")


def _apply(mark: Check, value: object) -> None:
    try:
        mark.check(value)
    except ValueError as error:
        raise Refused(str(error)) from None
    except BaseException as error:  # a handler may raise anything, and the operator needs the place
        raise Refused(f"its check failed with {type(error).__name__}, {error}; correct the handler") from None


def _expect(fits: bool, value: object, shape: Shape) -> None:
    if not fits:
        raise Refused(mismatch(value, shape.wanted))


def _scalar(shape: Shape, value: Any) -> Any:
    if shape.bare not in (bool, int, float, str):
        raise Refused(f"its type, {shape.bare}, can be in no file; change it in the handler")
    kinds = (int, float) if shape.bare is float else (shape.bare,)
    _expect(type(value) in kinds, value, shape)
    return shape.bare(value)


def _choice(shape: Shape, value: Any) -> Any:
    if any(type(value) is type(choice) and value == choice for choice in shape.choices):
        return value
    if not isinstance(value, str):
        raise Refused(mismatch(value, shape.wanted))
    raise Refused(unknown(value, [spell(choice) for choice in shape.choices], what="not one of the choices"))


def _with_unit(unit: Unit, value: object) -> float:
    if unit.kind == "duration":
        return parse_duration(value, unit.minimum, DURATION_MAX_S if unit.maximum is None else unit.maximum)
    if unit.kind == "size":
        return parse_size(value, unit.minimum, SIZE_MAX_BYTES if unit.maximum is None else unit.maximum)
    return parse_whole(value, int(unit.minimum), COUNT_MAX if unit.maximum is None else int(unit.maximum))
