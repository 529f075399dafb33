"""What a fleet is made of: generations, the workers that belong to them, and their common start."""

import dataclasses
import hashlib
import json
import os
import socket
import weakref
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from gaiod.plugins import label_of, pinned
from gaiod.settings import ListenerSettings, Settings
from gaiod.stats.cells import open_connections
from gaiod.supervisor.processes.child import WorkerProcess
from gaiod.supervisor.processes.slots import Key, anonymous_file
from gaiod.supervisor.sockets.listeners import OpenListener
from gaiod.watched_files import Content, FileKind, Files

HEARTBEATS_PER_TIMEOUT = 4
HEARTBEAT_INTERVAL_MAX_S = 1.0


class Code:
    """The code of handlers, as preflight has imported it.

    Attributes:
        fd: of the anonymous file that `gaiod.kept_code` writes and reads.
        close: closes it. The fleet does, of a generation that was launched, once nobody is started with it any more.
            Until then whoever has it does, if it comes to nothing: the supervisor collects its garbage rarely.
        versions: by reference of a handler, what is another if its code is, or that of what it imports.
    """

    def __init__(self) -> None:
        self.fd = anonymous_file("gaiod-code")
        self.versions: dict[str, str] = {}
        self._files: dict[str, dict[str, str]] = {}
        self.close = weakref.finalize(self, os.close, self.fd)

    def take(self, files: dict[str, dict[str, str]]) -> None:
        """Take the digests of the files that each handler needs, by its reference and their paths."""
        self._files = files
        self.versions = {handler: _digest(sorted(each.items())) for handler, each in files.items()}

    def follow(self, before: "Code") -> None:
        """Give a handler the version that it had, unless a file has changed that it needed then, too.

        A file that it needs now, and did not before, is for the options of another listener, or comes with a change.
        """
        for handler, files in self._files.items():
            old = before._files.get(handler)
            if old is not None and all(old.get(path, digest) == digest for path, digest in files.items()):
                self.versions[handler] = before.versions[handler]


@dataclass(frozen=True, slots=True)
class Generation:
    """A configuration that is served.

    Attributes:
        number: counts them.
        settings: the configuration, with what the files have that it names: that is renewed when they change.
        listeners: the sockets of `settings.listeners`, in their order.
        code: what its workers and its feeder run.
        inlets: the sockets at which its sources listen, by address.
        feed_keys: of each listener that takes messages what tells its sources from others: of two generations with the
            same key one's sources are the other's, and go on.
    """

    number: int
    settings: Settings
    listeners: list[OpenListener]
    code: Code = field(default_factory=Code)
    inlets: Mapping[str, OpenListener] = field(default_factory=dict)
    feed_keys: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Make the keys."""
        keys = {each.name: self._feed_key(each) for each in self.settings.listeners if each.sources}
        object.__setattr__(self, "feed_keys", keys)

    @property
    def keys(self) -> dict[Key, tuple[str, ...]]:
        """What the listeners count under, and their servers, in the order of the cells."""
        return {(each.name, label_of(each.handler)): each.servers for each in self.settings.listeners}

    @property
    def counts_together(self) -> bool:
        """Whether there is a limit that its workers have together."""
        settings = self.settings
        return settings.connections_max is not None or any(each.per_address is not None for each in settings.listeners)

    def unchanged(self, before: "Generation") -> frozenset[str]:
        """Return the names of listeners that an earlier generation serves in the same way: settings, and code.

        What the log and `slow_hook` are concerns all of them: a worker has it for its whole life.
        """
        if (before.settings.log, before.settings.slow_hook_s) != (self.settings.log, self.settings.slow_hook_s):
            return frozenset()
        old = {each.name: each for each in before.settings.listeners}
        return frozenset(
            each.name
            for each in self.settings.listeners
            if old.get(each.name) == each and self.has_same_code(before, each.handler)
        )

    def renew(self, kind: FileKind, files: Files, content: Content) -> bool:
        """Take into the settings what was read of files that they name; tell whether it was anything new."""
        listeners = tuple(kind.renewed(each, files, content) for each in self.settings.listeners)
        if listeners == self.settings.listeners:
            return False
        object.__setattr__(self, "settings", dataclasses.replace(self.settings, listeners=listeners))
        return True

    def has_same_code(self, before: "Generation", handler: str) -> bool:
        """Tell whether a handler's code is what it was in an earlier generation."""
        return self.code.versions.get(handler) == before.code.versions.get(handler)

    @property
    def heartbeat_interval_s(self) -> float:
        """How often a process writes down that its loop completes a pass."""
        return min(HEARTBEAT_INTERVAL_MAX_S, self.settings.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT)

    def message_to(self, worker: int, feed_address: str = "") -> dict[str, Any]:
        """Return what one of its workers is told. `feed_address` is where it gets messages, if it takes any."""
        settings = self.settings
        return {
            "worker": worker,
            "generation": self.number,
            "listeners": [
                dataclasses.asdict(dataclasses.replace(listener, handler=pinned(listener.handler)))
                for listener in settings.listeners
            ],
            "feed": {"address": feed_address, "keys": self.feed_keys},
            "heartbeat_interval_s": self.heartbeat_interval_s,
            "slow_hook_s": settings.slow_hook_s,
            "drain_timeout_s": settings.drain_timeout_s,
            "connections_max": settings.connections_max,
            "cpu": _cpu_of(worker) if settings.pin_workers else None,
            "log": dataclasses.asdict(settings.log),
            "code": self.code.fd,
        }

    def _feed_key(self, listener: ListenerSettings) -> str:
        code = self.code.versions.get(listener.handler, "")
        return _digest([listener.handler, listener.options, listener.sources, code])[:32]

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
        closes: the descriptor of the memory of connections that closed.
        launch: the start of a generation that it is a part of, until that is over.
        why: why it replaces another, if it does: one of `stats.cells.RESTART_REASONS`.
        took_over: called once it serves (True) or has failed to (False).
        kept: the names of listeners whose connections it keeps, though a later generation serves; None: it may of all.
        kill_s: when it is killed, if it has not ended.
        ended_s: when it was seen to have ended.
        kill_reason: why the supervisor had it killed.
        is_hung: that was because its loop completed no pass.
        seat: where it counts for limits that all workers have together; None: nowhere.
    """

    process: WorkerProcess
    generation: Generation
    closes: int
    launch: "Launch | None" = None
    why: str = "reload"
    took_over: Callable[[bool], None] | None = None
    kept: frozenset[str] | None = None
    kill_s: float | None = None
    ended_s: float | None = None
    kill_reason: str | None = None
    is_hung: bool = False
    seat: int | None = None

    def connections_of(self, listeners: Container[str]) -> int:
        """Return how many connections of these listeners are open."""
        memory = self.process.memory
        rows = [memory.row(index) for index, key in enumerate(memory.keys) if key[0] in listeners]
        return sum(map(open_connections, rows))

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


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=repr).encode()).hexdigest()


def _cpu_of(worker: int) -> int | None:
    """Return the CPU for a worker: they take turns at those this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[worker % len(cpus)]
