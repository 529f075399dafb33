"""A feeder as a process, its supervisor and its workers being the test."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S
from process.support.children import ChildUnderTest

from gaiod.process.feed_records import Reader, hello
from gaiod.settings import LogSettings
from gaiod.stats.feeder_cells import HEARTBEAT, SIZE, SOURCE_CELL, row
from gaiod.supervisor.processes.slots import anonymous_file


class FeederUnderTest(ChildUnderTest):
    """A feeder that waits for its settings."""

    def __init__(self, folder: Path, module: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind("")
        self._socket.listen()
        self._links: list[socket.socket] = []
        self._journal = anonymous_file("journal")
        log, fds = folder / "feeder.log", [self._socket.fileno(), self._journal]
        super().__init__(("-m", module), log, fds, cwd=folder, stdin=subprocess.DEVNULL)

    def begin(self, *, cells: int = SIZE, **log: Any) -> None:
        """Tell it its settings; `cells` is how many it has to count in."""
        os.ftruncate(self._stats, 8 * cells)
        self.send(
            {
                "log": asdict(LogSettings(**log)),
                "stats": self._stats,
                "dump": self._dump,
                "later_fds": self._later_fds,
                "links": self._socket.fileno(),
                "instance": 1,
                "journal": self._journal,
                "code": self._code,
                "heartbeat_interval_s": 0.02,
            }
        )

    def run(self, handler: str, *sources: str, number: int = 1, **options: Any) -> None:
        """Tell it to run the sources of a listener `mine`, and wait until it does."""
        self.tell(handler, *sources, number=number, **options)
        assert self.receive() == {"running": number}

    def tell(self, handler: str, *sources: str, number: int = 1, **options: Any) -> None:
        """Tell it that."""
        names = ("publish", *sources)
        feed = {
            "name": "mine",
            "key": "key",
            "handler": handler,
            "options": options,
            "rows": {name: index for index, name in enumerate(names, 1)},
        }
        socket.send_fds(self._handing, [b"s"], [self._code])
        self.send({"run": {"number": number, "log": asdict(LogSettings()), "feeds": [feed], "inlets": {}}})

    def messages(self, count: int) -> list[bytes]:
        """Connect as a worker, and return the first messages that come."""
        sock = socket.socket(socket.AF_UNIX)
        self._links.append(sock)
        sock.settimeout(LIMIT_S)
        sock.connect(self._socket.getsockname())
        sock.sendall(hello({"mine": {"key": "key", "sequence": None, "handler": "", "options": {}}}))
        reader = Reader()
        found: list[bytes] = []
        is_greeted = False
        while len(found) < count:
            data = sock.recv(65536)
            assert data, self.log()
            reader.add(data)
            is_greeted = is_greeted or reader.take_hello() is not None
            if is_greeted:
                found += [data for _, _, _, data in reader.take_records() if data]
        return found

    def cell(self, number: int, name: str) -> int:
        """Return a cell of a row."""
        return self._cell(row(number) + SOURCE_CELL[name])

    def heartbeat_ns(self) -> int:
        """Return when its loop last completed a pass."""
        return self._cell(HEARTBEAT)

    def clean_up(self) -> None:
        """End it, and close everything."""
        super().clean_up()
        os.close(self._journal)
        for sock in (self._socket, *self._links):
            sock.close()


@contextmanager
def started_feeder(folder: Path, module: str = "gaiod.feeder.process") -> Iterator[FeederUnderTest]:
    """Give a feeder; it ends with the test."""
    feeder = FeederUnderTest(folder, module)
    try:
        yield feeder
    finally:
        feeder.clean_up()
