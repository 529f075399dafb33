"""Files that the configuration names, looked at while the daemon serves: what has changed is read again, in place.

Once a second each file is asked for its place, size and times. One that has changed, and was left alone for a second,
is read in a forked child, as the configuration is: the supervisor imports no parser. What it has goes into the settings
of all generations, so that workers which start later have it, and to all workers, which go on with their connections.
A file that is broken changes nothing: it is logged, counted and shown until it is good again. A certificate and a key
that do not belong together are most likely half of a change: they have some seconds until that is called broken.

`gaiod.watched_files` says what kinds of files there are, and how another one joins.
"""

import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.dispatch import Target
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.fork import end, fork, wait
from gaiod.supervisor.processes.generation import Generation
from gaiod.watched_files import KINDS, Content, Files, contents_of

log = logging.getLogger("gaiod.supervisor")

LOOK_S = 1.0
"""How often files are looked at: one system call each. One that changes is in force 1 to 2 s later."""

RESTLESS_LOOKS_MAX = 5
"""A file that changes from look to look is about to be written, but one that never rests is read all the same."""

TIMEOUT_S = 60.0
"""What reading may take, as in a reload: 100,000 networks take 4 s of CPU time, and twice that on a busy machine."""

AGAIN_S = 30.0
"""When it is tried again, if the child did not answer: that says nothing about the file."""

SETTLE_S = 10.0
"""How long a certificate may wait for its key, and a key for its certificate: programs write one after the other."""

Signature = tuple[tuple[int, ...], ...]
"""Of files: what changes if they do, or the errno that says why nobody can know."""


RENEWED, UNCHANGED, REFUSED = "renewed", "unchanged", "refused"
"""What may come of reading files. Where there is no answer yet, it is refused, too."""


@dataclass(slots=True, eq=False)
class WatchedFile:
    """Files that are read together, and how that went.

    Attributes:
        kind: their kind, one of `gaiod.watched_files.KINDS`.
        files: their paths.
        content: what is in force.
        error: why what they have now is not in force; None: it is.
        read_s: when what is in force was read, in Unix time.
        since_s: since when it is in force, in Unix time.
        results: how often reading them again was a success, and a failure.
        seen: what they looked like last.
        read: what they looked like before they were read last; None: that is not known.
        restless: how many looks in a row they were different from what was read.
        again_s: they are not read before that (`time.monotonic()`).
        doubt: what is wrong with them that may be half of a change, and until when it may; None: nothing.
    """

    kind: str
    files: Files
    content: Content = field(default_factory=dict, repr=False)
    error: str | None = None
    read_s: float = field(default_factory=time.time)
    since_s: float = field(default_factory=time.time)
    results: Counter[str] = field(default_factory=lambda: Counter(success=0, failure=0))
    seen: Signature | None = None
    read: Signature | None = None
    restless: int = 0
    again_s: float = 0.0
    doubt: tuple[str, float] | None = None

    @property
    def name(self) -> str:
        """What metrics and messages call it: the path of the first file."""
        return self.files[0]

    def is_due(self, now_s: float) -> bool:
        """Look whether it is to be read now."""
        before, self.seen = self.seen, signature_of(self.files)
        if self.seen == self.read or now_s < self.again_s:
            self.restless = 0
            return False
        is_at_rest = self.seen == before
        self.restless += 1
        return is_at_rest or self.restless > RESTLESS_LOOKS_MAX


Told = Callable[[list[tuple[WatchedFile, str]] | None], None]
"""Who wants to know what came of reading each of some files; None: others read them just now."""


class FileWatch:
    """Looks at the files of the generation that serves."""

    def __init__(self, watcher: Watcher, fleet: Fleet, is_settled: Callable[[], bool]) -> None:
        """Look at nothing until `look` is called.

        Args:
            watcher: the supervisor's.
            fleet: whose generation names the files.
            is_settled: tells whether neither a reload nor an upgrade is under way: those read the files themselves.
        """
        self._watcher = watcher
        self._fleet = fleet
        self._is_settled = is_settled
        self._known: dict[tuple[str, Files], WatchedFile] = {}
        self._generation: Generation | None = None
        self._is_reading = False
        self._asked: list[tuple[Container[str], Told]] = []
        self._looked_s = 0.0

    @property
    def files(self) -> list[WatchedFile]:
        """All of them, in the order of the configuration."""
        self._follow()
        return list(self._known.values())

    def look(self) -> None:
        """Look whether some have changed, if it is time."""
        now_s, generation = time.monotonic(), self._fleet.generation
        if self._is_reading or now_s < self._looked_s + LOOK_S or generation is None or not self._is_settled():
            return
        self._looked_s = now_s
        self._follow()
        due = [each for each in self._known.values() if each.is_due(now_s)]
        for each in self._known.values():
            if each.doubt is not None and each.seen == each.read and now_s >= each.doubt[1]:
                self._refuse(each, each.doubt[0])
        if due:
            self._read(due, generation)

    def read_now(self, kinds: Container[str], told: Told) -> None:
        """Read all files of some kinds, whether they have changed or not. A pair that is none has no time to settle."""
        self._asked.append((kinds, told))
        self._read_asked()

    def _read_asked(self) -> None:
        while self._asked and not self._is_reading:
            kinds, told = self._asked.pop(0)
            generation = self._fleet.generation
            if generation is None or not self._is_settled():
                told(None)
                continue
            due = [each for each in self.files if each.kind in kinds]
            for each in due:
                each.seen = signature_of(each.files)
            if due:
                self._read(due, generation, told)
            else:
                told([])

    def _follow(self) -> None:
        """Have the files of the generation that serves: they were good when it began, and are to be read once more."""
        generation = self._fleet.generation
        if generation is None or generation is self._generation:
            return
        before, self._known, self._generation = self._known, {}, generation
        for kind, files, content in contents_of(generation.settings.listeners):
            key = kind.name, files
            if key in self._known:
                continue
            known = self._known[key] = WatchedFile(kind.name, files, content)
            if key in before:
                known.results = before[key].results
                known.since_s = before[key].since_s if before[key].content == content else known.since_s

    def _read(self, due: Sequence[WatchedFile], generation: Generation, told: Told | None = None) -> None:
        for each in due:
            each.read, each.restless = each.seen, 0
        wanted = [(each.kind, each.files) for each in due]
        try:
            _Reading(self._watcher, wanted, partial(self._take, due, generation, told))
        except OSError as error:
            self._take(due, generation, told, [], f"no process can be started to read it: {error.strerror}")
        else:
            self._is_reading = True

    def _take(
        self, due: Sequence[WatchedFile], generation: Generation, told: Told | None, answers: list[Any], why: str
    ) -> None:
        """Take what was read, in the order of `due`; `why` there are fewer answers."""
        self._is_reading = False
        if self._fleet.generation is not generation or not self._is_settled():
            for each in due:
                each.read = None  # what a reload reads may be newer than this
            outcomes = None
        else:
            outcomes = [self._take_one(each, answer, told) for each, answer in zip(due, answers, strict=False)]
            for each in due[len(answers) :]:
                each.read, each.again_s = None, time.monotonic() + AGAIN_S
                outcomes.append(self._refuse(each, f"{each.name}: {why}"))
        if told is not None:
            told(outcomes)
        self._read_asked()

    def _take_one(self, each: WatchedFile, answer: dict[str, Any], told: Told | None) -> tuple[WatchedFile, str]:
        if "value" in answer:
            return self._renew(each, answer["value"])
        if answer["may_settle"] and each.error is None and told is None:
            return self._doubt(each, answer["error"])
        return self._refuse(each, answer["error"])

    def _renew(self, each: WatchedFile, content: Content) -> tuple[WatchedFile, str]:
        is_news = self._fleet.renew_files(KINDS[each.kind], each.files, content)
        was_bad, each.error, each.doubt, each.read_s = each.error is not None, None, None, time.time()
        each.results["success"] += 1
        if is_news and self._fleet.generation is not None:
            each.since_s = each.read_s
            found = contents_of(self._fleet.generation.settings.listeners)
            each.content = next(own for kind, files, own in found if (kind.name, files) == (each.kind, each.files))
        if is_news or was_bad:
            how = "what it has is in force" if is_news else "it is good again, and has what is in force"
            log.info("%s file %s was read again: %s", each.kind, each.name, how)
        return each, RENEWED if is_news else UNCHANGED

    def _doubt(self, each: WatchedFile, error: str) -> tuple[WatchedFile, str]:
        until_s = time.monotonic() + SETTLE_S if each.doubt is None else each.doubt[1]
        each.doubt = error, until_s
        log.info("%s file %s; if that was half of a change, the other half has %g s", each.kind, error, SETTLE_S)
        return each, REFUSED

    def _refuse(self, each: WatchedFile, error: str) -> tuple[WatchedFile, str]:
        each.error, each.doubt = error, None
        each.results["failure"] += 1
        log.error("%s file %s; what it had before stays in force", each.kind, error)
        return each, REFUSED


class _Reading(Target):
    """Reads files in a child, without waiting.

    `done` is called once, with an answer for each: `{"value": ...}`, or `{"error": ..., "may_settle": ...}`, which is
    whether that may be half of a change; if there are fewer, with why.
    """

    def __init__(
        self, watcher: Watcher, wanted: Sequence[tuple[str, Files]], done: Callable[[list[Any], str], None]
    ) -> None:
        """Start it.

        Raises:
            OSError: no process can be started.
        """
        super().__init__(self._read, None)
        self._done = done
        self._received = bytearray()
        self._pid, channel = fork(partial(_answer, wanted))
        self._deadline_s = time.monotonic() + TIMEOUT_S
        self._conn = watcher.delegate(channel, context=self)
        self._conn.read(deadline=self._deadline_s)

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._received += result.buffer
        conn.read(deadline=self._deadline_s)

    def on_completion(self, result: OpResult) -> None:
        """Take the end of what it says, or of the patience with it."""
        if self._conn.closed:
            return
        self._conn.abort()
        if isinstance(result.error, EOFError):
            wait(self._pid)
            why = "the process that reads it has failed; standard error says more"
        else:
            end(self._pid)
            why = f"reading it took longer than {TIMEOUT_S:g} s"
        self._done([json.loads(line) for line in self._received.split(b"\n")[:-1]], why)


def signature_of(files: Iterable[str]) -> Signature:
    """Return what files look like: of a link, what it leads to, as Kubernetes changes no file, but a link."""
    return tuple(map(_signature_of, files))


def _signature_of(file: str) -> tuple[int, ...]:
    try:
        stat = os.stat(file)
    except OSError as error:
        return (error.errno or 0,)
    # The time of its status, too: a file that may be read since a moment ago has the same content as before.
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _answer(wanted: Sequence[tuple[str, Files]], channel: socket.socket) -> None:
    """Read files, in the child."""
    from gaiod.config.file_readers import READERS, Mismatch, Refused  # late: only this process has it

    for kind, files in wanted:
        answer: dict[str, Any]
        try:
            answer = {"value": READERS[kind](files)}
        except Refused as refused:
            answer = {"error": str(refused), "may_settle": isinstance(refused, Mismatch)}
        channel.sendall(json.dumps(answer).encode() + b"\n")
