"""Workers that count for common limits, in this process."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

from gaiod.supervisor.processes.seats import Seats
from gaiod.worker.admission.tallies import Tallies


class Tables:
    """The memory, and the workers that have seats in it."""

    def __init__(self) -> None:
        self.seats = Seats()
        self.taken: list[int] = []

    def worker(self) -> Tallies:
        """Return what one more worker counts with."""
        self.taken.append(self.seats.open())
        return Tallies(os.dup(self.seats.fd), self.taken[-1])

    def ends(self, number: int) -> None:
        """Have a worker be gone."""
        self.seats.retire(self.taken[number])


@contextmanager
def tables() -> Iterator[Tables]:
    """Make the memory, and give it back."""
    made = Tables()
    yield made
    gc.collect()  # listeners and their handlers refer to each other, and to the memory
    close(made.seats)


def close(seats: Seats) -> None:
    """Give the memory back, if there is one."""
    if seats._memory is not None:
        seats._memory.close()
        os.close(seats.fd)
