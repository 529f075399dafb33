"""What the daemon does when it is asked over its control socket."""

import os
import platform
import time
from collections.abc import Callable, Container
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from gaiod.control.bans import parse_network, parse_time
from gaiod.control.protocol import ControlError, check_message, refused, succeeded
from gaiod.core.watcher import Watcher
from gaiod.handler.admin_state import WEIGHT_MAX, AdminState, admin_key, admin_states
from gaiod.supervisor.file_watch import Told, WatchedFile
from gaiod.supervisor.operators.server import Reply
from gaiod.supervisor.operators.snapshot import Snapshot
from gaiod.supervisor.processes.child import Phase
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Member
from gaiod.supervisor.processes.health import Health
from gaiod.supervisor.processes.rebalance import Outcome as Balance
from gaiod.supervisor.processes.rebalance import Rebalancing
from gaiod.supervisor.reload import Asker, Outcome
from gaiod.watched_files import TLS_KINDS

Found = tuple[Member, dict[str, Any]]
"""Who knows a connection, and what."""

AGAIN_S = 0.25
"""When workers are asked once more for a connection that none knows: a hand-over takes some milliseconds of each."""

PATIENCE_S = 2.0
"""How long workers are waited for: one that hangs must not keep an operator from seeing the others."""


class Commands:
    """Serves the verbs of `verbs.VERBS`."""

    def __init__(
        self,
        watcher: Watcher,
        snapshot: Snapshot,
        fleet: Fleet,
        health: Health,
        path: Path,
        *,
        rebalancing: Rebalancing,
        renew: Callable[[Container[str], Told], None],
        reload: Callable[[Asker], None],
        upgrade: Callable[[Asker], None],
        drain: Callable[[str], None],
        is_changing: Callable[[], bool],
    ) -> None:
        """Answer from what there is.

        Args:
            watcher: the supervisor's.
            snapshot: what can be seen of the daemon.
            fleet: its workers.
            health: who replaces them.
            path: the configuration file.
            rebalancing: evens out the workers' connections.
            renew: reads files of some kinds, and has the outcome told: as `FileWatch.read_now`.
            reload: starts a reload, and has its outcome told.
            upgrade: starts an upgrade, and has its outcome told.
            drain: stops serving a listener.
            is_changing: tells whether a reload or an upgrade is under way.
        """
        self._watcher = watcher
        self._snapshot = snapshot
        self._fleet = fleet
        self._health = health
        self._rebalancing = rebalancing
        self._path = path
        self._renew = renew
        self._reload = reload
        self._upgrade = upgrade
        self._drain = drain
        self._is_changing = is_changing

    def answer(self, request: dict[str, Any], reply: Reply) -> None:
        """Serve a request: as `Control` wants it."""
        match request["verb"]:
            case "status":
                about = {"pid": os.getpid(), "python": platform.python_version(), "config": str(self._path.absolute())}
                reply(succeeded({**self._snapshot.status(), **about}))
            case "connections":
                self._connections(request, reply)
            case "explain":
                self._explain(request["connection"], reply)
            case "kill":
                self._kill(request["connection"], reply)
            case "restart":
                self._check_serving()
                if self._is_changing():
                    raise ControlError("a reload or an upgrade is under way, which starts new workers", os.EX_TEMPFAIL)
                self._health.replace_all("admin", partial(_tell_replaced, reply))
            case "rebalance":
                self._rebalance(request["listener"], reply)
            case "certificates":
                reply(succeeded({"certificates": self._snapshot.certificates()}))
            case "renew":
                self._check_serving()
                self._renew(TLS_KINDS, partial(_tell_renewed, reply))
            case "reload":
                self._reload(
                    _telling(reply, "generation", lambda: {"changes": self._snapshot.last_changes, **self._warnings()})
                )
            case "upgrade":
                self._upgrade(_telling(reply, "pid", dict))
            case "drain":
                self._drain_listener(request["listener"], reply)
            case "server":
                reply(succeeded(self._administer(request)))
            case "bans":
                reply(succeeded({"bans": self._fleet.bans.rows()}))
            case "ban":
                reply(succeeded({"network": self._ban(request["network"], request["for"])}))
            case "unban":
                reply(succeeded({"network": self._unban(request["network"])}))
            case "publish":
                self._publish(request, reply)

    def _warnings(self) -> dict[str, Any]:
        """Return what is to be said of a reload that succeeded."""
        return {"without_servers": self._snapshot.without_servers()}

    def _check_serving(self) -> None:
        if self._fleet.generation is None or self._fleet.is_stopping:
            raise ControlError("gaiod is starting or stopping; try again when it serves", os.EX_TEMPFAIL)

    def _check_listener(self, name: str) -> None:
        names = [listener.settings.name for listener in self._snapshot.listeners()]
        if name not in names:
            raise ControlError(f"there is no listener {name}; there is {', '.join(names) or 'none yet'}")

    def _connections(self, request: dict[str, Any], reply: Reply) -> None:
        """Ask every worker, and merge what they say."""
        if request["listener"] is not None:
            self._check_listener(request["listener"])
        members = [member for member in self._fleet if member.process.ready_s is not None]
        left, total = len(members), 0
        rows: list[dict[str, Any]] = []

        silent = {member.process.number for member in members}
        is_told = False

        def take(member: Member, result: dict[str, Any] | None) -> None:
            nonlocal left, total
            left -= 1
            silent.discard(member.process.number)
            if result is not None:
                total += result["total"]
                rows.extend({**row, "worker": member.process.number} for row in result["connections"])
            if left == 0:
                finish()

        def finish(*_: object) -> None:
            nonlocal is_told
            if not is_told:
                is_told = True
                rows.sort(key=ORDERS[request["sort"]], reverse=True)
                first = rows[: request["limit"]]
                reply(succeeded({"total": total, "connections": first, "silent_workers": sorted(silent)}))

        self._watcher.timer(time.monotonic() + PATIENCE_S, context=finish)
        for member in members:
            member.process.ask(request, partial(take, member))
        if not members:
            finish()

    def _explain(self, connection: str, reply: Reply) -> None:
        """Look whether it has closed; else ask every worker: any may have it. It may close meanwhile."""
        closes = self._fleet.closes

        def take(found: Found | None, silent: list[int]) -> None:
            if found is None:
                closed = closes.find(connection)
                why = "it closed longer ago than is remembered, was lost with its worker, or never was"
                reply(_missing(connection, why, silent) if closed is None else _closed(connection, closed))
                return
            member, result = found
            is_kept = member.process.phase is Phase.KEEPING and result["listener"] in (member.kept or ())
            kept = {"kept": member.generation.number} if is_kept else {}
            reply(succeeded({"id": connection, "worker": member.process.number, **kept, **result}))

        closed = closes.find(connection)
        if closed is not None:
            reply(_closed(connection, closed))
            return
        question = {"verb": "explain", "connection": connection}
        self._find(question, lambda result: result["state"] != "unknown", take)

    def _kill(self, connection: str, reply: Reply) -> None:
        def take(found: Found | None, silent: list[int]) -> None:
            why = "it has closed, or never was"
            reply(_missing(connection, why, silent) if found is None else succeeded({}))

        self._find({"verb": "kill", "connection": connection}, lambda result: bool(result["found"]), take)

    def _find(
        self,
        question: dict[str, Any],
        is_it: Callable[[dict[str, Any]], bool],
        take: Callable[[Found | None, list[int]], None],
        *,
        again: bool = True,
    ) -> None:
        """Ask every worker about a connection: `take` gets who knows it, and what; else None, and who was silent.

        They are asked once more: nobody knows one while it is handed over.
        """
        members = [member for member in self._fleet if member.process.ready_s is not None]
        silent = {member.process.number for member in members}
        left = len(members)
        is_told = False

        def hear(member: Member, result: dict[str, Any] | None) -> None:
            nonlocal left
            left -= 1
            silent.discard(member.process.number)
            if result is not None and is_it(result):
                tell((member, result))
            if left == 0:
                tell(None)

        def tell(found: Found | None) -> None:
            nonlocal is_told
            if is_told:
                return
            is_told = True
            if found is None and again and not silent:
                retry = partial(self._find, question, is_it, take, again=False)
                self._watcher.timer(time.monotonic() + AGAIN_S, context=lambda result: retry())
            else:
                take(found, sorted(silent))

        self._watcher.timer(time.monotonic() + PATIENCE_S, context=lambda result: tell(None))
        for member in members:
            member.process.ask(question, partial(hear, member))
        if not members:
            tell(None)

    def _publish(self, request: dict[str, Any], reply: Reply) -> None:
        self._check_serving()
        listener = request["listener"]
        if listener is not None:
            self._check_listener(listener)
        taking = [listener.settings.name for listener in self._snapshot.listeners() if listener.settings.sources]
        if not taking:
            raise ControlError(
                "no listener takes messages: no handler has on_message; configure one that does, such as push"
            )
        if listener not in (None, *taking):
            others = f"{', '.join(taking)} {'does' if len(taking) == 1 else 'do'}"
            raise ControlError(f"listener {listener} does not take messages: its handler has no on_message; {others}")
        check_message(request["topic"], request["message"])

        def take(answer: dict[str, Any]) -> None:
            error = answer.get("error")
            reply(succeeded(answer) if error is None else refused(error, answer["status"]))

        self._fleet.feeding.publish(request, take)

    def _administer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Say what is wanted of a server, and return what is from now on."""
        self._check_serving()
        name, label, weight = request["listener"], request["server"], request["weight"]
        self._check_listener(name)
        listener = next(each for each in self._snapshot.listeners() if each.settings.name == name)
        settings = listener.settings
        if not settings.takes_admin_state:
            raise ControlError(f"listener {name} has no servers that can be drained: its handler has no on_admin_state")
        if label not in settings.servers:
            raise ControlError(f"listener {name} has no server {label}; there is {', '.join(settings.servers)}")
        if weight not in (None, "configured") and int(weight) > WEIGHT_MAX:
            raise ControlError(f"the weight {weight} is too high; write 0 to {WEIGHT_MAX}, or configured")
        if self._is_changing():
            raise ControlError("a reload or an upgrade is under way; try again when it is done", os.EX_TEMPFAIL)
        before = admin_states(self._snapshot.shared(listener.key)).get(label, AdminState())
        after = before
        if request["mode"] not in (None, before.mode):
            after = replace(after, mode=request["mode"], since_s=time.monotonic())
        if weight is not None:
            after = replace(after, weight=None if weight == "configured" else int(weight))
        self._fleet.shared.put(listener.key, admin_key(label), asdict(after), self._fleet)
        if admin_states(self._snapshot.shared(listener.key)).get(label) != after:
            raise ControlError(f"what listener {name} shares leaves no room for it; its log says more", os.EX_SOFTWARE)
        return {"listener": name, "server": label, "mode": after.mode, "weight": after.weight}

    def _rebalance(self, name: str | None, reply: Reply) -> None:
        """Even out the connections of a listener, or of all whose connections can move."""
        self._check_serving()
        if name is not None:
            self._check_listener(name)
        if self._is_changing():
            raise ControlError("a reload or an upgrade is under way, which moves connections itself", os.EX_TEMPFAIL)
        if self._rebalancing.is_running:
            raise ControlError("connections are being evened out already; try again when it is done", os.EX_TEMPFAIL)
        listeners = [each.settings for each in self._snapshot.listeners() if name in (None, each.settings.name)]
        obstacles = {each.name: self._rebalancing.obstacle(each) for each in listeners}
        left_out = {each: why[0] for each, why in obstacles.items() if why is not None}
        names = [each for each in obstacles if each not in left_out]
        if not names:
            each, why = next((each, why) for each, why in obstacles.items() if why is not None)
            others = "" if len(obstacles) == 1 else ", and there is none whose can"
            raise ControlError(f"connections of listener {each} cannot move: {why[0]}{others}", why[1])

        def tell(balance: Balance) -> None:
            reply(succeeded({**_facts_of(balance), "left_out": left_out}))

        self._rebalancing.begin(names, tell)

    def _ban(self, text: str, time: str | None) -> str:
        network = self._network_of(text)
        try:
            self._fleet.ban(network, None if time is None else parse_time(time))
        except ValueError as error:
            raise ControlError(str(error)) from error
        return network

    def _unban(self, text: str) -> str:
        network = self._network_of(text)
        if network not in self._fleet.bans:
            raise ControlError(f"{network} is not banned; gaiod bans shows who is")
        self._fleet.unban(network)
        return network

    def _network_of(self, text: str) -> str:
        """Return the network that is meant, if bans can be changed now: a new daemon has been told of them already."""
        self._check_serving()
        network = parse_network(text)
        if self._is_changing():
            raise ControlError("a reload or an upgrade is under way; try again when it is done", os.EX_TEMPFAIL)
        return network

    def _drain_listener(self, name: str, reply: Reply) -> None:
        self._check_serving()
        self._check_listener(name)
        if name in self._fleet.drained:
            raise ControlError(f"listener {name} is drained already; a reload opens it again", os.EX_TEMPFAIL)
        listeners = self._snapshot.status()["listeners"]
        count = next(row["connections"] for row in listeners if row["listener"] == name)
        self._drain(name)
        reply(succeeded({"connections": count}))


ORDERS: dict[str, Callable[[dict[str, Any]], float]] = {
    "age": lambda row: float(row["age_s"]),
    "bytes": lambda row: float(row["received_bytes"] + row["sent_bytes"]),
    "stalled": lambda row: float(row["waiting_s"]),
    "buffered": lambda row: float(row["buffered_bytes"]),
    "traffic": lambda row: float(row["bytes_per_s"] or 0.0),
}
"""As `gaiod.worker.inspect.questions.ORDERS`, of rows."""


def _closed(connection: str, told: dict[str, Any]) -> dict[str, Any]:
    return succeeded({"id": connection, "state": "closed", **told})


def _missing(connection: str, why: str, silent: list[int]) -> dict[str, Any]:
    """Return the refusal of a question about a connection that no worker knows."""
    if not silent:
        return refused(f"there is no connection {connection}: {why}", os.EX_UNAVAILABLE)
    who = f"worker{'s'[: len(silent) != 1]} {', '.join(map(str, silent))}"
    hint = f"{'its loop is' if len(silent) == 1 else 'their loops are'} busy, or hang{'s'[: len(silent) == 1]}"
    text = f"{who} did not answer within {PATIENCE_S:g} s: {hint}; see the log. The others do not know {connection}"
    return refused(text, os.EX_TEMPFAIL)


def _facts_of(balance: Balance) -> dict[str, Any]:
    """Return what a client is told of how connections were evened out."""
    listeners = [
        {
            "listener": name,
            "workers": [
                {"worker": number, "before": before, "after": balance.after[name][number]}
                for number, before in counts.items()
            ],
        }
        for name, counts in balance.before.items()
    ]
    return {
        "moved": balance.moved,
        "stayed": dict(balance.stayed),
        "even": balance.is_even,
        "listeners": listeners,
    }


def _tell_replaced(reply: Reply, replaced: list[int], failed: list[int]) -> None:
    if failed:
        slots = ", ".join(map(str, failed))
        why = (
            f"the successors of these workers did not become ready, so the old ones continue: {slots}; the log says why"
        )
        reply(refused(why, os.EX_SOFTWARE))
    else:
        reply(succeeded({"workers": replaced}))


def _tell_renewed(reply: Reply, outcomes: list[tuple[WatchedFile, str]] | None) -> None:
    if outcomes is None:
        reply(refused("a reload or an upgrade is under way, which reads all files", os.EX_TEMPFAIL))
        return
    rows = [
        {"kind": file.kind, "file": file.name, "files": file.files, "result": result, "error": file.error}
        for file, result in outcomes
    ]
    reply(succeeded({"files": rows}))


def _telling(reply: Reply, name: str, more: Callable[[], dict[str, Any]]) -> Asker:
    """Return what tells a client how a reload or an upgrade went; on success a number, called `name`, and `more()`."""

    def tell(outcome: Outcome) -> None:
        status, text = outcome
        reply(refused(text, status) if status else succeeded({name: int(text), **more()}))

    return tell
