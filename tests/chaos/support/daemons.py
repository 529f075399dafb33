"""Daemons of many workers, whose handler tells clients which of them they have."""

import os
import signal
from pathlib import Path

from e2e.support.daemons import Daemon
from e2e.support.handlers import IMPORTS
from e2e.support.procfs import PROC, children_of

CONFIG = """\
workers: {workers}
{more}metrics: {{listen: "127.0.0.1:0"}}
listeners:
  mine: {{bind: "127.0.0.1:0", handler: ./mine.py, backlog: 4096}}
"""

NAMED = (
    IMPORTS
    + """
class Named(gaiod.Handler):
    def on_open(self, conn):
        conn.write(os.getpid().to_bytes(4, "big"))

    def on_write(self, conn, result):
        conn.read()

    def on_read(self, conn, result):
        conn.write(result.buffer)
"""
)
"""An echo that first says which process it is: the first four bytes."""


def many(folder: Path, *, workers: int = 2, handler: str = NAMED, **more: str) -> str:
    """Write the handler beside the configuration, which is returned; `more` are its keys and values."""
    (folder / "mine.py").write_text(handler)
    return CONFIG.format(workers=workers, more="".join(f"{key}: {value}\n" for key, value in more.items()))


def workers_of(daemon: Daemon) -> list[int]:
    """Return the worker processes of a daemon: not the process that reads its configuration."""
    return [pid for pid in children_of(daemon.pid) if b"gaiod.worker.process" in _command(pid)]


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to one process."""
    os.kill(pid, number)


def _command(pid: int) -> bytes:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return b""
