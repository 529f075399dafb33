"""Reloading the configuration: all of it, or nothing.

Read it in a process of its own, open what is new beside what is there, start workers and wait until
all of them serve: until then nothing has changed. Then let them take over, close what is not needed
any more, and let the old workers drain.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.log.setup import LogError, check_log
from gaiod.settings import ListenerSettings, Settings, default_user_timeout_s
from gaiod.supervisor.preflight import CONFIG_ERROR, Checked, Preflight, PreflightFailed, cannot_start
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Failure, Generation
from gaiod.supervisor.sockets.bind import BindError
from gaiod.supervisor.sockets.listeners import Listeners, Prepared

log = logging.getLogger("gaiod.supervisor")


NO_CHANGES = "nothing has changed; connections go on"
STOPPING = (os.EX_TEMPFAIL, "the daemon is stopping: nothing is reloaded")

Outcome = tuple[int, str]
"""An exit status, and what to say: a number (of the generation, or the new daemon's process), or what was wrong."""

Asker = Callable[[Outcome], None]
"""Who wants to know the outcome."""


class Reloads:
    """Reloads one after the other, and remembers how that went.

    Attributes:
        results: how many were a success, and a failure.
        last_error: what was wrong with the last one; None if nothing was.
        last_s: when the last one ended, in Unix time; None if there was none.
        last_changes: what was different after the last success, a line each.
        last_success_s: when the configuration that is served was loaded, in Unix time.
    """

    def __init__(
        self,
        watcher: Watcher,
        path: Path,
        listeners: Listeners,
        fleet: Fleet,
        *,
        check: Callable[[Settings], str | None],
        begun: Callable[[], None],
        adopted: Callable[[Prepared], None],
        ended: Callable[[], None],
    ) -> None:
        """Reload from `path`.

        Args:
            watcher: the supervisor's.
            path: the configuration file.
            listeners: what is open.
            fleet: its workers.
            check: says why some settings cannot be taken on while the daemon runs; None: they can.
            begun: called when one begins.
            adopted: called when its configuration is in force.
            ended: called at its end.
        """
        self.results: Counter[str] = Counter(success=0, failure=0)
        self.last_error: str | None = None
        self.last_s: float | None = None
        self.last_changes: list[str] = []
        self.last_success_s = time.time()
        self._watcher = watcher
        self._path = path
        self._listeners = listeners
        self._fleet = fleet
        self._check = check
        self._begun = begun
        self._adopted = adopted
        self._finished = ended
        self._is_running = False
        self._is_stopped = False
        self._preflight: Preflight | None = None
        self._askers: list[Asker] = []
        self._next_askers: list[Asker] | None = None

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self._is_running

    def request(self, asker: Asker) -> None:
        """Reload; `asker` is called with the outcome. During a reload, once more after it: the file may be newer."""
        if self._is_running:
            self._next_askers = [*(self._next_askers or []), asker]
        else:
            self._start([asker])

    def stop(self) -> None:
        """Begin no more. One that still reads the file is given up; workers that start are their fleet's business."""
        self._is_stopped = True
        if self._preflight is not None:
            self._preflight.cancel()
            self._preflight = None
            self._end(STOPPING)

    def _start(self, askers: list[Asker]) -> None:
        self._is_running = True
        self._askers = askers
        self._begun()
        log.info("reloading %s", self._path)
        try:
            self._preflight = Preflight(self._watcher, self._path, self._take_checked)
        except OSError as error:
            self._end((os.EX_OSERR, cannot_start(self._path, error)))

    def _take_checked(self, read: Checked | PreflightFailed) -> None:
        self._preflight = None
        if isinstance(read, PreflightFailed):
            self._end((read.status, str(read)))
            return
        refusal = self._check(read.settings)
        if refusal is not None:
            read.code.close()
            self._end((CONFIG_ERROR, refusal))
            return
        try:
            prepared = self._listeners.prepare(read.settings)
        except BindError as error:
            read.code.close()
            self._end((os.EX_OSERR, str(error)))
            return
        before = self._fleet.generation
        assert before is not None
        read.code.follow(before.code)
        generation = Generation(before.number + 1, read.settings, prepared.listeners, read.code, prepared.inlets)
        self._fleet.launch(generation, lambda failure: self._take_launched(prepared, generation, failure))

    def _take_launched(self, prepared: Prepared, generation: Generation, failure: Failure | None) -> None:
        before = self._fleet.generation
        assert before is not None
        if failure is not None:
            self._listeners.abandon(prepared)
            self._end((failure.status, failure.text))
            return
        self._listeners.commit(prepared)
        renewed = self._fleet.take_files_of(generation)
        self._fleet.adopt(generation)
        self._adopted(prepared)
        self.last_success_s = time.time()
        log.info("reloaded: generation %d serves", generation.number)
        self.last_changes = [f"{kind.name} file {files[0]}: what it has is in force" for kind, files in renewed]
        self.last_changes += changes(before, generation)
        for line in self.last_changes or [NO_CHANGES]:
            log.info("%s", line)
        self._end((0, str(generation.number)))

    def _end(self, outcome: Outcome) -> None:
        status, text = outcome
        self.results["failure" if status else "success"] += 1
        self.last_error = text if status else None
        self.last_s = time.time()
        if status:
            log.error("the reload failed, and everything stays as it was:\n%s", text)
        self._is_running = False
        askers, self._askers = self._askers, []
        self._finished()
        for asker in askers:
            asker(outcome)
        if self._next_askers is not None:
            later, self._next_askers = self._next_askers, None
            if self._is_stopped:
                for asker in later:
                    asker(STOPPING)
            else:
                self._start(later)


FIXED = ("user", "group", "control_listen")
"""Settings that stay as they are while the daemon runs."""

KEYS = {
    "accepts_truncation": "truncation",
    "are_required": "verify",
    "closed": "close",
    "control_listen": "control.listen",
    "metrics_listen": "metrics.listen",
    "moved": "move",
    "networks": "from",
    "opened": "open",
    "options": "with",
    "refuses_unknown_names": "unknown_name",
    "starts_by_handler": "start",
}
"""What the file calls settings that have another name. All others are called as their key, with the unit behind it."""

HANDLERS_OWN = ("servers", "sources", "inlets", "takes_admin_state", "has_state", "buffer_limit_bytes")
"""Settings of a listener that follow from its handler and its options."""

ABSENT = object()


def key_of(setting: str) -> str:
    """Return the key of the file that fills a setting."""
    return KEYS.get(setting, setting.removesuffix("_s").removesuffix("_bytes"))


def check_change(before: Settings, after: Settings) -> str | None:
    """Return why settings cannot be taken on while the daemon runs; None: they can."""
    for name in FIXED:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            change = f"from {old or 'false'} to {new or 'false'}"
            return f"{key_of(name)}: a reload cannot change it {change}; restart gaiod, or leave it"
    try:
        check_log(after.log)
    except LogError as error:
        return str(error)
    return None


def changes(before: Generation, after: Generation) -> list[str]:
    """Return what is different between two generations, a line each."""
    old = {listener.name: listener for listener in before.settings.listeners}
    new = {listener.name: listener for listener in after.settings.listeners}
    lines = [f"listener {name}: removed; its connections drain" for name in old if name not in new]
    for name, listener in new.items():
        if name not in old:
            lines.append(f"listener {name}: added, {listener.handler} on {listener.bind}")
            continue
        keys = _changed(_own_settings(old[name]), _own_settings(listener))
        if not after.has_same_code(before, listener.handler):
            keys.append("code")
        if keys or listener != old[name]:
            lines.append(f"listener {name}: changed: {', '.join(keys) or 'what its handler makes of its options'}")
    one, other = (replace(each.settings, listeners=()) for each in (before, after))
    lines += [f"changed: {key}" for key in _changed(one, other)]
    return lines


def _own_settings(listener: ListenerSettings) -> dict[str, Any]:
    """Return the settings of a listener, by their keys, but for those that follow from others."""
    own = {each.name: getattr(listener, each.name) for each in fields(listener) if each.name not in HANDLERS_OWN}
    if listener.user_timeout_s == default_user_timeout_s(listener.idle_timeout_s):
        own["user_timeout_s"] = ABSENT
    return {key_of(name): value for name, value in own.items()}


def _parts(value: Any) -> dict[str, Any] | None:
    """Return what a setting consists of, by the keys of the file; None: it has none."""
    if is_dataclass(value):
        return {key_of(each.name): getattr(value, each.name) for each in fields(value)}
    return dict(value) if isinstance(value, Mapping) else None


def _changed(old: Any, new: Any, at: str = "") -> list[str]:
    """Return the keys at which two settings differ, each with those above it, as far down as both have keys."""
    if old == new:
        return []
    parts, others = _parts(old), _parts(new)
    if parts is None or others is None:
        return [at]
    changed = []
    for key in {**parts, **others}:
        below = f"{at}.{key}" if at else str(key)
        changed += _changed(parts.get(key, ABSENT), others.get(key, ABSENT), below)
    return changed
