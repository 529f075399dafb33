"""The fleet: every worker there is, those that start, serve and drain; and what becomes of them.

A generation is one configuration with its sockets. Its workers are launched together and serve from
the moment that all of them are ready: until then the generation before it does. Later each is
replaced on its own: at once when it died, and in good order when it is worn.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.supervisor.processes.bans import Bans
from gaiod.supervisor.processes.child import Phase, WorkerProcess
from gaiod.supervisor.processes.crash_loop import FAILURES_MAX, FAILURES_WINDOW_S, SETTLED_S, CrashLoop
from gaiod.supervisor.processes.feeder import Feeding
from gaiod.supervisor.processes.generation import Code, Failure, Generation, Launch, Member
from gaiod.supervisor.processes.kept_closes import KeptCloses
from gaiod.supervisor.processes.seats import Seats
from gaiod.supervisor.processes.shared_state import SharedState, appoint
from gaiod.supervisor.processes.slots import Key, Slot
from gaiod.supervisor.processes.ticket_keys import TicketKeys
from gaiod.supervisor.sockets.listeners import OpenListener
from gaiod.ticket_scope import scope_of
from gaiod.watched_files import Content, FileKind, Files, contents_of

log = logging.getLogger("gaiod.supervisor")

DRAIN_MARGIN_S = 2.0
"""A draining worker has a deadline of its own; one that has not ended by so much later never will."""

SILENCE_S = 0.5
"""How long an ended worker's last words are waited for, should a child of its own hold its channel open."""


STOPPED = "the daemon stops now"
TOO_LATE = "it did not end in time"


class Fleet:
    """Starts, replaces and ends workers.

    Attributes:
        slots: the counters of each slot, by number.
        past: what slots have counted that there are no more.
        serving: the member that serves, by slot.
        waiting: slots without a worker, because the last ones died at once; the next starts after a pause.
        generation: the one that serves; None before the first.
        feeding: the process that runs the generation's sources.
        instances: how many workers there have been, those of the daemons before this one included.
        bans: whom an operator has banned.
        closes: what is remembered of connections that closed.
        seats: where workers count for limits that are theirs together.
        shared: what the workers of each listener share.
        tickets: the keys of TLS tickets.
        drained: the names of its listeners that are not served any more.
        is_stopping: it ends, and starts nobody any more.
        was_forced: a worker did not end in order when the daemon stopped.
    """

    def __init__(self, watcher: Watcher, *, crash_looping: Callable[[], None], changed: Callable[[], None]) -> None:
        """Make a fleet without workers.

        Args:
            watcher: the supervisor's.
            crash_looping: called when workers of a slot die again and again.
            changed: called when a worker serves, or has ended, and when the feeder has.
        """
        self.slots: dict[int, Slot] = {}
        self.past = Slot(-1)
        self.serving: dict[int, Member] = {}
        self.waiting: set[int] = set()
        self.generation: Generation | None = None
        self.instances = 0
        self.bans = Bans()
        self.closes = KeptCloses()
        self.seats = Seats()
        self.shared = SharedState()
        self.tickets = TicketKeys()
        self.drained: set[str] = set()
        self.is_stopping = False
        self.was_forced = False
        self._watcher = watcher
        self._crash_looping = crash_looping
        self._changed = changed
        self.feeding = Feeding(watcher, changed, self._fed)
        self._members: list[Member] = []
        self._codes: set[Code] = set()
        self._crash_loop = CrashLoop()

    def __iter__(self) -> Iterator[Member]:
        """Every worker that has not ended, the oldest first."""
        return iter(list(self._members))

    def __len__(self) -> int:
        return len(self._members)

    @property
    def keeping(self) -> list[Member]:
        """Workers of earlier generations, which keep the connections of unchanged listeners."""
        return [member for member in self._members if member.process.phase is Phase.KEEPING]

    def _fed(self) -> list[WorkerProcess]:
        """Return who gets messages from the feeder: those that serve, and those that keep subscribers."""
        members = (*self.serving.values(), *self.keeping)
        return [member.process for member in members if member.generation.feed_keys]

    @property
    def is_over(self) -> bool:
        """Whether it was told to end, and nobody is left."""
        return self.is_stopping and not self._members and self.feeding.is_over

    @property
    def connections(self) -> int:
        """How many connections are open, in all workers."""
        return sum(member.process.memory.connections for member in self._members)

    # -- generations -----------------------------------------------------------------------------------

    def launch(self, generation: Generation, done: Callable[[Failure | None], None]) -> None:
        """Start the workers of a generation; `done(None)` when all are ready, else with why not: then none will."""
        if self.is_stopping:
            done(Failure("the daemon stops", os.EX_SOFTWARE))
            return
        launch = Launch(generation, done)
        self._codes.add(generation.code)
        self.feeding.prepare(generation)
        for number in range(generation.settings.workers):
            try:
                launch.members.append(self._start(number, generation, launch=launch))
            except OSError as error:
                self._give_up(launch, Failure(_cannot_start(number, error), os.EX_OSERR))
                return

    def adopt(self, generation: Generation) -> None:
        """Let a generation whose launch is done serve.

        Those before it accept no more. Connections of listeners that it serves unchanged stay where they are, others
        drain. Of a listener that an operator had drained, none stay.
        """
        before, self.generation = self.generation, generation
        keeping, drained = self.keeping, frozenset(self.drained)
        self.drained.clear()
        self.waiting.clear()
        old, self.serving = self.serving, {}
        for member in self:
            if member.generation is generation:
                self.serving[member.process.number] = member
                member.process.serve()
                if before is not None:
                    self.slots[member.process.number].restarts["reload"] += 1
            elif member.process.phase is Phase.STARTING:
                self.kill_member(member, "its generation is over")
        self._tell_takers()
        for member in (*old.values(), *keeping):
            self._keep(member, generation, drained)
        self._appoint()
        self.feeding.adopt(generation)
        self._forget()

    # -- replacing and ending ----------------------------------------------------------------------------

    def replace(self, number: int, why: str, took_over: Callable[[bool], None]) -> None:
        """Start a successor for the worker of a slot, which drains once it serves.

        Args:
            number: the slot.
            why: one of `stats.cells.RESTART_REASONS`.
            took_over: called with whether it worked; if not, all is as it was.
        """
        generation = self.generation
        if generation is None or self.is_stopping or number not in self.serving:
            took_over(False)
            return
        try:
            self._start(number, generation, why=why, took_over=took_over)
        except OSError as error:
            log.error("%s", _cannot_start(number, error))
            took_over(False)

    def pass_socket(self, listener: OpenListener) -> None:
        """Have workers, or the feeder, serve the one socket that a listener has now, instead of the one that it had."""
        if self.feeding.serves(listener):
            self.feeding.renew_inlets()
        for member in self._members:
            if member.process.phase in (Phase.STARTING, Phase.SERVING):
                for number, each in enumerate(member.generation.listeners):
                    if each is listener:
                        member.process.pass_socket(number, listener.sockets[0])

    def renew_files(self, kind: FileKind, files: Files, content: Content) -> bool:
        """Have workers serve with what was read of files, also those that start later; tell whether that is news."""
        generations = {member.generation.number: member.generation for member in self._members}
        if self.generation is not None:
            generations[self.generation.number] = self.generation
        said = {"kind": kind.name, "files": files, "value": content}
        renewed = {
            number: {**said, "ticket_keys": self.tickets.of(generation.settings.listeners)}
            for number, generation in generations.items()
            if generation.renew(kind, files, content)
        }
        for member in self._members:
            if member.generation.number in renewed:
                member.process.send({"file": renewed[member.generation.number]})
        return bool(renewed)

    def take_files_of(self, generation: Generation) -> list[tuple[FileKind, Files]]:
        """Have workers serve with what a generation has read of files, which is to serve; return those with news.

        So a listener of which only such a file has changed is unchanged, and its connections stay.
        """
        contents = contents_of(generation.settings.listeners)
        return [(kind, files) for kind, files, content in contents if self.renew_files(kind, files, content)]

    def ban(self, network: str, for_s: float | None) -> None:
        """Have all workers close the connections of a network, and accept none any more.

        Raises:
            ValueError: too many are banned.
        """
        self.bans.add(network, for_s)
        self._tell_bans([network], [])

    def unban(self, network: str) -> None:
        """Have all workers accept a network again."""
        self.bans.remove(network)
        self._tell_bans([], [network])

    def end_bans(self) -> None:
        """End the bans whose time is over."""
        over = self.bans.expired()
        if over:
            log.info("%s may connect again: the time of the ban%s is over", ", ".join(over), "s"[: len(over) != 1])
            self._tell_bans([], over)

    def _tell_bans(self, added: list[str], removed: list[str]) -> None:
        for member in self._members:
            member.process.send({"bans": {"added": added, "removed": removed}})

    def rotate_tickets(self) -> None:
        """Have all workers use new keys for tickets, where it is time."""
        if self.generation is not None and self.tickets.rotate(self.generation.settings.listeners):
            for member in self._members:
                member.process.send({"ticket_keys": self.tickets.of(member.generation.settings.listeners)})

    def drain_listener(self, name: str, timeout_s: float) -> None:
        """Have all workers stop serving a listener; later ones do not begin to."""
        self.drained.add(name)
        for member in self._members:
            if member.kept is not None:
                member.kept -= {name}
            member.process.drain_listener(name, timeout_s)

    def end_keeping(self, member: Member) -> None:
        """Have a worker of an earlier generation drain all that it keeps."""
        assert self.generation is not None
        self._drain(member, self.generation.settings.drain_timeout_s, eager=False, handover=self.handover())

    def handover(self) -> dict[str, Any]:
        """Return what a worker of another daemon is told of those that take its connections."""
        return self._handover_to(list(self.serving.values()))

    def drain(self, timeout_s: float, *, eager: bool, handover: Mapping[str, Any] | None = None) -> None:
        """Have every worker end in good order; none is started any more.

        Args:
            timeout_s: what their connections have.
            eager: as of `WorkerProcess.drain`.
            handover: to whom they hand over those that can be: another daemon's workers; None: to nobody.
        """
        self.is_stopping = True
        for member in self:
            if member.process.phase is Phase.STARTING:
                self.kill_member(member, STOPPED)
            else:
                self._drain(member, timeout_s, eager=eager, handover=handover)
        self._end_feeding()

    def kill(self) -> None:
        """End every process now."""
        self.is_stopping = True
        for member in self:
            self.kill_member(member, STOPPED)
        self.feeding.kill()
        self._close_codes()

    def kill_member(self, member: Member, why: str) -> None:
        """Kill a worker, for a reason that is told when it has ended."""
        member.kill_reason = member.kill_reason or why
        member.process.kill()

    # -- the beginning of a worker -----------------------------------------------------------------------

    def _start(
        self,
        number: int,
        generation: Generation,
        *,
        launch: Launch | None = None,
        why: str = "reload",
        took_over: Callable[[bool], None] | None = None,
    ) -> Member:
        slot = self.slots.setdefault(number, Slot(number))
        seat = self.seats.open() if generation.counts_together else None
        memory = slot.open(generation.keys)
        closes = self.closes.open()
        self.instances += 1
        process = WorkerProcess(
            number, memory, self._watcher, self._take_change, self._take_share, instance=self.instances
        )
        not_served = self.drained if generation is self.generation else set()
        try:
            message = generation.message_to(number, self.feeding.address)
            message["closes"] = closes
            message["bans"] = self.bans.networks
            message["seat"] = None if seat is None else {"fd": self.seats.fd, "number": seat}
            message["ticket_keys"] = self.tickets.of(generation.settings.listeners)
            message["shared"] = {key[0]: dict(self.shared.of(key)) for key in memory.keys}
            process.start(message, generation.sockets_of(number, not_served))
        except BaseException:
            slot.retire(memory)
            self.closes.retire(closes)
            self.seats.retire(seat)
            raise
        member = Member(process, generation, closes, launch, why, took_over, seat=seat)
        self._members.append(member)
        self._appoint()
        return member

    def _appoint(self) -> None:
        """Tell workers what they lead, after a change of who serves."""
        appoint(self._members, self.serving)

    def _take_share(self, process: WorkerProcess, said: dict[str, Any]) -> None:
        """Take what a worker shares."""
        for member in self._members:
            if member.process is process:
                self.shared.take(member, said, self._members)
                return

    def _take_change(self, process: WorkerProcess) -> None:
        """Take what a worker has said, or that it says no more."""
        for member in self:
            if member.process is process:
                if process.ready_s is not None and process.phase is Phase.STARTING and member.kill_reason is None:
                    self._ready(member)
                if process.leaving and process.phase in (Phase.SERVING, Phase.KEEPING):
                    process.phase = Phase.DRAINING
                    self._left(member)
                self._reap_one(member)

    def _left(self, member: Member) -> None:
        """Replace a worker that somebody has told to end, behind the supervisor's back: its queue waits."""
        number = member.process.number
        if self.serving.get(number) is member:
            log.warning("worker %d, process %d, was asked to end; starting another one", number, member.process.pid)
            del self.serving[number]
            self._restart(number, "signal")
            self._appoint()

    def _ready(self, member: Member) -> None:
        member.process.phase = Phase.SERVING
        launch = member.launch
        if launch is None:
            self._take_over(member)
        elif all(each.process.phase is Phase.SERVING for each in launch.members):
            for each in launch.members:
                each.launch = None
            launch.done(None)

    def _take_over(self, member: Member) -> None:
        number = member.process.number
        before = self.serving.get(number)
        self.serving[number] = member
        member.process.serve()
        self.slots[number].restarts[member.why] += 1
        self._tell_takers()
        if before is not None:
            timeout_s = member.generation.settings.drain_timeout_s
            self._drain(before, timeout_s, eager=False, handover=self._handover_to([member]))
        self._appoint()
        log.info("worker %d serves again, process %d", number, member.process.pid)
        member.report(True)
        self._changed()

    # -- the end of a worker -----------------------------------------------------------------------------

    def reap(self) -> None:
        """See who has ended: SIGCHLD came."""
        for member in self:
            self._reap_one(member)
        self.feeding.reap()

    def _reap_one(self, member: Member) -> None:
        status = member.process.exit_status()
        if status is None or member not in self._members:
            return
        now_s = time.monotonic()
        member.ended_s = member.ended_s or now_s
        if not member.process.silent and now_s < member.ended_s + SILENCE_S:
            return  # what it said last has not been read; the channel's end, or the next look, leads here again
        self._members.remove(member)
        was, number = member.process.phase, member.process.number
        stack = member.process.collect()
        self.closes.retire(member.closes)
        self.seats.retire(member.seat)
        self.slots[number].retire(member.process.memory, member.process.cpu_s())
        if stack and not self.is_stopping:
            log.error("worker %d, process %d, was here when it ended:\n%s", number, member.process.pid, stack)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        if member.kill_reason is not None:
            how += f" ({member.kill_reason})"
        self._ended(member, was, how, "signal" if status < 0 else "exit")
        self._appoint()
        self._forget()
        self._end_feeding()
        self._changed()

    def _end_feeding(self) -> None:
        """End the feeder, once nobody is left that it feeds."""
        if self.is_stopping and not self._members:
            self.feeding.stop()

    def _ended(self, member: Member, was: Phase, how: str, why: str) -> None:
        """Draw the consequences of a worker's end."""
        process, number = member.process, member.process.number
        member.report(False)
        if self.serving.get(number) is member:
            del self.serving[number]
        if member.launch is not None:
            if process.failed is not None:
                self._give_up(member.launch, Failure(process.failed, process.failed_status))
            else:
                self._give_up(member.launch, Failure(f"worker {number} ended {how} before it served", os.EX_SOFTWARE))
        elif self.is_stopping or was in (Phase.KEEPING, Phase.DRAINING):
            in_order = member.kill_reason in (STOPPED, "its generation failed") or how.endswith(" 0")
            self.was_forced |= self.is_stopping and not in_order
            log.log(
                logging.INFO if in_order else logging.ERROR, "worker %d, process %d, ended %s", number, process.pid, how
            )
        elif was is Phase.SERVING:
            log.error("worker %d, process %d, ended %s", number, process.pid, how)
            self._start_again(member, "watchdog" if member.is_hung else why)
        elif member.generation is self.generation:
            log.error("worker %d: %s", number, process.failed or f"it ended {how} before it served")
            if number not in self.serving:
                self._start_again(member, member.why)

    def _start_again(self, member: Member, why: str) -> None:
        number, ready_s, now_s = member.process.number, member.process.ready_s, time.monotonic()
        pause_s = self._crash_loop.pause_s(number, 0.0 if ready_s is None else now_s - ready_s, now_s)
        if pause_s is None:
            log.error(
                "worker %d ended before it had served for %g s, %d times in %g s: restarting does not help; giving up",
                number, SETTLED_S, FAILURES_MAX, FAILURES_WINDOW_S,
            )  # fmt: skip
            self._crash_looping()
        elif pause_s == 0:
            log.info("worker %d is started again", number)
            self._restart(number, why)
        else:
            log.warning("worker %d is started again in %g s", number, pause_s)
            self.waiting.add(number)
            self._watcher.timer(now_s + pause_s, context=lambda result: self._restart(number, why))

    def _restart(self, number: int, why: str) -> None:
        self.waiting.discard(number)
        generation = self.generation
        if self.is_stopping or generation is None or number >= generation.settings.workers:
            return
        starting = (m for m in self if m.process.phase is Phase.STARTING and m.generation is generation)
        if number in self.serving or any(member.process.number == number for member in starting):
            return
        try:
            self._start(number, generation, why=why)
        except OSError as error:
            log.error("%s", _cannot_start(number, error))
            self.waiting.add(number)
            self._watcher.timer(time.monotonic() + 1.0, context=lambda result: self._restart(number, why))

    def _give_up(self, launch: Launch, why: Failure) -> None:
        for member in launch.members:
            member.launch = None
            member.process.phase = Phase.DRAINING
            self.kill_member(member, "its generation failed")
        self.feeding.withdraw()
        self._close_codes()
        launch.done(why)

    def _keep(self, member: Member, generation: Generation, drained: frozenset[str]) -> None:
        """Have a worker of an earlier generation keep what this one serves unchanged, and drain everything else."""
        kept = generation.unchanged(member.generation) - drained
        member.kept = kept if member.kept is None else kept & member.kept
        handover = self.handover()
        if not member.kept:
            self._drain(member, generation.settings.drain_timeout_s, eager=False, handover=handover)
            return
        member.process.keep(sorted(member.kept), generation.settings.drain_timeout_s, handover)
        connections = member.connections_of(member.kept)
        if connections:
            log.info(
                "%d connection%s of %d unchanged listener%s stay%s with worker %d of generation %d, process %d",
                connections, "s"[: connections != 1], len(member.kept), "s"[: len(member.kept) != 1],
                "s"[: connections == 1], member.process.number, member.generation.number, member.process.pid,
            )  # fmt: skip

    def _tell_takers(self) -> None:
        """Tell those that may be handing their connections over who serves now: a worker that they know may be gone."""
        for member in self._members:
            if member.process.phase in (Phase.KEEPING, Phase.DRAINING):
                member.process.tell_takers(self.handover().get("to", ()))

    def _handover_to(self, takers: Sequence[Member]) -> dict[str, Any]:
        """Return what a worker is told of those that take its connections; nothing: it keeps them."""
        assert self.generation is not None
        settings = self.generation.settings.handover
        addresses = [member.process.takes for member in takers if member.process.takes is not None]
        return {"to": addresses, "handover_timeout_s": settings.timeout_s} if settings.enabled and addresses else {}

    def _drain(
        self, member: Member, timeout_s: float, *, eager: bool, handover: Mapping[str, Any] | None = None
    ) -> None:
        member.process.phase = Phase.DRAINING
        member.process.drain(timeout_s, eager=eager, handover=handover)
        handover_s = (handover or {}).get("handover_timeout_s", 0.0)  # the drain begins after it
        member.kill_s = time.monotonic() + handover_s + timeout_s + DRAIN_MARGIN_S

    def _forget(self) -> None:
        """Forget the counters of slots and listeners that are not configured any more and have no worker; and code."""
        self._close_codes()
        generations = {member.generation.number: member.generation for member in self._members}
        if self.generation is not None:
            generations[self.generation.number] = self.generation
            for number in range(self.generation.settings.workers, max(self.slots, default=0) + 1):
                if number in self.slots and not any(member.process.number == number for member in self._members):
                    self.past.absorb(self.slots.pop(number))
        known: dict[Key, set[str]] = {}
        for generation in generations.values():
            for key, servers in generation.keys.items():
                known.setdefault(key, set()).update(servers)
        for slot in (self.past, *self.slots.values()):
            slot.forget(known)
        self.shared.forget(known)
        self.tickets.forget({scope_of(each) for one in generations.values() for each in one.settings.listeners})

    def _close_codes(self) -> None:
        """Close the code of generations that nobody runs, and nobody will be started with."""
        used = {member.generation.code for member in self._members}
        if self.generation is not None and (self._members or not self.is_stopping):
            used.add(self.generation.code)
        for code in self._codes - used:
            code.close()
        self._codes &= used


def _cannot_start(number: int, error: OSError) -> str:
    return f"worker {number} cannot be started: {error}; see the limits on processes and memory"
