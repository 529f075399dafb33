"""The seats of worker processes in the memory that limits are counted in: who may write where.

`stats/tally_layout.py` says what is there. A seat is emptied when its worker has ended, however it did: its connections
are gone. In an upgrade both daemons deal out seats of one file, so the limits go on to be exact: one has the even
seats, the other one the odd ones. What a daemon leaves that was killed is emptied by the next one.
"""

import errno
import mmap
import os
import secrets
import sys
from typing import Any

from gaiod.stats.tally_layout import CHANGES, HEAD, HEAD_BYTES, MAGIC, OWNERS, SEAT_BYTES, SEATS_MAX, SECRET, start_of
from gaiod.supervisor.processes.slots import anonymous_file

HandedOverSeats = dict[str, int]
"""`fd`: the descriptor of the file. `side`: 0 or 1, of the daemon that hands it over."""


class Seats:
    """Deals out seats. There is a file from the first seat on.

    Attributes:
        fd: of the file; -1: there is none.
    """

    def __init__(self) -> None:
        self.fd = -1
        self._side = 0
        self._memory: mmap.mmap | None = None

    def open(self) -> int:
        """Return a seat for one more worker, which is empty.

        Raises:
            OSError: none is left.
        """
        if self._memory is None:
            self.fd = anonymous_file("gaiod-tallies")
            secret = secrets.token_bytes(SECRET.stop - SECRET.start)
            os.pwrite(self.fd, HEAD.pack(MAGIC, 0, 0, secret), 0)
            os.pwrite(self.fd, b"\0", HEAD_BYTES - 1)
            self._memory = mmap.mmap(self.fd, HEAD_BYTES)
        for seat in range(self._side, SEATS_MAX, 2):
            if not self._owner_of(seat):
                if os.fstat(self.fd).st_size < start_of(seat + 1):
                    os.pwrite(self.fd, b"\0", start_of(seat + 1) - 1)  # it grows by this, and never shrinks
                self._give(seat, os.getpid())
                return seat
        raise OSError(errno.EAGAIN, f"{SEATS_MAX // 2} processes count for common limits already")

    def retire(self, seat: int | None) -> None:
        """Take a seat back, whose worker is gone; None: it had none."""
        if seat is not None:
            self._empty(seat)

    def look(self) -> None:
        """Empty the seats of daemons that are gone, and their workers with them."""
        if self._memory is None:
            return
        cells = memoryview(self._memory).cast("q")[OWNERS : OWNERS + SEATS_MAX].tolist()
        owners = {seat: owner for seat, owner in enumerate(cells) if owner not in (0, os.getpid())}
        gone = {owner for owner in set(owners.values()) if not _runs(owner)}
        for seat, owner in owners.items():
            if owner in gone:
                self._empty(seat)

    def handed_over(self) -> HandedOverSeats | None:
        """Return what another daemon goes on with; None: nobody has a seat."""
        return None if self._memory is None else {"fd": self.fd, "side": self._side}

    def adopt(self, inherited: dict[str, Any] | None) -> None:
        """Go on with what another daemon has handed over; None: it has nothing."""
        if inherited is None:
            return
        if os.pread(inherited["fd"], len(MAGIC), 0) != MAGIC:  # of another version: its counts end with its workers
            os.close(inherited["fd"])
            return
        self.fd, self._side = inherited["fd"], 1 - inherited["side"]
        os.set_inheritable(self.fd, False)
        self._memory = mmap.mmap(self.fd, HEAD_BYTES)

    def _owner_of(self, seat: int) -> int:
        assert self._memory is not None
        at = 8 * (OWNERS + seat)
        return int.from_bytes(self._memory[at : at + 8], sys.byteorder)

    def _give(self, seat: int, owner: int) -> None:
        """Write down whose a seat is, and then that something has changed."""
        assert self._memory is not None
        at = 8 * (OWNERS + seat)
        self._memory[at : at + 8] = owner.to_bytes(8, sys.byteorder)
        at = 8 * (CHANGES + self._side)
        changes = int.from_bytes(self._memory[at : at + 8], sys.byteorder) + 1
        self._memory[at : at + 8] = changes.to_bytes(8, sys.byteorder)

    def _empty(self, seat: int) -> None:
        with mmap.mmap(self.fd, start_of(seat + 1)) as memory:
            memory[start_of(seat) : start_of(seat + 1)] = bytes(SEAT_BYTES)
        self._give(seat, 0)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is somebody else's, and so there
    return True
