"""Every metric, declared once: name, kind, labels, help. The collector, the docs and the tests read it here.

Names follow Prometheus: base units, the unit as a suffix, `_total` on counters. Label values come
from the configuration and from enums: never an address, a process or a connection.
"""

from dataclasses import dataclass
from typing import Literal

from gaiod.core.counters import FANOUT_BOUNDS_S, LAG_BOUNDS_S
from gaiod.stats.cells import CONNECT_BOUNDS_S, DURATION_BOUNDS_S, GC_PAUSE_BOUNDS_S


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `name` is as scraped, with `_total` for a counter."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_TRAFFIC = ("listener", "handler", "worker", "side")
_SOURCE = ("listener", "source")
_SERVER = ("upstream", "server")
"""`upstream` is the name of the listener whose handler connects to the server."""

METRICS = (
    Metric("gaiod_build_info", "gauge", "Always 1; its labels say what runs.", ("version", "python", "engine")),
    Metric("gaiod_start_time_seconds", "gauge", "When the supervisor started, in Unix time."),
    Metric("gaiod_ready", "gauge", "1 while a worker serves, 0 while starting or stopping."),
    Metric("gaiod_draining", "gauge", "1 while the daemon stops: from the request to the end."),
    Metric("gaiod_config_reloads_total", "counter", "Reloads of the configuration, by how they went.", ("result",)),
    Metric("gaiod_config_last_reload_successful", "gauge", "0 if the last reload failed: the file is not what runs."),
    Metric(
        "gaiod_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the configuration that runs was loaded, in Unix time.",
    ),
    Metric("gaiod_worker_up", "gauge", "1 while the worker serves.", ("worker",)),
    Metric("gaiod_worker_heartbeat_age_seconds", "gauge", "How long ago the worker's loop came round.", ("worker",)),
    Metric(
        "gaiod_worker_restarts_total",
        "counter",
        "Times the worker was replaced, by why: its end, a signal, its hanging, a reload, wear, an operator.",
        ("worker", "reason"),
    ),
    Metric(
        "gaiod_worker_cpu_seconds_total",
        "counter",
        "CPU time used by the worker, and by those it replaced.",
        ("worker",),
    ),
    Metric("gaiod_worker_resident_memory_bytes", "gauge", "Resident memory of the worker.", ("worker",)),
    Metric("gaiod_worker_open_fds", "gauge", "Descriptors the worker has open.", ("worker",)),
    Metric("gaiod_worker_max_fds", "gauge", "Descriptors the worker may open (soft limit).", ("worker",)),
    Metric(
        "gaiod_connections_accepted_total",
        "counter",
        "Connections accepted, those rejected not included.",
        ("listener", "handler", "worker"),
    ),
    Metric("gaiod_connections_active", "gauge", "Connections open now.", ("listener", "handler", "worker")),
    Metric("gaiod_connections_limit", "gauge", "Connections a worker keeps open at most.", ("listener",)),
    Metric("gaiod_connections_closed_total", "counter", "Connections closed, by why.", ("listener", "reason")),
    Metric(
        "gaiod_connections_rejected_total", "counter", "Connections closed unserved, by why.", ("listener", "reason")
    ),
    Metric("gaiod_accept_errors_total", "counter", "Failures of accept(), by errno.", ("listener", "errno")),
    Metric(
        "gaiod_accept_paused_seconds_total",
        "counter",
        "How long a worker accepted nobody for lack of descriptors (fd) or memory, counted at least once a second.",
        ("listener", "reason"),
    ),
    Metric("gaiod_listen_queue_length", "gauge", "Connections waiting to be accepted (TCP).", ("listener", "worker")),
    Metric(
        "gaiod_listen_queue_limit", "gauge", "Connections that can wait to be accepted (TCP).", ("listener", "worker")
    ),
    Metric(
        "gaiod_connection_duration_seconds",
        "histogram",
        "How long connections were open, counted when they close.",
        ("listener",),
        DURATION_BOUNDS_S,
    ),
    Metric("gaiod_received_bytes_total", "counter", "Bytes received, counted as they arrive.", _TRAFFIC),
    Metric("gaiod_sent_bytes_total", "counter", "Bytes the kernel took, counted as it does.", _TRAFFIC),
    Metric(
        "gaiod_backpressure_pauses_total",
        "counter",
        "Times a relay stopped reading because this side did not take its bytes.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_backpressure_resumes_total",
        "counter",
        "Times a relay went on because this side took its bytes again.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_backpressure_paused_seconds_total",
        "counter",
        "How long relays did not read for that reason, counted when they go on.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_backpressure_paused_connections",
        "gauge",
        "Connections of this side whose relay does not read now because they do not take its bytes.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_buffered_bytes",
        "gauge",
        "Bytes that relays hold now because this side does not take them.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_buffer_limit_bytes",
        "gauge",
        "Bytes that a relay to one connection of this side holds at most, as configured.",
        ("listener", "side"),
    ),
    Metric("gaiod_upstream_connections_total", "counter", "Connections established to the server.", _SERVER),
    Metric("gaiod_upstream_connections_active", "gauge", "Connections to the server that are open now.", _SERVER),
    Metric(
        "gaiod_upstream_connect_failures_total",
        "counter",
        "Connections to the server that failed, by why.",
        (*_SERVER, "reason"),
    ),
    Metric(
        "gaiod_upstream_health_checks_total",
        "counter",
        "Health checks of the server, by how they went: passed or failed.",
        (*_SERVER, "result"),
    ),
    Metric("gaiod_upstream_up", "gauge", "0 while any worker gives the server no connections, else 1.", _SERVER),
    Metric(
        "gaiod_upstream_connect_duration_seconds",
        "histogram",
        "How long connecting took, where it worked.",
        ("upstream",),
        CONNECT_BOUNDS_S,
    ),
    Metric(
        "gaiod_upstream_retries_total",
        "counter",
        "Connections tried again after a failure, with the same server or another.",
        ("upstream",),
    ),
    Metric("gaiod_upstream_queue_length", "gauge", "Clients that wait now for a server to have room.", ("upstream",)),
    Metric(
        "gaiod_upstream_queue_timeouts_total",
        "counter",
        "Clients that waited too long for a server to have room.",
        ("upstream",),
    ),
    Metric(
        "gaiod_upstream_unavailable_total",
        "counter",
        "Clients closed because no server could be had, by why: all down, full (and the queue, too), queue_timeout, "
        "names unresolved, no_resources (descriptors, memory, ports), or how the last connect failed.",
        ("upstream", "cause"),
    ),
    Metric(
        "gaiod_push_deliveries_total",
        "counter",
        "Messages that the kernel took whole, one for each subscriber.",
        ("listener",),
    ),
    Metric(
        "gaiod_push_dropped_total",
        "counter",
        "Messages that a subscriber did not get, by why: oldest, newest, replaced or memory (its policy or a limit), "
        "disconnect (it was too slow), closed (it went).",
        ("listener", "reason"),
    ),
    Metric("gaiod_push_subscribers", "gauge", "Connections that have a topic.", ("listener", "worker")),
    Metric(
        "gaiod_push_queued_bytes", "gauge", "Bytes that wait for subscribers, counted once for each.", ("listener",)
    ),
    Metric(
        "gaiod_push_held_bytes",
        "gauge",
        "Memory of the messages that wait for subscribers, each counted once per worker.",
        ("listener",),
    ),
    Metric(
        "gaiod_push_fanout_seconds",
        "histogram",
        "How long it took from publishing until the last subscriber was served: sent to, or queued for.",
        ("listener",),
        FANOUT_BOUNDS_S,
    ),
    Metric(
        "gaiod_push_published_total",
        "counter",
        "Messages that the source has published; the handler itself, where a listener has no sources.",
        _SOURCE,
    ),
    Metric(
        "gaiod_push_refused_total",
        "counter",
        "Messages of the source that cannot be published: too long, say, or not in the listener's framing.",
        _SOURCE,
    ),
    Metric(
        "gaiod_push_source_up", "gauge", "1 while the source gets what it is to publish, or has ended; else 0.", _SOURCE
    ),
    Metric("gaiod_push_source_reconnects_total", "counter", "Times the source was cut off, and came back.", _SOURCE),
    Metric(
        "gaiod_push_source_gaps_total",
        "counter",
        "Times that messages of the source may have been missed, one or many.",
        _SOURCE,
    ),
    Metric(
        "gaiod_push_feed_gaps_total",
        "counter",
        "Messages that were published and did not get to a worker, counted by each.",
        ("listener",),
    ),
    Metric("gaiod_feeder_up", "gauge", "1 while the feeder runs the sources, 0 while it does not."),
    Metric("gaiod_feeder_restarts_total", "counter", "Times the feeder died, and was started again."),
    Metric("gaiod_operations_total", "counter", "Operations completed.", ("worker", "op", "result")),
    Metric("gaiod_operations_pending", "gauge", "Operations submitted and not completed.", ("worker", "op")),
    Metric("gaiod_loop_iterations_total", "counter", "Times the loop polled.", ("worker",)),
    Metric("gaiod_loop_events_total", "counter", "Readiness events the kernel reported.", ("worker",)),
    Metric("gaiod_loop_busy_seconds_total", "counter", "Time the loop spent elsewhere than waiting.", ("worker",)),
    Metric(
        "gaiod_loop_lag_seconds",
        "histogram",
        "How long the loop was away from the poller: what a connection that became ready had to wait.",
        ("worker",),
        LAG_BOUNDS_S,
    ),
    Metric(
        "gaiod_swap_buffer_exhausted_total",
        "counter",
        "Times the swap buffer had to be replaced, because a handler kept looking at it.",
        ("worker",),
    ),
    Metric("gaiod_conn_gc_found_total", "counter", "Connections found dropped without being closed.", ("worker",)),
    Metric("gaiod_conn_gc_closed_total", "counter", "Of those found dropped, how many were closed.", ("worker",)),
    Metric("gaiod_conn_freed_total", "counter", "Connections and listeners closed on purpose.", ("worker",)),
    Metric(
        "gaiod_connection_log_dropped_total",
        "counter",
        "Lines of the connection log that were over its rate.",
        ("worker",),
    ),
    Metric("gaiod_log_lines_lost_total", "counter", "Log lines that could not be written (a full disk).", ("worker",)),
    Metric("python_gc_collections_total", "counter", "Garbage collections of a worker.", ("generation", "worker")),
    Metric(
        "python_gc_objects_collected_total",
        "counter",
        "Objects the collector reclaimed in a worker.",
        ("generation", "worker"),
    ),
    Metric(
        "python_gc_objects_uncollectable_total",
        "counter",
        "Objects the collector could not reclaim in a worker.",
        ("generation", "worker"),
    ),
    Metric(
        "gaiod_python_gc_pause_seconds",
        "histogram",
        "How long a worker's loop stood still for a garbage collection.",
        ("worker", "generation"),
        GC_PAUSE_BOUNDS_S,
    ),
    Metric("gaiod_handler_errors_total", "counter", "Exceptions that a hook raised.", ("handler", "hook")),
    Metric(
        "gaiod_handler_slow_hooks_total",
        "counter",
        "Times that a hook blocked its loop for longer than slow_hook.",
        ("handler", "hook"),
    ),
    Metric("gaiod_scrape_duration_seconds", "gauge", "How long collecting this scrape took."),
    Metric("gaiod_scrapes_total", "counter", "Requests to the metrics endpoint, by HTTP status.", ("code",)),
)

BY_NAME = {metric.name: metric for metric in METRICS}


def as_markdown() -> str:
    """Return the table for people: `deploy/METRICS.md`."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        lines.append(f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.help} |")
    return "\n".join(lines) + "\n"
