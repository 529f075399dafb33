"""Write the dashboard, `gaiod.json` beside this file: `python deploy/grafana/generate.py`.

ROWS says which panel shows which metrics. The rest follows from what `gaiod.observe.metrics` declares: a counter
is shown as its rate, a histogram as its median and its 99th percentile, a gauge as it is, and the description of a
panel is what its metrics mean.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gaiod.observe.metrics import METRICS, Metric

FILE = Path(__file__).parent / "gaiod.json"

OTHERS = (
    Metric("up", "gauge", "1 if the last scrape worked, as Prometheus says."),
    Metric("process_cpu_seconds_total", "counter", "CPU time that the supervisor has used."),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of the supervisor."),
    Metric("process_virtual_memory_bytes", "gauge", "Address space of the supervisor."),
    Metric("process_open_fds", "gauge", "Descriptors the supervisor has open."),
    Metric("process_max_fds", "gauge", "Descriptors the supervisor may open (soft limit)."),
)
"""What is scraped beside gaiod's own metrics: from Prometheus itself, and from its client library."""

KNOWN = {metric.name: metric for metric in (*METRICS, *OTHERS)}
QUANTILES = (0.5, 0.99)
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
"""Of the whole dashboard, as Grafana counts."""


@dataclass(frozen=True, slots=True)
class Line:
    """A metric in a panel.

    Attributes:
        metric: its name.
        by: labels, with spaces between: each value has a line of its own, and the other labels are summed up.
        how: what is done with values that share a line. "increase": a counter's increase, and not its rate: for what
            happens so seldom that people count it.
        formula: what is shown, {} being the expression.
    """

    metric: str
    by: str = ""
    how: Literal["sum", "max", "min", "increase"] = "sum"
    formula: str = "{}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart, or one number (`stat`) of now. `unit` is Grafana's name for it."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"


def chart(title: str, unit: str, *lines: Line) -> Panel:
    """Return a chart."""
    return Panel(title, unit, lines)


def number(title: str, unit: str, *lines: Line) -> Panel:
    """Return a panel with numbers."""
    return Panel(title, unit, lines, "stat")


TRAFFIC = "listener side"
SERVER = "upstream server"
SOURCE = "listener source"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Overview": (
        number("Answers", "bool_yes_no", Line("up", "instance", "min")),
        number("Serves", "bool_yes_no", Line("gaiod_ready", "instance", "min")),
        number("Stops", "bool_yes_no", Line("gaiod_draining", "instance", "max")),
        number("Running for", "s", Line("gaiod_start_time_seconds", "instance", "max", "time() - {}")),
        number("Daemons by version", "short", Line("gaiod_build_info", "version python engine")),
        number("Last reload worked", "bool_yes_no", Line("gaiod_config_last_reload_successful", "instance", "min")),
        number(
            "Configuration loaded ago", "s",
            Line("gaiod_config_last_reload_success_timestamp_seconds", "instance", "min", "time() - {}"),
        ),
        number("Connections", "short", Line("gaiod_connections_active", "instance")),
        chart("Bytes received", "Bps", Line("gaiod_received_bytes_total", "side")),
        chart("Bytes sent", "Bps", Line("gaiod_sent_bytes_total", "side")),
        chart("Reloads", "short", Line("gaiod_config_reloads_total", "instance result", "increase")),
    ),
    "Listeners": (
        chart(
            "Connections of a worker, and its limit", "short",
            Line("gaiod_connections_active", "instance listener worker"),
            Line("gaiod_connections_limit", "listener", "max"),
        ),
        chart("Accepted", "cps", Line("gaiod_connections_accepted_total", "listener")),
        chart("Closed", "cps", Line("gaiod_connections_closed_total", "listener reason")),
        chart("Rejected", "cps", Line("gaiod_connections_rejected_total", "listener reason")),
        chart("Errors of accept", "cps", Line("gaiod_accept_errors_total", "listener errno")),
        chart("Not accepting for lack of", "percentunit", Line("gaiod_accept_paused_seconds_total", "listener reason")),
        chart(
            "Waiting to be accepted", "short",
            Line("gaiod_listen_queue_length", "instance listener worker"),
            Line("gaiod_listen_queue_limit", "listener", "max"),
        ),
        chart("Received", "Bps", Line("gaiod_received_bytes_total", TRAFFIC)),
        chart("Sent", "Bps", Line("gaiod_sent_bytes_total", TRAFFIC)),
        chart("How long connections were open", "s", Line("gaiod_connection_duration_seconds", "listener")),
        chart("Exceptions of hooks", "cps", Line("gaiod_handler_errors_total", "handler hook")),
        chart("Slow hooks", "cps", Line("gaiod_handler_slow_hooks_total", "handler hook")),
    ),
    "Back-pressure": (
        chart("Paused connections", "short", Line("gaiod_backpressure_paused_connections", TRAFFIC)),
        chart(
            "Pauses and resumes", "cps",
            Line("gaiod_backpressure_pauses_total", TRAFFIC), Line("gaiod_backpressure_resumes_total", TRAFFIC),
        ),
        chart("Seconds paused per second", "short", Line("gaiod_backpressure_paused_seconds_total", TRAFFIC)),
        chart("Bytes held", "bytes", Line("gaiod_buffered_bytes", TRAFFIC)),
        chart("Limit of one connection", "bytes", Line("gaiod_buffer_limit_bytes", TRAFFIC, "max")),
    ),
    "Workers and garbage collection": (
        number("Worker serves", "bool_yes_no", Line("gaiod_worker_up", "instance worker", "min")),
        chart("Loop came round ago", "s", Line("gaiod_worker_heartbeat_age_seconds", "instance worker", "max")),
        chart("Replaced", "short", Line("gaiod_worker_restarts_total", "instance worker reason", "increase")),
        chart("CPU", "percentunit", Line("gaiod_worker_cpu_seconds_total", "instance worker")),
        chart("Loop busy", "percentunit", Line("gaiod_loop_busy_seconds_total", "instance worker")),
        chart("Lag of the loop", "s", Line("gaiod_loop_lag_seconds", "instance worker")),
        chart("Resident memory", "bytes", Line("gaiod_worker_resident_memory_bytes", "instance worker")),
        chart(
            "Open descriptors", "short",
            Line("gaiod_worker_open_fds", "instance worker"), Line("gaiod_worker_max_fds", "instance", "min"),
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
        chart("Garbage collections", "cps", Line("python_gc_collections_total", "generation")),
        chart("Pauses for garbage collection", "s", Line("gaiod_python_gc_pause_seconds", "generation")),
        chart(
            "Garbage", "cps",
            Line("python_gc_objects_collected_total", "generation"),
            Line("python_gc_objects_uncollectable_total", "generation"),
        ),
    ),
    "Upstreams": (
        number("Server is given connections", "bool_yes_no", Line("gaiod_upstream_up", SERVER, "min")),
        chart("Connections to servers", "short", Line("gaiod_upstream_connections_active", SERVER)),
        chart("Connections established", "cps", Line("gaiod_upstream_connections_total", SERVER)),
        chart("Failures to connect", "cps", Line("gaiod_upstream_connect_failures_total", f"{SERVER} reason")),
        chart("How long connecting took", "s", Line("gaiod_upstream_connect_duration_seconds", "upstream")),
        chart("Health checks", "cps", Line("gaiod_upstream_health_checks_total", f"{SERVER} result")),
        chart("Clients that wait for a server", "short", Line("gaiod_upstream_queue_length", "upstream")),
        chart(
            "Retries, and clients without a server", "cps",
            Line("gaiod_upstream_retries_total", "upstream"),
            Line("gaiod_upstream_queue_timeouts_total", "upstream"),
            Line("gaiod_upstream_unavailable_total", "upstream"),
        ),
    ),
    "Push": (
        number("Feeder runs", "bool_yes_no", Line("gaiod_feeder_up", "instance", "min")),
        number("Source is up", "bool_yes_no", Line("gaiod_push_source_up", SOURCE, "min")),
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
        chart(
            "Gaps", "short",
            Line("gaiod_push_source_gaps_total", SOURCE, "increase"),
            Line("gaiod_push_feed_gaps_total", "listener", "increase"),
        ),
        chart("Sources reconnected", "short", Line("gaiod_push_source_reconnects_total", SOURCE, "increase")),
        chart("Feeder restarted", "short", Line("gaiod_feeder_restarts_total", "instance", "increase")),
    ),
    "Process": (
        chart("CPU of the supervisor", "percentunit", Line("process_cpu_seconds_total", "instance")),
        chart(
            "Memory of the supervisor", "bytes",
            Line("process_resident_memory_bytes", "instance"), Line("process_virtual_memory_bytes", "instance"),
        ),
        chart(
            "Descriptors of the supervisor", "short",
            Line("process_open_fds", "instance"), Line("process_max_fds", "instance"),
        ),
        chart("How long a scrape took", "s", Line("gaiod_scrape_duration_seconds", "instance", "max")),
        chart("Requests for metrics", "cps", Line("gaiod_scrapes_total", "code")),
    ),
}  # fmt: skip


def expressions(line: Line) -> list[tuple[str, str]]:
    """Return what a line's targets ask for, and the legend of each.

    Raises:
        KeyError: the metric is not declared.
    """
    metric, labels = KNOWN[line.metric], line.by.split()
    name = metric.name.removeprefix("gaiod_").removesuffix("_total").replace("_", " ")
    legend = " ".join([*(f"{{{{{label}}}}}" for label in labels), name])
    if metric.kind == "histogram":
        by = ", ".join([*labels, "le"])
        rates = f"sum by ({by}) (rate({_selector(metric.name + '_bucket')}[$__rate_interval]))"
        asked = [(f"histogram_quantile({each:g}, {rates})", f"p{100 * each:g} {legend}") for each in QUANTILES]
    else:
        by = f" by ({', '.join(labels)}) " if labels else ""
        values = _selector(metric.name)
        if metric.kind == "counter":
            values = f"{'increase' if line.how == 'increase' else 'rate'}({values}[$__rate_interval])"
        asked = [(f"{'sum' if line.how == 'increase' else line.how}{by}({values})", legend)]
    return [(line.formula.format(expression), legend) for expression, legend in asked]


def _selector(name: str) -> str:
    return f'{name}{{job=~"$job", instance=~"$instance"}}'


def _panel(panel_id: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    asked = [pair for line in panel.lines for pair in expressions(line)]
    is_chart = panel.kind == "timeseries"
    return {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(dict.fromkeys(KNOWN[line.metric].help for line in panel.lines)),
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **({"min": 0} if is_chart else {})}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
        if is_chart
        else {"textMode": "value_and_name", "colorMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
                "range": True,
            }
            for index, (expression, legend) in enumerate(asked)
        ],
    }


def _panels() -> list[dict[str, Any]]:
    """Return the panels of all rows, from left to right and from the top down."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        x, y, below = 0, y + 1, y + 1
        for panel in panels:
            width, height = (6, 4) if panel.kind == "stat" else (8, 8)
            if x + width > WIDTH:
                x, y = 0, below
            made.append(_panel(len(made) + 1, panel, {"x": x, "y": y, "w": width, "h": height}))
            x, below = x + width, max(below, y + height)
        y = below
    return made


def _variable(name: str, label: str, values_of: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": values_of,
        "query": {"query": values_of, "refId": name},
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana reads it."""
    return {
        "uid": "gaiod",
        "title": "gaiod",
        "description": "Everything that gaiod exports. Made by generate.py: change it there.",
        "tags": ["gaiod"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                },
                _variable("job", "Job", "label_values(gaiod_build_info, job)"),
                _variable("instance", "Instance", 'label_values(gaiod_build_info{job=~"$job"}, instance)'),
            ]
        },
        "panels": _panels(),
    }


def text() -> str:
    """Return what the file has to be."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
