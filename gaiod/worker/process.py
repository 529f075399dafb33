"""A worker: one process, one watcher, one thread, and the listeners its supervisor hands it.

    python -m gaiod.worker.process FD

FD is its end of the channel (`channel.py`): the settings come in over it, readiness goes out. A
worker whose channel ends has lost its supervisor, and stops. It imports as little as it can, because
every worker pays for it: no click, no YAML, no prometheus_client.
"""

import faulthandler
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from gaiod.core.connection import Conn
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.handler.failures import StartError, words_of
from gaiod.kept_code import KeptCode
from gaiod.log.setup import LogError, configure_log, follow_log, lost_lines
from gaiod.plugins import HandlerLoadError, build_options, load_handler
from gaiod.process.channel import Channel
from gaiod.process.inheritance import ignore_what_is_for_the_supervisor, take_known_state
from gaiod.process.main_loop import MainLoop
from gaiod.process.signals import Signals
from gaiod.process.startup import make_room_for_descriptors, map_cells, map_file, receive_fds, receive_settings
from gaiod.settings import ConnectionLogSettings, listener_settings_from, log_settings_from
from gaiod.stats.cells import HEARTBEAT, Layout
from gaiod.version import __version__
from gaiod.watched_files import KINDS
from gaiod.worker.admission.bans import Bans
from gaiod.worker.admission.tallies import Tallies
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.drain import Drain
from gaiod.worker.feeder_client import FeederClient
from gaiod.worker.gc_stats import GcStats
from gaiod.worker.handover.taker import Taker
from gaiod.worker.inspect.connection_facts import UNKNOWN
from gaiod.worker.inspect.questions import Questions
from gaiod.worker.inspect.recent_closes import RecentCloses
from gaiod.worker.listener import Common, Listener, TicketKeys
from gaiod.worker.names import Names
from gaiod.worker.slow_hooks.report import SlowHooks
from gaiod.worker.slow_hooks.sampler import Sampler

if TYPE_CHECKING:
    from gaiod.worker.handover.giver import Giver, Outcome

log = logging.getLogger("gaiod.worker")


FEED_TIMEOUT_S = 5.0
"""How long a worker waits for the feeder until it serves without: it comes back, and its messages with it."""

GC_THRESHOLDS = (10_000, 20, 50)
"""Young collections visit only what was made since: with 512 completions a pass, the default 700 would
collect in every pass. Full ones visit every connection (2 ms for 10,000), so they must be rare."""


class Worker:
    """Serves until told to stop."""

    def __init__(self, channel_fd: int) -> None:
        self._first = socket.socket(fileno=channel_fd)
        self._listeners: list[Listener] = []
        self._sockets: list[list[socket.socket]] = []
        self._drain: Drain | None = None
        self._kept: set[str] | None = None  # listeners whose connections it keeps, while others serve; None: it serves
        self._giver: Giver | None = None
        self._how: dict[str, Any] = {}  # to end, as it was told last
        self._to_hand_over: dict[str, Any] | None = None  # asked for while another hand-over is under way
        self._taker: Taker | None = None
        self._is_drained = False
        self._link: FeederClient | None = None
        self._is_fed = self._is_ready = False
        self._feeder = 0
        self._asked_fed: list[dict[str, Any]] = []
        self._exit_status = 0
        self._verbs: dict[str, Callable[[Any], None]] = {
            "serve": self._take_serve,
            "keep": self._take_keep,
            "drain": self._take_drain,
            "takers": self._take_takers,
            "drain_listener": self._take_drain_listener,
            "socket": self._take_socket,
            "file": self._take_file,
            "bans": self._take_bans,
            "shared": self._take_shared,
            "ticket_keys": self._take_ticket_keys,
            "lead": self._take_lead,
            "ask": self._take_question,
        }

    def run(self) -> int:
        """Receive the settings, serve, and return the process's exit status."""
        message, rest = receive_settings(self._first)
        faulthandler.enable(message["dump"])  # SIGABRT, or a crash, leaves the stack there for the supervisor
        # A supervisor of another version may not say what servers there are; it must be told so, in order.
        layout = Layout(tuple(len(plain.get("servers", ())) for plain in message["listeners"]))
        cells = map_cells(message["stats"])
        if len(cells) != layout.size:
            _refuse(
                self._first, f"this is gaiod {__version__}, but its supervisor runs another version: run gaiod upgrade"
            )
        self._watcher = Watcher(counters=cells, report_closes=True, report_hangups=True)
        if message["cpu"] is not None:
            self._watcher.set_loop_affinity(message["cpu"])
        self._slow = SlowHooks(message["slow_hook_s"])
        self._later_fds = socket.socket(fileno=message["later_fds"])
        self._channel = Channel(self._watcher.delegate(self._first), self._take_message, rest)
        self._loop = MainLoop(self._watcher, self._channel, self._slow.watch)
        leaving = {"timeout_s": message["drain_timeout_s"], "eager": True}
        signals = Signals(self._watcher, [signal.SIGTERM], lambda number: self._leave(leaving))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what goes to all processes is for the supervisor to decide
        ignore_what_is_for_the_supervisor()
        try:
            log_settings = log_settings_from(message["log"])
            configure_log(log_settings, role=f"worker {message['worker']}")
            code = KeptCode(message["code"], partial(_add, cells, layout.worker("code_changed")))
            code.install()
            self._make_listeners(message, cells, layout, log_settings.connections)
            code.compare()
            for listener, sockets in zip(self._listeners, self._sockets, strict=True):
                if sockets:  # an operator may have drained it before this worker came
                    listener.start()
        except (HandlerLoadError, LogError) as error:
            self._fail(str(error), os.EX_CONFIG)
        except StartError as error:
            self._fail(str(error), os.EX_SOFTWARE)
        else:
            self._questions = Questions(self._listeners, self._names)
            self._feed(message["feed"])
            GcStats(cells, layout).start()
            self._cells, self._lost = cells, layout.worker("log_lost")
            self._loop.beat_every(message["heartbeat_interval_s"], cells, layout.worker(HEARTBEAT), [self._beat])
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: never visit it again
        gc.set_threshold(*GC_THRESHOLDS)
        self._channel.take_received()
        sampler = Sampler(self._slow)
        sampler.start()
        try:
            self._loop.run(self._abort_all)
        finally:
            sampler.stop()  # a process whose loop has failed must end, and at once
        signals.close(ignore=True)
        return self._exit_status

    def _make_listeners(
        self,
        message: dict[str, Any],
        cells: Any,
        layout: Layout,
        wanted: ConnectionLogSettings,
    ) -> None:
        place = {"worker": message["worker"], "generation": message["generation"], "process": os.getpid()}
        self._names = Names(message["instance"], place)
        recent_closes = RecentCloses(map_file(message["closes"]), message["worker"])
        dropped = layout.worker("connection_log_dropped")
        connection_log = ConnectionLog(wanted, self._names, partial(_add, cells, dropped))
        seat = message.get("seat")
        tallies = None if seat is None else Tallies(seat["fd"], seat["number"])
        self._bans = Bans(message.get("bans", ()))
        common = Common(tallies, self._bans, message.get("connections_max"))
        for number, (plain, fds) in enumerate(zip(message["listeners"], message["fds"], strict=True)):
            settings = listener_settings_from(plain)
            kind = load_handler(settings.handler)
            try:
                handler = kind(build_options(kind, dict(settings.options)))
            except BaseException as error:
                raise HandlerLoadError(
                    f"listener {settings.name}: making its handler failed: {words_of(error)}"
                ) from error
            listener = Listener(
                settings,
                handler,
                self._watcher,
                cells,
                layout,
                number=number,
                connection_log=connection_log,
                names=self._names,
                recent_closes=recent_closes,
                slow=self._slow,
                shared=message["shared"].get(settings.name),
                share=partial(self._share, settings.name),
                ticket_keys=message.get("ticket_keys"),
                common=common,
                started=self._take_started,
            )
            self._listeners.append(listener)
            self._sockets.append([socket.socket(fileno=fd) for fd in fds])

    def _share(self, listener: str, key: str, value: Any) -> None:
        self._channel.send({"share": {"listener": listener, "key": key, "value": value}})

    def _feed(self, feed: dict[str, Any]) -> None:
        """Be ready once messages come, if any listener takes some: none may be missed by who connects."""
        self._taker = Taker(self._watcher, self._listeners, self._names, self._positions, self._take_late)
        keys = {listener: feed["keys"][listener.name] for listener in self._listeners if listener.name in feed["keys"]}
        if keys:
            self._link = FeederClient(self._watcher, feed["address"], keys, self._fed)
            self._watcher.timer(time.monotonic() + FEED_TIMEOUT_S, context=self._take_fed)
        else:
            self._watcher.post(self._take_fed)

    def _fed(self, feeder: int) -> None:
        """Messages come from this feeder, and no longer from one before it."""
        self._feeder = feeder
        self._take_fed()
        self._answer_fed()

    def _answer_fed(self) -> None:
        asked, self._asked_fed = self._asked_fed, []
        for question in asked:
            if question["feeder"] <= self._feeder:
                self._answer(question, {})
            else:
                self._asked_fed.append(question)

    def _take_fed(self, result: OpResult | None = None) -> None:
        self._is_fed = True
        self._tell_ready()

    def _take_started(self, error: StartError | None) -> None:
        """Go on after a handler's start that took longer."""
        if error is not None:
            self._fail(str(error), os.EX_SOFTWARE)
        else:
            self._tell_ready()

    def _tell_ready(self) -> None:
        if self._is_fed and not self._is_ready and not any(listener.is_delayed for listener in self._listeners):
            self._is_ready = True
            assert self._taker is not None
            self._channel.send({"ready": True, "takes": self._taker.address})

    def _beat(self) -> None:
        self._cells[self._lost] = lost_lines()
        self._questions.tidy()
        self._end_if_left()
        follow_log()

    def _abort_all(self) -> None:
        if self._taker is not None:
            self._taker.close()
        for listener in self._listeners:
            listener.close_all(abort=True)

    def _fail(self, why: str, status: int) -> None:
        """End, because this worker cannot serve."""
        self._channel.send({"failed": why, "status": status})
        self._exit_status = status
        self._loop.end()

    # -- what the supervisor says ----------------------------------------------------------------------

    def _take_message(self, message: dict[str, Any] | None) -> None:
        if message is None:
            log.warning("the supervisor is gone; stopping")
            self._loop.end()  # another may want to bind: do not wait for anybody
            return
        for verb, arguments in message.items():
            self._verbs[verb](arguments)

    def _take_serve(self, now: bool) -> None:
        """Accept: whoever else has to be ready is."""
        sockets, self._sockets = self._sockets, []
        if self._drain is None:
            for listener, own in zip(self._listeners, sockets, strict=True):
                listener.open(own)

    def _take_socket(self, number: int) -> None:
        """Serve another socket instead of those of a listener: their file was removed."""
        fds = receive_fds(self._later_fds)
        if fds is None:
            log.error("no descriptor is left for the recreated socket; raise LimitNOFILE=, and reload")
            return
        sock = socket.socket(fileno=fds[0])
        if self._sockets:
            self._sockets[number] = [sock]  # it has not been told to serve yet
        else:
            self._listeners[number].serve_instead([sock])

    def _take_file(self, said: dict[str, Any]) -> None:
        """Serve with what files have that were read again. Connections that are open stay as they are."""
        kind, files = KINDS[said["kind"]], tuple(said["files"])
        for listener in self._listeners:
            listener.renew(kind.renewed(listener.settings, files, said["value"]), said["ticket_keys"])

    def _take_bans(self, said: dict[str, list[str]]) -> None:
        self._bans.change(said["added"], said["removed"])
        for listener in self._listeners if said["added"] else ():
            listener.end_banned()

    def _take_shared(self, said: dict[str, Any]) -> None:
        for listener in self._listeners:
            if listener.name == said["listener"]:
                listener.take_shared(said["key"], said["value"], is_own=said["own"])

    def _take_ticket_keys(self, keys: TicketKeys) -> None:
        """Encrypt tickets by a new key from now on."""
        for listener in self._listeners:
            listener.set_ticket_keys(keys)

    def _take_lead(self, names: list[str]) -> None:
        for listener in self._listeners:
            listener.lead(listener.name in names)

    def _leave(self, how: dict[str, Any]) -> None:
        """End in order, for a reason that the supervisor does not know."""
        self._channel.send({"leaving": True})
        self._take_drain(how)

    def _take_keep(self, how: dict[str, Any]) -> None:
        """Accept no more: others do. The connections of these listeners stay as long as they live, others drain."""
        before = {listener.name for listener in self._listeners} if self._kept is None else self._kept
        self._kept = before & {*how["listeners"]}
        for listener in self._listeners:
            if listener.name in self._kept:
                listener.stop_accepting()
            elif listener.name in before:
                Drain(self._watcher, [listener], how["timeout_s"], eager=False, done=_nothing, is_held=self._is_giving)
        self._leave_to_others(how)
        self._watcher.post(lambda result: self._end_if_left())

    def _end_if_left(self) -> None:
        """End, if it only keeps connections and the last one is gone."""
        is_left = self._kept is not None and not any(listener.active for listener in self._listeners)
        if is_left and not self._is_giving():
            self._loop.end()

    def _is_giving(self) -> bool:
        """Tell whether connections are being handed over, or about to be."""
        return self._to_hand_over is not None or (self._giver is not None and not self._giver.is_over)

    def _take_drain(self, how: dict[str, Any]) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self._drain = Drain(
            self._watcher,
            self._listeners,
            how["timeout_s"],
            eager=how["eager"],
            done=self._drained,
            is_held=self._is_giving if how.get("to") else _never,
        )
        self._leave_to_others(how)

    def _hand_over(self, how: dict[str, Any]) -> None:
        """Hand connections to the workers that come after, if there are any."""
        from gaiod.worker.handover.giver import Giver  # late: most workers never hand over, until they end

        takers = how.get("to", ())
        if not takers:
            return
        if self._giver is not None and not self._giver.is_over:
            self._to_hand_over = how  # those who take now may be on their way out
            if not self._giver.gives_all:
                self._giver.cut_short()
        else:
            self._giver = Giver(
                self._watcher,
                takers,
                self._listeners,
                names=self._names,
                positions=self._positions,
                timeout_s=how["handover_timeout_s"],
                after_pass=self._loop.after_pass,
                done=partial(self._take_outcome, how),
                before=self._giver,
            )

    def _leave_to_others(self, how: dict[str, Any]) -> None:
        """Take no connections over any more, and hand over those that are here."""
        self._how = how
        if self._taker is not None:
            self._taker.is_leaving = True
        self._hand_over(how)

    def _take_takers(self, addresses: list[dict[str, str]]) -> None:
        """Hand over to workers that serve since now, too: those that this one knows may be on their way out."""
        if self._giver is not None:
            self._giver.add_takers(addresses)

    def _take_late(self, listener: Listener, conn: Conn) -> None:
        """Hand on a connection that has come, although others serve since a moment ago."""
        if self._giver is not None and not self._giver.is_over:
            self._giver.add(listener, conn)
        else:
            self._hand_over(self._how)

    def _take_outcome(self, asked: dict[str, Any], outcome: "Outcome") -> None:
        if "id" in asked:
            self._answer(asked, asdict(outcome))
        else:
            self._channel.send({"handed_over": asdict(outcome)})
        how, self._to_hand_over = self._to_hand_over, None
        if how is not None:
            self._hand_over(how)
        elif self._is_drained:
            self._loop.end()
        self._end_if_left()

    def _drained(self) -> None:
        """End, once all connections are gone, and the supervisor knows where to."""
        self._is_drained = True
        if not self._is_giving():
            self._loop.end()

    def _positions(self) -> dict[str, tuple[str, int]]:
        return {} if self._link is None else self._link.positions()

    def _take_drain_listener(self, how: dict[str, Any]) -> None:
        listeners = [listener for listener in self._listeners if listener.settings.name == how["listener"]]
        Drain(self._watcher, listeners, how["timeout_s"], eager=False, done=_nothing)

    def _take_question(self, question: dict[str, Any]) -> None:
        if question["verb"] == "fed":
            self._asked_fed.append(question)
            self._answer_fed()
        elif question["verb"] == "rebalance":
            if self._is_giving() or self._how:
                self._answer(question, {"moved": 0, "stayed": {}, "held_bytes": 0, "took_s": 0.0})
            else:
                self._hand_over(question)
        else:
            result = self._questions.answer(question)
            if result != UNKNOWN:
                self._answer(question, result)
            else:  # its CLOSE may be on the way: it is written down before what is posted now
                self._watcher.post(lambda posted: self._answer(question, self._questions.answer(question)))

    def _answer(self, question: dict[str, Any], result: dict[str, Any]) -> None:
        self._channel.send({"answer": question["id"], "result": result})


def _add(cells: Any, cell: int, amount: int) -> None:
    """Count."""
    cells[cell] += amount


def _never() -> bool:
    """Tell that a daemon that stops waits for no other worker."""
    return False


def _nothing() -> None:
    """Do nothing when a listener has drained."""


def _refuse(channel: socket.socket, why: str) -> NoReturn:
    """Say why this worker cannot serve, and end."""
    channel.sendall(json.dumps({"failed": why, "status": os.EX_CONFIG}).encode() + b"\n")
    sys.exit(os.EX_CONFIG)


def main() -> None:
    """Run as a process of its own."""
    take_known_state()
    make_room_for_descriptors(int(sys.argv[1]))  # now: there is one thread
    sys.exit(Worker(int(sys.argv[1])).run())


if __name__ == "__main__":
    main()
