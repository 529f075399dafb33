"""The collector: reads the workers' slots when somebody scrapes, and names what it finds.

prometheus_client's own multiprocess mode is not for us: it allows no custom collectors, and reports
processes that are gone. Workers do not know that they are watched: they add to cells.
"""

import platform
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as PrometheusCollector

from gaiod.core import ENGINE, counters
from gaiod.core.engine import tls_library
from gaiod.core.tls import FAILURES, VERSIONS
from gaiod.handler.admin_state import MODES, AdminState, admin_states
from gaiod.observe import push_metrics
from gaiod.observe.hook_metrics import HookCounts
from gaiod.observe.metrics import METRICS
from gaiod.observe.push_metrics import SourceKey
from gaiod.plugins import label_of
from gaiod.settings import ListenerSettings, TlsSettings
from gaiod.stats.cells import (
    ACCEPT_ERRORS,
    CELL,
    CLOSE_REASONS,
    CONNECT_BOUNDS_S,
    DURATION_BOUNDS_S,
    GC_GENERATIONS,
    GC_PAUSE_BOUNDS_S,
    HANDOVER_BOUNDS_S,
    HANDSHAKE_BOUNDS_S,
    PAUSE_REASONS,
    PUSH_DROP_REASONS,
    REJECT_REASONS,
    RESTART_REASONS,
    ROUTE_RESULTS,
    SERVER_CELL,
    SERVER_FAILURES,
    SIDES,
    STAY_REASONS,
    TLS_RESULTS,
    UNAVAILABLE_CAUSES,
    UPSTREAM_TLS_FAILURES,
    Layout,
    open_connections,
    open_to_server,
)
from gaiod.version import __version__

LAYOUT = Layout()
"""Of the cells that belong to no listener."""

TCP_INFO_QUEUE = struct.Struct("=24xII")
"""struct tcp_info of a listening socket: tcpi_unacked is what waits, tcpi_sacked what may (linux/tcp.h)."""


Key = tuple[str, str]
ServerKey = tuple[Key, str]
"""A listener's key, and the label of one of its servers."""


@dataclass(frozen=True, slots=True)
class ServedListener:
    """A listener, as the collector sees it."""

    settings: ListenerSettings
    sockets: list[socket.socket]

    @property
    def key(self) -> Key:
        """What its counters belong to: its name, and its handler's label."""
        return self.settings.name, label_of(self.settings.handler)

    def queues(self) -> list[tuple[int, int] | None]:
        """Return how many connections wait at each of its sockets and how many may; None where nobody tells."""
        return [_listen_queue(sock) for sock in self.sockets]


class WatchedFile(Protocol):
    """Files that the configuration names, and which are read again when they change."""

    @property
    def kind(self) -> str:
        """What they are for."""

    @property
    def name(self) -> str:
        """The path of the first."""

    @property
    def error(self) -> str | None:
        """Why what they have now is not in force; None: it is."""

    @property
    def read_s(self) -> float:
        """When what is in force was read, in Unix time."""

    @property
    def results(self) -> Counter[str]:
        """How often reading them again was a success, and a failure."""


class Slot(Protocol):
    """The counters of a worker and of those it replaced: cells as in `gaiod.stats.cells`."""

    @property
    def number(self) -> int:
        """What metrics call `worker`."""

    @property
    def restarts(self) -> Counter[str]:
        """How often a worker was replaced, by why."""

    def worker_cells(self) -> list[int]:
        """Return the cells that belong to no listener."""

    def live_cells(self) -> list[int]:
        """Return the same, without those of workers that are gone: what gauges are differences of."""

    def row(self, key: Key) -> list[int]:
        """Return the cells of a listener."""

    def live_row(self, key: Key) -> list[int]:
        """Return the same, without those of workers that are gone: what gauges are differences of."""


class Subject(Protocol):
    """What the collector asks of the daemon."""

    @property
    def is_ready(self) -> bool:
        """Whether new connections are wanted, and served."""

    @property
    def is_draining(self) -> bool:
        """Whether it is about to end."""

    @property
    def reload_results(self) -> Counter[str]:
        """How many reloads were a success, and a failure."""

    @property
    def last_reload_worked(self) -> bool:
        """Whether what is in the file is what is served."""

    @property
    def last_success_s(self) -> float:
        """When what is served was loaded, in Unix time."""

    @property
    def keeping_workers(self) -> int:
        """How many workers of earlier generations keep the connections of unchanged listeners."""

    def kept_connections(self, key: Key, slot: int) -> int:
        """Return how many connections of a listener those of a slot keep."""

    def files(self) -> Sequence[WatchedFile]:
        """Return the files that are read again when they change."""

    def ticket_key_age_s(self, listener: ListenerSettings) -> float | None:
        """Return how old the newest key of a listener's TLS tickets is; None: it has none."""

    def slots(self) -> Iterable[Slot]:
        """Return the slots."""

    def usage(self, slot: int) -> dict[str, float]:
        """Return what the worker that serves uses of the machine; empty if there is none."""

    def cpu_s(self, slot: int) -> float:
        """Return the CPU time that its workers have used, those included that are gone; 0 if nobody tells."""

    def heartbeat_age_s(self, slot: int) -> float | None:
        """Return how long ago its loop completed a pass; None if there is none."""

    def listeners(self) -> list[ServedListener]:
        """Return the listeners."""

    def row(self, key: Key) -> list[int]:
        """Return the cells of a listener, summed over all slots, those that there are no more included."""

    def server_rows(self) -> dict[ServerKey, list[int]]:
        """Return the cells of every server that was counted for, summed likewise."""

    def source_rows(self) -> dict[SourceKey, list[int]]:
        """Return the cells of every source that was counted for (`feeder_cells`), over all feeders."""

    def feeder(self) -> tuple[bool, int, int, int] | None:
        """Return whether the feeder runs, and what it has counted; None: no listener takes messages.

        How often it was started again; of its code, how many files are others; and how many last messages it has
        dropped.
        """

    def shared(self, key: Key) -> Mapping[str, Any]:
        """Return what the workers of a listener share."""


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

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
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
        self._add_state(scrape)
        slots, listeners = list(self._subject.slots()), self._subject.listeners()
        for slot in slots:
            cells = slot.worker_cells()
            self._add_process(scrape, slot)
            self._add_watcher(scrape, slot.number, cells, slot.live_cells())
            self._add_gc(scrape, slot.number, cells)
            for listener in listeners:
                self._add_traffic(scrape, slot, listener)
        push_metrics.add_feeder(scrape, self._subject.feeder())
        source_rows = self._subject.source_rows()
        hooks = HookCounts()
        server_rows = self._subject.server_rows()
        for listener in listeners:
            row = self._subject.row(listener.key)
            self._add_listener(scrape, listener, row)
            self._add_pressure(scrape, listener, row, [slot.live_row(listener.key) for slot in slots])
            if listener.settings.servers:
                self._add_upstream(scrape, listener, row, server_rows)
                self._add_upstream_tls(scrape, listener.settings.name, row)
            if row[CELL["shared_values"]]:
                self._add_shared(scrape, listener, row)
            if listener.settings.sources or row[CELL["push_published"]] or row[CELL["push_subscribers"]]:
                self._add_push(scrape, listener, row, slots)
            if row[CELL["threads_calls"]]:
                self._add_threads(scrape, listener, row, [slot.live_row(listener.key) for slot in slots])
            if listener.settings.sources:
                push_metrics.add_feed(scrape, listener.settings, row, source_rows)
            hooks.add(listener.key[1], row)
        hooks.tell(scrape)
        for code, count in sorted(self._scrapes.items()):
            scrape.add("gaiod_scrapes_total", count, code)
        scrape.add("gaiod_scrape_duration_seconds", time.perf_counter() - began_s)
        yield from (family for family in scrape.families.values() if family.samples)

    def _add_state(self, scrape: _Scrape) -> None:
        subject = self._subject
        scrape.add("gaiod_ready", subject.is_ready)
        scrape.add("gaiod_draining", subject.is_draining)
        for result, count in sorted(subject.reload_results.items()):
            scrape.add("gaiod_config_reloads_total", count, result)
        scrape.add("gaiod_config_last_reload_successful", subject.last_reload_worked)
        scrape.add("gaiod_config_last_reload_success_timestamp_seconds", subject.last_success_s)
        scrape.add("gaiod_workers_keeping", subject.keeping_workers)
        if any(listener.settings.tls is not None for listener in subject.listeners()):
            scrape.add("gaiod_tls_info", 1, *tls_library())
        self._add_files(scrape)

    def _add_files(self, scrape: _Scrape) -> None:
        """Add what is read again, by its first file: listeners may use the same one together with different others."""
        by_name: dict[tuple[str, str], list[WatchedFile]] = {}
        for each in self._subject.files():
            by_name.setdefault((each.kind, each.name), []).append(each)
        for labels, files in by_name.items():
            scrape.add("gaiod_watched_file_ok", all(each.error is None for each in files), *labels)
            read_s = min(each.read_s for each in files)
            scrape.add("gaiod_watched_file_last_success_timestamp_seconds", read_s, *labels)
            for result in ("failure", "success"):
                count = sum(each.results[result] for each in files)
                scrape.add("gaiod_watched_file_reads_total", count, *labels, result)

    def _add_process(self, scrape: _Scrape, slot: Slot) -> None:
        usage, heartbeat_age_s = self._subject.usage(slot.number), self._subject.heartbeat_age_s(slot.number)
        scrape.add("gaiod_worker_up", heartbeat_age_s is not None, slot.number)
        if heartbeat_age_s is not None:
            scrape.add("gaiod_worker_heartbeat_age_seconds", heartbeat_age_s, slot.number)
        if cpu_s := self._subject.cpu_s(slot.number):
            scrape.add("gaiod_worker_cpu_seconds_total", cpu_s, slot.number)
        for reason in RESTART_REASONS:
            scrape.add("gaiod_worker_restarts_total", slot.restarts[reason], slot.number, reason)
        for key, name in (
            ("resident_bytes", "gaiod_worker_resident_memory_bytes"),
            ("open_fds", "gaiod_worker_open_fds"),
            ("max_fds", "gaiod_worker_max_fds"),
        ):
            if key in usage:
                scrape.add(name, usage[key], slot.number)

    def _add_watcher(self, scrape: _Scrape, worker: int, cells: list[int], live: list[int]) -> None:
        for operation in counters.OPERATIONS:
            ended = 0
            for outcome in counters.OUTCOMES[1:]:
                index = counters.operation_index(operation, outcome)
                scrape.add("gaiod_operations_total", cells[index], worker, operation, outcome)
                ended += live[index]
            # What ended may have been counted between two looks, what began then not yet.
            submitted = live[counters.operation_index(operation, "submitted")]
            scrape.add("gaiod_operations_pending", max(0, submitted - ended), worker, operation)
        for cell in (
            "loop_iterations", "loop_events", "swap_buffer_exhausted", "handshake_steps_delayed", "conn_gc_found",
            "conn_gc_closed", "conn_freed",
        ):  # fmt: skip
            scrape.add(f"gaiod_{cell}_total", cells[counters.index(cell)], worker)
        scrape.add("gaiod_connection_log_dropped_total", cells[LAYOUT.worker("connection_log_dropped")], worker)
        scrape.add("gaiod_log_lines_lost_total", cells[LAYOUT.worker("log_lost")], worker)
        scrape.add("gaiod_worker_code_changed", live[LAYOUT.worker("code_changed")], worker)
        busy_s = cells[counters.index("loop_busy_ns")] / 1e9
        scrape.add("gaiod_loop_busy_seconds_total", busy_s, worker)
        scrape.add_buckets("gaiod_loop_lag_seconds", cells[counters.LAG : counters.GROUP], busy_s, worker)

    def _add_gc(self, scrape: _Scrape, worker: int, cells: list[int]) -> None:
        for generation in range(GC_GENERATIONS):
            for cell, name in (
                ("collections", "python_gc_collections_total"),
                ("collected", "python_gc_objects_collected_total"),
                ("uncollectable", "python_gc_objects_uncollectable_total"),
            ):
                scrape.add(name, cells[LAYOUT.gc(generation, cell)], generation, worker)
            first = LAYOUT.gc(generation, f"pause_le_{GC_PAUSE_BOUNDS_S[0]}")
            scrape.add_buckets(
                "gaiod_python_gc_pause_seconds",
                cells[first : first + len(GC_PAUSE_BOUNDS_S) + 1],
                cells[LAYOUT.gc(generation, "pause_ns")] / 1e9,
                worker,
                generation,
            )

    def _add_traffic(self, scrape: _Scrape, slot: Slot, listener: ServedListener) -> None:
        row, live = slot.row(listener.key), slot.live_row(listener.key)
        labels = (*listener.key, slot.number)
        scrape.add("gaiod_connections_accepted_total", row[CELL["accepted"]], *labels)
        scrape.add("gaiod_connections_active", open_connections(live), *labels)
        scrape.add("gaiod_connections_kept", self._subject.kept_connections(listener.key, slot.number), *labels)
        for side in SIDES:
            for what in ("received", "sent"):
                scrape.add(f"gaiod_{what}_bytes_total", row[CELL[f"{side}_{what}_bytes"]], *labels, side)

    def _add_listener(self, scrape: _Scrape, listener: ServedListener, row: list[int]) -> None:
        name = listener.settings.name
        scrape.add("gaiod_connections_limit", listener.settings.connections_max, name)
        for reason in CLOSE_REASONS:
            scrape.add("gaiod_connections_closed_total", row[CELL[f"closed_{reason}"]], name, reason)
        for reason in REJECT_REASONS:
            scrape.add("gaiod_connections_rejected_total", row[CELL[f"rejected_{reason}"]], name, reason)
        for error in ACCEPT_ERRORS:
            scrape.add("gaiod_accept_errors_total", row[CELL[f"accept_error_{error}"]], name, error)
        for reason in PAUSE_REASONS:
            scrape.add("gaiod_accept_paused_seconds_total", row[CELL[f"accept_paused_{reason}_ns"]] / 1e9, name, reason)
        first = CELL[f"duration_le_{DURATION_BOUNDS_S[0]}"]
        buckets = row[first : first + len(DURATION_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_connection_duration_seconds", buckets, row[CELL["duration_ns"]] / 1e9, name)
        self._add_handover(scrape, name, row)
        if listener.settings.tls is not None:
            self._add_tls(scrape, listener.settings.tls, name, row)
            age_s = self._subject.ticket_key_age_s(listener.settings)
            if age_s is not None:
                scrape.add("gaiod_tls_ticket_key_age_seconds", age_s, name)
        for number, queue in enumerate(listener.queues()):
            if queue is not None:
                scrape.add("gaiod_listen_queue_length", queue[0], name, number)
                scrape.add("gaiod_listen_queue_limit", queue[1], name, number)

    def _add_tls(self, scrape: _Scrape, tls: TlsSettings, name: str, row: list[int]) -> None:
        for result in TLS_RESULTS:
            for version in VERSIONS:
                count = row[CELL[f"tls_{result}_{version}"]]
                scrape.add("gaiod_tls_handshakes_total", count, name, result, version)
        failed = {reason: row[CELL[f"tls_failed_{reason}"]] for reason in FAILURES}
        scrape.add("gaiod_tls_handshakes_total", sum(failed.values()), name, "failed", "")
        for reason, count in failed.items():
            scrape.add("gaiod_tls_failures_total", count, name, reason)
        first_bucket = CELL[f"tls_handshake_le_{HANDSHAKE_BOUNDS_S[0]}"]
        buckets = row[first_bucket : first_bucket + len(HANDSHAKE_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_tls_handshake_seconds", buckets, row[CELL["tls_handshake_ns"]] / 1e9, name)
        ends: dict[tuple[str, str], float] = {}
        for certificate in tls.certificates:
            key = "gaiod_tls_certificate_not_after_seconds", certificate.names[0]
            ends[key] = min(certificate.not_after_s, ends.get(key, inf))
            if certificate.ocsp:
                key = "gaiod_tls_ocsp_not_after_seconds", certificate.names[0]
                ends[key] = min(certificate.ocsp_not_after_s, ends.get(key, inf))
        for (metric, first), not_after_s in ends.items():
            scrape.add(metric, not_after_s, name, first)

    def _add_handover(self, scrape: _Scrape, name: str, row: list[int]) -> None:
        stayed = {reason: row[CELL[f"stayed_{reason}"]] for reason in STAY_REASONS}
        scrape.add("gaiod_handover_connections_total", row[CELL["moved_out"]], name, "moved")
        scrape.add("gaiod_handover_connections_total", sum(stayed.values()), name, "stayed")
        for reason, count in stayed.items():
            scrape.add("gaiod_handover_stayed_total", count, name, reason)
        first = CELL[f"handover_le_{HANDOVER_BOUNDS_S[0]}"]
        buckets = row[first : first + len(HANDOVER_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_handover_pause_seconds", buckets, row[CELL["handover_ns"]] / 1e9, name)

    def _add_pressure(self, scrape: _Scrape, listener: ServedListener, row: list[int], live: list[list[int]]) -> None:
        name, limit_bytes = listener.settings.name, listener.settings.buffer_limit_bytes
        for side in SIDES:
            pauses, resumes = CELL[f"{side}_pauses"], CELL[f"{side}_resumes"]
            scrape.add("gaiod_backpressure_pauses_total", row[pauses], name, side)
            scrape.add("gaiod_backpressure_resumes_total", row[resumes], name, side)
            scrape.add("gaiod_backpressure_paused_seconds_total", row[CELL[f"{side}_paused_ns"]] / 1e9, name, side)
            paused = sum(each[pauses] - each[resumes] for each in live)
            scrape.add("gaiod_backpressure_paused_connections", max(0, paused), name, side)
            scrape.add("gaiod_buffered_bytes", max(0, row[CELL[f"{side}_buffered_bytes"]]), name, side)
            if limit_bytes is not None:
                scrape.add("gaiod_buffer_limit_bytes", limit_bytes, name, side)

    def _add_admin_state(self, scrape: _Scrape, admin: AdminState, upstream: str, server: str) -> None:
        for mode in MODES:
            scrape.add("gaiod_upstream_admin_state", admin.mode == mode, upstream, server, mode)
        if admin.weight is not None:
            scrape.add("gaiod_upstream_admin_weight", admin.weight, upstream, server)

    def _add_shared(self, scrape: _Scrape, listener: ServedListener, row: list[int]) -> None:
        name = listener.settings.name
        scrape.add("gaiod_shared_values", len(self._subject.shared(listener.key)), name)
        scrape.add("gaiod_shared_values_updates_total", row[CELL["shared_values"]], name)
        scrape.add("gaiod_shared_values_delayed_total", row[CELL["shared_values_delayed"]], name)

    def _add_upstream(
        self, scrape: _Scrape, listener: ServedListener, row: list[int], server_rows: dict[ServerKey, list[int]]
    ) -> None:
        name = listener.settings.name
        scrape.add("gaiod_upstream_retries_total", row[CELL["upstream_retries"]], name)
        scrape.add("gaiod_upstream_queue_length", max(0, row[CELL["upstream_queued"]]), name)
        scrape.add("gaiod_upstream_queue_timeouts_total", row[CELL["upstream_queue_timeouts"]], name)
        for cause in UNAVAILABLE_CAUSES:
            unavailable = row[CELL[f"upstream_unavailable_{cause}"]]
            scrape.add("gaiod_upstream_unavailable_total", unavailable, name, cause)
        scrape.add("gaiod_upstream_unavailable_total", row[CELL["upstream_unavailable"]], name, "other")
        if any(row[CELL[f"upstream_route_{result}"]] for result in ROUTE_RESULTS):
            for result in ROUTE_RESULTS:
                scrape.add("gaiod_upstream_routed_total", row[CELL[f"upstream_route_{result}"]], name, result)
        first = CELL[f"connect_le_{CONNECT_BOUNDS_S[0]}"]
        buckets = row[first : first + len(CONNECT_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_upstream_connect_duration_seconds", buckets, row[CELL["connect_ns"]] / 1e9, name)
        admin_of = admin_states(self._subject.shared(listener.key))
        for label in listener.settings.servers:
            if label in admin_of:
                self._add_admin_state(scrape, admin_of[label], name, label)
            cells = server_rows.get((listener.key, label), [0] * len(SERVER_CELL))
            scrape.add("gaiod_upstream_connections_total", cells[SERVER_CELL["connections"]], name, label)
            scrape.add("gaiod_upstream_connections_active", open_to_server(cells), name, label)
            scrape.add("gaiod_upstream_up", cells[SERVER_CELL["down"]] == 0, name, label)
            for reason in SERVER_FAILURES:
                failures = cells[SERVER_CELL[f"failed_{reason}"]]
                scrape.add("gaiod_upstream_connect_failures_total", failures, name, label, reason)
            for result in ("passed", "failed"):
                checks = cells[SERVER_CELL[f"checks_{result}"]]
                scrape.add("gaiod_upstream_health_checks_total", checks, name, label, result)

    def _add_upstream_tls(self, scrape: _Scrape, name: str, row: list[int]) -> None:
        """Add what came of handshakes with servers, if there were any: whether there are is the handler's matter."""
        done = {(result, version): f"upstream_tls_{result}_{version}" for result in TLS_RESULTS for version in VERSIONS}
        failed = {reason: f"upstream_tls_failed_{reason}" for reason in UPSTREAM_TLS_FAILURES}
        if not any(row[CELL[cell]] for cell in (*done.values(), *failed.values())):
            return
        for (result, version), cell in done.items():
            scrape.add("gaiod_upstream_tls_handshakes_total", row[CELL[cell]], name, result, version)
        for reason, cell in failed.items():
            scrape.add("gaiod_upstream_tls_failures_total", row[CELL[cell]], name, reason)

    def _add_threads(self, scrape: _Scrape, listener: ServedListener, row: list[int], live: list[list[int]]) -> None:
        """Add what is known of the threads of a handler."""
        name = listener.settings.name
        scrape.add("gaiod_handler_thread_calls_total", row[CELL["threads_calls"]], name)
        scrape.add("gaiod_handler_threads", sum(each[CELL["threads"]] for each in live), name)
        scrape.add("gaiod_handler_thread_queue_length", sum(each[CELL["threads_queued"]] for each in live), name)
        oldest_ns = max((each[CELL["threads_oldest_ns"]] for each in live), default=0)
        scrape.add("gaiod_handler_thread_queue_age_seconds", oldest_ns / 1e9, name)

    def _add_push(self, scrape: _Scrape, listener: ServedListener, row: list[int], slots: list[Slot]) -> None:
        """Add what the groups of a listener count."""
        name = listener.settings.name
        if not listener.settings.sources:  # else each worker publishes what the feeder has counted once
            scrape.add("gaiod_push_published_total", row[CELL["push_published"]], name, "handler")
        scrape.add("gaiod_push_deliveries_total", row[CELL["push_deliveries"]], name)
        for reason in PUSH_DROP_REASONS:
            scrape.add("gaiod_push_dropped_total", row[CELL[f"push_dropped_{reason}"]], name, reason)
        for slot in slots:
            subscribers = max(0, slot.live_row(listener.key)[CELL["push_subscribers"]])
            scrape.add("gaiod_push_subscribers", subscribers, name, slot.number)
        scrape.add("gaiod_push_queued_bytes", max(0, row[CELL["push_queued_bytes"]]), name)
        scrape.add("gaiod_push_held_bytes", max(0, row[CELL["push_held_bytes"]]), name)
        first = CELL[f"push_fanout_le_{counters.FANOUT_BOUNDS_S[0]}"]
        buckets = row[first : first + len(counters.FANOUT_BOUNDS_S) + 1]
        scrape.add_buckets("gaiod_push_fanout_seconds", buckets, row[CELL["push_fanout_ns"]] / 1e9, name)


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
