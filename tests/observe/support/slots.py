"""Workers that are nothing but numbers, and the collector that reads them."""

import socket
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from prometheus_client.metrics_core import Metric

from gaiod.core import counters
from gaiod.handler.admin_state import AdminState, admin_key
from gaiod.observe.collector import Collector, Key, ServedListener, ServerKey
from gaiod.observe.push_metrics import SourceKey
from gaiod.settings import CertificateSettings, ListenerSettings, TlsSettings
from gaiod.stats.cells import CELL, SERVER_CELL, Layout
from gaiod.stats.feeder_cells import SOURCE_CELLS
from gaiod.supervisor.file_watch import WatchedFile
from gaiod.supervisor.processes.slots import added

USAGE = {"resident_bytes": 9_000_000.0, "open_fds": 12.0, "max_fds": 1024.0}


class FakeSlot:
    """A worker's slot: what lives counts in `cells`, what is gone has counted `past`."""

    def __init__(self, number: int, layout: Layout, keys: dict[Key, tuple[str, ...]]) -> None:
        self.number = number
        self.restarts: Counter[str] = Counter()
        self.cells: Any = memoryview(bytearray(8 * layout.size)).cast("q")
        self.past: Any = memoryview(bytearray(8 * layout.size)).cast("q")
        self._layout = layout
        self._keys = keys

    def worker_cells(self) -> list[int]:
        """Those of no listener, of the past and of now."""
        return _sum(self.past[: self._layout.row(0)], self.live_cells())

    def live_cells(self) -> list[int]:
        """Those of now."""
        return list(self.cells[: self._layout.row(0)])

    def row(self, key: Key) -> list[int]:
        """A listener's, of the past and of now."""
        return _sum(self._row_of(self.past, key), self.live_row(key))

    def live_row(self, key: Key) -> list[int]:
        """A listener's, of now."""
        return self._row_of(self.cells, key)

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """Every server's, of the past and of now."""
        return {
            (key, label): _sum(self.past[first:end], self.cells[first:end])
            for number, (key, labels) in enumerate(self._keys.items())
            for index, label in enumerate(labels)
            for first in [self._layout.server(number, index)]
            for end in [first + len(SERVER_CELL)]
        }

    def _row_of(self, cells: Any, key: Key) -> list[int]:
        first = self._layout.row(list(self._keys).index(key))
        return list(cells[first : first + len(CELL)])


class FakeDaemon:
    """Slots of `workers` with `listeners` each, named l0, l1, ... with handlers h0, h1, ... and the same servers."""

    def __init__(
        self,
        workers: int = 1,
        listeners: int = 1,
        *,
        handler: str | None = None,
        servers: tuple[str, ...] = ("s0", "s1"),
        sources: tuple[str, ...] = ("publish", "s0"),
        buffer_limit_bytes: int | None = 65536,
    ) -> None:
        self.layout = Layout((len(servers),) * listeners)
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(listeners)]
        self.all_listeners = [
            ServedListener(
                ListenerSettings(
                    name=f"l{number}",
                    bind="unix:/x",
                    handler=handler or f"h{number}",
                    servers=servers,
                    sources=sources,
                    buffer_limit_bytes=buffer_limit_bytes,
                    tls=TlsSettings(
                        (CertificateSettings("", "", ("example.org",), 2e9, ocsp="QQ==", ocsp_not_after_s=1.9e9),)
                    ),
                ),
                [sock],
            )
            for number, sock in enumerate(self.sockets)
        ]
        keys = {source.key: servers for source in self.all_listeners}
        self.all_slots = [FakeSlot(number, self.layout, keys) for number in range(workers)]
        self.cells = [slot.cells for slot in self.all_slots]
        self.usages = dict.fromkeys(range(workers), USAGE)
        self.heartbeat_ages_s: dict[int, float] = dict.fromkeys(range(workers), 0.25)
        self.all_source_rows = {
            (source.settings.name, label): [0] * len(SOURCE_CELLS)
            for source in self.all_listeners
            for label in source.settings.sources
        }
        self.cpu_seconds = Counter({0: 1.25})
        self.feeder_state: tuple[bool, int, int, int] | None = (True, 0, 0, 0)
        self.all_shared: dict[Key, dict[str, Any]] = {}
        self.keeping_workers = 0
        self.all_files = [WatchedFile("access", ("/etc/gaiod/blocked.txt",))]
        self.kept: Counter[tuple[Key, int]] = Counter()
        self.is_ready = True
        self.is_draining = False
        self.reload_results: Counter[str] = Counter(success=0, failure=0)
        self.last_reload_worked = True
        self.last_success_s = time.time()

    # -- what the collector asks -----------------------------------------------------------------------

    def files(self) -> list[WatchedFile]:
        """The files that are read again when they change."""
        return self.all_files

    def ticket_key_age_s(self, listener: ListenerSettings) -> float | None:
        """The age of the newest key."""
        return 600.0

    def slots(self) -> list[FakeSlot]:
        """The slots."""
        return self.all_slots

    def usage(self, slot: int) -> dict[str, float]:
        """What the worker that serves uses of the machine."""
        return self.usages.get(slot, {})

    def cpu_s(self, slot: int) -> float:
        """The CPU time that its workers have used."""
        return self.cpu_seconds[slot]

    def heartbeat_age_s(self, slot: int) -> float | None:
        """How long ago its loop completed a pass."""
        return self.heartbeat_ages_s.get(slot)

    def listeners(self) -> list[ServedListener]:
        """The listeners."""
        return self.all_listeners

    def row(self, key: Key) -> list[int]:
        """The cells of a listener, summed over the slots."""
        rows = ([0] * len(CELL), *(slot.row(key) for slot in self.all_slots))
        return [sum(cells) for cells in zip(*rows, strict=True)]

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """The cells of every server, summed over the slots."""
        return added(slot.server_rows() for slot in self.all_slots)

    def source_rows(self) -> dict[SourceKey, list[int]]:
        """The cells of every source."""
        return self.all_source_rows

    def feeder(self) -> tuple[bool, int, int, int] | None:
        """As of the supervisor."""
        return self.feeder_state

    def kept_connections(self, key: Key, slot: int) -> int:
        """How many connections workers of earlier generations keep."""
        return self.kept[key, slot]

    def shared(self, key: Key) -> dict[str, Any]:
        """What the workers of a listener share."""
        return self.all_shared.get(key, {})

    # -- what a test does ------------------------------------------------------------------------------

    @property
    def collector(self) -> Collector:
        """A new collector of it."""
        return Collector(self)

    def set(self, cell: str, value: int, *, worker: int = 0, listener: int = 0) -> None:
        """Set one of a listener's cells."""
        self.cells[worker][self.layout.row(listener) + CELL[cell]] = value

    def set_server(self, cell: str, value: int, *, worker: int = 0, server: int = 0) -> None:
        """Set one of the cells of a server of the first listener."""
        self.cells[worker][self.layout.server(0, server) + SERVER_CELL[cell]] = value

    def set_past(self, cell: str, value: int) -> None:
        """Set one of the cells that a worker left which is gone."""
        self.all_slots[0].past[self.layout.row(0) + CELL[cell]] = value

    def set_operations(self, operation: str, worker: int = 0, **counts: int) -> None:
        """Set the counts of an operation, by outcome."""
        for outcome, count in counts.items():
            self.cells[worker][counters.operation_index(operation, outcome)] = count

    def fill(self) -> None:
        """Put a number into every cell, another in each."""
        for cells in self.cells:
            for position in range(len(cells)):
                cells[position] = position + 1
        first = self.all_listeners[0]
        if first.settings.servers:
            state = AdminState("drain", 3)
            self.all_shared[first.key] = {admin_key(first.settings.servers[0]): asdict(state)}

    def close(self) -> None:
        """Close its sockets."""
        for sock in self.sockets:
            sock.close()


def samples_of(collector: Collector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples of a scrape by name and labels; fail if one comes twice."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in collector.collect():
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


def value_of(collector: Collector, name: str, **labels: object) -> float:
    """Return one sample."""
    return samples_of(collector)[name, tuple(sorted((key, str(value)) for key, value in labels.items()))]


def family_of(collector: Collector, name: str) -> Metric:
    """Return one family, by its name without `_total`."""
    (family,) = (each for each in collector.collect() if each.name == name)
    return family


def _sum(one: Any, other: Any) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]
