"""The shared memory that workers count in: one slot each, which outlives the worker that has it."""

import mmap
import os
import tempfile
from typing import Any

from gaiod.runtime.stats import Layout


class Slots:
    """The slots of all workers. `fd` is what a worker maps."""

    def __init__(self, workers: int, layout: Layout) -> None:
        self.layout = layout
        self.fd = os.memfd_create("gaiod-stats") if hasattr(os, "memfd_create") else _unlinked_file()
        os.ftruncate(self.fd, 8 * layout.size * workers)
        self._memory = mmap.mmap(self.fd, 8 * layout.size * workers)
        self._cells = memoryview(self._memory).cast("q")

    def first_cell(self, worker: int) -> int:
        """Return where a worker's slot begins."""
        return worker * self.layout.size

    def cells(self, worker: int) -> Any:
        """Return a worker's slot."""
        first = self.first_cell(worker)
        return self._cells[first : first + self.layout.size]


def _unlinked_file() -> int:
    fd, path = tempfile.mkstemp(prefix="gaiod-stats-")
    os.unlink(path)
    return fd
