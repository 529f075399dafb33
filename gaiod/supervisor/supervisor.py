"""The supervisor: opens the listeners, keeps workers behind them, answers scrapes and operators, and ends in order."""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

from gaiod.addresses import SYSTEMD
from gaiod.control.protocol import ControlError
from gaiod.core import ENGINE
from gaiod.core.engine import tls_library
from gaiod.core.errors import WatcherClosed
from gaiod.core.watcher import Watcher
from gaiod.log.setup import LogError, configure_log, follow_log
from gaiod.observe import page
from gaiod.observe.collector import Collector
from gaiod.observe.http import Endpoint
from gaiod.process.dispatch import dispatch
from gaiod.process.signals import Signals
from gaiod.supervisor.file_watch import FileWatch
from gaiod.supervisor.host import descriptors, privileges
from gaiod.supervisor.host.systemd import Notifier
from gaiod.supervisor.opening import Opening
from gaiod.supervisor.operators.commands import Commands
from gaiod.supervisor.operators.server import Control
from gaiod.supervisor.operators.snapshot import Snapshot
from gaiod.supervisor.preflight import Checked, tickets_of_one
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Failure, Generation
from gaiod.supervisor.processes.health import Health
from gaiod.supervisor.processes.rebalance import Rebalancing
from gaiod.supervisor.reload import Asker, Outcome, Reloads, check_change
from gaiod.supervisor.sockets.bind import BindError
from gaiod.supervisor.sockets.fronts import Fronts
from gaiod.supervisor.sockets.listeners import Prepared
from gaiod.supervisor.upgrade import Upgrade
from gaiod.tls_options import made_by
from gaiod.version import __version__

log = logging.getLogger("gaiod.supervisor")


INSTANCES_SPARED = 1000
"""How many workers a daemon may yet start while it is upgraded. The new daemon's have numbers beyond theirs."""

MAIN_PID_S = 1.0
"""When a new daemon tells its state to systemd once more."""

LAST_CLIENTS_LOOK_S = 0.02
"""How often an upgraded daemon looks whether operators and scrapes that had connected to it have their answers."""

STOP_MARGIN_S = 5.0
"""What systemd is asked to wait for beyond the time that stopping may take."""


class State(Enum):
    """Where the daemon stands."""

    STARTING = auto()
    SERVING = auto()
    STOPPING = auto()
    STOPPED = auto()


class Supervisor:
    """Runs the daemon that a configuration file describes."""

    def __init__(self, checked: Checked, path: Path, command: Sequence[str]) -> None:
        """Make it; `run` does everything.

        Args:
            checked: what the file said.
            path: the file, to be read again at every reload; absolute.
            command: what starts another version of the daemon.
        """
        self._settings = checked.settings
        self._code = checked.code
        self._path = path
        self._command = command
        self._state = State.STARTING
        self._exit_status = 0
        self._was_told = False  # to stop, by a signal
        self._is_superseded = False  # by the daemon that it was upgraded to
        self._watcher = Watcher()
        self._notifier = Notifier(os.environ)
        self._opening = Opening()
        self._listeners = self._opening.listeners
        self._upgrade: Upgrade | None = None
        self._fleet = Fleet(self._watcher, crash_looping=self._take_crash_loop, changed=self._take_change)
        self._health = Health(self._watcher, self._fleet, self._tick)
        self._rebalancing = Rebalancing(self._watcher, self._fleet)
        self._reloads = Reloads(
            self._watcher,
            path,
            self._listeners,
            self._fleet,
            check=lambda settings: check_change(self._settings, settings),
            begun=self._begin_reload,
            adopted=self._adopt,
            ended=self._tell_status,
        )
        self._files = FileWatch(self._watcher, self._fleet, lambda: self.state == "serving" and not self._is_upgrading)
        self._snapshot = Snapshot(self._fleet, self._reloads, self._files, lambda: self.state)
        collector = Collector(self._snapshot)
        self._endpoint = Endpoint(
            self._watcher,
            collector,
            lambda: self._snapshot.is_ready or self._is_superseded,
            lambda: page.answer(self._snapshot.status()),
        )
        commands = Commands(
            self._watcher,
            self._snapshot,
            self._fleet,
            self._health,
            path,
            rebalancing=self._rebalancing,
            renew=self._files.read_now,
            reload=self.reload,
            upgrade=self.upgrade,
            drain=self._drain_one,
            is_changing=lambda: self._reloads.is_running or self._is_upgrading,
        )
        self._control = Control(self._watcher, commands.answer)
        self._fronts = Fronts(self._opening, self._fleet, self._endpoint, self._control)
        self._fed_s = 0.0

    @property
    def state(self) -> str:
        """Where the daemon stands, in a word."""
        if self._state is State.SERVING and self._reloads.is_running:
            return "reloading"
        return self._state.name.lower()

    # -- from beginning to end ---------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until a signal ends it, and return the exit status."""
        signals = self._take_signals()  # from now on there is something to be put in order
        try:
            prepared = self._opening.open(self._settings, self._path)
        except (BindError, OSError, privileges.PrivilegeError, LogError) as error:
            self._tell_failure(str(error))
            signals.close()
            self._close()
            match error:
                case privileges.PrivilegeError():
                    return os.EX_NOPERM
                case LogError():
                    return os.EX_CONFIG
                case _:
                    return os.EX_OSERR
        log.info("gaiod %s, %s engine, process %d", __version__, ENGINE, os.getpid())
        if any(listener.tls is not None for listener in self._settings.listeners):
            log.info("TLS is made by %s", made_by(tls_library()))
        if ENGINE == "interpreted" and "GAIOD_ENGINE" not in os.environ:
            log.warning(
                "no compiled engine: install a C compiler and Python's headers, and gaiod again, for 3x the speed"
            )
        try:
            self._launch(prepared)
            self._loop()
        finally:
            signals.close()
            self._close()
        return self._exit_status

    def _take_signals(self) -> Signals:
        actions: dict[signal.Signals, Callable[[signal.Signals], None]] = {
            signal.SIGTERM: self._take_stop,
            signal.SIGINT: self._take_stop,
            signal.SIGCHLD: lambda number: self._reap(),
            signal.SIGHUP: lambda number: self.reload(_nobody),
            signal.SIGUSR1: lambda number: self._follow_log(),
            signal.SIGUSR2: lambda number: self.upgrade(_nobody),
        }
        return Signals(self._watcher, list(actions), lambda number: actions[number](number))

    def _follow_log(self) -> None:
        """Tell where the log goes: writing opens a file anew that was moved away, and others look each second."""
        log.info("SIGUSR1: the log goes to %s", self._settings.log.file or "standard error, as before")

    def _launch(self, prepared: Prepared) -> None:
        if self._opening.predecessor is None:
            self._open_fronts(prepared)
        else:
            self._fleet.instances = self._opening.predecessor.instances
            self._fleet.closes.adopt(self._opening.predecessor.closes)
            self._fleet.bans.adopt(self._opening.predecessor.bans)
            self._fleet.seats.adopt(self._opening.predecessor.seats)
            self._fleet.shared.adopt(self._opening.predecessor.shared)
            self._fleet.tickets.adopt(self._opening.predecessor.ticket_keys)
            self._fleet.feeding.take_over(self._opening.predecessor.feed)
        generation = Generation(1, self._settings, prepared.listeners, self._code, prepared.inlets)
        del self._code  # it is the generation's, and goes with it
        for settings, listener in zip(self._settings.listeners, prepared.listeners, strict=True):
            log.info("listener %s: %s on %s", settings.name, settings.handler, listener.address)
            for source, address in settings.inlets:
                log.info("listener %s: source %s on %s", settings.name, source, address)
        self._fleet.launch(generation, lambda failure: self._take_launched(prepared, generation, failure))

    def _open_fronts(self, prepared: Prepared) -> None:
        """Answer scrapes and operators. In an upgrade, the daemon before this one does until this one serves."""
        self._adopt(prepared)
        self._fronts.serve_control()

    def _take_launched(self, prepared: Prepared, generation: Generation, failure: Failure | None) -> None:
        if failure is not None:
            self._listeners.abandon(prepared)
            if self._state is not State.STOPPING:
                self._tell_failure(failure.text)
                self._exit_status = failure.status
                self._stop(0.0)
            return
        if self._state is not State.STARTING:
            self._listeners.abandon(prepared)  # it was told to stop just now: the workers are on their way out
            return
        self._listeners.commit(prepared)
        self._fleet.adopt(generation)
        self._opening.owns_files = True
        self._state = State.SERVING
        self._tell_status()
        if self._opening.predecessor is not None:
            self._open_fronts(prepared)
            for key, name, value in self._opening.predecessor.tell_ready(self._fleet.handover()):
                if key in generation.keys:
                    self._fleet.shared.put(key, name, value, self._fleet)
            # Until the old daemon has told systemd of this one (MAINPID=), nobody listens to it.
            self._watcher.timer(time.monotonic() + MAIN_PID_S, context=lambda result: self._tell_status())
        pids = ", ".join(str(member.process.pid) for member in self._fleet)
        log.info("ready: %d worker%s, process %s", len(self._fleet), "s"[: len(self._fleet) != 1], pids)

    def _tell_failure(self, text: str) -> None:
        """Say why this daemon cannot serve: in the log, and to the one that it was to replace."""
        log.error("%s", text)
        if self._opening.predecessor is not None:
            self._opening.predecessor.tell_failure(text)

    def _loop(self) -> None:
        while self._state is not State.STOPPED:
            dispatch(self._watcher.wait_io())
        self._watcher.close()
        try:
            while True:
                self._watcher.wait_io()
        except WatcherClosed:
            pass

    def _close(self) -> None:
        self._opening.close()
        self._notifier.close()

    # -- the configuration -------------------------------------------------------------------------------

    def reload(self, asker: Asker) -> None:
        """Read the configuration again, and serve it; `asker` gets the generation's number, or why not."""
        if not self._is_refused("reload", ("serving", "reloading"), asker):
            self._reloads.request(asker)

    def _begin_reload(self) -> None:
        self._notifier.reloading("reloading the configuration")
        self._fronts.renew()

    def _is_refused(self, what: str, states: tuple[str, ...], asker: Asker) -> bool:
        """Tell whether something that needs one of these states cannot be done now; then `asker` is told why."""
        if self._is_upgrading:
            refusal = "an upgrade is under way"
        elif self.state not in states:
            refusal = f"the daemon is {self.state}; try again when it serves"
        else:
            return False
        log.warning("no %s: %s", what, refusal)
        asker((os.EX_TEMPFAIL, refusal))
        return True

    def _adopt(self, prepared: Prepared) -> None:
        """Bring what is the supervisor's own in line with a configuration. It serves already: nothing may fail."""
        try:
            if prepared.settings.log != self._settings.log:
                configure_log(prepared.settings.log, role="supervisor")
        except LogError as error:
            log.error("%s; the log stays where it was", error)
        self._settings = prepared.settings
        too_few = descriptors.warning(prepared.settings, prepared.sockets)
        if too_few is not None:
            log.warning("%s", too_few)
        for text in tickets_of_one(prepared.settings):
            log.warning("%s", text)
        self._fronts.serve_metrics(prepared.metrics)

    def _drain_one(self, name: str) -> None:
        """Stop serving a listener: its address is free, its connections drain.

        Raises:
            ControlError: it cannot be; nothing has changed.
        """
        generation = self._fleet.generation
        assert generation is not None
        names = [settings.name for settings in generation.settings.listeners]
        settings, listener = generation.settings.listeners[names.index(name)], generation.listeners[names.index(name)]
        if self._reloads.is_running or self._is_upgrading:
            raise ControlError("a reload or an upgrade is under way; try again when it is done", os.EX_TEMPFAIL)
        if settings.bind.startswith(SYSTEMD):
            raise ControlError(f"the socket of {name} is systemd's, which goes on listening: stop its .socket unit")
        self._fleet.drain_listener(name, generation.settings.drain_timeout_s)
        self._listeners.close_one(listener)

    # -- the end -----------------------------------------------------------------------------------------

    def _take_stop(self, number: signal.Signals) -> None:
        if self._was_told:
            log.warning("%s again: stopping now", number.name)
            self._fleet.kill()
            self._take_change()
            return
        self._was_told = True
        if self._state is State.STOPPING:
            log.info("%s: draining faster", number.name)
            self._drain(eager=True)
            return
        grace_s = self._settings.stop_grace_s if self._state is State.SERVING else 0.0
        log.info("%s: stopping%s", number.name, f", after {grace_s:g} s of grace" if grace_s else "")
        self._stop(grace_s)

    def _stop(self, grace_s: float) -> None:
        """Be not ready, go on accepting for a while, and then drain."""
        self._state = State.STOPPING
        self._notifier.stopping("draining")
        self._notifier.extend_timeout(grace_s + self._settings.drain_timeout_s + STOP_MARGIN_S)
        self._reloads.stop()
        if self._upgrade is not None:
            self._upgrade.cancel()
        if grace_s > 0:
            self._watcher.timer(time.monotonic() + grace_s, context=lambda result: self._drain(eager=True))
        else:
            self._drain(eager=True)

    def _drain(self, *, eager: bool, handover: Mapping[str, Any] | None = None) -> None:
        timeout_s = self._settings.drain_timeout_s
        log.info("draining %d connections, for at most %g s", self._fleet.connections, timeout_s)
        self._fleet.drain(timeout_s, eager=eager, handover=handover)
        for listener in () if self._fleet.generation is None else self._fleet.generation.listeners:
            self._listeners.close_one(listener)  # refused clients look elsewhere at once, queued ones would wait
        self._take_change()

    def _take_crash_loop(self) -> None:
        """Give up: whoever started the daemon decides what next."""
        if self._state is State.SERVING:
            self._exit_status = os.EX_SOFTWARE
            self._stop(0.0)

    def _take_change(self) -> None:
        """See whether that was the last process, and nobody waits for an answer of a daemon that was upgraded."""
        if self._state is State.STOPPING and self._fleet.is_over:
            if self._is_superseded and not self._was_told and (self._control.has_clients or self._endpoint.has_clients):
                self._watcher.timer(time.monotonic() + LAST_CLIENTS_LOOK_S, context=lambda result: self._take_change())
                return
            log.info("stopped" if self._opening.owns_files else "drained and ended: the upgraded daemon serves")
            if self._fleet.was_forced or self._fleet.feeding.was_forced:
                self._exit_status = os.EX_SOFTWARE
            self._state = State.STOPPED

    def _reap(self) -> None:
        self._fleet.reap()
        if self._upgrade is not None:
            self._upgrade.reap()

    # -- another version ---------------------------------------------------------------------------------

    def upgrade(self, asker: Asker) -> None:
        """Start the program that is installed now, and end once it serves; `asker` gets its process, or why not."""
        if self._is_refused("upgrade", ("serving",), asker):
            return
        log.info("upgrading: starting the program that is installed now")
        try:
            self._upgrade = Upgrade(
                self._watcher,
                self._command,
                self._opening.handed_over(
                    self._settings.control_listen,
                    shared=self._fleet.shared.handed_over(),
                    feed=self._fleet.feeding.handed_over(),
                    instances=self._fleet.instances + INSTANCES_SPARED,
                    closes=self._fleet.closes.handed_over(),
                    ticket_keys=self._fleet.tickets.handed_over(),
                    seats=self._fleet.seats.handed_over(),
                    bans=self._fleet.bans.handed_over(),
                ),
                lambda status, text: self._take_upgraded(asker, status, text),
            )
            self._fleet.shared.follow = self._upgrade.share
        except OSError as error:
            log.error("the upgrade failed: no process can be started: %s", error)
            asker((os.EX_OSERR, f"no process can be started: {error}"))

    def _take_upgraded(self, asker: Asker, status: int, text: str) -> None:
        if status:
            log.error("the upgrade failed, and everything stays as it was:\n%s", text)
            asker((status, text))
            return
        log.info("upgraded: process %s serves; draining", text)
        self._notifier.main_pid(int(text))
        self._notifier.close()
        self._opening.owns_files = False
        self._is_superseded = True
        self._state = State.STOPPING
        self._endpoint.close()
        self._listeners.close(keep_files=True)
        asker((0, text))
        self._control.close()
        self._fleet.feeding.hand_over()
        assert self._upgrade is not None
        self._drain(eager=False, handover=self._upgrade.handover)

    @property
    def _is_upgrading(self) -> bool:
        return self._upgrade is not None and not self._upgrade.is_over

    # -- what others are told ------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Feed systemd's watchdog while no worker hangs, and remember what rates are made of."""
        self._snapshot.sample()
        follow_log()
        self._fleet.seats.look()
        self._fleet.end_bans()
        if self.state == "serving" and not self._is_upgrading:  # else others hold the sockets, too
            self._fronts.look_after_files()
            self._fleet.rotate_tickets()
            self._rebalancing.look()
            self._files.look()
        now_s, interval_s = time.monotonic(), self._notifier.watchdog_interval_s
        if interval_s is not None and now_s - self._fed_s >= interval_s / 2 and self._health.all_beat:
            self._fed_s = now_s
            self._notifier.watchdog()

    def _tell_status(self) -> None:
        generation = self._fleet.generation
        if self._state is State.SERVING and generation is not None:
            settings = generation.settings
            what = f"generation {generation.number}, workers: {settings.workers}, listeners: {len(settings.listeners)}"
            failed = "; the last reload failed" if self._reloads.last_error is not None else ""
            self._notifier.ready(what + failed)


def _nobody(outcome: Outcome) -> None:
    """Take the outcome of what a signal asked for: it is in the log."""
