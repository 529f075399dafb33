"""What the dashboard shows: which panel has which metrics, and what is not shown and why.

A new metric goes into a panel of ROWS, as `Line("gaiod_...", "its labels")`, or with a reason into NOT_SHOWN: tests
fail where it is in neither. Then `python deploy/grafana/generate.py` writes `gaiod.json` anew.
"""

from dataclasses import dataclass, replace
from typing import Literal

from gaiod.observe.metrics import METRICS, Metric

OTHERS = (
    Metric("up", "gauge", "1 if the last scrape worked, as Prometheus says."),
    Metric("process_cpu_seconds_total", "counter", "CPU time that the supervisor has used."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of the supervisor."),
    Metric("process_virtual_memory_bytes", "gauge", "Address space of the supervisor."),
    Metric("process_start_time_seconds", "gauge", "When the supervisor's process started, in Unix time."),
    Metric("process_open_fds", "gauge", "Descriptors the supervisor has open."),
    Metric("process_max_fds", "gauge", "Descriptors the supervisor may open (soft limit)."),
)
"""What is scraped beside gaiod's own metrics: from Prometheus itself, and from its client library."""

KNOWN = {metric.name: metric for metric in (*METRICS, *OTHERS)}

NOT_SHOWN = {
    "process_virtual_memory_bytes": "address space costs nothing: what is used of it is the resident memory",
    "process_start_time_seconds": "gaiod_start_time_seconds tells the same, also where there is no /proc",
    "gaiod_upstream_admin_weight": "gaiod server shows it, and few servers have one",
    "gaiod_tls_info": "it is the same until a restart; gaiod version tells it, and the log",
    **dict.fromkeys(
        ("gaiod_shared_values", "gaiod_shared_values_updates_total", "gaiod_shared_values_delayed_total"),
        "a few values of a handler's own; the log says if they are too many",
    ),
}
"""What is exported and in no panel, and why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A metric in a panel.

    Attributes:
        metric: its name.
        by: labels, with spaces between: each value has a line of its own, and the other labels are summed up.
        how: what is done with values that share a line. "increase": a counter's increase, and not its rate.
        formula: what is shown, {} being the expression.
        is_limit: whether it bounds the other lines: it is drawn red and dashed.
    """

    metric: str
    by: str = ""
    how: Literal["sum", "max", "min", "increase"] = "sum"
    formula: str = "{}"
    is_limit: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: above it.
        unit: Grafana's name for it.
        lines: what it shows.
        kind: a chart over time, bars for what happens seldom, numbers of now, or states of now: yes or no.
        good: of a state: what is green.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    kind: Literal["chart", "events", "number", "state"] = "chart"
    good: Literal["yes", "no"] = "yes"


def limit(metric: str, by: str, how: Literal["max", "min"]) -> Line:
    """Return a line that bounds the others of its panel."""
    return Line(metric, by, how, is_limit=True)


def chart(title: str, unit: str, *lines: Line) -> Panel:
    """Return a chart over time."""
    return Panel(title, unit, lines)


def events(title: str, *lines: Line) -> Panel:
    """Return bars of what happens so seldom that people count it, and ask for no rate."""
    return Panel(title, "short", tuple(replace(line, how="increase") for line in lines), "events")


def number(title: str, unit: str, *lines: Line) -> Panel:
    """Return a panel with numbers of now."""
    return Panel(title, unit, lines, "number")


def state(title: str, line: Line, good: Literal["yes", "no"] = "yes") -> Panel:
    """Return a panel that says yes or no, in green or red."""
    return Panel(title, "bool_yes_no", (line,), "state", good)


TRAFFIC = "listener side"
SERVER = "upstream server"
SOURCE = "listener source"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        state("Answers", Line("up", "instance", "min")),
        state("Serves", Line("gaiod_ready", "instance", "min")),
        state("Stops", Line("gaiod_draining", "instance", "max"), "no"),
        number("Running for", "s", Line("gaiod_start_time_seconds", "instance", "max", "time() - {}")),
        number("Daemons by version", "short", Line("gaiod_build_info", "version python engine")),
        state("Last reload worked", Line("gaiod_config_last_reload_successful", "instance", "min")),
        state("Files are good", Line("gaiod_watched_file_ok", "file", "min")),
        number(
            "Files read ago", "s",
            Line("gaiod_watched_file_last_success_timestamp_seconds", "file", "min", "time() - {}"),
        ),
        number(
            "Configuration loaded ago", "s",
            Line("gaiod_config_last_reload_success_timestamp_seconds", "instance", "min", "time() - {}"),
        ),
        number("Connections", "short", Line("gaiod_connections_active", "instance")),
        chart("Bytes received", "Bps", Line("gaiod_received_bytes_total", "side")),
        chart("Bytes sent", "Bps", Line("gaiod_sent_bytes_total", "side")),
        chart(
            "Accepted and rejected", "cps",
            Line("gaiod_connections_accepted_total"), Line("gaiod_connections_rejected_total"),
        ),
        chart("Busiest worker's loop", "percentunit", Line("gaiod_loop_busy_seconds_total", "instance", "max")),
        chart("Lag of loops", "s", Line("gaiod_loop_lag_seconds", "instance")),
        events(
            "Reloads, files read again, and workers replaced",
            Line("gaiod_config_reloads_total", "result"), Line("gaiod_watched_file_reads_total", "result"),
            Line("gaiod_worker_restarts_total", "reason"),
        ),
    ),
    "Listeners": (
        chart(
            "Connections of a worker, and its limit", "short",
            Line("gaiod_connections_active", "instance listener worker"),
            Line("gaiod_connections_kept", "instance listener worker"),
            limit("gaiod_connections_limit", "listener", "max"),
        ),
        chart("Accepted", "cps", Line("gaiod_connections_accepted_total", "listener")),
        chart("Closed", "cps", Line("gaiod_connections_closed_total", "listener reason")),
        chart("Rejected", "cps", Line("gaiod_connections_rejected_total", "listener reason")),
        events("Handed over to new workers", Line("gaiod_handover_connections_total", "listener result")),
        events("Not handed over", Line("gaiod_handover_stayed_total", "listener reason")),
        chart("Pauses of those handed over", "s", Line("gaiod_handover_pause_seconds", "listener")),
        chart("TLS handshakes", "cps", Line("gaiod_tls_handshakes_total", "listener result version")),
        chart("TLS handshakes that failed", "cps", Line("gaiod_tls_failures_total", "listener reason")),
        chart("Time of TLS handshakes", "s", Line("gaiod_tls_handshake_seconds", "listener")),
        chart(
            "Steps of TLS handshakes that waited for a pass", "cps",
            Line("gaiod_handshake_steps_delayed_total", "instance worker"),
        ),
        chart(
            "Time until certificates end", "s",
            Line("gaiod_tls_certificate_not_after_seconds", "listener name", "min", "{} - time()"),
            Line("gaiod_tls_ocsp_not_after_seconds", "listener name", "min", "{} - time()"),
        ),
        chart(
            "Age of the newest key of TLS tickets", "s",
            Line("gaiod_tls_ticket_key_age_seconds", "listener", "max"),
        ),
        chart("Errors of accept", "cps", Line("gaiod_accept_errors_total", "listener errno")),
        chart("Not accepting for lack of", "percentunit", Line("gaiod_accept_paused_seconds_total", "listener reason")),
        chart(
            "Waiting to be accepted", "short",
            Line("gaiod_listen_queue_length", "instance listener worker"),
            limit("gaiod_listen_queue_limit", "listener", "max"),
        ),
        chart("Received", "Bps", Line("gaiod_received_bytes_total", TRAFFIC)),
        chart("Sent", "Bps", Line("gaiod_sent_bytes_total", TRAFFIC)),
        chart("How long connections were open", "s", Line("gaiod_connection_duration_seconds", "listener")),
        chart("Exceptions of hooks", "cps", Line("gaiod_handler_errors_total", "handler hook")),
        chart("Slow hooks", "cps", Line("gaiod_handler_slow_hooks_total", "handler hook")),
        chart("Calls of threads", "cps", Line("gaiod_handler_thread_calls_total", "listener")),
        chart(
            "Threads, and calls that wait for one", "short",
            Line("gaiod_handler_threads", "listener"), Line("gaiod_handler_thread_queue_length", "listener"),
        ),
        chart("Age of the oldest call that waits", "s", Line("gaiod_handler_thread_queue_age_seconds", "listener")),
    ),
    "Back-pressure": (
        chart("Paused connections", "short", Line("gaiod_backpressure_paused_connections", TRAFFIC)),
        chart(
            "Pauses and resumes", "cps",
            Line("gaiod_backpressure_pauses_total", TRAFFIC), Line("gaiod_backpressure_resumes_total", TRAFFIC),
        ),
        chart("Seconds paused per second", "short", Line("gaiod_backpressure_paused_seconds_total", TRAFFIC)),
        chart(
            "Bytes held, and the limit of one connection", "bytes",
            Line("gaiod_buffered_bytes", TRAFFIC), limit("gaiod_buffer_limit_bytes", TRAFFIC, "max"),
        ),
    ),
    "Workers and garbage collection": (
        state("Worker serves", Line("gaiod_worker_up", "instance worker", "min")),
        chart("Heartbeat age", "s", Line("gaiod_worker_heartbeat_age_seconds", "instance worker", "max")),
        events("Replaced", Line("gaiod_worker_restarts_total", "instance worker reason")),
        chart("Keep connections since earlier reloads", "short", Line("gaiod_workers_keeping", "instance")),
        chart("CPU", "percentunit", Line("gaiod_worker_cpu_seconds_total", "instance worker")),
        chart("Loop busy", "percentunit", Line("gaiod_loop_busy_seconds_total", "instance worker")),
        chart("Lag of the loop", "s", Line("gaiod_loop_lag_seconds", "instance worker")),
        chart("Resident memory", "bytes", Line("gaiod_worker_resident_memory_bytes", "instance worker")),
        chart(
            "Open descriptors", "short",
            Line("gaiod_worker_open_fds", "instance worker"), limit("gaiod_worker_max_fds", "instance", "min"),
        ),
        chart(
            "Passes and events of the loop", "cps",
            Line("gaiod_loop_iterations_total", "instance worker"), Line("gaiod_loop_events_total", "instance worker"),
        ),
        chart("Operations completed", "ops", Line("gaiod_operations_total", "op result")),
        chart("Operations pending", "short", Line("gaiod_operations_pending", "op")),
        chart(
            "Connections let go of", "cps",
            Line("gaiod_conn_freed_total"), Line("gaiod_conn_gc_found_total"), Line("gaiod_conn_gc_closed_total"),
        ),
        chart("Swap buffers replaced", "cps", Line("gaiod_swap_buffer_exhausted_total", "instance worker")),
        chart(
            "Log lines not written", "cps",
            Line("gaiod_log_lines_lost_total", "instance worker"),
            Line("gaiod_connection_log_dropped_total", "instance worker"),
        ),
        chart(
            "Files whose code was not checked", "short",
            Line("gaiod_worker_code_changed", "instance worker"), Line("gaiod_feeder_code_changed", "instance"),
        ),
        chart("Garbage collections", "cps", Line("python_gc_collections_total", "generation")),
        chart("Pauses for garbage collection", "s", Line("gaiod_python_gc_pause_seconds", "generation")),
        chart(
            "Garbage", "cps",
            Line("python_gc_objects_collected_total", "generation"),
            Line("python_gc_objects_uncollectable_total", "generation"),
        ),
    ),
    "Upstreams": (
        state("Server is up", Line("gaiod_upstream_up", SERVER, "min")),
        state("What an operator wants of servers", Line("gaiod_upstream_admin_state", f"{SERVER} state", "max")),
        chart("Connections to servers", "short", Line("gaiod_upstream_connections_active", SERVER)),
        chart("Connections established", "cps", Line("gaiod_upstream_connections_total", SERVER)),
        chart("Failures to connect", "cps", Line("gaiod_upstream_connect_failures_total", f"{SERVER} reason")),
        chart("Failed TLS with servers", "cps", Line("gaiod_upstream_tls_failures_total", "upstream reason")),
        chart("TLS handshakes with servers", "cps", Line("gaiod_upstream_tls_handshakes_total", "upstream result")),
        chart("Clients by what they ask for", "cps", Line("gaiod_upstream_routed_total", "upstream result")),
        chart("How long connecting took", "s", Line("gaiod_upstream_connect_duration_seconds", "upstream")),
        chart("Health checks", "cps", Line("gaiod_upstream_health_checks_total", f"{SERVER} result")),
        chart("Clients that wait for a server", "short", Line("gaiod_upstream_queue_length", "upstream")),
        chart(
            "Retries, and clients without a server", "cps",
            Line("gaiod_upstream_retries_total", "upstream"),
            Line("gaiod_upstream_queue_timeouts_total", "upstream"),
            Line("gaiod_upstream_unavailable_total", "upstream cause"),
        ),
    ),
    "Push": (
        state("Feeder runs", Line("gaiod_feeder_up", "instance", "min")),
        state("Source is up", Line("gaiod_push_source_up", SOURCE, "min")),
        chart("Subscribers", "short", Line("gaiod_push_subscribers", "listener")),
        chart("Published", "cps", Line("gaiod_push_published_total", SOURCE)),
        chart("Delivered", "cps", Line("gaiod_push_deliveries_total", "listener")),
        chart("Dropped", "cps", Line("gaiod_push_dropped_total", "listener reason")),
        chart("Refused", "cps", Line("gaiod_push_refused_total", SOURCE)),
        chart("Fan-out", "s", Line("gaiod_push_fanout_seconds", "listener")),
        chart(
            "Bytes that wait", "bytes",
            Line("gaiod_push_queued_bytes", "listener"), Line("gaiod_push_held_bytes", "listener"),
        ),
        events("Gaps", Line("gaiod_push_source_gaps_total", SOURCE), Line("gaiod_push_feed_gaps_total", "listener")),
        events("Sources reconnected", Line("gaiod_push_source_reconnects_total", SOURCE)),
        events("Sources restored or made anew", Line("gaiod_push_source_resets_total", f"{SOURCE} kind")),
        events("Feeder restarted", Line("gaiod_feeder_restarts_total", "instance")),
        events("Messages that came late", Line("gaiod_push_feed_resent_total", "listener")),
        events("Last messages forgotten", Line("gaiod_feeder_last_messages_forgotten_total", "instance")),
    ),
    "Process": (
        chart("CPU of the supervisor", "percentunit", Line("process_cpu_seconds_total", "instance")),
        chart("Memory of the supervisor", "bytes", Line("process_resident_memory_bytes", "instance")),
        chart(
            "Descriptors of the supervisor", "short",
            Line("process_open_fds", "instance"), limit("process_max_fds", "instance", "min"),
        ),
        chart("How long a scrape took", "s", Line("gaiod_scrape_duration_seconds", "instance", "max")),
        chart("Requests for metrics", "cps", Line("gaiod_scrapes_total", "code")),
    ),
}  # fmt: skip
