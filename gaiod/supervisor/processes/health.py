"""Health: workers whose heartbeat is old are hung, and killed; workers that are worn are replaced."""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.settings import RecycleSettings
from gaiod.stats.cells import CELL
from gaiod.supervisor.processes.child import Phase
from gaiod.supervisor.processes.fleet import TOO_LATE, Fleet
from gaiod.supervisor.processes.generation import Member

log = logging.getLogger("gaiod.supervisor")

TICK_S = 0.25
"""How often it looks, and so how late it may notice."""

LATE_S = 4 * TICK_S
"""If it completes a pass so late, the machine may have stood still, and the workers with it: they get another tick."""

START_TIMEOUT_S = 30.0
"""What a worker may take until it serves: importing handlers, mostly."""

DUMP_S = 0.5
"""What a hung worker has to leave its stack behind, before it is killed. It takes milliseconds."""

WEAR_INTERVAL_S = 1.0
RETRY_S = 30.0
"""A worn worker whose successor failed goes on; another is tried after this."""


class Health:
    """Looks at a fleet, from its making on. `ticked` is called each time."""

    def __init__(self, watcher: Watcher, fleet: Fleet, ticked: Callable[[], None]) -> None:
        self._watcher = watcher
        self._fleet = fleet
        self._ticked = ticked
        self._last_s = self._wear_s = time.monotonic()
        self._queue: deque[tuple[int, str, Callable[[bool], None]]] = deque()
        self._is_replacing = False
        watcher.timer(time.monotonic() + TICK_S, context=self._tick)

    @property
    def all_beat(self) -> bool:
        """Whether no worker hangs, by what it has written down; those that are being ended not counted."""
        now_s = time.monotonic()
        return not any(self._hangs(member, now_s) and member.kill_reason is None for member in self._fleet)

    def replace_all(self, why: str, done: Callable[[list[int], list[int]], None]) -> None:
        """Replace the workers one after the other; `done` gets the slots where that worked, and where it did not.

        Those of earlier generations that keep connections drain: they have successors already.
        """
        replaced: list[int] = []
        failed: list[int] = []
        numbers = sorted(self._fleet.serving)
        for member in self._fleet.keeping:
            self._fleet.end_keeping(member)
        if not numbers:
            done(replaced, failed)

        def one_more(number: int, worked: bool) -> None:
            (replaced if worked else failed).append(number)
            if number == numbers[-1]:
                done(replaced, failed)

        for number in numbers:
            self._queue.append((number, why, partial(one_more, number)))
        self._replace_next()

    def _tick(self, result: OpResult) -> None:
        now_s = time.monotonic()
        is_late = now_s - self._last_s > LATE_S
        self._last_s = now_s
        for member in self._fleet:
            if member.kill_s is not None and now_s >= member.kill_s and not is_late:
                self._fleet.kill_member(member, TOO_LATE)
            elif not is_late and member.kill_reason is None and self._hangs(member, now_s):
                self._end_hung(member, now_s)
        if now_s >= self._wear_s + WEAR_INTERVAL_S:
            self._wear_s = now_s
            self._find_worn(now_s)
        self._fleet.reap()
        self._ticked()
        self._watcher.timer(now_s + TICK_S, context=self._tick)

    def _hangs(self, member: Member, now_s: float) -> bool:
        if member.process.phase is Phase.STARTING:
            return now_s - member.process.started_s > START_TIMEOUT_S
        return member.process.heartbeat_age_s(now_s) > member.generation.settings.heartbeat_timeout_s

    def _end_hung(self, member: Member, now_s: float) -> None:
        age_s = member.process.heartbeat_age_s(now_s)
        number, pid = member.process.number, member.process.pid
        if member.process.phase is Phase.STARTING:
            member.kill_reason = f"it did not serve within {START_TIMEOUT_S:g} s"
        else:
            member.kill_reason = f"its loop had completed no pass for {age_s:.1f} s"
        log.error("worker %d, process %d: %s; ending it", number, pid, member.kill_reason)
        member.is_hung = True
        member.kill_s = now_s + DUMP_S
        member.process.abort()

    def _find_worn(self, now_s: float) -> None:
        generation = self._fleet.generation
        if generation is None or self._fleet.is_stopping:
            return
        for member in self._fleet.keeping:
            why = _wear_of(member, generation.settings.recycle, now_s)
            if why is not None:
                log.info(
                    "worker %d, process %d, keeps no connections any more: %s",
                    member.process.number,
                    member.process.pid,
                    why,
                )
                self._fleet.end_keeping(member)
        if self._queue or self._is_replacing:
            return
        for number, member in self._fleet.serving.items():
            why = _wear_of(member, generation.settings.recycle, now_s)
            if why is not None:
                log.info("worker %d, process %d, is replaced: %s", number, member.process.pid, why)
                self._queue.append((number, "recycle", self._recycled))
        self._replace_next()

    def _recycled(self, worked: bool) -> None:
        if not worked:
            self._wear_s = time.monotonic() + RETRY_S

    def _replace_next(self) -> None:
        if self._is_replacing or not self._queue:
            return
        number, why, done = self._queue.popleft()
        self._is_replacing = True

        def took_over(worked: bool) -> None:
            self._is_replacing = False
            done(worked)
            self._replace_next()

        self._fleet.replace(number, why, took_over)


def _wear_of(member: Member, limits: RecycleSettings, now_s: float) -> str | None:
    """Return which limit a worker has reached, in words; None if none."""
    memory = member.process.memory
    accepted = sum(memory.row(index)[CELL["accepted"]] for index in range(len(memory.keys)))
    return member.process.is_worn(limits, accepted, now_s)
