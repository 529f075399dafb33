"""Check a handler's `with:` against the dataclass that declares its options.

The dataclass is the schema: bool, int, float, str, Literal, `X | None`, list, tuple[X, ...], dict, nested
dataclasses, and the units of `gaiod.runtime.units`. Not pydantic's work: the result must be plain values,
only the keys that the file gives, and each problem needs its own place in the file.
"""

from dataclasses import is_dataclass
from typing import Any, Literal

from gaiod.config.errors import Keys, Place, Refused, Report, dotted
from gaiod.config.shapes import Shape, options_of, shape_of, spell
from gaiod.config.units import DURATION_MAX_S, SIZE_MAX_BYTES, parse_duration, parse_size
from gaiod.config.words import mismatch, unknown
from gaiod.config.yaml import Document
from gaiod.runtime.units import Unit


def check_options(
    kind: type, values: dict[str, Any], keys: Keys, document: Document, report: Report
) -> dict[str, Any]:
    """Check `values` against the dataclass `kind`.

    Returns them with units as numbers (seconds, bytes), and nested options as dicts and lists.
    `keys` leads to the `with:`, which the document may lack. What does not fit goes into `report`, and so
    does what the dataclass's own `__post_init__` refuses; that runs only where all else fits.
    """
    checker = _Checker(document, report)
    plain: dict[str, Any] = checker.value(kind, values, keys)
    if not any(error.key.startswith(dotted(keys)) for error in report.errors):
        try:
            _build(kind, plain, keys)
        except _Rejected as rejected:
            checker.add(rejected.keys, str(rejected))
    return plain


class _Rejected(Exception):
    """A dataclass refused the values it was given."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys


class _Checker:
    """Walks the values and their types together."""

    def __init__(self, document: Document, report: Report) -> None:
        self._document = document
        self._report = report

    def add(self, keys: Keys, message: str) -> None:
        """Report a problem with a value."""
        self._report.add(self._document.values.get(keys) or self._place_of_handler(keys), keys, message)

    def _place_of_handler(self, keys: Keys) -> Place:
        """Return the place of the handler whose `with:` is absent."""
        return self._document.place_of((*keys[:-1], "handler"))

    def value(self, annotation: Any, value: Any, keys: Keys) -> Any:
        """Return the plain value; None after a problem, which is reported."""
        shape = shape_of(annotation)
        if keys in self._document.refused or (value is None and shape.optional):
            return None
        try:
            return self._read(shape, value, keys)
        except Refused as refused:
            self.add(keys, str(refused))
            return None

    def _read(self, shape: Shape, value: Any, keys: Keys) -> Any:
        if shape.unit:
            return _with_unit(shape.unit, value)
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
            message = unknown(key, list(options), what="unknown option")
            self._report.add(self._document.place_of_key(at), at, message)
        for key, option in options.items():
            if option.required and key not in value and keys not in self._document.incomplete:
                self._add_missing((*keys, key), shape_of(option.annotation).wanted)
        return {
            key: self.value(options[key].annotation, item, (*keys, key))
            for key, item in value.items()
            if key in options
        }

    def _add_missing(self, keys: Keys, wanted: str) -> None:
        mapping = keys[:-1]
        known = mapping in self._document.values
        place = self._document.place_of_key(mapping) if known else self._place_of_handler(mapping)
        self._report.add(place, keys, f"missing; add {keys[-1]}: {wanted}")


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
    return parse_size(value, unit.minimum, SIZE_MAX_BYTES if unit.maximum is None else unit.maximum)


def _build(annotation: Any, plain: Any, keys: Keys) -> Any:
    """Make the dataclasses that the handler will get, the innermost first.

    Raises:
        _Rejected: one of them refused.
    """
    shape = shape_of(annotation)
    if is_dataclass(shape.bare) and plain is not None:
        options = options_of(shape.bare)
        arguments = {key: _build(options[key].annotation, item, (*keys, key)) for key, item in plain.items()}
        return _construct(shape.bare, arguments, keys)
    if shape.is_list and plain is not None:
        items = [_build(shape.item, item, (*keys, index)) for index, item in enumerate(plain)]
        return tuple(items) if shape.family is tuple else items
    if shape.is_mapping and plain is not None:
        return {key: _build(shape.item, item, (*keys, key)) for key, item in plain.items()}
    return plain


def _construct(kind: Any, arguments: dict[str, Any], keys: Keys) -> Any:
    try:
        return kind(**arguments)
    except ValueError as error:
        raise _Rejected(keys, str(error)) from error
    except Exception as error:  # The handler's code may raise anything, and the operator needs the place.
        message = f"{kind.__qualname__} failed with {type(error).__name__}, {error}; correct the handler"
        raise _Rejected(keys, message) from error
