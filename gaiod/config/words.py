"""The words of the messages: what a value is, what is wanted instead, which name was meant."""

import difflib
from collections.abc import Iterable, Sequence

from gaiod.wording import SHOWN_MAX

NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping (key: value)",
}


def mismatch(value: object, wanted: str) -> str:
    """Say that a value is not of the kind that is wanted there."""
    if value is None:
        return f"is empty; write {wanted}"
    kind = "a boolean" if isinstance(value, bool) else NAMES[type(value)]
    quoted = " (put it in quotes)" if wanted == NAMES[str] and isinstance(value, int | float) else ""
    return f"is {kind}; write {wanted}{quoted}"


def unknown(name: str, known: Sequence[str], *, what: str = "unknown key") -> str:
    """Say that a name is unknown, and which one was probably meant."""
    # Beyond the length of any real name difflib only burns time: it is quadratic.
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= SHOWN_MAX else []
    if near:
        return f"{what}; did you mean {near[0]}?"
    return f"{what}; write {one_of(known)}" if known else f"{what}; remove it"


def one_of(names: Iterable[object]) -> str:
    """Join names: `a, b or c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last
