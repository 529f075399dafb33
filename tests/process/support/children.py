"""A process that a supervisor starts, its supervisor being the test."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S


class ChildUnderTest:
    """Such a process, and the supervisor's end of its channel.

    Args:
        command: what Python runs; the descriptor of the channel is added.
        log: where its output goes.
        fds: what it inherits beside the channel and its shared memory.
        how: more for `subprocess.Popen`.

    Attributes:
        channel: the supervisor's end.
        pid: its process.
    """

    def __init__(self, command: Sequence[str], log: Path, fds: Sequence[int], **how: Any) -> None:
        self._log = log
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(LIMIT_S)
        self._lines = self.channel.makefile("r", encoding="utf-8")
        self._stats, self._dump, self._code, self._closes = map(os.memfd_create, ("stats", "dump", "code", "closes"))
        self._handing, later = socket.socketpair()
        self._later_fds = later.fileno()
        with theirs, later, log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *command, str(theirs.fileno())],
                pass_fds=[theirs.fileno(), later.fileno(), self._stats, self._dump, self._code, self._closes, *fds],
                stdout=output,
                stderr=output,
                **how,
            )
        self.pid = self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Return its next message; None if it is gone."""
        line = self._lines.readline()
        return json.loads(line) if line else None

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

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Return its exit status."""
        return self._process.wait(limit_s)

    def hang_up(self) -> None:
        """Close the channel."""
        self._lines.close()
        self.channel.close()
        self._handing.close()

    def clean_up(self) -> None:
        """End it, and close everything."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait(LIMIT_S)
        self.hang_up()
        os.close(self._stats)
        os.close(self._dump)
        os.close(self._code)
        os.close(self._closes)
