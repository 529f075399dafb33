"""How a line of the log looks: as text, for journald, or as JSON. The same for the supervisor and its workers.

A line is an event and its fields: `log.info("reloaded", extra=fields(generation=3))`. What comes from
the network or from file names can hold anything; nobody can forge a line with it: control characters
are escaped, and what follows a newline is indented.
"""

import json
import logging
import time
from math import isfinite
from typing import Any

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog's, as journald takes them at the beginning of a line (man 3 sd-daemon)."""

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
CONTROL |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""What ends a line, moves a terminal's cursor, or reorders what it shows (Unicode's directions)."""
IN_QUOTES = {**CONTROL, ord("\n"): "\\n", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\"}
QUOTED = frozenset(' "=\\')


def fields(**values: Any) -> dict[str, Any]:
    """Return the `extra` of a record that has these fields; the names may be any."""
    return {"gaiod_fields": values}


class TextFormatter(logging.Formatter):
    """`2026-11-23 22:41:07.123 INFO worker 1: connection closed reason=idle`, in local time."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return a line; each further one is indented."""
        seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        return f"{seconds}.{int(record.msecs):03} {record.levelname} {self._role}: {self._body(record)}"

    def _body(self, record: logging.LogRecord) -> str:
        lines = "\n".join([_message_of(record), *_stacks_of(self, record).values()]).translate(CONTROL).split("\n")
        lines[0] += "".join(f" {_quoted(key)}={_quoted(value)}" for key, value in _fields_of(record).items())
        return "\n    ".join(lines)


class JournaldFormatter(TextFormatter):
    """The same with syslog's priority before each line; the time and the process are journald's to tell."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line, or several."""
        before = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return before + f"{self._role}: {self._body(record)}".replace("\n", f"\n{before}")


class JsonFormatter(logging.Formatter):
    """An object a line; the time is UTC (RFC 3339). A field with a name of the line's own is called `field_NAME`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "process": self._role,
            "pid": record.process,
            "logger": record.name,
            "message": _message_of(record),
            **_stacks_of(self, record),
        }
        for key, value in _fields_of(record).items():
            line[f"field_{key}" if key in line else key] = _plain(value)
        return json.dumps(line)


FORMATS: dict[str, type[TextFormatter] | type[JsonFormatter]] = {
    "text": TextFormatter,
    "json": JsonFormatter,
    "journald": JournaldFormatter,
}


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, "gaiod_fields", {})
    return found


def _message_of(record: logging.LogRecord) -> str:
    """Return the message. One whose arguments do not fit it is a bug of whoever logs: it is shown as it is."""
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg} {record.args!r} ({error})"


def _stacks_of(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    stacks = {}
    if record.exc_info:
        stacks["exception"] = formatter.formatException(record.exc_info)
    if record.stack_info:
        stacks["stack"] = formatter.formatStack(record.stack_info)
    return stacks


def _plain(value: object) -> object:
    """Return what JSON has a word for, which infinity and collections of anything are not."""
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and isfinite(value))
    return value if is_plain else str(value)


def _quoted(value: object) -> str:
    """Write a value as logfmt does: bare if it can be, else in quotes."""
    text = str(value)
    if text and text.isprintable() and QUOTED.isdisjoint(text):
        return text
    return f'"{text.translate(IN_QUOTES)}"'
