"""A feeder as a process, its supervisor and its workers being the test."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S

from gaiod.process.feed_records import Reader, hello
from gaiod.settings import LogSettings
from gaiod.stats.feeder_cells import HEARTBEAT, SIZE, SOURCE_CELL, row


class FeederUnderTest:
    """A feeder that waits for its settings."""

    def __init__(self, folder: Path, module: str) -> None:
        self._folder = folder
        self._log = folder / "feeder.log"
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(LIMIT_S)
        self._lines = self.channel.makefile("r", encoding="utf-8")
        self._stats, self._dump = os.memfd_create("stats"), os.memfd_create("dump")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind("")
        self._socket.listen()
        self._links: list[socket.socket] = []
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), self._stats, self._dump, self._socket.fileno()],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid

    def begin(self, *, cells: int = SIZE, **log: Any) -> None:
        """Tell it its settings; `cells` is how many it has to count in."""
        os.ftruncate(self._stats, 8 * cells)
        self.send(
            {
                "log": asdict(LogSettings(**log)),
                "stats": self._stats,
                "dump": self._dump,
                "links": self._socket.fileno(),
                "instance": 1,
                "sequences": {},
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
            "row": 0,
            "rows": {name: index for index, name in enumerate(names, 1)},
        }
        self.send({"run": {"number": number, "log": asdict(LogSettings()), "feeds": [feed]}})

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Return its next message; None if it is gone."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def messages(self, count: int) -> list[bytes]:
        """Connect as a worker, and return the first messages that come."""
        sock = socket.socket(socket.AF_UNIX)
        self._links.append(sock)
        sock.settimeout(LIMIT_S)
        sock.connect(self._socket.getsockname())
        sock.sendall(hello({"mine": {"key": "key", "sequence": None}}))
        reader = Reader()
        found: list[bytes] = []
        is_greeted = False
        while len(found) < count:
            data = sock.recv(65536)
            assert data, self.log()
            reader.add(data)
            is_greeted = is_greeted or reader.take_hello() is not None
            if is_greeted:
                found += [data for _, _, _, data in reader.take_records()]
        return found

    def cell(self, number: int, name: str) -> int:
        """Return a cell of a row."""
        return self._cell(row(number) + SOURCE_CELL[name])

    def heartbeat_ns(self) -> int:
        """Return when its loop last came round."""
        return self._cell(HEARTBEAT)

    def _cell(self, index: int) -> int:
        return int.from_bytes(os.pread(self._stats, 8, 8 * index), sys.byteorder, signed=True)

    def stack(self) -> str:
        """Return what it left behind when it crashed."""
        return os.pread(self._dump, 1 << 16, 0).decode()

    def kill(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def log(self) -> str:
        """Return everything it has said."""
        return self._log.read_text()

    def wait(self) -> int:
        """Return its exit status."""
        return self._process.wait(LIMIT_S)

    def hang_up(self) -> None:
        """Close the channel."""
        self._lines.close()
        self.channel.close()

    def clean_up(self) -> None:
        """End it, and close everything."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(LIMIT_S)
        self.hang_up()
        for sock in (self._socket, *self._links):
            sock.close()
        os.close(self._stats)
        os.close(self._dump)


@contextmanager
def started_feeder(folder: Path, module: str = "gaiod.feeder.process") -> Iterator[FeederUnderTest]:
    """Give a feeder; it ends with the test."""
    feeder = FeederUnderTest(folder, module)
    try:
        yield feeder
    finally:
        feeder.clean_up()
