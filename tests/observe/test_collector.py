"""The collector turns cells into samples, exactly, and in both formats of Prometheus."""

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from e2e.support.clients import parse_openmetrics
from e2e.support.tools import tool
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gaiod.core import counters
from gaiod.core.engine import tls_library
from gaiod.observe import exposition
from gaiod.observe.collector import ServedListener
from gaiod.observe.metrics import METRICS
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import CLOSE_REASONS, DURATION_BOUNDS_S, GC_PAUSE_BOUNDS_S, RESTART_REASONS
from gaiod.supervisor.file_watch import WatchedFile
from observe.support.slots import FakeDaemon, family_of, samples_of, value_of

TRAFFIC = {"listener": "l0", "handler": "h0", "worker": 0}


def test_traffic_is_told_by_listener_handler_worker_and_side(fake: FakeDaemon) -> None:
    for number, cell in enumerate(("downstream_received", "downstream_sent", "upstream_received", "upstream_sent"), 1):
        fake.set(f"{cell}_bytes", number)
    collector = fake.collector
    assert value_of(collector, "gaiod_received_bytes_total", **TRAFFIC, side="downstream") == 1
    assert value_of(collector, "gaiod_sent_bytes_total", **TRAFFIC, side="downstream") == 2
    assert value_of(collector, "gaiod_received_bytes_total", **TRAFFIC, side="upstream") == 3
    assert value_of(collector, "gaiod_sent_bytes_total", **TRAFFIC, side="upstream") == 4


def test_active_connections_are_those_accepted_and_not_closed(fake: FakeDaemon) -> None:
    fake.set("accepted", 1000)
    for number, reason in enumerate(CLOSE_REASONS, 1):
        fake.set(f"closed_{reason}", number)
    collector = fake.collector
    assert value_of(collector, "gaiod_connections_accepted_total", **TRAFFIC) == 1000
    assert value_of(collector, "gaiod_connections_active", **TRAFFIC) == 1000 - sum(range(1, len(CLOSE_REASONS) + 1))
    for number, reason in enumerate(CLOSE_REASONS, 1):
        assert value_of(collector, "gaiod_connections_closed_total", listener="l0", reason=reason) == number


def test_pending_operations_are_those_submitted_and_not_completed(fake: FakeDaemon) -> None:
    fake.set_operations("write", submitted=50, complete=20, eof=1, error=3, deadline=6)
    collector = fake.collector
    assert value_of(collector, "gaiod_operations_pending", worker=0, op="write") == 20
    assert value_of(collector, "gaiod_operations_total", worker=0, op="write", result="complete") == 20
    assert value_of(collector, "gaiod_operations_total", worker=0, op="write", result="deadline") == 6
    results = {dict(labels)["result"] for name, labels in samples_of(collector) if name == "gaiod_operations_total"}
    assert results == {"complete", "eof", "error", "deadline"}


def test_listener_is_the_sum_of_its_workers_and_traffic_is_not() -> None:
    daemon = FakeDaemon(workers=3, listeners=2)
    try:
        for worker in range(3):
            daemon.set("closed_idle", 10 + worker, worker=worker, listener=1)
            daemon.set("accepted", 20 + worker, worker=worker, listener=1)
        collector = daemon.collector
        assert value_of(collector, "gaiod_connections_closed_total", listener="l1", reason="idle") == 33
        assert value_of(collector, "gaiod_connections_closed_total", listener="l0", reason="idle") == 0
        for worker in range(3):
            labels = {"listener": "l1", "handler": "h1", "worker": worker}
            assert value_of(collector, "gaiod_connections_accepted_total", **labels) == 20 + worker
            assert value_of(collector, "gaiod_connections_active", **labels) == 10
    finally:
        daemon.close()


def test_handler_errors_are_summed_when_two_listeners_have_the_same_handler() -> None:
    """Two samples with the same labels would make the whole scrape invalid."""
    daemon = FakeDaemon(listeners=2, handler="echo")
    try:
        daemon.set("handler_error_on_read", 2, listener=0)
        daemon.set("handler_error_on_read", 3, listener=1)
        assert value_of(daemon.collector, "gaiod_handler_errors_total", handler="echo", hook="on_read") == 5
    finally:
        daemon.close()


def test_duration_histogram_is_cumulative_and_ends_with_everything(fake: FakeDaemon) -> None:
    for number, bound in enumerate((*DURATION_BOUNDS_S, "inf"), 1):
        fake.set(f"duration_le_{bound}", number)
    fake.set("duration_ns", 1_500_000_000)
    name = "gaiod_connection_duration_seconds"
    family = family_of(fake.collector, name)
    buckets = [(sample.labels["le"], sample.value) for sample in family.samples if sample.name == f"{name}_bucket"]
    expected = [sum(range(1, n + 1)) for n in range(1, len(DURATION_BOUNDS_S) + 2)]
    assert buckets == list(zip([*map(str, DURATION_BOUNDS_S), "+Inf"], expected, strict=True))
    assert value_of(fake.collector, f"{name}_count", listener="l0") == expected[-1]
    assert value_of(fake.collector, f"{name}_sum", listener="l0") == 1.5


def test_loop_is_told_in_seconds(fake: FakeDaemon) -> None:
    cells = fake.cells[0]
    cells[counters.index("loop_iterations")] = 7
    cells[counters.index("loop_busy_ns")] = 2_500_000_000
    cells[counters.LAG] = 4
    cells[counters.LAG + len(counters.LAG_BOUNDS_S)] = 3
    collector = fake.collector
    assert value_of(collector, "gaiod_loop_iterations_total", worker=0) == 7
    assert value_of(collector, "gaiod_loop_busy_seconds_total", worker=0) == 2.5
    assert value_of(collector, "gaiod_loop_lag_seconds_bucket", worker=0, le=counters.LAG_BOUNDS_S[0]) == 4
    assert value_of(collector, "gaiod_loop_lag_seconds_bucket", worker=0, le=counters.LAG_BOUNDS_S[-1]) == 4
    assert value_of(collector, "gaiod_loop_lag_seconds_bucket", worker=0, le="+Inf") == 7


def test_garbage_collections_are_told_by_generation(fake: FakeDaemon) -> None:
    gc = fake.layout.gc
    fake.cells[0][gc(1, "collections")] = 5
    fake.cells[0][gc(1, "collected")] = 6
    fake.cells[0][gc(1, "uncollectable")] = 7
    fake.cells[0][gc(1, "pause_ns")] = 8_000_000
    fake.cells[0][gc(1, f"pause_le_{GC_PAUSE_BOUNDS_S[1]}")] = 5
    collector = fake.collector
    labels = {"generation": 1, "worker": 0}
    assert value_of(collector, "python_gc_collections_total", **labels) == 5
    assert value_of(collector, "python_gc_objects_collected_total", **labels) == 6
    assert value_of(collector, "python_gc_objects_uncollectable_total", **labels) == 7
    assert value_of(collector, "gaiod_python_gc_pause_seconds_sum", **labels) == 0.008
    assert value_of(collector, "gaiod_python_gc_pause_seconds_bucket", **labels, le=GC_PAUSE_BOUNDS_S[0]) == 0
    assert value_of(collector, "gaiod_python_gc_pause_seconds_bucket", **labels, le=GC_PAUSE_BOUNDS_S[1]) == 5


def test_worker_is_up_when_one_serves(fake: FakeDaemon) -> None:
    assert value_of(fake.collector, "gaiod_worker_up", worker=0) == 1
    fake.heartbeat_ages_s.clear()
    assert value_of(fake.collector, "gaiod_worker_up", worker=0) == 0


def test_worker_that_is_gone_has_no_usage_and_no_heartbeat(fake: FakeDaemon) -> None:
    assert value_of(fake.collector, "gaiod_worker_open_fds", worker=0) == 12
    assert value_of(fake.collector, "gaiod_worker_cpu_seconds_total", worker=0) == 1.25
    assert value_of(fake.collector, "gaiod_worker_heartbeat_age_seconds", worker=0) == 0.25
    fake.usages.clear()
    fake.heartbeat_ages_s.clear()
    names = {name for name, _ in samples_of(fake.collector)}
    assert not names & {"gaiod_worker_open_fds", "gaiod_worker_heartbeat_age_seconds"}
    assert value_of(fake.collector, "gaiod_worker_cpu_seconds_total", worker=0) == 1.25, "what was used stays used"


def test_cpu_time_is_not_told_where_nobody_knows_it(fake: FakeDaemon) -> None:
    fake.cpu_seconds.clear()
    assert "gaiod_worker_cpu_seconds_total" not in {name for name, _ in samples_of(fake.collector)}


def test_counters_keep_what_a_worker_counted_that_is_gone_and_gauges_do_not(fake: FakeDaemon) -> None:
    fake.set("accepted", 5)
    fake.set_past("accepted", 100)
    fake.set_past("closed_worker_lost", 60)
    reads = counters.operation_index("read", "submitted"), counters.operation_index("read", "complete")
    for index, past, now in zip(reads, (50, 40), (3, 1), strict=True):
        fake.all_slots[0].past[index] = past
        fake.cells[0][index] = now
    collector = fake.collector
    assert value_of(collector, "gaiod_connections_accepted_total", **TRAFFIC) == 105
    assert value_of(collector, "gaiod_connections_active", **TRAFFIC) == 5
    assert value_of(collector, "gaiod_connections_closed_total", listener="l0", reason="worker_lost") == 60
    assert value_of(collector, "gaiod_operations_total", worker=0, op="read", result="complete") == 41
    assert value_of(collector, "gaiod_operations_pending", worker=0, op="read") == 2


def test_restarts_are_told_by_worker_and_reason(fake: FakeDaemon) -> None:
    fake.all_slots[0].restarts["reload"] += 2
    restarts = {
        dict(labels)["reason"]: value
        for (name, labels), value in samples_of(fake.collector).items()
        if name == "gaiod_worker_restarts_total"
    }
    assert restarts == {**dict.fromkeys(RESTART_REASONS, 0), "reload": 2}


def test_reloads_are_told_by_how_they_went(fake: FakeDaemon) -> None:
    fake.reload_results["failure"] += 1
    fake.last_reload_worked = False
    fake.last_success_s = 1234.5
    collector = fake.collector
    assert value_of(collector, "gaiod_config_reloads_total", result="success") == 0
    assert value_of(collector, "gaiod_config_reloads_total", result="failure") == 1
    assert value_of(collector, "gaiod_config_last_reload_successful") == 0
    assert value_of(collector, "gaiod_config_last_reload_success_timestamp_seconds") == 1234.5


def test_files_are_told_by_whether_what_they_have_is_in_force(fake: FakeDaemon) -> None:
    fake.all_files = [
        WatchedFile("access", ("/a",), read_s=1234.5),
        WatchedFile("access", ("/b",), error="/b, line 1", results=Counter(success=2, failure=1)),
        WatchedFile("clients", ("/c", "/1"), read_s=20.0, results=Counter(success=2, failure=1)),
        WatchedFile("clients", ("/c", "/2"), read_s=10.0, results=Counter(success=3, failure=0), error="/2 is none"),
    ]
    collector = fake.collector
    assert value_of(collector, "gaiod_watched_file_ok", kind="access", file="/a") == 1
    assert value_of(collector, "gaiod_watched_file_ok", kind="access", file="/b") == 0
    seconds = value_of(collector, "gaiod_watched_file_last_success_timestamp_seconds", kind="access", file="/a")
    assert seconds == 1234.5
    of_b = {"kind": "access", "file": "/b"}
    assert value_of(collector, "gaiod_watched_file_reads_total", **of_b, result="success") == 2
    assert value_of(collector, "gaiod_watched_file_reads_total", **of_b, result="failure") == 1
    of_c = {"kind": "clients", "file": "/c"}
    assert value_of(collector, "gaiod_watched_file_ok", **of_c) == 0
    assert value_of(collector, "gaiod_watched_file_last_success_timestamp_seconds", **of_c) == 10.0
    assert value_of(collector, "gaiod_watched_file_reads_total", **of_c, result="success") == 5


def test_what_earlier_generations_keep_is_told(fake: FakeDaemon) -> None:
    fake.keeping_workers = 3
    name, handler = key = fake.listeners()[0].key
    fake.kept[key, 0] = 12
    collector = fake.collector
    assert value_of(collector, "gaiod_workers_keeping") == 3
    assert value_of(collector, "gaiod_connections_kept", listener=name, handler=handler, worker="0") == 12


def test_draining_is_that_of_the_daemon(fake: FakeDaemon) -> None:
    assert value_of(fake.collector, "gaiod_draining") == 0
    fake.is_draining = True
    assert value_of(fake.collector, "gaiod_draining") == 1


def test_readiness_is_that_of_the_daemon(fake: FakeDaemon) -> None:
    assert value_of(fake.collector, "gaiod_ready") == 1
    fake.is_ready = False
    assert value_of(fake.collector, "gaiod_ready") == 0


def test_scrapes_are_counted_by_code(fake: FakeDaemon) -> None:
    collector = fake.collector
    for code in (200, 200, 404):
        collector.count_scrape(code)
    assert value_of(collector, "gaiod_scrapes_total", code=200) == 2
    assert value_of(collector, "gaiod_scrapes_total", code=404) == 1


def test_queue_is_told_for_a_tcp_listener_and_left_out_for_a_unix_one(fake: FakeDaemon) -> None:
    assert not [name for name, _ in samples_of(fake.collector) if "listen_queue" in name]
    with (
        listen(backlog=5) as sock,
        listen(backlog=7) as second,
        socket.create_connection(sock.getsockname(), timeout=LIMIT_S),
    ):
        fake.all_listeners = [
            ServedListener(ListenerSettings(name="l0", bind="127.0.0.1:0", handler="h0"), [sock, second])
        ]
        collector = fake.collector
        assert value_of(collector, "gaiod_listen_queue_length", listener="l0", worker=0) == 1
        assert value_of(collector, "gaiod_listen_queue_limit", listener="l0", worker=0) == 5
        assert value_of(collector, "gaiod_listen_queue_length", listener="l0", worker=1) == 0
        assert value_of(collector, "gaiod_listen_queue_limit", listener="l0", worker=1) == 7


@pytest.mark.parametrize(
    ("name", "labels"),
    [("gaiod_connections_active", TRAFFIC), ("gaiod_operations_pending", {"worker": 0, "op": "read"})],
)
def test_gauge_is_never_negative_while_the_worker_goes_on_counting(
    fake: FakeDaemon, name: str, labels: dict[str, Any]
) -> None:
    """A worker does not wait for a scrape: an end may have been read whose beginning was not."""
    fake.set("closed_peer_eof", 1)
    fake.set_operations("read", complete=1)
    assert value_of(fake.collector, name, **labels) == 0


def _calls_per_series(write: Callable[[CollectorRegistry], bytes], workers: int, listeners: int) -> float:
    """Return how often something is called for a scrape, by the sample."""
    daemon = FakeDaemon(workers, listeners)
    registry = CollectorRegistry(auto_describe=False)
    calls: Counter[str] = Counter()
    try:
        daemon.fill()
        registry.register(daemon.collector)
        write(registry)
        sys.setprofile(lambda _frame, event, _what: calls.update((event,)))
        try:
            text = write(registry)
        finally:
            sys.setprofile(None)
    finally:
        daemon.close()
    return (calls["call"] + calls["c_call"]) / sum(not line.startswith(b"#") for line in text.splitlines())


@pytest.mark.parametrize("write", [exposition.text, exposition.openmetrics])
def test_work_for_a_scrape_grows_with_its_series_and_no_faster(write: Callable[[CollectorRegistry], bytes]) -> None:
    """What the benchmark times, as a number that does not depend on the machine: 20 ms for 1,000 are 500 ns a call."""
    small, large = _calls_per_series(write, 2, 2), _calls_per_series(write, 8, 4)
    assert large < 1.2 * small
    assert large < 40


# -- formats -------------------------------------------------------------------------------------------


def _exposed(fake: FakeDaemon, encode: Callable[[Any], bytes]) -> str:
    fake.fill()
    registry = CollectorRegistry(auto_describe=False)
    collector = fake.collector
    collector.count_scrape(200)
    registry.register(collector)
    return encode(registry).decode()


@pytest.mark.parametrize(
    ("encode", "parse"),
    [(generate_latest, parse_text), (openmetrics.generate_latest, parse_openmetrics)],
    ids=["text", "openmetrics"],
)
def test_every_metric_is_exposed_as_it_is_declared(
    fake: FakeDaemon, encode: Callable[[Any], bytes], parse: Callable[[str], Any]
) -> None:
    families = {family.name: family for family in parse(_exposed(fake, encode))}
    queue = {"gaiod_listen_queue_length", "gaiod_listen_queue_limit"}  # a unix listener has none
    for metric in METRICS:
        if metric.name not in queue:
            family = families.pop(metric.name.removesuffix("_total"))
            assert (family.type, family.documentation) == (metric.kind, metric.help)
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels == set(metric.labels)
    assert families == {}


def test_promtool_has_nothing_to_say(fake: FakeDaemon) -> None:
    command = [tool("promtool", "prometheus"), "check", "metrics"]
    text = _exposed(fake, generate_latest)
    lint = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")


def test_library_is_told_where_a_listener_speaks_tls(fake: FakeDaemon) -> None:
    library, layer = tls_library()
    assert value_of(fake.collector, "gaiod_tls_info", library=library, layer=layer) == 1
    (listener,) = {each.key: each for each in fake.listeners() if each.settings.tls is not None}.values()
    assert value_of(fake.collector, "gaiod_tls_handshake_seconds_count", listener=listener.settings.name) == 0
