"""Numbers with units: text such as `250ms` and `64KiB` in, seconds and bytes out.

One way to write each: whole numbers, one unit, no guessing. `30` is refused where a duration is wanted
(seconds? milliseconds?), and so is `64KB` (1000 or 1024?).
"""

import re

from gaiod.config.errors import Refused
from gaiod.config.words import NAMES, mismatch
from gaiod.wording import shown

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S
DURATION_MAX_S = YEAR_S
"""No handler waits a year on purpose: more is a slip of the keyboard."""

SIZE_MAX_BYTES = 1 << 40
"""1024GiB: more than the memory of the machines this runs on."""

COUNT_MAX = 10**18 - 1
"""18 digits: more are not read as a number."""

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

# 15 digits: more than any limit needs, few enough for a float to hold them exactly.
DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
SIZE = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)")
SLOPPY_SIZE = re.compile(r"([0-9]{1,15}) ?(?:([KMG])i?B?|B)", re.IGNORECASE)

PER_S = {"s": 1.0, "m": 60.0, "h": HOUR_S}
RATE = re.compile(r"([0-9]{1,9})/(s|m|h)")

DURATION_WANTED = "a duration such as 250ms, 30s, 5m, 1h or 1d"
SIZE_WANTED = "a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"
RATE_WANTED = "a rate such as 20/s, 100/m or 1000/h"


def parse_duration(value: object, minimum_s: float = 0.0, maximum_s: float = DURATION_MAX_S) -> float:
    """Return the seconds that `value` says.

    Raises:
        Refused: it says none, or has no unit, or is out of range.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Refused(_no_unit(value))
    if not isinstance(value, str):
        raise Refused(mismatch(value, DURATION_WANTED))
    match = DURATION.fullmatch(value)
    if match is None:
        raise Refused(f"{shown(value)} is not a duration; write a whole number and a unit, such as 30s")
    seconds = int(match[1]) * MILLISECONDS[match[2]] / 1000
    if not minimum_s <= seconds <= maximum_s:
        permitted = f"{format_duration(minimum_s)} to {format_duration(maximum_s)}"
        raise Refused(f"{value} is out of range; write {permitted}")
    return seconds


def _no_unit(value: float) -> str:
    if 0 <= value <= DURATION_MAX_S:
        return f"{value} has no unit; write {format_duration(value)} if you mean seconds"
    return f"{value} is not a duration; write {DURATION_WANTED}"


def parse_size(value: object, minimum_bytes: float = 0, maximum_bytes: float = SIZE_MAX_BYTES) -> int:
    """Return the bytes that `value` says.

    Raises:
        Refused: it says none, or is ambiguous, or is out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := SIZE.fullmatch(value)):
        size = int(match[1]) * BYTES[match[2]]
    else:
        raise Refused(_not_a_size(value))
    if not minimum_bytes <= size <= maximum_bytes:
        permitted = f"{format_size(int(minimum_bytes))} to {format_size(int(maximum_bytes))}"
        raise Refused(f"{value} is out of range; write {permitted}")
    return size


def _not_a_size(value: object) -> str:
    if not isinstance(value, str):
        return mismatch(value, SIZE_WANTED)
    sloppy = SLOPPY_SIZE.fullmatch(value)
    if sloppy is None:
        return f"{shown(value)} is not a size; write {SIZE_WANTED}"
    number, prefix = sloppy[1], sloppy[2]
    if prefix is None:
        return f"{value} is not a size; bytes have no unit, write {number}"
    return f"{value} is ambiguous; write {number}{prefix.upper()}iB (1024-based)"


def parse_rate(value: object, maximum_per_s: int) -> float:
    """Return how many a second `value` says.

    Raises:
        Refused: it says none, or has no unit, or is out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        raise Refused(f"{value} has no unit; write {value}/s if you mean a second")
    if not isinstance(value, str):
        raise Refused(mismatch(value, RATE_WANTED))
    match = RATE.fullmatch(value)
    if match is None:
        raise Refused(f"{shown(value)} is not a rate; write {RATE_WANTED}")
    per_s = int(match[1]) / PER_S[match[2]]
    if not 0 < per_s <= maximum_per_s:
        raise Refused(f"{value} is out of range; write 1/h to {maximum_per_s}/s")
    return per_s


def parse_whole(value: object, minimum: int, maximum: int, wanted: str = NAMES[int]) -> int:
    """Return the whole number that `value` is.

    Raises:
        Refused: it is none, or out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(mismatch(value, wanted))
    if not minimum <= value <= maximum:
        raise Refused(f"{value} is out of range; write {minimum} to {maximum}")
    return value


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that leaves a whole number: 300 is `5m`."""
    milliseconds = round(seconds * 1000)
    return _format(milliseconds, MILLISECONDS, zero="0s")


def format_size(size: int) -> str:
    """Write bytes in the largest unit that leaves a whole number: 65536 is `64KiB`."""
    return _format(size, BYTES, zero="0")


def _format(number: int, units: dict[str, int], zero: str) -> str:
    for unit, factor in reversed(units.items()):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number) if number else zero
