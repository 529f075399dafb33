"""Check a handler's `with:` against the dataclass that declares its options.

The dataclass is the schema: bool, int, float, str, Literal, `X | None`, `str | X`, `X | Y`, list, tuple[X, ...], dict,
nested dataclasses, `PemFile`, and the markers of `gaiod.handler.option_types`. They become the kinds that `reader`
reads. The result is plain values, and has only the keys that the file gives.
"""

from collections.abc import Iterable
from dataclasses import asdict, is_dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from gaiod.config.errors import Keys, Refused, Report
from gaiod.config.reader import Checked, Chosen, Items, Key, Kind, Named, Reader, Section, Value
from gaiod.config.shapes import FILE_WANTED, Shape, options_of, shape_of, spell
from gaiod.config.tls.pem import read_pem
from gaiod.config.units import COUNT_MAX, DURATION_MAX_S, SIZE_MAX_BYTES, parse_duration, parse_size, parse_whole
from gaiod.config.words import mismatch, unknown
from gaiod.config.yaml import Document
from gaiod.handler.option_types import Check, PemFile, Unit

ANYTHING: Final = Value(lambda value: value)


def check_options(
    kind: type,
    values: dict[str, Any],
    keys: Keys,
    document: Document,
    report: Report,
    *,
    beside: Iterable[str],
) -> dict[str, Any] | None:
    """Check `values` against the dataclass `kind`.

    `keys` leads to the `with:`; `beside` are the keys that may stand beside it.
    Returns the values with units as numbers (seconds, bytes), and nested options as dicts and lists; None where
    something does not fit, which goes into `report`.
    """
    misplaced = f"is a key of the listener, and no option of its handler; write it beside {keys[-1]}:"
    top = Chosen(lambda _: replace(_section(kind), misplaced=dict.fromkeys(beside, misplaced)))
    plain: dict[str, Any] | None = Reader(document, report).read(top, values, keys)
    return plain


def _section(kind: Any) -> Section:
    """Return what takes the options of a dataclass.

    Raises:
        Refused: its annotations cannot be read.
    """
    keys = {}
    for name, option in options_of(kind).items():
        shape = shape_of(option.annotation)
        keys[name] = Key(name, _kind(shape), example=shape.wanted if option.required else "")
    return Section(keys, noun="option")


def _kind(shape: Shape) -> Chosen:
    """Return what takes a value of this shape. It is chosen when there is a value: a dataclass may contain itself."""
    return Chosen(partial(_chosen, shape))


def _chosen(shape: Shape, value: object) -> Kind:
    if value is None and shape.optional:
        return ANYTHING
    kind = _kind_of_family(shape, value)
    return Checked(kind, tuple(partial(_apply, mark, shape) for mark in shape.checks)) if shape.checks else kind


def _kind_of_family(shape: Shape, value: object) -> Kind:
    if shape.unit:
        return Value(partial(_with_unit, shape.unit))
    if shape.alternatives:
        return _chosen(shape.fitting(value), value)
    if shape.bare is Any:
        return ANYTHING
    if shape.bare is PemFile:
        return Value(lambda path: asdict(read_pem(path, FILE_WANTED)))
    if is_dataclass(shape.bare):
        return _section(shape.bare)
    if shape.is_list:
        return Items(_kind(shape_of(shape.item)))
    if shape.is_mapping:
        return Named(_kind(shape_of(shape.item)))
    return Value(partial(_choice if shape.family is Literal else _scalar, shape))


def _apply(mark: Check, shape: Shape, value: Any) -> None:
    try:
        mark.check(PemFile(**value) if shape.bare is PemFile else value)
    except ValueError as error:
        raise Refused(str(error)) from None
    except BaseException as error:  # a handler may raise anything, and the operator needs the place
        raise Refused(f"its check failed with {type(error).__name__}, {error}; correct the handler") from None


def _scalar(shape: Shape, value: Any) -> Any:
    if shape.bare not in (bool, int, float, str):
        raise Refused(f"its type, {shape.bare}, can be in no file; change it in the handler")
    kinds = (int, float) if shape.bare is float else (shape.bare,)
    if type(value) not in kinds:
        raise Refused(mismatch(value, shape.wanted))
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
