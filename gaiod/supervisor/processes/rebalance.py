"""Evening out established connections: workers that have more of a listener than others hand some over."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import CELL
from gaiod.supervisor.processes.crash_loop import FAILURES_WINDOW_S
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Member

log = logging.getLogger("gaiod.supervisor")

UNEVEN = 0.1
"""More than this part of the mean above or below it is uneven."""

SETTLED_S = FAILURES_WINDOW_S
"""How long a worker has served that replaces a dead one, before connections go to it by themselves. If it was to die
like the one before, it would take them along; and clients that were lost have connected again by then."""

UNPLANNED = ("exit", "signal", "watchdog")
"""Why a worker is there that replaces a dead one: of `cells.RESTART_REASONS`."""

LOOK_S = 0.02
ARRIVAL_S = 1.0
"""How long takers may take to count what has come."""

Counts = dict[int, int]
"""Connections of a listener, by worker."""


@dataclass(slots=True)
class Outcome:
    """What became of it.

    Attributes:
        moved: how many connections have another worker now.
        stayed: how many were to move and did not, by reason (`cells.STAY_REASONS`).
        before, after: connections by listener and worker.
    """

    moved: int = 0
    stayed: Counter[str] = field(default_factory=Counter)
    before: dict[str, Counts] = field(default_factory=dict)
    after: dict[str, Counts] = field(default_factory=dict)

    @property
    def is_even(self) -> bool:
        """Whether no worker has too many or too few of any listener."""
        return all(map(is_even, self.after.values()))


class Rebalancing:
    """Evens connections out, when it is told to, and after a worker has died."""

    def __init__(self, watcher: Watcher, fleet: Fleet) -> None:
        self._watcher = watcher
        self._fleet = fleet
        self._left = 0  # workers that have not answered yet
        self._outcome = Outcome()
        self._done: Callable[[Outcome], None] | None = None
        self._evened_s = 0.0  # since when the last worker served after whose start connections were evened out

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self._done is not None

    def obstacle(self, settings: ListenerSettings) -> tuple[str, int] | None:
        """Return why connections of a listener cannot move, and the exit status that says so; None: they can."""
        generation = self._fleet.generation
        if generation is None or not generation.settings.handover.enabled:
            return "handover.enabled is false", os.EX_USAGE
        if not settings.handover:
            return "it has handover: false", os.EX_USAGE
        if not settings.has_state:
            return f"its handler, {settings.handler}, has no state_version: it cannot describe them", os.EX_USAGE
        if settings.tls is not None:
            return "it has tls: connections that speak it stay with their worker", os.EX_USAGE
        if settings.name in self._fleet.drained:
            return "it is drained; a reload opens it again", os.EX_TEMPFAIL
        return None

    def begin(self, names: Sequence[str], done: Callable[[Outcome], None]) -> None:
        """Even out the connections of these listeners; `done` gets the outcome. None may be under way."""
        self._done = done
        members = dict(self._fleet.serving)
        self._outcome = Outcome(before={name: _counts(members, name) for name in names})
        moves = plan(self._outcome.before)
        arrived = _arrived(members, names)
        self._left = len(moves)
        for number, takers in moves.items():
            member = members[number]
            to = [{**(members[taker].process.takes or {}), "counts": counts} for taker, counts in takers.items()]
            timeout_s = member.generation.settings.handover.timeout_s
            question = {"verb": "rebalance", "to": to, "handover_timeout_s": timeout_s}
            member.process.ask(question, partial(self._take, member, members, arrived))
        if not moves:
            self._end(members)

    def look(self) -> None:
        """Even all out, if a worker that replaces a dead one has served for long enough, and none has died since."""
        generation, now_s = self._fleet.generation, time.monotonic()
        serving = self._fleet.serving.values()
        started_s = [member.process.ready_s or now_s for member in serving if member.why in UNPLANNED]
        last_s = max(started_s, default=0.0)
        is_due = self._evened_s < last_s <= now_s - SETTLED_S
        if not is_due or self.is_running or generation is None or len(serving) < generation.settings.workers:
            return
        self._evened_s = last_s
        names = [each.name for each in generation.settings.listeners if self.obstacle(each) is None]
        uneven = [name for name in names if not is_even(_counts(self._fleet.serving, name))]
        if uneven:
            log.info("connections are uneven since a worker died: evening out those of %s", ", ".join(uneven))
            self.begin(uneven, _log)

    def _take(
        self, member: Member, members: Mapping[int, Member], arrived: int, outcome: dict[str, Any] | None
    ) -> None:
        self._left -= 1
        if outcome is not None:  # else it has died
            member.process.log_handover(outcome)
            self._outcome.moved += outcome["moved"]
            self._outcome.stayed.update(outcome["stayed"])
        if self._left == 0:
            self._await_arrival(members, arrived, time.monotonic() + ARRIVAL_S)

    def _await_arrival(self, members: Mapping[int, Member], arrived: int, until_s: float) -> None:
        """Wait until all that was given is counted by who has taken it."""
        now_s = time.monotonic()
        if _arrived(members, list(self._outcome.before)) >= arrived + self._outcome.moved or now_s >= until_s:
            self._end(members)
        else:
            again = partial(self._await_arrival, members, arrived, until_s)
            self._watcher.timer(now_s + LOOK_S, context=lambda result: again())

    def _end(self, members: Mapping[int, Member]) -> None:
        self._outcome.after = {name: _counts(members, name) for name in self._outcome.before}
        done, self._done = self._done, None
        if done is not None:
            done(self._outcome)


def is_even(counts: Mapping[int, int]) -> bool:
    """Tell whether no worker is further from the mean than it has to be, by more than `UNEVEN` of it."""
    mean = sum(counts.values()) / max(1, len(counts))
    return all(abs(count - mean) < 1 or abs(count - mean) <= UNEVEN * mean for count in counts.values())


def plan(counts: Mapping[str, Mapping[int, int]]) -> dict[int, dict[int, dict[str, int]]]:
    """Return who hands over to whom how many connections of which listener. What is even enough stays as it is.

    Args:
        counts: connections by listener and worker.
    """
    moves: dict[int, dict[int, dict[str, int]]] = {}
    for name, each in counts.items():
        if is_even(each):
            continue
        share, more = divmod(sum(each.values()), len(each))
        fullest = sorted(each, key=lambda worker: -each[worker])
        over = {worker: each[worker] - share - (i < more) for i, worker in enumerate(fullest)}
        takers = [worker for worker in reversed(fullest) if over[worker] < 0]
        for giver in fullest:
            while over[giver] > 0:
                taker = takers[0]
                count = min(over[giver], -over[taker])
                moves.setdefault(giver, {}).setdefault(taker, {})[name] = count
                over[giver] -= count
                over[taker] += count
                if over[taker] == 0:
                    del takers[0]
    return moves


def _counts(members: Mapping[int, Member], name: str) -> Counts:
    return {number: member.connections_of({name}) for number, member in sorted(members.items())}


def _arrived(members: Mapping[int, Member], names: Sequence[str]) -> int:
    """Return how many connections have come from other workers."""
    memories = [member.process.memory for member in members.values()]
    rows = [memory.row(i) for memory in memories for i, key in enumerate(memory.keys) if key[0] in names]
    return sum(row[CELL["moved_in"]] for row in rows)


def _log(outcome: Outcome) -> None:
    """Write down what was done after a worker's death; what each worker has handed over is in the log already."""
    if outcome.moved and not outcome.is_even:
        log.warning("connections are not even yet: `gaiod rebalance` tries again")
