"""What a fleet is made of: generations, the workers that belong to them, and their common start."""

import dataclasses
import os
import socket
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any

from gaiod.runtime.plugins import label_of, pinned
from gaiod.runtime.settings import Settings
from gaiod.supervisor.listeners import OpenListener
from gaiod.supervisor.process import WorkerProcess
from gaiod.supervisor.slots import Key

HEARTBEATS_PER_TIMEOUT = 4
HEARTBEAT_INTERVAL_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Generation:
    """A configuration that is served. `listeners` are the sockets of `settings.listeners`, in their order."""

    number: int
    settings: Settings
    listeners: list[OpenListener]

    @property
    def keys(self) -> dict[Key, tuple[str, ...]]:
        """What the listeners count under, and their servers, in the order of the cells."""
        return {(each.name, label_of(each.handler)): each.servers for each in self.settings.listeners}

    def message_to(self, worker: int) -> dict[str, Any]:
        """Return what one of its workers is told."""
        settings = self.settings
        interval_s = min(HEARTBEAT_INTERVAL_MAX_S, settings.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT)
        return {
            "worker": worker,
            "listeners": [
                dataclasses.asdict(dataclasses.replace(listener, handler=pinned(listener.handler)))
                for listener in settings.listeners
            ],
            "heartbeat_interval_s": interval_s,
            "drain_timeout_s": settings.drain_timeout_s,
            "cpu": _cpu_of(worker) if settings.pin_workers else None,
            "log": dataclasses.asdict(settings.log),
        }

    def sockets_of(self, worker: int, drained: Container[str]) -> list[list[socket.socket]]:
        """Return what one of its workers serves: the sockets of each listener, none of those that are drained."""
        return [
            [] if settings.name in drained else listener.sockets_of(worker, self.settings.workers)
            for settings, listener in zip(self.settings.listeners, self.listeners, strict=True)
        ]


@dataclass(slots=True, eq=False)
class Member:
    """A worker process, and why it is there.

    Attributes:
        launch: the start of a generation that it is a part of, until that is over.
        why: why it replaces another: one of `slots.RESTART_REASONS`.
        took_over: called once it serves (True) or has failed to (False).
        kill_s: when it is killed, if it has not ended.
        ended_s: when it was seen to have ended.
        doom: why the supervisor had it killed.
        is_hung: that was because its loop did not come round.
    """

    process: WorkerProcess
    generation: Generation
    launch: "Launch | None" = None
    why: str = "exit"
    took_over: Callable[[bool], None] | None = None
    kill_s: float | None = None
    ended_s: float | None = None
    doom: str | None = None
    is_hung: bool = False

    def report(self, worked: bool) -> None:
        """Tell whoever wanted it started, once."""
        took_over, self.took_over = self.took_over, None
        if took_over is not None:
            took_over(worked)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation cannot serve, and the exit status that says so."""

    text: str
    status: int


@dataclass(slots=True, eq=False)
class Launch:
    """The start of a generation: all of its workers, or none. `done` is called with what went wrong, or None."""

    generation: Generation
    done: Callable[[Failure | None], None]
    members: list[Member] = field(default_factory=list)


def _cpu_of(worker: int) -> int | None:
    """Return the CPU for a worker: they take turns at those this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[worker % len(cpus)]
