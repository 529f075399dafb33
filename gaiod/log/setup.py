"""The log of a process: opened as the settings say, and followed when its file is moved away.

A log that cannot be written (a full disk) costs lines, never the daemon. One exception: standard error that
is a pipe which nobody reads blocks whoever writes to it.
"""

import errno
import logging
import os

from gaiod.core.errors import GaiodError
from gaiod.log.format import FORMATS
from gaiod.log.output import LogFile, LogOutput
from gaiod.settings import LogSettings


class LogError(GaiodError):
    """The log cannot be opened; the text says which, why, and what to do."""


def configure_log(settings: LogSettings, *, role: str) -> None:
    """Log as the settings say from now on, and no more as an earlier call said.

    Args:
        settings: the format, and the file if not standard error.
        role: the process, as lines call it.

    Raises:
        LogError: the file cannot be opened; the log stays where it was.
    """
    handler = _open(settings)
    handler.setFormatter(FORMATS[settings.format](role))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def follow_log() -> None:
    """Open a log file anew that was moved away: a process that has nothing to say must not keep the old one open."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.follow()


def lost_lines() -> int:
    """Return how many lines could not be written since `configure_log` was called."""
    return sum(handler.lost for handler in logging.getLogger().handlers if isinstance(handler, LogOutput))


def check_log(settings: LogSettings) -> None:
    """Raise LogError if `configure_log` would. The log stays as it is."""
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
            return "it is a FIFO without a reader, or a socket: start its reader, or name a file"
        case _:
            return "correct the path"
