"""What is remembered of connections that closed, over all workers: those that run, and those that have ended.

A worker writes into memory of its own, which is kept when it has ended, however it did. In an upgrade the new daemon
gets all of it, that of the old workers included, which write on as long as they drain.
"""

import os
import struct
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from gaiod.stats import closes
from gaiod.supervisor.processes.slots import anonymous_file

LENGTH = struct.Struct("=I")
"""Of an image, before it, in what another daemon gets."""

Inherited = dict[str, Any]
"""`past`: the descriptor of a file with the images of workers that have ended. `live`: those of workers that run."""


class KeptCloses:
    """Keeps the memories of workers. As many connections of ended workers are remembered as running ones could have."""

    def __init__(self) -> None:
        self._live: list[int] = []
        self._inherited: list[int] = []  # of workers of the daemon before this one
        self._past: deque[bytes] = deque()
        self._for_successor: int | None = None

    def open(self) -> int:
        """Return the descriptor of the memory of one more worker."""
        fd = anonymous_file("gaiod-closes")
        os.ftruncate(fd, closes.FILE_BYTES)
        self._live.append(fd)
        return fd

    def retire(self, fd: int) -> None:
        """Keep what a worker has written that is gone."""
        self._live.remove(fd)
        self._keep([closes.compacted(_read(fd))])
        os.close(fd)

    def find(self, name: str) -> dict[str, Any] | None:
        """Return what is remembered of a connection, by its name; None: nothing."""
        now_s = time.monotonic()
        for fd in (*self._live, *self._inherited):
            found = closes.find(_read(fd), name, now_s)
            if found is not None and found == closes.find(_read(fd), name, now_s):  # else it was just overwritten
                return found
        return next((found for image in self._past if (found := closes.find(image, name, now_s)) is not None), None)

    def handed_over(self) -> Inherited:
        """Return what another daemon goes on with."""
        self._retire_inherited()
        if self._for_successor is not None:  # of an upgrade that came to nothing
            os.close(self._for_successor)
        self._for_successor = anonymous_file("gaiod-closes")
        with open(self._for_successor, "wb", closefd=False) as file:
            file.writelines(LENGTH.pack(len(image)) + image for image in self._past)
        return {"past": self._for_successor, "live": list(self._live)}

    def adopt(self, inherited: Inherited | None) -> None:
        """Go on with what another daemon has handed over; None: it is too old to remember."""
        if inherited is None:
            return
        with open(inherited["past"], "rb") as file:
            file.seek(0)
            while head := file.read(LENGTH.size):
                self._past.append(file.read(LENGTH.unpack(head)[0]))
        self._inherited = list(inherited["live"])
        for fd in self._inherited:
            os.set_inheritable(fd, False)

    def _retire_inherited(self) -> None:
        inherited, self._inherited = self._inherited, []
        self._keep([closes.compacted(_read(fd)) for fd in inherited])
        for fd in inherited:
            os.close(fd)

    def _keep(self, images: Iterable[bytes]) -> None:
        self._past.extend(image for image in images if image)
        most = closes.CLOSINGS_MAX * max(1, len(self._live))
        known = sum(map(closes.count, self._past))
        while self._past and known - closes.count(self._past[0]) >= most:
            known -= closes.count(self._past.popleft())


def _read(fd: int) -> bytes:
    return os.pread(fd, closes.FILE_BYTES, 0)
