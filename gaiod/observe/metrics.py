"""Every metric, declared once: name, kind, labels, help. The collector, the docs and the tests read it here.

Names follow Prometheus: base units, the unit as a suffix, `_total` on counters. Label values come
from the configuration and from enums: never an address, a process or a connection.
"""

from dataclasses import dataclass
from typing import Literal

from gaiod.core.counters import FANOUT_BOUNDS_S, LAG_BOUNDS_S
from gaiod.stats.cells import (
    CONNECT_BOUNDS_S,
    DURATION_BOUNDS_S,
    GC_PAUSE_BOUNDS_S,
    HANDOVER_BOUNDS_S,
    HANDSHAKE_BOUNDS_S,
)


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
    Metric("gaiod_draining", "gauge", "1 while the daemon stops."),
    Metric("gaiod_config_reloads_total", "counter", "Reloads of the configuration, by result.", ("result",)),
    Metric("gaiod_config_last_reload_successful", "gauge", "0 if the last reload failed, else 1."),
    Metric(
        "gaiod_config_last_reload_success_timestamp_seconds",
        "gauge",
        "When the running configuration was loaded, in Unix time.",
    ),
    Metric(
        "gaiod_watched_file_ok",
        "gauge",
        "0 while what a file has that the configuration names is wrong, and what it had before stays in force, else 1.",
        ("kind", "file"),
    ),
    Metric(
        "gaiod_watched_file_last_success_timestamp_seconds",
        "gauge",
        "When what is in force of the file was read, in Unix time.",
        ("kind", "file"),
    ),
    Metric(
        "gaiod_watched_file_reads_total",
        "counter",
        "Times the file was read again because it had changed, or might have, by result.",
        ("kind", "file", "result"),
    ),
    Metric(
        "gaiod_workers_keeping",
        "gauge",
        "Workers of earlier generations that keep connections of listeners which reloads have not changed.",
    ),
    Metric(
        "gaiod_connections_kept",
        "gauge",
        "Active connections that stay with workers of earlier generations, as reloads have not changed the listener.",
        ("listener", "handler", "worker"),
    ),
    Metric("gaiod_worker_up", "gauge", "1 while the worker serves.", ("worker",)),
    Metric("gaiod_worker_heartbeat_age_seconds", "gauge", "Age of the worker's last heartbeat.", ("worker",)),
    Metric(
        "gaiod_worker_restarts_total",
        "counter",
        "Times the worker was replaced, by reason: exit, signal, watchdog (it hung), reload, recycle, admin (an "
        "operator).",
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
        "Connections accepted, not counting rejected ones.",
        ("listener", "handler", "worker"),
    ),
    Metric("gaiod_connections_active", "gauge", "Connections open now.", ("listener", "handler", "worker")),
    Metric("gaiod_connections_limit", "gauge", "The most connections that a worker keeps open.", ("listener",)),
    Metric("gaiod_connections_closed_total", "counter", "Connections closed, by reason.", ("listener", "reason")),
    Metric(
        "gaiod_connections_rejected_total", "counter", "Connections closed unserved, by reason.", ("listener", "reason")
    ),
    Metric(
        "gaiod_tls_handshakes_total",
        "counter",
        "TLS handshakes with clients: full, resumed, or failed (then without a version).",
        ("listener", "result", "version"),
    ),
    Metric(
        "gaiod_tls_failures_total",
        "counter",
        "TLS handshakes with clients that failed, by reason.",
        ("listener", "reason"),
    ),
    Metric(
        "gaiod_tls_handshake_seconds",
        "histogram",
        "How long TLS handshakes with clients took that are done: their round trips, our work, and waiting for it.",
        ("listener",),
        HANDSHAKE_BOUNDS_S,
    ),
    Metric(
        "gaiod_tls_info",
        "gauge",
        "Always 1, where a listener speaks TLS. library: what makes sessions; layer: by way of what, openssl (itself) "
        "or python (its ssl).",
        ("library", "layer"),
    ),
    Metric(
        "gaiod_tls_certificate_not_after_seconds",
        "gauge",
        "When a certificate that clients are shown ends, in seconds since 1970.",
        ("listener", "name"),
    ),
    Metric(
        "gaiod_tls_ocsp_not_after_seconds",
        "gauge",
        "When the OCSP response that is sent with a certificate ends, in seconds since 1970; then none is sent.",
        ("listener", "name"),
    ),
    Metric(
        "gaiod_tls_ticket_key_age_seconds",
        "gauge",
        "Age of the newest key of the tickets with which clients resume TLS sessions: at most tickets.rotate.",
        ("listener",),
    ),
    Metric("gaiod_accept_errors_total", "counter", "Failures of accept(), by errno.", ("listener", "errno")),
    Metric(
        "gaiod_accept_paused_seconds_total",
        "counter",
        "How long workers did not accept for lack of descriptors (fd) or memory, counted at least once a second.",
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
        "Times a relay resumed reading because this side took its bytes again.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_backpressure_paused_seconds_total",
        "counter",
        "How long relays did not read for that reason, counted when they resume.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_backpressure_paused_connections",
        "gauge",
        "Connections of this side that pause a relay now, because they do not take its bytes.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_buffered_bytes",
        "gauge",
        "Bytes that relays hold now for this side.",
        ("listener", "side"),
    ),
    Metric(
        "gaiod_buffer_limit_bytes",
        "gauge",
        "The most bytes that a relay holds for one connection of this side, as configured.",
        ("listener", "side"),
    ),
    Metric("gaiod_upstream_connections_total", "counter", "Connections established to the server.", _SERVER),
    Metric("gaiod_upstream_connections_active", "gauge", "Connections to the server that are open now.", _SERVER),
    Metric(
        "gaiod_upstream_connect_failures_total",
        "counter",
        "Failed connects to the server, by reason.",
        (*_SERVER, "reason"),
    ),
    Metric(
        "gaiod_upstream_tls_handshakes_total",
        "counter",
        "TLS handshakes with servers that succeeded, by result (full or resumed) and version, once there were some.",
        ("upstream", "result", "version"),
    ),
    Metric(
        "gaiod_upstream_tls_failures_total",
        "counter",
        "TLS handshakes with servers that failed, by reason, once there were some: certificate_expired, "
        "unknown_authority, wrong_name, certificate, certificate_wanted, certificate_refused, or as of "
        "gaiod_tls_failures_total.",
        ("upstream", "reason"),
    ),
    Metric(
        "gaiod_upstream_health_checks_total",
        "counter",
        "Health checks of the server, by result: passed or failed.",
        (*_SERVER, "result"),
    ),
    Metric(
        "gaiod_upstream_up", "gauge", "0 while checks or failed connects say that the server is down, else 1.", _SERVER
    ),
    Metric(
        "gaiod_upstream_admin_state",
        "gauge",
        "1 for what an operator wants of the server, of drain, maint and ready, once gaiod server has set something.",
        (*_SERVER, "state"),
    ),
    Metric(
        "gaiod_upstream_admin_weight",
        "gauge",
        "The weight that an operator has given the server instead of the configured one.",
        _SERVER,
    ),
    Metric(
        "gaiod_upstream_connect_duration_seconds",
        "histogram",
        "How long successful connects took, with the handshake where the server speaks TLS.",
        ("upstream",),
        CONNECT_BOUNDS_S,
    ),
    Metric(
        "gaiod_upstream_retries_total",
        "counter",
        "Connections tried again after a failure, with the same server or another.",
        ("upstream",),
    ),
    Metric(
        "gaiod_upstream_routed_total",
        "counter",
        "Clients by what has decided about their servers, once route had some: sni or alpn; or why nothing did: "
        "unknown_name, no_name, http or not_tls (it is no TLS), malformed, timeout.",
        ("upstream", "result"),
    ),
    Metric("gaiod_upstream_queue_length", "gauge", "Clients that wait for a server now.", ("upstream",)),
    Metric(
        "gaiod_upstream_queue_timeouts_total",
        "counter",
        "Clients that waited too long for a server.",
        ("upstream",),
    ),
    Metric(
        "gaiod_upstream_unavailable_total",
        "counter",
        "Clients closed because no server was available, by cause: all down, full (with the queue), queue_timeout, "
        "names unresolved, drained by an operator, no_resources (descriptors, memory, ports), or how the last connect "
        "failed.",
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
        "Messages that a subscriber did not get, by reason: oldest, newest, replaced, memory (its policy or a limit), "
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
        "Time from publishing until the message was sent to, or queued for, the last subscriber.",
        ("listener",),
        FANOUT_BOUNDS_S,
    ),
    Metric(
        "gaiod_push_published_total",
        "counter",
        "Messages published by the source, or by the handler itself if the listener has no sources.",
        _SOURCE,
    ),
    Metric(
        "gaiod_push_refused_total",
        "counter",
        "Messages of the source that could not be published, for example because they were too long.",
        _SOURCE,
    ),
    Metric("gaiod_push_source_up", "gauge", "1 while the source works or has ended, 0 while it is cut off.", _SOURCE),
    Metric("gaiod_push_source_reconnects_total", "counter", "Times the source reconnected.", _SOURCE),
    Metric(
        "gaiod_push_source_gaps_total",
        "counter",
        "Gaps: times that messages of the source may have been lost.",
        _SOURCE,
    ),
    Metric(
        "gaiod_push_source_resets_total",
        "counter",
        "Times that what the source reads was restored to an earlier state, or made anew; each is a gap, too.",
        (*_SOURCE, "kind"),
    ),
    Metric(
        "gaiod_push_feed_gaps_total",
        "counter",
        "Published messages that did not reach a worker, counted for each worker.",
        ("listener",),
    ),
    Metric(
        "gaiod_handover_connections_total",
        "counter",
        "Clients' connections that a worker was to hand over to another, by result: moved, stayed.",
        ("listener", "result"),
    ),
    Metric(
        "gaiod_handover_stayed_total",
        "counter",
        "Connections that stayed with their worker (those of changed listeners drain), by reason: handler "
        "(it cannot describe them), version, not_quiet, hook_error, refused (by the handler), limit, descriptors, "
        "feed, size, timeout, lost (the worker that was to take them), tls.",
        ("listener", "reason"),
    ),
    Metric(
        "gaiod_handover_pause_seconds",
        "histogram",
        "Time for which nobody moved the bytes of a connection that was handed over.",
        ("listener",),
        HANDOVER_BOUNDS_S,
    ),
    Metric("gaiod_shared_values", "gauge", "Values that the workers of the listener share.", ("listener",)),
    Metric(
        "gaiod_shared_values_updates_total",
        "counter",
        "Times that a handler shared another value than before with the other workers.",
        ("listener",),
    ),
    Metric(
        "gaiod_shared_values_delayed_total",
        "counter",
        "Shared values that had to wait because the handler shares too many; a later one of the same key replaces it.",
        ("listener",),
    ),
    Metric(
        "gaiod_push_feed_resent_total",
        "counter",
        "Published messages that reached a worker from the feeder's journal, because its link or the feeder had ended.",
        ("listener",),
    ),
    Metric("gaiod_feeder_up", "gauge", "1 while the feeder runs the sources, 0 while it does not."),
    Metric("gaiod_feeder_restarts_total", "counter", "Times the feeder was restarted."),
    Metric(
        "gaiod_feeder_code_changed",
        "gauge",
        "Files whose code the feeder has loaded although the configuration was checked with another version of them.",
    ),
    Metric(
        "gaiod_feeder_last_messages_forgotten_total",
        "counter",
        "Last messages of topics that the feeder dropped because it kept 32 MiB of them; new workers miss these.",
    ),
    Metric("gaiod_operations_total", "counter", "Operations completed.", ("worker", "op", "result")),
    Metric("gaiod_operations_pending", "gauge", "Operations submitted and not completed.", ("worker", "op")),
    Metric("gaiod_loop_iterations_total", "counter", "Times the loop polled.", ("worker",)),
    Metric("gaiod_loop_events_total", "counter", "Readiness events the kernel reported.", ("worker",)),
    Metric("gaiod_loop_busy_seconds_total", "counter", "Time that the loop was not waiting.", ("worker",)),
    Metric(
        "gaiod_loop_lag_seconds",
        "histogram",
        "Time between two polls of the loop: how long a ready connection had to wait.",
        ("worker",),
        LAG_BOUNDS_S,
    ),
    Metric(
        "gaiod_handshake_steps_delayed_total",
        "counter",
        "Steps of TLS handshakes that waited for the next pass of the loop, which takes 16 of them at most.",
        ("worker",),
    ),
    Metric(
        "gaiod_swap_buffer_exhausted_total",
        "counter",
        "Times the swap buffer was replaced because a handler kept a view of it.",
        ("worker",),
    ),
    Metric("gaiod_conn_gc_found_total", "counter", "Connections found dropped without being closed.", ("worker",)),
    Metric("gaiod_conn_gc_closed_total", "counter", "Dropped connections that were closed.", ("worker",)),
    Metric("gaiod_conn_freed_total", "counter", "Connections and listeners closed on purpose.", ("worker",)),
    Metric(
        "gaiod_connection_log_dropped_total",
        "counter",
        "Lines of the connection log that were dropped because of its rate.",
        ("worker",),
    ),
    Metric(
        "gaiod_worker_code_changed",
        "gauge",
        "Files whose code the worker has loaded although the configuration was checked with another version of them.",
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
        "How long garbage collections paused a worker's loop.",
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
    Metric(
        "gaiod_handler_thread_calls_total",
        "counter",
        "Functions that coroutines of a handler let a thread call.",
        ("listener",),
    ),
    Metric("gaiod_handler_threads", "gauge", "Threads that a coroutine handler has now.", ("listener",)),
    Metric("gaiod_handler_thread_queue_length", "gauge", "Calls that wait for a thread now.", ("listener",)),
    Metric(
        "gaiod_handler_thread_queue_age_seconds",
        "gauge",
        "How long the oldest call has waited for a thread.",
        ("listener",),
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
