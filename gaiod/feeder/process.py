"""The feeder: one process that runs the sources of all listeners, and hands what they publish to every worker.

    python -m gaiod.feeder.process FD

FD is its end of a channel to its supervisor, as a worker has one:

    supervisor -> feeder    {"log": {...}, "stats": fd, "dump": fd, "links": fd, "journal": fd, "later_fds": fd, ...}
    supervisor -> feeder    {"run": {"number": 2, "log": {...}, "feeds": [{...}, ...], "inlets": {"unix:/in.sock": 1}}}
                            with descriptors: of its code, and of the sockets of each inlet
    feeder -> supervisor    {"running": 2}
    supervisor -> feeder    {"ask": {"id": 7, "verb": "publish", "listener": null, "topic": "a", "message": "b"}}
    feeder -> supervisor    {"answer": 7, "result": {"listeners": ["ticks"]}}
    supervisor -> feeder    {"stop": true}

It outlives reloads, and workers: a message is encoded once, and a file followed once, however many there are. It is
not told to end by signals: whoever sends one to all processes means the supervisor, which ends it last.
"""

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.journal import Journal
from gaiod.feeder.router import Router
from gaiod.feeder.source_listener import LAYOUT
from gaiod.kept_code import KeptCode
from gaiod.log.setup import LogError, configure_log, follow_log
from gaiod.process.channel import Channel
from gaiod.process.inheritance import FOR_SUPERVISOR, take_known_state
from gaiod.process.main_loop import MainLoop
from gaiod.process.startup import map_cells, receive_fds, receive_settings
from gaiod.settings import log_settings_from
from gaiod.stats.feeder_cells import CODE_CHANGED, FORGOTTEN, HEARTBEAT, SIZE
from gaiod.version import __version__

log = logging.getLogger("gaiod.feeder")

ROLE = "feeder"


PATIENCE_S = 0.02
"""When an operator's message is tried again while workers are behind."""

LOOK_AGAIN_S = 0.005
"""When to look again whether the feeder before this one has ended: that of the daemon which is upgraded, say."""

IGNORED = (signal.SIGTERM, signal.SIGINT, *FOR_SUPERVISOR, signal.SIGTTIN)
"""SIGTTIN: a source that reads from a terminal gets an error, and does not stop the process."""


class Feeder:
    """Feeds until told to stop."""

    def __init__(self, channel_fd: int) -> None:
        self._first = socket.socket(fileno=channel_fd)
        self._router: Router | None = None
        self._is_stopping = False
        self._early: list[tuple[Callable[[Any], None], Any]] = []
        self._verbs: dict[str, Callable[[Any], None]] = {
            "run": self._take_run,
            "ask": self._take_question,
        }

    def run(self) -> int:
        """Receive the settings, feed, and return the process's exit status."""
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        message, rest = receive_settings(self._first)
        faulthandler.enable(message["dump"])  # SIGABRT, or a crash, leaves the stack there for the supervisor
        self._log = message["log"]
        self._configure_log()
        self._cells = map_cells(message["stats"])
        if len(self._cells) != SIZE:
            log.error("this is gaiod %s, but its supervisor runs another version: run gaiod upgrade", __version__)
            return os.EX_CONFIG
        self._inlet_cells = memoryview(bytearray(8 * LAYOUT.size)).cast("q")
        self._watcher = Watcher(counters=self._inlet_cells, report_closes=True, report_hangups=True)
        self._channel = Channel(self._watcher.delegate(self._first), self._take_message, rest)
        self._loop = MainLoop(self._watcher, self._channel)
        self._later_fds = socket.socket(fileno=message["later_fds"])
        self._code = KeptCode(message["code"], self._count_changed)
        self._code.install()
        self._journal = Journal(message["journal"])
        self._begin(socket.socket(fileno=message["links"]), message["instance"])
        beats = [follow_log, self._count_forgotten]
        self._loop.beat_every(message["heartbeat_interval_s"], self._cells, HEARTBEAT, beats)
        gc.collect()
        gc.freeze()
        self._channel.take_received()
        self._loop.run(lambda: None)
        return 0

    def _configure_log(self) -> None:
        try:
            configure_log(log_settings_from(self._log), role=ROLE)
        except LogError as error:
            log.error("%s; the log stays where it was", error)

    def _count_forgotten(self) -> None:
        self._cells[FORGOTTEN] = self._journal.forgotten

    def _begin(self, links: socket.socket, instance: int) -> None:
        """Be there for workers, once no other feeder is."""
        if not self._journal.lock():
            again_s = time.monotonic() + LOOK_AGAIN_S
            self._watcher.timer(again_s, context=lambda result: self._begin(links, instance))
            return
        self._router = Router(self._watcher, self._journal, self._cells, self._inlet_cells, instance)
        self._router.links.open(links)
        early, self._early = self._early, []
        for take, arguments in early:
            take(arguments)

    # -- what the supervisor says ------------------------------------------------------------------------

    def _take_message(self, message: dict[str, Any] | None) -> None:
        if message is None:
            log.warning("the supervisor is gone; stopping")
            self._stop()
            return
        for verb, arguments in message.items():
            if verb == "stop":
                self._stop()
            elif self._router is None:
                self._early.append((self._verbs[verb], arguments))
            else:
                self._verbs[verb](arguments)

    def _take_run(self, what: dict[str, Any]) -> None:
        """Run these sources, and no others."""
        assert self._router is not None
        if what["log"] != self._log:
            self._log = what["log"]
            self._configure_log()
        fds = receive_fds(self._later_fds, 1 + sum(what["inlets"].values()))
        if fds is None:
            log.error(
                "no descriptors are left for the code of the sources and their sockets; they go on with what they "
                "have; raise LimitNOFILE=, and reload"
            )
        else:
            code, *fds = fds
            self._run_code(code)
        sockets = (socket.socket(fileno=fd) for fd in fds or ())
        inlets = {address: list(islice(sockets, count)) for address, count in what["inlets"].items()}
        self._router.take_inlets(inlets)
        self._router.run(what["feeds"])
        self._code.compare()
        self._router.when_settled(lambda: self._channel.send({"running": what["number"]}))

    def _run_code(self, fd: int) -> None:
        """Let sources that begin from now on run the code of this set's generation; others go on as they are."""
        before, self._code = self._code, KeptCode(fd, self._count_changed)
        self._code.replace(before)

    def _count_changed(self, files: int) -> None:
        self._cells[CODE_CHANGED] += files

    def _take_question(self, question: dict[str, Any]) -> None:
        """Publish what an operator says, once workers have taken what there is."""
        router = self._router
        assert router is not None

        def publish(result: OpResult | None = None) -> None:
            if router.is_behind:
                self._watcher.timer(time.monotonic() + PATIENCE_S, context=publish)
                return
            answer = router.publish(question["listener"], question["topic"], question["message"].encode())
            self._channel.send({"answer": question["id"], "result": answer})

        publish()

    def _stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            if self._router is None:
                self._loop.end()
            else:
                self._router.stop(self._loop.end)


def main() -> None:
    """Run as a process of its own."""
    take_known_state()
    sys.exit(Feeder(int(sys.argv[1])).run())


if __name__ == "__main__":
    main()
