"""The log: how lines look, and where they go. The same for the supervisor and its workers.

A line is an event and its fields: `log.info("reloaded", extra=fields(generation=3))`. What comes from
the network or from file names can hold anything; nobody can forge a line with it: control characters
are escaped, and what follows a newline is indented.

A log that cannot be written (a full disk) costs lines, never the daemon. One exception: standard error that
is a pipe which nobody reads blocks whoever writes to it.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Hashable
from math import isfinite
from typing import Any

from gaiod.core.errors import GaiodError
from gaiod.runtime.logfile import LogFile, LogOutput
from gaiod.runtime.settings import LogSettings

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog's, as journald takes them at the beginning of a line (man 3 sd-daemon)."""

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
CONTROL |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""What ends a line, moves a terminal's cursor, or reorders what it shows (Unicode's directions)."""
IN_QUOTES = {**CONTROL, ord("\n"): "\\n", ord("\t"): "\\t", ord('"'): '\\"', ord("\\"): "\\\\"}
QUOTED = frozenset(' "=\\')

LIMITED_INTERVAL_S = 1.0
"""At most one line of a kind in this time: what somebody can cause at will must not fill a disk."""

KINDS_MAX = 256
"""Kinds that are told apart: each line of a handler's code that raises is one."""


class LogError(GaiodError):
    """The log cannot be opened; the text says which, why, and what to do."""


def fields(**values: Any) -> dict[str, Any]:
    """Return the `extra` of a record that has these fields; the names may be any."""
    return {"gaiod_fields": values}


def configure(settings: LogSettings, *, role: str) -> None:
    """Log as the settings say from now on, and no more as an earlier call said.

    Args:
        settings: the format, and the file if not standard error.
        role: the process, as lines call it.

    Raises:
        LogError: the file cannot be opened; the log goes on as before.
    """
    handler = _open(settings)
    handler.setFormatter(FORMATS[settings.format](role))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def follow() -> None:
    """Open a log file anew that was moved away: a process that has nothing to say must not keep the old one open."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.follow()


def lost_lines() -> int:
    """Return how many lines could not be written since `configure` was called."""
    return sum(handler.lost for handler in logging.getLogger().handlers if isinstance(handler, LogOutput))


def check(settings: LogSettings) -> None:
    """Raise LogError if `configure` would. The log stays as it is."""
    _open(settings).close()


def _open(settings: LogSettings) -> LogOutput:
    if settings.file is None:
        return LogOutput()
    try:
        return LogFile(settings.file)
    except OSError as error:
        raise LogError(f"log.file: cannot write {settings.file}: {error.strerror}; {_advice(error)}") from error


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return "make the folder first"
        case errno.EACCES | errno.EPERM:
            return f"let the user that gaiod runs as ({os.geteuid()}) write there"
        case errno.ENXIO:
            return "it is a FIFO that nobody reads, or a socket: start its reader, or name a file"
        case _:
            return "correct the path"


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


class RateLimit:
    """Says yes once per interval, and how often it said no in between."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = 0.0
        self._refused = 0

    def allows(self, now_s: float) -> bool:
        """Tell whether it is time; `now_s` by any clock that goes on."""
        if now_s < self._next_s:
            self._refused += 1
            return False
        self._next_s = now_s + self._interval_s
        return True

    def take_refused(self) -> int:
        """Return how often it said no since this was asked last."""
        refused, self._refused = self._refused, 0
        return refused


class LimitedLog:
    """Logs what others can cause as often as they like: of each kind a line now and then, and how many more there were.

    Whatever a client, a server or another user of the machine can bring about goes through one of these.
    """

    def __init__(self, log: logging.Logger, about: str = "") -> None:
        """Make it.

        Args:
            log: where lines go.
            about: what they are about, before each of them.
        """
        self._log = log
        self._before = f"{about}: " if about else ""
        self._limits: dict[Hashable, RateLimit] = {}

    def tell(self, level: int, kind: Hashable, text: str, *arguments: object, traceback: bool = False) -> None:
        """Log a message, unless there was one of its kind a moment ago.

        Args:
            level: as `logging` has it.
            kind: of these there are few, known when the program is written. Beyond `KINDS_MAX` all others are one.
            text: with a place for each of `arguments`.
            arguments: put into it.
            traceback: add that of the exception that is being handled.
        """
        if kind not in self._limits and len(self._limits) >= KINDS_MAX:
            kind = None
        limit = self._limits.setdefault(kind, RateLimit(LIMITED_INTERVAL_S))
        if limit.allows(time.monotonic()):
            more = limit.take_refused()
            suffix = f" ({more} more like this before)" if more else ""
            self._log.log(level, f"%s{text}%s", self._before, *arguments, suffix, exc_info=traceback)


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
