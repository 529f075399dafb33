"""The processes that a supervisor starts, seen from it: the worker's is here, the feeder's is in `feeder.py`."""

import ctypes
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from itertools import count
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.process.channel import Channel
from gaiod.process.inheritance import ignore_what_is_for_the_supervisor
from gaiod.process.startup import parts_of
from gaiod.settings import RecycleSettings
from gaiod.supervisor.processes.slots import Memory, anonymous_file

log = logging.getLogger("gaiod.supervisor")

PR_SET_PDEATHSIG = 1

SUPERVISORS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What systemd tells the supervisor alone: a handler's library must not report in its name."""

DUMP_MAX_BYTES = 64 * 1024
"""faulthandler shows 100 frames of each of 100 threads at most; one thread takes 10 KiB."""


RECYCLE_SPREAD = 0.2
"""Each worker's own limits are up to this much below the configured ones: they should not all go at once."""


class Phase(Enum):
    """Where a worker stands in its life."""

    STARTING = auto()
    SERVING = auto()
    KEEPING = auto()
    """It accepts no more, and keeps the connections of listeners that a later generation serves unchanged."""
    DRAINING = auto()
    ENDED = auto()


def begin_child() -> Callable[[], None]:
    """Return what a child does before it executes anything: signals that all processes get must not end it there."""
    obey = die_with_parent()

    def begin() -> None:
        ignore_what_is_for_the_supervisor()
        if obey is not None:
            obey()

    return begin


def die_with_parent() -> Callable[[], None] | None:
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


class ChildProcess:
    """A process of the daemon's own, from its start to its end.

    Attributes:
        silent: its channel has ended: it will say nothing more.
        started_s: `time.monotonic()`.
    """

    def __init__(self, module: str, watcher: Watcher) -> None:
        """Make it; `start` starts it.

        Args:
            module: what it runs; its argument is the descriptor of its end of the channel.
            watcher: the supervisor's.
        """
        self.silent = False
        self.started_s = time.monotonic()
        self._cpu_s = 0.0
        self._module = module
        self._watcher = watcher
        self._questions: dict[int, Callable[[dict[str, Any] | None], None]] = {}
        self._question_ids = count(1)

    def launch(self, message: Mapping[str, Any], fds: Sequence[int], *, stdin: int | None) -> None:
        """Start it, and send it its first message, `dump` and `later_fds` added.

        Args:
            message: what it is told.
            fds: what it inherits.
            stdin: as `subprocess.Popen` takes it.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        self._handing, taking = socket.socketpair()
        # -P: what lies in the working directory is not ours to import.
        command = [sys.executable, "-P", "-m", self._module, str(theirs.fileno())]
        later_fds = taking.fileno()
        self._dump = anonymous_file("gaiod-dump")
        try:
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno(), taking.fileno(), self._dump, *fds],
                stdin=stdin,
                env={key: value for key, value in os.environ.items() if key not in SUPERVISORS_OWN},
                process_group=0,  # a Ctrl-C goes to the whole group: the supervisor decides, from the first moment on
                preexec_fn=begin_child(),  # noqa: PLW1509 - the supervisor has one thread
            )
        except BaseException:
            os.close(self._dump)
            ours.close()
            self._handing.close()
            raise
        finally:
            theirs.close()
            taking.close()
        self._channel = Channel(self._watcher.delegate(ours), self._take)
        self.send({**message, "dump": self._dump, "later_fds": later_fds})

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def send(self, message: dict[str, Any]) -> None:
        """Tell it something."""
        self._channel.send(message)

    def pass_fds(self, fds: Sequence[int]) -> None:
        """Hand it descriptors, over a socket pair of its own: what is sent next says what for, and how many they are.

        Raises:
            OSError: it cannot be.
        """
        for part in parts_of(len(fds)):
            socket.send_fds(self._handing, [b"s"], fds[part])

    def ask(self, question: dict[str, Any], take: Callable[[dict[str, Any] | None], None]) -> None:
        """Ask it something; `take` gets the answer, or None if it ends before."""
        number = next(self._question_ids)
        self._questions[number] = take
        self.send({"ask": {**question, "id": number}})

    def kill(self) -> None:
        """Do not ask."""
        self._process.kill()

    def abort(self) -> None:
        """Have it leave its stack behind, and end. It executes nothing of its own any more, not even if stopped."""
        self._process.send_signal(signal.SIGABRT)
        self._process.send_signal(signal.SIGCONT)

    def exit_status(self) -> int | None:
        """Return None while it runs, its exit status, or minus the signal that ended it."""
        self.cpu_s()  # the last chance: /proc has what it used until its status is taken
        return self._process.poll()

    def collect(self) -> str:
        """Let go of what belongs to it, once it has ended, and return the stack that it left behind, if any."""
        self._channel.close()
        self._handing.close()
        questions, self._questions = self._questions, {}
        for take in questions.values():
            take(None)
        try:
            return os.pread(self._dump, DUMP_MAX_BYTES, 0).decode(errors="replace").strip()
        finally:
            os.close(self._dump)

    def cpu_s(self) -> float:
        """Return the CPU time that it has used; once it is gone, what it had used at its end. 0 without /proc."""
        if self._process.returncode is None:  # else its number may be another's
            try:
                stat = self._stat()
                self._cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            except (OSError, ValueError, IndexError):
                pass  # there is no /proc
        return self._cpu_s

    def usage(self) -> dict[str, float]:
        """Return what it uses of the machine now: empty once it is gone, or where there is no /proc."""
        try:
            with open(f"/proc/{self.pid}/limits", encoding="ascii") as file:
                limit = next(line.split()[3] for line in file if line.startswith("Max open files"))
            stat = self._stat()
            return {
                "cpu_seconds": self.cpu_s(),
                "resident_bytes": int(stat[21]) * os.sysconf("SC_PAGE_SIZE"),
                "open_fds": len(os.listdir(f"/proc/{self.pid}/fd")),
                "max_fds": float(limit) if limit != "unlimited" else float("inf"),
            }
        except (OSError, StopIteration, ValueError, IndexError):
            return {}

    def _stat(self) -> list[str]:
        """Return the fields of /proc/PID/stat from the third on (man 5 proc)."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()

    def _take(self, message: dict[str, Any] | None) -> None:
        if message is None:
            self.silent = True
            self.said(None)
        elif "answer" in message:
            self._questions.pop(message["answer"])(message["result"])
        else:
            self.said(message)

    def said(self, message: dict[str, Any] | None) -> None:
        """Take what it has said that is no answer; None: it says no more."""
        raise NotImplementedError


class WorkerProcess(ChildProcess):
    """A worker, from its start to its end.

    Attributes:
        number: its slot, from 0.
        instance: counts all workers that there have been, of earlier daemons too: no other has the same.
        memory: what it counts in.
        phase: where it stands, which its owner says.
        failed: why it could not start, if it said so.
        failed_status: the exit status that says so.
        leaving: it accepts no more, because a signal told it to end.
        ready_s: `time.monotonic()`; None before.
        takes: where it takes others' connections; None: nowhere, or not yet.
    """

    def __init__(
        self,
        number: int,
        memory: Memory,
        watcher: Watcher,
        on_change: Callable[["WorkerProcess"], None],
        on_share: Callable[["WorkerProcess", dict[str, Any]], None],
        *,
        instance: int,
    ) -> None:
        super().__init__("gaiod.worker.process", watcher)
        self.number = number
        self.instance = instance
        self.memory = memory
        self.phase = Phase.STARTING
        self.failed: str | None = None
        self.failed_status = 0
        self.leaving = False
        self.ready_s: float | None = None
        self.takes: dict[str, str] | None = None
        self._on_change = on_change
        self._on_share = on_share
        self._leads: list[str] = []
        self._mood = 1 - RECYCLE_SPREAD * random.random()

    def start(self, settings: Mapping[str, Any], listeners: Sequence[Sequence[socket.socket]]) -> None:
        """Start it and tell it what to serve; `on_change` is called when it is ready, failed, or silent.

        Raises:
            OSError: no process can be started.
        """
        fds = [[sock.fileno() for sock in sockets] for sockets in listeners]
        numbers = {"instance": self.instance, "stats": self.memory.fd, "fds": fds}
        inherited = [self.memory.fd, settings["code"], settings["closes"], *(fd for each in fds for fd in each)]
        if settings.get("seat") is not None:
            inherited.append(settings["seat"]["fd"])
        self.launch({**settings, **numbers}, inherited, stdin=subprocess.DEVNULL)

    def pass_socket(self, listener: int, sock: socket.socket) -> None:
        """Have it serve another socket instead of those of a listener, by its number in the settings."""
        try:
            self.pass_fds([sock.fileno()])
        except OSError as error:
            if not self.silent:
                log.error("worker %d cannot be given a socket: %s; restart it", self.number, error.strerror)
        else:
            self.send({"socket": listener})

    def heartbeat_age_s(self, now_s: float) -> float:
        """Return how long ago its loop completed a pass; before the first time, how long ago it was started."""
        return now_s - (self.memory.heartbeat_s or self.started_s)

    def serve(self) -> None:
        """Let it accept: it is ready, and so is whoever else has to be."""
        self.send({"serve": True})

    def lead(self, listeners: list[str]) -> None:
        """Tell it of which listeners it is the leader, unless it knows."""
        if listeners != self._leads:
            self._leads = listeners
            self.send({"lead": listeners})

    def drain(self, timeout_s: float, *, eager: bool, handover: Mapping[str, Any] | None = None) -> None:
        """Ask it to accept no more, and to end when its connections have.

        Args:
            timeout_s: what they have.
            eager: see `gaiod.worker.drain.Drain`.
            handover: to whom it hands over those that can be; None: to nobody.
        """
        self.phase = Phase.DRAINING
        self.send({"drain": {"timeout_s": timeout_s, "eager": eager, **(handover or {})}})

    def keep(self, listeners: Sequence[str], timeout_s: float, handover: Mapping[str, Any]) -> None:
        """Ask it to accept no more, to keep the connections of these listeners, and to drain the others.

        Before, it hands over those that can be, of all of them.

        It ends when its last connection has. Asked again, it drains those that are left out.
        """
        self.phase = Phase.KEEPING
        self.send({"keep": {"listeners": list(listeners), "timeout_s": timeout_s, **handover}})

    def tell_takers(self, addresses: Sequence[Mapping[str, str]]) -> None:
        """Tell one that may be handing its connections over where those that serve now take them."""
        self.send({"takers": list(addresses)})

    def drain_listener(self, name: str, timeout_s: float) -> None:
        """Ask it to stop serving one of its listeners."""
        self.send({"drain_listener": {"listener": name, "timeout_s": timeout_s}})

    def collect(self) -> str:
        """As of any process."""
        self.phase = Phase.ENDED
        return super().collect()

    def is_worn(self, limits: RecycleSettings, accepted: int, now_s: float) -> str | None:
        """Return which of the limits it has reached, in words; None if none."""
        if self.ready_s is None:
            return None
        age_s = now_s - self.ready_s
        if limits.age_s is not None and age_s >= limits.age_s * self._mood:
            return f"it is {age_s:.0f} s old"
        if limits.connections is not None and accepted >= limits.connections * self._mood:
            return f"it has accepted {accepted} connections"
        if limits.memory_bytes is not None:
            try:
                resident = int(self._stat()[21]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, ValueError, IndexError):
                return None  # it has ended, or there is no /proc
            if resident >= limits.memory_bytes * self._mood:
                return f"it has {resident / 2**20:.0f} MiB of memory"
        return None

    def log_handover(self, told: dict[str, Any]) -> None:
        """Write down what became of its connections, as it has told."""
        moved, stayed = told["moved"], told["stayed"]
        if moved or stayed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(stayed.items()))
            log.info(
                "worker %d, process %d, handed %d of %d connections over in %.0f ms, with %.1f MiB that waited%s",
                self.number, self.pid, moved, moved + sum(stayed.values()), told["took_s"] * 1e3,
                told["held_bytes"] / 2**20, f"; {sum(stayed.values())} stay: {reasons}" if stayed else "",
            )  # fmt: skip

    def said(self, message: dict[str, Any] | None) -> None:
        """Take what it has said: that it is ready, leaves, cannot serve, has handed over, or shares something."""
        if message is None:
            pass
        elif "share" in message:
            self._on_share(self, message["share"])
            return
        elif "ready" in message:
            self.ready_s = time.monotonic()
            self.takes = message.get("takes")
        elif "handed_over" in message:
            self.log_handover(message["handed_over"])
        elif "leaving" in message:
            self.leaving = True
        else:
            self.failed = message["failed"]
            self.failed_status = message.get("status", os.EX_CONFIG)  # a worker of 0.5 says none
        self._on_change(self)
