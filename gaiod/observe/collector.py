"""The collector: reads the workers' slots when somebody scrapes, and names what it finds.

prometheus_client's own multiprocess mode is not for us: it allows no custom collectors, and reports
processes that are gone. Workers do not know that they are watched: they add to cells.
"""

import platform
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from gaiod.core import ENGINE, counters
from gaiod.observe.metrics import METRICS
from gaiod.runtime.handler import HOOKS
from gaiod.runtime.plugins import label_of
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.stats import (
    ACCEPT_ERRORS,
    CELL,
    CLOSE_REASONS,
    DURATION_BOUNDS_S,
    GC_GENERATIONS,
    GC_PAUSE_BOUNDS_S,
    REJECT_REASONS,
    Layout,
)
from gaiod.version import __version__

TCP_INFO_QUEUE = struct.Struct("=24xII")
"""struct tcp_info of a listening socket: tcpi_unacked is what waits, tcpi_sacked what may (linux/tcp.h)."""


class Worker(Protocol):
    """What the collector asks of a worker's process."""

    @property
    def number(self) -> int:
        """Its slot."""

    @property
    def ready(self) -> bool:
        """Whether it serves."""

    def usage(self) -> dict[str, float]:
        """What it uses of the machine."""


@dataclass(frozen=True, slots=True)
class Source:
    """A listener, as the collector sees it."""

    settings: ListenerSettings
    socket: socket.socket

    @property
    def handler(self) -> str:
        """The handler's label."""
        return label_of(self.settings.handler)


@dataclass(slots=True)
class _Scrape:
    """The families of one scrape, by name: adding to one that is not declared is a KeyError."""

    families: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
        for metric in METRICS:
            self.families[metric.name] = kinds[metric.kind](metric.name, metric.help, labels=metric.labels)
            self.bounds[metric.name] = metric.bounds

    def add(self, name: str, value: float, *labels: object) -> None:
        """Add one sample of a counter or a gauge."""
        self.families[name].add_metric([str(label) for label in labels], value)

    def add_buckets(self, name: str, buckets: Iterable[int], total: float, *labels: object) -> None:
        """Add one histogram, from the counts of its buckets, the unbounded one last."""
        cumulated, count = [], 0
        for bound, value in zip((*self.bounds[name], float("inf")), buckets, strict=True):
            count += value
            cumulated.append(("+Inf" if bound == float("inf") else str(bound), count))
        self.families[name].add_metric([str(label) for label in labels], cumulated, total)


class Collector(PrometheusCollector):
    """Gives prometheus_client everything that `gaiod.observe.metrics` declares."""

    def __init__(
        self,
        layout: Layout,
        sources: list[Source],
        workers: list[tuple[Worker, Any]],
        is_ready: Callable[[], bool],
    ) -> None:
        self._layout = layout
        self._sources = sources
        self._workers = workers
        self._is_ready = is_ready
        self._started_s = time.time()
        self._scrapes: Counter[int] = Counter()

    def count_scrape(self, code: int) -> None:
        """Count a request to the endpoint."""
        self._scrapes[code] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield every family that has samples."""
        began_s = time.perf_counter()
        scrape = _Scrape()
        scrape.add("gaiod_build_info", 1, __version__, platform.python_version(), ENGINE)
        scrape.add("gaiod_start_time_seconds", self._started_s)
        scrape.add("gaiod_ready", self._is_ready())
        for worker, cells in self._workers:
            self._add_process(scrape, worker)
            self._add_watcher(scrape, worker.number, cells)
            self._add_gc(scrape, worker.number, cells)
            for number, source in enumerate(self._sources):
                self._add_traffic(scrape, worker.number, source, cells, self._layout.row(number))
        for number, source in enumerate(self._sources):
            self._add_listener(scrape, source, self._sum_rows(number))
        self._add_handler_errors(scrape)
        for code, count in sorted(self._scrapes.items()):
            scrape.add("gaiod_scrapes_total", count, code)
        scrape.add("gaiod_scrape_duration_seconds", time.perf_counter() - began_s)
        yield from (family for family in scrape.families.values() if family.samples)

    def _sum_rows(self, number: int) -> list[int]:
        """Return a listener's row, summed over the workers."""
        first = self._layout.row(number)
        rows = [cells[first : first + len(CELL)].tolist() for _, cells in self._workers]
        return [sum(column) for column in zip(*rows, strict=True)]

    def _add_process(self, scrape: _Scrape, worker: Worker) -> None:
        usage = worker.usage()
        scrape.add("gaiod_worker_up", worker.ready and bool(usage), worker.number)
        for key, name in (
            ("cpu_seconds", "gaiod_worker_cpu_seconds_total"),
            ("resident_bytes", "gaiod_worker_resident_memory_bytes"),
            ("open_fds", "gaiod_worker_open_fds"),
            ("max_fds", "gaiod_worker_max_fds"),
        ):
            if key in usage:
                scrape.add(name, usage[key], worker.number)

    def _add_watcher(self, scrape: _Scrape, worker: int, cells: Any) -> None:
        for operation in counters.OPERATIONS:
            # What ended first, then what began: read the other way round, while the worker goes on counting,
            # more may have ended than begun.
            counts = {
                outcome: cells[counters.operation_index(operation, outcome)]
                for outcome in counters.OUTCOMES
                if outcome != "submitted"
            }
            submitted = cells[counters.operation_index(operation, "submitted")]
            for outcome, count in counts.items():
                scrape.add("gaiod_operations_total", count, worker, operation, outcome)
            scrape.add("gaiod_operations_pending", submitted - sum(counts.values()), worker, operation)
        for cell in (
            "loop_iterations", "loop_events", "swap_buffer_exhausted", "conn_gc_found", "conn_gc_closed", "conn_freed",
        ):  # fmt: skip
            scrape.add(f"gaiod_{cell}_total", cells[counters.index(cell)], worker)
        busy_s = cells[counters.index("loop_busy_ns")] / 1e9
        scrape.add("gaiod_loop_busy_seconds_total", busy_s, worker)
        scrape.add_buckets("gaiod_loop_lag_seconds", cells[counters.LAG : counters.SIZE], busy_s, worker)

    def _add_gc(self, scrape: _Scrape, worker: int, cells: Any) -> None:
        for generation in range(GC_GENERATIONS):
            for cell, name in (
                ("collections", "python_gc_collections_total"),
                ("collected", "python_gc_objects_collected_total"),
                ("uncollectable", "python_gc_objects_uncollectable_total"),
            ):
                scrape.add(name, cells[self._layout.gc(generation, cell)], generation, worker)
            first = self._layout.gc(generation, f"pause_le_{GC_PAUSE_BOUNDS_S[0]}")
            scrape.add_buckets(
                "gaiod_python_gc_pause_seconds",
                cells[first : first + len(GC_PAUSE_BOUNDS_S) + 1],
                cells[self._layout.gc(generation, "pause_ns")] / 1e9,
                worker,
                generation,
            )

    def _add_traffic(self, scrape: _Scrape, worker: int, source: Source, cells: Any, row: int) -> None:
        labels = (source.settings.name, source.handler, worker)
        closed = sum(cells[row + CELL[f"closed_{reason}"]] for reason in CLOSE_REASONS)
        accepted = cells[row + CELL["accepted"]]  # last, as in _add_watcher
        scrape.add("gaiod_connections_accepted_total", accepted, *labels)
        scrape.add("gaiod_connections_active", accepted - closed, *labels)
        for side in ("downstream", "upstream"):
            for what in ("received", "sent"):
                scrape.add(f"gaiod_{what}_bytes_total", cells[row + CELL[f"{side}_{what}_bytes"]], *labels, side)

    def _add_listener(self, scrape: _Scrape, source: Source, row: list[int]) -> None:
        name = source.settings.name
        scrape.add("gaiod_connections_limit", source.settings.connections_max, name)
        for reason in CLOSE_REASONS:
            scrape.add("gaiod_connections_closed_total", row[CELL[f"closed_{reason}"]], name, reason)
        for reason in REJECT_REASONS:
            scrape.add("gaiod_connections_rejected_total", row[CELL[f"rejected_{reason}"]], name, reason)
        for error in ACCEPT_ERRORS:
            scrape.add("gaiod_accept_errors_total", row[CELL[f"accept_error_{error}"]], name, error)
        first = CELL[f"duration_le_{DURATION_BOUNDS_S[0]}"]
        buckets = row[first : first + len(DURATION_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_connection_duration_seconds", buckets, row[CELL["duration_ns"]] / 1e9, name)
        queue = _listen_queue(source.socket)
        if queue is not None:
            scrape.add("gaiod_listen_queue_length", queue[0], name)
            scrape.add("gaiod_listen_queue_limit", queue[1], name)

    def _add_handler_errors(self, scrape: _Scrape) -> None:
        errors: Counter[tuple[str, str]] = Counter()
        for number, source in enumerate(self._sources):
            row = self._sum_rows(number)
            for hook in HOOKS:
                errors[source.handler, hook] += row[CELL[f"handler_error_{hook}"]]
        for (handler, hook), count in errors.items():
            scrape.add("gaiod_handler_errors_total", count, handler, hook)


def _listen_queue(sock: socket.socket) -> tuple[int, int] | None:
    """Return how many connections wait at a listener and how many may; None where nobody tells."""
    if sock.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_QUEUE.size)
    except OSError:
        return None
    length, limit = TCP_INFO_QUEUE.unpack(info)
    return length, limit
