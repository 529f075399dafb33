"""The feeder, seen from its supervisor: started when a listener takes messages, and again whenever it dies."""

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.plugins import pinned
from gaiod.process.backoff import Backoff
from gaiod.supervisor.processes.child import ChildProcess, WorkerProcess
from gaiod.supervisor.processes.feeder_counts import FeederMemory, SourceCounts, SourceKey
from gaiod.supervisor.processes.generation import Generation
from gaiod.supervisor.sockets.feeder_socket import FeederSocket
from gaiod.supervisor.sockets.listeners import OpenListener

log = logging.getLogger("gaiod.supervisor")

SETTLED_S = 1.0
"""A feeder that has run for so long is not one that cannot: when it dies, it is started again at once."""

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
"""Otherwise after this; twice as long after each further one. It is never given up: workers go on without it."""

FED_S = 2.0
"""How long workers may take to say that messages get to them, before sources begin all the same."""

START_TIMEOUT_S = 30.0
"""What a feeder may take until its loop first completes a pass."""

STOP_S = 5.0
"""What sources may take to stop."""

DUMP_S = 0.5
"""What a hung feeder has to leave its stack behind, before it is killed."""

LATE_S = 1.0
"""Looks that are so far apart may be a machine that stood still, and the feeder with it: it gets another."""

TOO_LATE = "it did not end in time"
NOT_THERE = "the feeder, which publishes, does not run just now; it is started again by itself: try again"


class FeederProcess(ChildProcess):
    """A feeder, from its start to its end.

    Attributes:
        memory: what it counts in.
        runs: the number of the last set of sources that it has said it runs; 0: none.
        kill_s: when it is killed, if it has not ended.
        is_stopping: it was told to end.
        kill_reason: why it is killed.
        generation: whose sources it was told to run.
    """

    def __init__(self, memory: FeederMemory, watcher: Watcher) -> None:
        super().__init__("gaiod.feeder.process", watcher)
        self.memory = memory
        self.runs = 0
        self.kill_s: float | None = None
        self.is_stopping = False
        self.kill_reason: str | None = None
        self.generation: Generation | None = None

    def said(self, message: dict[str, Any] | None) -> None:
        """Take which set of sources it runs."""
        if message is not None:
            self.runs = message["running"]
            self.memory.settled(self.runs)

    def stop(self) -> None:
        """Ask it to stop its sources, and to end."""
        if not self.is_stopping:
            self.is_stopping = True
            self.kill_s = time.monotonic() + STOP_S
            self.send({"stop": True})

    def heartbeat_age_s(self, now_s: float) -> float:
        """Return how long ago its loop completed a pass; before the first time, how long ago it was started."""
        return now_s - (self.memory.heartbeat_s or self.started_s)


class Feeding:
    """Sees to it that there is a feeder while one is needed.

    Attributes:
        counts: what sources have counted.
        restarts: how often the feeder has died.
        was_forced: it did not end in order when the daemon stopped.
    """

    def __init__(
        self, watcher: Watcher, changed: Callable[[], None], workers: Callable[[], list[WorkerProcess]]
    ) -> None:
        """Make it, without a feeder.

        Args:
            watcher: the supervisor's.
            changed: called when a feeder has ended.
            workers: returns those that get messages.
        """
        self.counts = SourceCounts()
        self.restarts = 0
        self.was_forced = False
        self._watcher = watcher
        self._changed = changed
        self._workers = workers
        self._socket: FeederSocket | None = None
        self._process: FeederProcess | None = None
        self._needed: Generation | None = None  # it starts or serves, and takes messages
        self._adopted: Generation | None = None
        self._feeders = 0
        self._sets = 0
        self._backoff = Backoff(PAUSE_FIRST_S, PAUSE_MAX_S)
        self._looked_s = time.monotonic()
        self._is_stopping = False
        self._is_shared = False  # another daemon has the socket and the journal, too
        self._early: list[Callable[[], None]] = []  # what operators publish before the feeder has its new set

    @property
    def address(self) -> str:
        """Where workers connect to; empty as long as no generation has taken messages."""
        return "" if self._socket is None else self._socket.address

    @property
    def process(self) -> FeederProcess | None:
        """The feeder, if there is one just now."""
        return self._process

    @property
    def is_needed(self) -> bool:
        """Whether a listener takes messages."""
        return self._needed is not None

    @property
    def is_up(self) -> bool:
        """Whether the feeder runs its sources."""
        return self._process is not None and self._process.runs > 0 and not self._process.is_stopping

    @property
    def is_over(self) -> bool:
        """Whether it was stopped, and nothing is left of it."""
        return self._is_stopping and self._process is None

    # -- generations -----------------------------------------------------------------------------------

    def prepare(self, generation: Generation) -> None:
        """Be there for the workers of a generation, which are about to be started. Its sources do not run yet."""
        if generation.feed_keys and not self._is_stopping:
            self._needed = generation
            self._start()

    def adopt(self, generation: Generation) -> None:
        """Run the sources of a generation, and no others, as soon as its workers serve: they were told to."""
        self._adopted = generation
        self._is_shared = False
        self._needed = generation if generation.feed_keys else None
        if self._needed is None:
            self._stop_process()
        elif self._process is None:
            self._start()
        else:
            self._run_once_fed()

    def withdraw(self) -> None:
        """Forget the generation that was about to be started: all stays as it was."""
        self._needed = self._adopted if self._adopted is not None and self._adopted.feed_keys else None
        if self._needed is None:
            self._stop_process()

    def serves(self, inlet: OpenListener) -> bool:
        """Tell whether the feeder listens there."""
        return self._adopted is not None and any(each is inlet for each in self._adopted.inlets.values())

    def renew_inlets(self) -> None:
        """Have the feeder listen at the sockets that there are now: one of them has been made anew."""
        if self._process is not None and self._process.generation is self._adopted:
            self._process.generation = None
            self._run()

    # -- another daemon --------------------------------------------------------------------------------

    def handed_over(self) -> dict[str, Any] | None:
        """Return what the feeder of another daemon goes on with; None: there was no feeder."""
        return None if self._socket is None else {**self._socket.handed_over(), "feeders": self._feeders}

    def take_over(self, feed: dict[str, Any] | None) -> None:
        """Go on with what another daemon has handed over; its feeder may run yet, and then the next one waits."""
        if feed is not None:
            self._feeders = feed["feeders"]
            self._socket = FeederSocket(feed)
            self._is_shared = True

    def hand_over(self) -> None:
        """End the feeder: another daemon serves, and its feeder is there for the workers of this one, too."""
        self._is_shared = True
        self.stop()

    # -- operators -------------------------------------------------------------------------------------

    def publish(self, request: dict[str, Any], take: Callable[[dict[str, Any]], None]) -> None:
        """Publish an operator's message; `take` gets the names of listeners, or an error and an exit status."""
        absent = {"error": NOT_THERE, "status": os.EX_TEMPFAIL}
        if self._process is None or not self.is_up:
            take(absent)
        elif self._process.generation is not self._adopted:  # a reload was a moment ago: its listeners are meant, too
            self._early.append(lambda: self.publish(request, take))
        else:
            self._process.ask(request, lambda answer: take(absent if answer is None else answer))

    def _publish_early(self) -> None:
        early, self._early = self._early, []
        for publish in early:
            publish()

    # -- the end ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the feeder in order; none is started any more. The workers have ended, or another daemon feeds them."""
        self._is_stopping = True
        self._stop_process()
        self._close_if_over()

    def kill(self) -> None:
        """End it now."""
        self._is_stopping = True
        if self._process is not None:
            self._process.is_stopping = True
            self._process.kill()
        self._close_if_over()

    def reap(self) -> None:
        """See whether it has ended, or hangs."""
        process = self._process
        if process is None:
            return
        self._look(process)
        status = process.exit_status()
        if status is not None:
            self._process = None
            self._ended(process, status)
            self._close_if_over()
            self._changed()

    def _stop_process(self) -> None:
        if self._process is not None:
            self._process.stop()

    def _close_if_over(self) -> None:
        if self.is_over and self._socket is not None:
            self._socket.close(keep_files=self._is_shared)
            self._socket = None

    def _look(self, process: FeederProcess) -> None:
        now_s = time.monotonic()
        is_late, self._looked_s = now_s - self._looked_s > LATE_S, now_s
        if is_late:
            return
        if process.kill_s is not None:
            if now_s >= process.kill_s:
                process.kill_reason = process.kill_reason or TOO_LATE
                process.kill()
        elif process.heartbeat_age_s(now_s) > self._patience_s(process):
            process.kill_reason = f"its loop had completed no pass for {process.heartbeat_age_s(now_s):.1f} s"
            log.error("the feeder, process %d: %s; ending it", process.pid, process.kill_reason)
            process.kill_s = now_s + DUMP_S
            process.abort()

    def _patience_s(self, process: FeederProcess) -> float:
        if not process.memory.heartbeat_s or self._needed is None:
            return START_TIMEOUT_S
        return self._needed.settings.heartbeat_timeout_s

    def _ended(self, process: FeederProcess, status: int) -> None:
        stack = process.collect()
        has_died = not process.is_stopping
        self.counts.retire(has_died=has_died)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        if process.kill_reason is not None:
            how += f" ({process.kill_reason})"
        if has_died:
            self.restarts += 1
            if stack:
                log.error("the feeder, process %d, was here when it ended:\n%s", process.pid, stack)
            log.error("the feeder, process %d, ended %s", process.pid, how)
        elif process.kill_reason is not None:
            log.error("the feeder, process %d, ended %s", process.pid, how)
            self.was_forced |= self._is_stopping
        if not has_died:
            self._start()
        elif time.monotonic() - process.started_s >= SETTLED_S:
            self._backoff.reset()
            self._start()
        else:
            self._start_later()

    # -- the beginning ---------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the feeder, if one is needed and there is none. One that ends is waited for."""
        generation = self._needed
        if generation is None or self._process is not None or self._is_stopping:
            return
        self._feeders += 1
        memory = self.counts.open()
        process = FeederProcess(memory, self._watcher)
        settings = generation.settings
        code = (self._adopted or generation).code  # workers that come back may want it before its sources begin
        try:
            if self._socket is None:
                self._socket = FeederSocket()
            message = {
                "log": asdict(settings.log),
                "stats": memory.fd,
                "links": self._socket.fileno(),
                "journal": self._socket.journal,
                "code": code.fd,
                "instance": self._feeders,
                "heartbeat_interval_s": generation.heartbeat_interval_s,
            }
            # A source may read what was piped into the daemon; nothing else of it does.
            process.launch(message, [memory.fd, self._socket.fileno(), self._socket.journal, code.fd], stdin=None)
        except OSError as error:
            self.counts.retire(has_died=False)
            log.error("the feeder cannot be started: %s; see the limits on processes and memory", error)
            self._start_later()
            return
        self._process = process
        self._looked_s = time.monotonic()
        log.info("the feeder is process %d", process.pid)
        if self._adopted is not None and self._adopted.feed_keys:
            self._run_once_fed()

    def _start_later(self) -> None:
        pause_s = self._backoff.take()
        log.warning("the feeder is started again in %g s", pause_s)

        def start(result: OpResult) -> None:
            self._start()

        self._watcher.timer(time.monotonic() + pause_s, context=start)

    def _run_once_fed(self) -> None:
        """Have the feeder run its sources when the workers say that they serve, and have a link to this feeder."""
        process, generation, workers = self._process, self._adopted, self._workers()
        left = {worker.instance for worker in workers}

        def run(*_: object) -> None:
            if process is self._process and generation is self._adopted:
                self._run()

        def fed(worker: int) -> None:
            left.discard(worker)
            if not left:
                run()

        self._watcher.timer(time.monotonic() + FED_S, context=run)
        for worker in workers:
            worker.ask({"verb": "fed", "feeder": self._feeders}, lambda _, number=worker.instance: fed(number))  # type: ignore[misc]
        if not workers:
            run()

    def _run(self) -> None:
        """Have the feeder run the sources of the generation that serves; once is enough for a feeder."""
        process, generation = self._process, self._adopted
        if process is None or generation is None or process.is_stopping or process.generation is generation:
            return
        inlets = generation.inlets
        fds = [sock.fileno() for inlet in inlets.values() for sock in inlet.sockets]
        try:
            process.pass_fds([generation.code.fd, *fds])
        except OSError as error:
            if not process.silent:
                log.error("the feeder cannot be given its code and sockets: %s; ending it", error.strerror)
                process.kill()
            return  # the next one gets it
        process.generation = generation
        self._sets += 1
        keys: list[SourceKey] = []
        for listener in generation.settings.listeners:
            if listener.sources:
                keys += [(listener.name, source) for source in listener.sources]
        rows = process.memory.assign(keys, self._sets)
        self.counts.forget(keys)
        feeds = [
            {
                "name": listener.name,
                "key": generation.feed_keys[listener.name],
                "handler": pinned(listener.handler),
                "options": dict(listener.options),
                "rows": {source: rows[listener.name, source] for source in listener.sources},
            }
            for listener in generation.settings.listeners
            if listener.sources
        ]
        process.send(
            {
                "run": {
                    "number": self._sets,
                    "log": asdict(generation.settings.log),
                    "feeds": feeds,
                    "inlets": {address: len(inlet.sockets) for address, inlet in inlets.items()},
                }
            }
        )
        self._publish_early()
