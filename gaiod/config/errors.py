"""What is wrong with a configuration, where, and what to do about it.

    GaiodError
      ConfigErrors        the operator acts: everything wrong with one file, in the order of the file
        .errors           ConfigError, ConfigError, ...: one problem each; plain data, never raised alone
    ValueError
      Refused             internal: a value nobody has given a place yet

A message is `WHAT IS WRONG; WHAT TO DO`, read after the key: `workers: 0 is out of range; write 1 to 1024`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gaiod.core.errors import GaiodError
from gaiod.wording import quoted

Keys = tuple[str | int, ...]
"""The way from the top of the file to a value: mapping keys and list indexes."""

PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")


LISTED_MAX = 50
"""Problems in the text of ConfigErrors: more than a screen is no help, and a log should survive it."""


class Refused(ValueError):
    """A value that cannot be used. Its text is `WHAT IS WRONG; WHAT TO DO`."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file, both from 1 and in characters, as editors count them."""

    line: int
    column: int


WHOLE_FILE = Place(0, 0)
"""The place of what concerns the file itself, such as its being a directory."""


@dataclass(frozen=True, slots=True, order=True)
class ConfigError:
    """One problem. Its text is `FILE:LINE:COLUMN: KEY: WHAT IS WRONG; WHAT TO DO`.

    `key` is empty for an error of syntax, `line` and `column` are 0 for one of the file itself; the
    text then leaves them out.
    """

    path: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigErrors(GaiodError):
    """Everything wrong with one configuration, sorted by place. Nothing of it was applied."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(sorted(errors))
        super().__init__(self.errors)

    def __str__(self) -> str:
        lines = [str(error) for error in self.errors[:LISTED_MAX]]
        if more := len(self.errors) - len(lines):
            lines.append(f"... and {more} more")
        return "\n".join(lines)


class Report:
    """Collects the problems of one file, so that the operator sees them all in one go."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[ConfigError] = []

    def add(self, place: Place, keys: Keys, message: str) -> None:
        """Note one problem."""
        self.errors.append(ConfigError(self.path, place.line, place.column, dotted(keys), message))

    def refine(self, keys: Keys, message: str) -> None:
        """Say something better of what was noted at `keys`."""
        key = dotted(keys)
        self.errors = [replace(error, message=message) if error.key == key else error for error in self.errors]

    def raise_if_any(self) -> None:
        """Raise what was collected.

        Raises:
            ConfigErrors: something was.
        """
        if self.errors:
            raise ConfigErrors(self.errors)


def dotted(keys: Keys) -> str:
    """Write keys the way an operator would: `listeners.echo.with.servers[0].port`."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            name = key if PLAIN_KEY.fullmatch(key) else quoted(key)
            text += f".{name}" if text else name
    return text
