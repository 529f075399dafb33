"""The supervisor: opens the listeners, starts the worker, answers scrapes, and stops it all in order."""

import dataclasses
import logging
import os
import signal
import time
from enum import Enum, auto

from gaiod.core import ENGINE
from gaiod.core.errors import WatcherClosed
from gaiod.core.operations import OpResult
from gaiod.core.watcher import Watcher
from gaiod.observe.collector import Collector, Source
from gaiod.observe.endpoint import Endpoint
from gaiod.runtime.dispatch import dispatch
from gaiod.runtime.plugins import pinned
from gaiod.runtime.settings import ListenerSettings, Settings
from gaiod.runtime.signals import Signals
from gaiod.runtime.stats import Layout
from gaiod.runtime.worker import STOP_TIMEOUT_S
from gaiod.supervisor.process import WorkerProcess
from gaiod.supervisor.slots import Slots
from gaiod.supervisor.sockets import BindError, SocketOptions, bound_address, close_listener, open_listener
from gaiod.version import __version__

log = logging.getLogger("gaiod.supervisor")

KILL_AFTER_S = STOP_TIMEOUT_S + 2.0
"""A worker that has not ended by then, having had its own deadline, never will."""

EXIT_SOFTWARE, EXIT_OS, EXIT_CONFIG = 70, 71, 78


class State(Enum):
    """Where the daemon stands."""

    STARTING = auto()
    SERVING = auto()
    STOPPING = auto()
    STOPPED = auto()


class Supervisor:
    """Runs the daemon that some settings describe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = State.STARTING
        self._exit_status = 0
        self._watcher = Watcher()
        self._layout = Layout(len(settings.listeners))
        self._slots = Slots(1, self._layout)
        self._worker = WorkerProcess(0, self._watcher, self._worker_changed)

    def run(self) -> int:
        """Serve until a signal ends it, and return the exit status."""
        log.info("gaiod %s, %s engine, process %d", __version__, ENGINE, os.getpid())
        if ENGINE == "interpreted" and "GAIOD_ENGINE" not in os.environ:
            log.warning(
                "no compiled engine: install a C compiler and Python's headers, and gaiod again, for 3x the speed"
            )
        if self._settings.workers > 1:
            log.warning("workers: %d is asked for; this version runs 1", self._settings.workers)
        sockets = []
        try:
            metrics_socket = open_listener("metrics", self._settings.metrics_listen, SocketOptions())
            sockets.append(metrics_socket)
            for listener in self._settings.listeners:
                sockets.append(open_listener(f"listener {listener.name}", listener.bind, _options_of(listener)))
        except BindError as error:
            log.error("%s", error)
            for sock in sockets:
                close_listener(sock)
            return EXIT_OS
        signals = Signals(self._watcher, [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD], self._take_signal)
        try:
            self._serve(sockets)
        finally:
            signals.close()
            for sock in sockets:
                close_listener(sock)
        return self._exit_status

    def _serve(self, sockets: list) -> None:  # type: ignore[type-arg]
        metrics_socket, *listeners = sockets
        sources = [Source(listener, sock) for listener, sock in zip(self._settings.listeners, listeners, strict=True)]
        collector = Collector(self._layout, sources, [(self._worker, self._slots.cells(0))], self._is_ready)
        Endpoint(self._watcher, collector, self._is_ready).open(metrics_socket.dup())
        log.info("metrics on %s", bound_address(metrics_socket))
        plain = [
            dataclasses.asdict(dataclasses.replace(listener, handler=pinned(listener.handler)))
            for listener in self._settings.listeners
        ]
        try:
            self._worker.start({"listeners": plain, "slot": self._slots.first_cell(0)}, listeners, self._slots.fd)
        except OSError as error:
            log.error("worker 0 cannot be started: %s; see the limits on processes and memory", error)
            self._exit_status = EXIT_OS
            return
        for source in sources:
            log.info(
                "listener %s: %s on %s", source.settings.name, source.settings.handler, bound_address(source.socket)
            )
        while self._state is not State.STOPPED:
            dispatch(self._watcher.wait_io())
        self._watcher.close()
        try:
            while True:
                self._watcher.wait_io()
        except WatcherClosed:
            pass

    def _is_ready(self) -> bool:
        return self._state is State.SERVING

    def _worker_changed(self, worker: WorkerProcess) -> None:
        if worker.failed is not None:
            log.error("%s", worker.failed)
            self._exit_status = EXIT_CONFIG
        elif worker.ready and self._state is State.STARTING:
            self._state = State.SERVING
            log.info("ready: worker %d serves, process %d", worker.number, worker.pid)

    def _take_signal(self, number: signal.Signals) -> None:
        if self._state is State.STOPPED:
            return
        if number == signal.SIGCHLD:
            self._reap()
        elif self._state is State.STOPPING:
            log.warning("%s again: stopping now", number.name)
            self._worker.kill()
        else:
            log.info("%s: stopping", number.name)
            self._state = State.STOPPING
            self._worker.stop()
            self._watcher.timer(time.monotonic() + KILL_AFTER_S, context=self._kill)

    def _kill(self, result: OpResult) -> None:
        log.error("worker %d did not stop within %g s: killed", self._worker.number, KILL_AFTER_S)
        self._exit_status = EXIT_SOFTWARE
        self._worker.kill()

    def _reap(self) -> None:
        status = self._worker.exit_status()
        if status is None:
            return
        if self._state is State.STOPPING:
            log.info("stopped")
        elif self._exit_status == 0:
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
            log.error("worker %d ended %s; stopping, so that whoever started gaiod can start it anew", 0, how)
            self._exit_status = EXIT_SOFTWARE
        self._state = State.STOPPED


def _options_of(listener: ListenerSettings) -> SocketOptions:
    return SocketOptions(backlog=listener.backlog, nodelay=listener.nodelay, keepalive_s=listener.keepalive_s)
