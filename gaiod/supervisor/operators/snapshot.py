"""What there is to see of a running daemon: the one picture that metrics and `gaiod status` are drawn from."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import floor, inf
from typing import Any

from gaiod.core import ENGINE
from gaiod.handler.admin_state import AdminState, admin_states
from gaiod.observe.collector import ServedListener
from gaiod.plugins import label_of
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import CELL, SERVER_CELL, SERVER_FAILURES, SIDES, open_connections, open_to_server
from gaiod.stats.feeder_cells import SOURCE_CELL
from gaiod.supervisor.file_watch import FileWatch, WatchedFile
from gaiod.supervisor.operators.rates import RATED, Samples
from gaiod.supervisor.processes.child import Phase
from gaiod.supervisor.processes.feeder_counts import SourceKey
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.processes.generation import Member
from gaiod.supervisor.processes.slots import Key, ServerKey, Slot, added
from gaiod.supervisor.reload import Reloads
from gaiod.version import __version__

DAY_S = 86_400.0


class Snapshot:
    """A view of the daemon. It changes nothing.

    Args:
        fleet: its workers.
        reloads: how its reloads went.
        watch: the files that the configuration names.
        state: returns where it stands, in a word.
    """

    def __init__(self, fleet: Fleet, reloads: Reloads, watch: FileWatch, state: Callable[[], str]) -> None:
        self._fleet = fleet
        self._reloads = reloads
        self._watch = watch
        self._state = state
        self._samples = Samples()
        self._started_s = time.monotonic()

    # -- what the collector asks -----------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether new connections are wanted, and served."""
        return self._state() in ("serving", "reloading") and bool(self._fleet.serving)

    @property
    def is_draining(self) -> bool:
        """Whether it is about to end."""
        return self._state() == "stopping"

    @property
    def reload_results(self) -> Counter[str]:
        """How many reloads were a success, and a failure."""
        return self._reloads.results

    @property
    def last_reload_worked(self) -> bool:
        """Whether what is in the file is what is served."""
        return self._reloads.last_error is None

    @property
    def last_success_s(self) -> float:
        """When what is served was loaded, in Unix time."""
        return self._reloads.last_success_s

    @property
    def last_changes(self) -> list[str]:
        """What the last reload that worked has changed, a line each."""
        return self._reloads.last_changes

    @property
    def keeping_workers(self) -> int:
        """How many workers of earlier generations keep the connections of unchanged listeners."""
        return len(self._fleet.keeping)

    def kept_connections(self, key: Key, slot: int | None = None) -> int:
        """Return how many connections of a listener those of a slot keep; None: of all slots."""
        return sum(
            member.connections_of({key[0]} & (member.kept or frozenset()))
            for member in self._fleet.keeping
            if slot in (None, member.process.number)
        )

    def files(self) -> list[WatchedFile]:
        """Return the files that are read again when they change."""
        return self._watch.files

    def ticket_key_age_s(self, listener: ListenerSettings) -> float | None:
        """Return how old the newest key of a listener's TLS tickets is; None: it has none."""
        return self._fleet.tickets.age_s(listener)

    def slots(self) -> Iterable[Slot]:
        """Return the slots that have counted something."""
        return [slot for _, slot in sorted(self._fleet.slots.items())]

    def usage(self, slot: int) -> dict[str, float]:
        """Return what the worker that serves uses of the machine."""
        member = self._fleet.serving.get(slot)
        return {} if member is None else member.process.usage()

    def cpu_s(self, slot: int) -> float:
        """Return the CPU time that the workers of a slot have used, those included that are gone or drain."""
        live = (member.process.cpu_s() for member in self._fleet if member.process.number == slot)
        # What a float sum is depends on the order, and to Prometheus a counter that falls by 1e-16 begins anew.
        return round(self._fleet.slots[slot].retired_cpu_s + sum(live), 6)

    def heartbeat_age_s(self, slot: int) -> float | None:
        """Return how long ago its loop completed a pass; None without a worker."""
        member = self._fleet.serving.get(slot)
        return None if member is None else member.process.heartbeat_age_s(time.monotonic())

    def listeners(self) -> list[ServedListener]:
        """Return the listeners that are configured."""
        generation = self._fleet.generation
        if generation is None:
            return []
        pairs = zip(generation.settings.listeners, generation.listeners, strict=True)
        return [
            ServedListener(settings, [] if settings.name in self._fleet.drained else listener.sockets)
            for settings, listener in pairs
        ]

    # -- what an operator asks ---------------------------------------------------------------------------

    def sample(self) -> None:
        """Remember the counters of now: rates are differences."""
        if self._samples.is_due:
            rows = {listener.key: self.row(listener.key) for listener in self.listeners()}
            workers = {member.process.instance: member.process.memory.worker_cells() for member in self._fleet}
            self._samples.take(rows, workers)

    def status(self) -> dict[str, Any]:
        """Return what `gaiod status` shows."""
        generation = self._fleet.generation
        last_s = self._reloads.last_s
        return {
            "version": __version__,
            "engine": ENGINE,
            "state": self._state(),
            "ready": self.is_ready,
            "uptime_s": round(time.monotonic() - self._started_s, 1),
            "generation": 0 if generation is None else generation.number,
            "last_reload": None
            if last_s is None
            else {"ok": self.last_reload_worked, "at": last_s, "error": self._reloads.last_error},
            "workers": sorted(
                [*(self._worker(member) for member in self._fleet), *self._absent()],
                key=lambda row: (row["worker"], row["instance"] or inf),
            ),
            "listeners": [self._listener(index, listener) for index, listener in enumerate(self.listeners())],
            "servers": self._servers(),
            "without_servers": self.without_servers(),
            "feeder": self._feeder(),
            "sources": self._sources(),
            "files": [_file(each) for each in self.files()],
            "bans": len(self._fleet.bans),
        }

    def certificates(self) -> list[dict[str, Any]]:
        """Return what `gaiod certificates` shows: a row for each certificate of each listener."""
        watched = {(each.kind, each.files): each for each in self.files()}
        now_s = time.time()
        rows = []
        for listener in self.listeners():
            for each in () if listener.settings.tls is None else listener.settings.tls.certificates:
                file = watched.get(("certificate", each.files))
                rows.append({
                    "listener": listener.settings.name,
                    "names": each.names,
                    "serial": each.serial,
                    "fingerprint": each.fingerprint,
                    "issuer": each.issuer,
                    "not_after": each.not_after_s,
                    "days_left": floor((each.not_after_s - now_s) / DAY_S),
                    "ocsp_not_after": each.ocsp_not_after_s if each.ocsp else None,
                    "files": each.files,
                    "since": None if file is None else file.since_s,
                    "ok": file is None or file.error is None,
                    "error": None if file is None else file.error,
                })  # fmt: skip
        return rows

    def _worker(self, member: Member) -> dict[str, Any]:
        process = member.process
        now_s = time.monotonic()
        usage = process.usage()
        return {
            "worker": process.number,
            "instance": process.instance,
            "pid": process.pid,
            "generation": member.generation.number,
            "state": process.phase.name.lower(),
            "age_s": round(now_s - process.started_s, 1),
            "heartbeat_age_s": round(process.heartbeat_age_s(now_s), 3),
            "connections": process.memory.connections,
            "memory_bytes": usage.get("resident_bytes"),
            "cpu_seconds": usage.get("cpu_seconds"),
            "restarts": self._unplanned(process.number),
            **self._samples.of_worker(process.instance, process.memory.worker_cells()),
        }

    def _unplanned(self, number: int) -> int:
        """Return how often a slot's worker died or hung."""
        restarts = self._fleet.slots[number].restarts
        return sum(restarts[why] for why in ("exit", "signal", "watchdog"))

    def _absent(self) -> list[dict[str, Any]]:
        """Return rows for the slots whose next worker is not started yet."""
        unknown = dict.fromkeys(
            (
                "instance", "pid", "generation", "age_s", "heartbeat_age_s", "memory_bytes", "cpu_seconds", "busy",
                "loop_lag_s",
            )
        )  # fmt: skip
        starting = {member.process.number for member in self._fleet if member.process.phase is Phase.STARTING}
        return [
            {
                **unknown,
                "worker": number,
                "state": "waiting",
                "connections": 0,
                "restarts": self._unplanned(number),
            }
            for number in sorted(self._fleet.waiting - starting)
        ]

    def _listener(self, index: int, listener: ServedListener) -> dict[str, Any]:
        generation = self._fleet.generation
        assert generation is not None
        row = self.row(listener.key)
        live = [slot.live_row(listener.key) for slot in self.slots()]
        connections = sum(map(open_connections, live))
        state = "serving"
        if listener.settings.name in self._fleet.drained or self._fleet.is_stopping:
            state = "draining" if connections else "drained"
        queues = [queue for queue in listener.queues() if queue is not None]
        return {
            "listener": listener.settings.name,
            "bind": generation.listeners[index].address,
            "handler": label_of(listener.settings.handler),
            "state": state,
            "connections": connections,
            "connections_kept": self.kept_connections(listener.key),
            "connections_max": listener.settings.connections_max,
            **{name: row[cell] for name, cell in RATED.items()},
            "queue": sum(length for length, _ in queues) if queues else None,
            "queue_limit": sum(limit for _, limit in queues) if queues else None,
            "waiting_for_server": max(0, row[CELL["upstream_queued"]]) if listener.settings.servers else None,
            "rates": self._samples.of_listener(listener.key, row),
            "rejected": self._samples.rejected(listener.key, row),
            "backpressure": {side: _pressure(side, row, live) for side in SIDES},
        }

    def without_servers(self) -> list[str]:
        """Return the listeners that have servers, none of which takes clients: all are down or drained."""
        takes: dict[str, bool] = {}
        for row in self._servers():
            is_drained = row["admin"] != "ready" or row["weight"] == 0
            takes[row["listener"]] = takes.get(row["listener"], False) or (row["up"] and not is_drained)
        return [listener for listener, some in takes.items() if not some]

    def _servers(self) -> list[dict[str, Any]]:
        """Return a row for each server that a listener connects to. One is up if it is to all workers."""
        rows = self.server_rows()
        states = {each.key: admin_states(self.shared(each.key)) for each in self.listeners()}
        return [
            {
                "listener": each.settings.name,
                "server": name,
                "up": cells[SERVER_CELL["down"]] == 0,
                "admin": admin.mode,
                "weight": admin.weight,
                "connections": open_to_server(cells),
                "made": cells[SERVER_CELL["connections"]],
                "failures": sum(cells[SERVER_CELL[f"failed_{why}"]] for why in SERVER_FAILURES),
            }
            for each in self.listeners()
            for name in each.settings.servers
            for cells in [rows.get((each.key, name), [0] * len(SERVER_CELL))]
            for admin in [states[each.key].get(name, AdminState())]
        ]

    def _feeder(self) -> dict[str, Any] | None:
        """Return a row for the process that runs the sources; None if no listener takes messages."""
        feeding = self._fleet.feeding
        if not feeding.is_needed:
            return None
        process, now_s = feeding.process, time.monotonic()
        usage = {} if process is None else process.usage()
        return {
            "pid": None if process is None else process.pid,
            "state": "running" if feeding.is_up else "waiting" if process is None else "starting",
            "age_s": None if process is None else round(now_s - process.started_s, 1),
            "heartbeat_age_s": None if process is None else round(process.heartbeat_age_s(now_s), 3),
            "memory_bytes": usage.get("resident_bytes"),
            "cpu_seconds": usage.get("cpu_seconds"),
            "restarts": feeding.restarts,
        }

    def _sources(self) -> list[dict[str, Any]]:
        """Return a row for each source of a listener that is configured."""
        rows = self.source_rows()
        return [
            {
                "listener": each.settings.name,
                "source": name,
                "up": bool(cells[SOURCE_CELL["up"]]),
                **{what: cells[SOURCE_CELL[what]] for what in ("published", "refused", "reconnects", "gaps")},
            }
            for each in self.listeners()
            for name in each.settings.sources
            for cells in [rows.get((each.settings.name, name), [0] * len(SOURCE_CELL))]
        ]

    def row(self, key: Key) -> list[int]:
        """Return the cells of a listener, summed over all slots, those that there are no more included."""
        rows = [slot.row(key) for slot in (self._fleet.past, *self.slots())]
        return [sum(cells) for cells in zip(*rows, strict=True)]

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """Return the cells of every server that was counted for, summed likewise."""
        return added(slot.server_rows() for slot in (self._fleet.past, *self.slots()))

    def shared(self, key: Key) -> Mapping[str, Any]:
        """Return what the workers of a listener share."""
        return self._fleet.shared.of(key)

    def source_rows(self) -> dict[SourceKey, list[int]]:
        """Return the cells of every source that was counted for, over all feeders."""
        return self._fleet.feeding.counts.rows()

    def feeder(self) -> tuple[bool, int, int, int] | None:
        """Return whether the feeder runs, and what it has counted; None: no listener takes messages.

        How often it was started again; of its code, how many files are others; and how many last messages it has
        dropped.
        """
        feeding = self._fleet.feeding
        if not feeding.is_needed:
            return None
        return feeding.is_up, feeding.restarts, feeding.counts.code_changed, feeding.counts.forgotten


def _file(file: WatchedFile) -> dict[str, Any]:
    """Return a row for files that are read again when they change."""
    return {
        "kind": file.kind,
        "file": file.name,
        "ok": file.error is None,
        "error": file.error,
        "read_age_s": round(time.time() - file.read_s, 1),
    }


def _pressure(side: str, row: list[int], live: list[list[int]]) -> dict[str, int]:
    """Return how many connections of a side do not take all that there is for them now, and what is held for them."""
    paused = sum(each[CELL[f"{side}_pauses"]] - each[CELL[f"{side}_resumes"]] for each in live)
    return {
        "paused_connections": max(0, paused),
        "buffered_bytes": max(0, row[CELL[f"{side}_buffered_bytes"]]),
    }
