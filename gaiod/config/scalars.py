"""What unquoted text means: `true`, `false`, `null`, a decimal number, or text; nothing else.

YAML 1.1 (PyYAML) and 1.2 (most others) disagree about the rest: `no` is False or text, `010` is 8 or 10,
`22:22` is 1342 or text. Whatever one of them could read as something else is refused here, so that a
file means the same everywhere. Between quotes everything is text.
"""

import math
import re

from gaiod.config.errors import Refused
from gaiod.wording import shown

Scalar = bool | int | float | str | None

CONSTANTS = {"true": True, "false": False}
NULLS = frozenset({"", "~", "null", "Null", "NULL"})

# 18 digits fit 64 bits; int() refuses more than 4300 with an exception of its own.
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
FLOAT = re.compile(r"(?=.*[.eE])[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

QUOTE = "put it in quotes if it is text"

REFUSED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"yes|Yes|YES|on|On|ON|True|TRUE"), f"is a boolean in some versions of YAML; write true, or {QUOTE}"),
    (
        re.compile(r"no|No|NO|off|Off|OFF|False|FALSE"),
        f"is a boolean in some versions of YAML; write false, or {QUOTE}",
    ),
    (
        re.compile(r"[-+]?0o?[0-9_]+"),
        f"is octal in some versions of YAML; write a number without 0 in front, or {QUOTE}",
    ),
    (re.compile(r"[-+]?0(x[0-9A-Fa-f_]+|b[01_]+)"), f"is not a decimal number; write a decimal number, or {QUOTE}"),
    (re.compile(r"[-+]?[1-9][0-9]{18,}"), f"is too large for a number; write at most 18 digits, or {QUOTE}"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
        "is a number in base 60 in some versions of YAML; put an address or text in quotes, and write a duration with "
        "its unit, such as 90s",
    ),
    (
        re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"),
        f"is a number only in some versions of YAML; write it without _ or needless 0, or {QUOTE}",
    ),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), f"is not a finite number; write one, or {QUOTE}"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?"), "is a date in some versions of YAML; put it in quotes"),
    (re.compile(r"="), "has a meaning of its own in YAML; put it in quotes"),
)


def read_plain(text: str) -> Scalar:
    """Return what unquoted text means.

    Raises:
        Refused: not every YAML reader would agree.
    """
    if text in NULLS:
        return None
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text)
    if FLOAT.fullmatch(text):
        return _finite(text)
    for pattern, wrong in REFUSED:
        if pattern.fullmatch(text):
            raise Refused(f"{shown(text)} {wrong}")
    return text


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Refused(f"{shown(text)} is too large for a number; write a smaller one, or {QUOTE}")
    return number
