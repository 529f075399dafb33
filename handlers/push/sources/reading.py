"""Reading a file, a FIFO or standard input in a thread: what comes, in whole lines, until it is stopped."""

import logging
import os
import select
import stat
import sys
import threading

from ..options import LinesOptions
from .cutting import Cutter
from .place import Place
from .publisher import Publisher

log = logging.getLogger("gaiod.handler.push")

POLL_S = 0.1
"""How often it is looked whether a file has grown or was replaced, and so how late a line may be.

inotify would say it at once, for local file systems only, and not to the standard library."""

LOOK_S = 1.0
"""How often it is looked whether a FIFO that nobody writes to was replaced."""

READ_BYTES = 65_536


class Stopped(Exception):
    """The source was stopped."""


class Reader:
    """Reads one path until `stop()`. A file that grows, is replaced or truncated is followed, as `tail -F` does.

    A regular file is read on behind the last line that was published, wherever another process has got to.

    Args:
        options: which, and where to begin.
        suffix: stands behind the path where the place is kept.
        cutter: makes lines.
        publisher: takes them. It waits while workers are behind, and then nothing is read.
    """

    def __init__(self, options: LinesOptions, suffix: str, cutter: Cutter, publisher: Publisher) -> None:
        self._options = options
        self._origin = options.places[0] + suffix
        self._path = options.lines
        self._cutter = cutter
        self._publisher = publisher
        self._outlet = publisher.outlet
        self._fd = self._end = self._stop = -1
        self._is_first = True
        self._has_begun = False
        self._trouble = ""

    def start(self) -> None:
        """Begin, in a thread that the end of the process does not wait for."""
        self._outlet.up = False  # until it is open
        self._end, self._stop = os.pipe()
        threading.Thread(target=self._run, name="gaiod-lines", daemon=True).start()

    def stop(self) -> None:
        """Have the thread end; it takes nothing more in."""
        os.close(self._stop)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._path == "-":
                self._read_stdin()
                return
            while True:
                try:
                    self._read_path()
                except OSError as error:
                    self._failed(error)
                    self._wait(POLL_S)
        except Stopped:
            pass
        finally:
            self._outlet.up = False
            os.close(self._end)

    def _wait(self, timeout_s: float | None, fd: int | None = None) -> None:
        """Wait until a descriptor has something, or for some time.

        Raises:
            Stopped: meanwhile, or before.
        """
        poll = select.poll()
        poll.register(self._end, 0)  # POLLHUP: the other end is closed
        if fd is not None:
            poll.register(fd, select.POLLIN)
        for ready, _ in poll.poll(None if timeout_s is None else timeout_s * 1000):
            if ready == self._end:
                raise Stopped

    def _read_stdin(self) -> None:
        fd = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
        self._outlet.up = True
        while True:
            self._wait(None, fd)
            data = os.read(fd, READ_BYTES)
            if not data:
                break
            self._publisher.publish(self._cutter.feed(data))
        self._publisher.publish(self._cutter.end())
        log.info("lines: standard input has ended, and all of it is published; nothing more comes from there")
        self._wait(None)  # it is not down: it has done what it was to do

    def _read_path(self) -> None:
        """Read what is at the path now, until something else is."""
        self._open()
        try:
            state = os.fstat(self._fd)
            place = self._begin(state.st_size) if stat.S_ISREG(state.st_mode) else None
            self._is_first = False
            self._has_begun = True
            self._works()
            if place is not None:
                self._outlet.keep(self._origin, place.text)
                self._follow(self._fd, place)
            else:
                self._drain()
        finally:
            self._close()

    def _begin(self, size: int) -> Place:
        """Return where to begin in the file that is open: another one, perhaps, if what was read is that now."""
        kept = None if self._has_begun else self._outlet.position(self._origin)
        if kept is None:
            begins_at_end = self._is_first and self._options.read_from == "end"
            return Place(self._fd, size if begins_at_end else 0)
        place = Place.kept(self._fd, kept) or self._begin_renamed(kept)
        if place is None:
            self._outlet.gap(f"{self._path} is another file than was read, or written anew; it is read from its start")
        return place or Place(self._fd, 0)

    def _begin_renamed(self, kept: str) -> Place | None:
        """Open the file that was read before, if it has another name in its folder now; return where to go on."""
        _, inode, *_ = kept.split(" ")
        with os.scandir(os.path.dirname(self._path)) as files:
            names = [each.path for each in files if each.inode() == int(inode)]
        for name in names:
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            place = Place.kept(fd, kept)
            if place is not None:
                self._close()
                self._fd = fd
                return place
            os.close(fd)
        return None

    def _open(self) -> None:
        """Open what is at the path now; only then close what was open before."""
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self._close()
        self._fd = fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _follow(self, fd: int, place: Place) -> None:
        """Read a file and what is added to it, until another one has its name and this one is at its end."""
        while True:
            is_replaced = self._is_replaced(fd)  # before the end is looked for: then nothing can be added unseen
            data = place.read(READ_BYTES)
            if not place.is_intact():
                self._outlet.gap(f"{self._path} was truncated or written anew; it is read from its start")
                self._cutter.forget()
                place.rewind()
                self._outlet.keep(self._origin, place.text)
            elif data:
                self._publish(place, data)
            elif is_replaced:
                for line in self._cutter.end():
                    self._publisher.publish_one(line, (self._origin, place.text))
                return
            else:
                self._wait(POLL_S)
                continue
            self._wait(0)

    def _publish(self, place: Place, data: bytes) -> None:
        """Publish what was read in a file, each line with the place behind it."""
        done = 0
        for line, end in self._cutter.cut(data):
            if end is None:  # its end is yet to come, and so is the place behind it
                self._publisher.publish_one(line)
            else:
                place.advance(data[done:end])
                done = end
                self._publisher.publish_one(line, (self._origin, place.text))
        place.advance(data[done:])

    def _is_replaced(self, fd: int) -> bool:
        """Tell whether something else has the path. Nothing there is not: a file is about to be."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _drain(self) -> None:
        """Read a FIFO, or a device, until something else has its name."""
        while not self._is_replaced(self._fd):
            self._wait(LOOK_S, self._fd)
            try:
                data = os.read(self._fd, READ_BYTES)
            except BlockingIOError:
                continue
            if data:
                self._publisher.publish(self._cutter.feed(data))
                continue
            # Every writer has gone. A new descriptor waits for the next one; the old one goes after that, for a
            # writer that comes in between and finds no reader would be ended by SIGPIPE.
            self._publisher.publish(self._cutter.end())
            self._wait(POLL_S)
            self._open()

    # -- trouble ---------------------------------------------------------------------------------------

    def _failed(self, error: OSError) -> None:
        """Say once that the path cannot be read."""
        self._is_first = False  # a file that comes later is new, all of it
        self._outlet.up = False
        if self._trouble != str(error):
            self._trouble = str(error)
            log.warning("lines: %s; trying again", error)

    def _works(self) -> None:
        self._outlet.up = True
        if self._trouble:
            self._trouble = ""
            log.info("lines: %s can be read", self._path)
