"""One worker process, seen from its supervisor."""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.runtime.channel import Channel

log = logging.getLogger("gaiod.supervisor")


PR_SET_PDEATHSIG = 1


def _die_with_parent() -> Callable[[], None] | None:
    """Return what has a child killed when its parent dies, were it hung in a hook; None where nothing can.

    The end of the channel tells a worker the same, but only one that looks. It survives exec (man 2 prctl).
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # here, not in the child: it must do as little as it can
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it died before it was asked

    return ask


class WorkerProcess:
    """A worker, from its start to its end.

    Attributes:
        number: its slot, from 0.
        pid: its process.
        ready: it has said that it serves.
        failed: why it could not start, if it said so.
    """

    def __init__(self, number: int, watcher: Watcher, on_change: Callable[["WorkerProcess"], None]) -> None:
        self.number = number
        self.ready = False
        self.failed: str | None = None
        self._watcher = watcher
        self._on_change = on_change

    def start(self, settings: dict[str, Any], listeners: list[socket.socket], stats_fd: int) -> None:
        """Start it and tell it what to serve; `on_change` is called when it is ready, failed or gone.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        fds = [sock.fileno() for sock in listeners]
        # -P: what lies in the working directory is not ours to import.
        command = [sys.executable, "-P", "-m", "gaiod.runtime.worker", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno(), stats_fd, *fds],
                stdin=subprocess.DEVNULL,
                process_group=0,  # a Ctrl-C goes to the whole group: the supervisor decides, from the first moment on
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - the supervisor has one thread
            )
        self._channel = Channel(self._watcher.delegate(ours), self._take)
        self._channel.send({**settings, "fds": fds, "stats": stats_fd})

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to finish."""
        self._channel.send({"stop": True})

    def kill(self) -> None:
        """Do not ask."""
        self._process.kill()

    def exit_status(self) -> int | None:
        """Return None while it runs, its exit status, or minus the signal that ended it."""
        return self._process.poll()

    def usage(self) -> dict[str, float]:
        """Return what it uses of the machine now: empty once it is gone, or where there is no /proc."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
                stat = file.read().rpartition(")")[2].split()
            with open(f"/proc/{self.pid}/limits", encoding="ascii") as file:
                limit = next(line.split()[3] for line in file if line.startswith("Max open files"))
            return {
                "cpu_seconds": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
                "resident_bytes": int(stat[21]) * os.sysconf("SC_PAGE_SIZE"),
                "open_fds": len(os.listdir(f"/proc/{self.pid}/fd")),
                "max_fds": float(limit) if limit != "unlimited" else float("inf"),
            }
        except (OSError, StopIteration, ValueError, IndexError):
            return {}

    def _take(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return  # it is going; SIGCHLD says how
        self.ready = bool(message.get("ready", self.ready))
        self.failed = message.get("failed", self.failed)
        self._on_change(self)
