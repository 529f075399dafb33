"""Where log lines go: standard error, or a file that several processes share and that may be moved away.

Lines are written by the system call, not through Python's streams: a stream keeps what could not be written,
and raises again when it is closed. `logging.handlers` would cost a worker 0.26 MiB and 2.4 ms (it imports pickle).
"""

import logging
import os
import sys

MODE = 0o640
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
"""O_NONBLOCK means nothing to a file; a FIFO that nobody reads costs lines, and does not stop the daemon."""

STDERR = 2
CLOSED = -1


class LogOutput(logging.Handler):
    """Writes each record to standard error with one system call, so that lines of several processes do not mix.

    A line that cannot be written is lost, never an exception; before the next that can be, another tells how
    many were lost, and why.

    Attributes:
        lost: how many, since it was made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self._untold = 0
        self._why = ""
        self._is_torn = False
        self._fd = STDERR if sys.__stderr__ is not None else CLOSED  # after `2>&-`, 2 is anybody's socket

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            text = self.format(record) + "\n"
            if self._untold:
                text = self._own("%d lines were lost here: %s", self._untold, self._why) + text
            self._write(text.encode(errors="backslashreplace"))
        except Exception as error:
            self.lost += 1
            self._untold += 1
            self._why = str(error)
            self._complain("lines are lost: %s", error)
        else:
            self._untold = 0

    def _write(self, data: bytes) -> None:
        """Write all of it; after an OSError, some of it may be written."""
        if self._is_torn:
            data = b"\n" + data  # the line before lacks its end: the disk was full
        while data:
            data = data[os.write(self._fd, data) :]
            self._is_torn = bool(data)

    def _complain(self, message: str, *arguments: object) -> None:
        """Say it where it can be read. Of standard error itself, it cannot be."""

    def _own(self, message: str, *arguments: object) -> str:
        """Return a line of the log's own."""
        record = logging.LogRecord("gaiod.log", logging.WARNING, __file__, 0, message, arguments, None)
        return self.format(record) + "\n"


class LogFile(LogOutput):
    """Appends to a file. One that was renamed or removed is made anew; while it cannot be, the old one is used.

    What is wrong is said on standard error, once until all is well again.
    """

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            OSError: it cannot be.
        """
        super().__init__()
        self._path = path
        self._has_told = False
        self._fd = os.open(path, FLAGS, MODE)

    def close(self) -> None:
        """Close it; what is logged from then on is lost."""
        self.acquire()
        try:
            if self._fd != CLOSED:
                os.close(self._fd)
                self._fd = CLOSED
        finally:
            self.release()
        super().close()

    def follow(self) -> None:
        """See to it that the file at the path is the one that lines will go to."""
        self.acquire()
        try:
            if self._fd != CLOSED and self._follow():
                self._has_told = False
        finally:
            self.release()

    def _write(self, data: bytes) -> None:
        is_at_path = self._fd == CLOSED or self._follow()
        super()._write(data)
        if is_at_path:
            self._has_told = False

    def _follow(self) -> bool:
        """Make the file at the path the one that is written to; tell whether it is."""
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):
                return True
        except OSError:
            pass  # opening it says what is wrong
        try:
            fd = os.open(self._path, FLAGS, MODE)
        except OSError as error:
            self._complain("cannot be opened anew: %s; the log goes on in the file that was open", error.strerror)
            return False
        os.close(self._fd)
        self._fd = fd
        self._is_torn = False
        return True

    def _complain(self, message: str, *arguments: object) -> None:
        if self._has_told or sys.__stderr__ is None:
            return
        self._has_told = True
        try:
            os.write(STDERR, self._own(f"log.file %s: {message}", self._path, *arguments).encode())
        except OSError:
            pass  # nobody is left to tell
