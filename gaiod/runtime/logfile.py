"""The log as a file that several processes share, and that may be moved away at any time.

Apart from `logs.py`, because `logging.handlers` pulls in modules that cost a worker 0.6 MiB.
"""

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler

MODE = 0o640


class LogFile(WatchedFileHandler):
    """Appends lines to a file; one that was renamed or removed is made anew. Says once that it cannot."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            OSError: it cannot be.
        """
        self._has_told = False
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        return open(fd, "a", encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, in one call: lines of several processes do not mix. One that cannot be written is lost."""
        try:
            super().emit(record)
        except OSError:  # of opening it anew
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say on standard error that lines are lost, the first time."""
        if not self._has_told:
            self._has_told = True
            try:
                print(f"{self.baseFilename}: cannot be written: {sys.exception()}; lines are lost", file=sys.stderr)
            except OSError:
                pass  # nobody is left to tell
