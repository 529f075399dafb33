"""What a daemon exports agrees with what its clients did, and with what the kernel says of it."""

import os
import platform
import resource
import signal
import subprocess
import time
from contextlib import ExitStack

import pytest
from core.support.sockets import pattern, reset
from core.support.waiting import LIMIT_S, TIME_UNIT

import gaiod
from e2e.support.clients import Samples, connect, exchange, parse_openmetrics, request
from e2e.support.daemons import Daemon
from e2e.support.procfs import cpu_s, descriptors_of, is_stopped, threads_of
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

ACCEPT_OF_PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
OPENMETRICS = {"accept": ACCEPT_OF_PROMETHEUS}
ANSWER_MAX_S = 0.1
SERIES_MAX = 2000

TRAFFIC = {"listener": "echo", "handler": "echo", "worker": 0}


def _closed(samples: Samples, reason: str) -> float:
    return samples.value("gaiod_connections_closed_total", listener="echo", reason=reason)


def _operations(samples: Samples, op: str, result: str) -> float:
    return samples.value("gaiod_operations_total", worker=0, op=op, result=result)


def test_bytes_connections_and_operations_are_exactly_what_a_client_did(daemon: Start) -> None:
    running = daemon()
    wait_until(lambda: _operations(running.scrape(), "read", "complete") > 0, "the worker being told to serve")
    before = running.scrape()
    with connect(running.address()) as sock:
        for number in range(10):
            assert exchange(sock, pattern(1000, number)) == pattern(1000, number)
        during = running.scrape()
    wait_until(lambda: _closed(running.scrape(), "peer_eof") == 1, "the close being counted")
    after = running.scrape()

    assert during.value("gaiod_connections_active", **TRAFFIC) == 1
    assert after.value("gaiod_connections_active", **TRAFFIC) == 0
    assert after.value("gaiod_connections_accepted_total", **TRAFFIC) == 1
    for samples in (during, after):
        assert samples.value("gaiod_received_bytes_total", **TRAFFIC, side="downstream") == 10_000
        assert samples.value("gaiod_sent_bytes_total", **TRAFFIC, side="downstream") == 10_000
        assert samples.total("gaiod_received_bytes_total", side="upstream") == 0
    for op, result, expected in [
        ("read", "complete", 10), ("read", "eof", 1), ("write", "complete", 10), ("accept", "complete", 1),
        ("read", "error", 0), ("write", "error", 0), ("connect", "complete", 0), ("read", "deadline", 0),
    ]:  # fmt: skip
        assert _operations(after, op, result) - _operations(before, op, result) == expected, (op, result)
    pending = "gaiod_operations_pending"
    assert during.value(pending, worker=0, op="read") == before.value(pending, worker=0, op="read") + 1
    assert after.value(pending, worker=0, op="read") == before.value(pending, worker=0, op="read")
    assert after.value(pending, worker=0, op="write") == 0
    assert after.value(pending, worker=0, op="accept") == 2  # the second is for workers that hand connections over
    assert after.value("gaiod_connection_duration_seconds_count", listener="echo") == 1
    assert 0 < after.value("gaiod_connection_duration_seconds_sum", listener="echo") < LIMIT_S
    assert after.total("gaiod_conn_freed_total") - before.total("gaiod_conn_freed_total") == 1
    assert after.total("gaiod_conn_gc_found_total") == 0


def test_closes_are_counted_by_why_when_clients_end_in_different_ways(daemon: Start) -> None:
    running = daemon()
    for _ in range(3):
        reset(connect(running.address()))
    for _ in range(2):
        connect(running.address()).close()
    wait_until(lambda: running.scrape().total("gaiod_connections_closed_total") == 5, "five closes")
    samples = running.scrape()
    assert (_closed(samples, "peer_eof"), _closed(samples, "peer_reset")) == (2, 3)
    assert samples.total("gaiod_connections_accepted_total") == 5


def test_worker_and_process_metrics_agree_with_the_kernel(daemon: Start) -> None:
    running = daemon()
    worker = running.worker
    used_s = cpu_s(worker)
    samples = running.scrape()
    assert samples.value("gaiod_worker_up", worker=0) == 1
    assert samples.value("gaiod_worker_open_fds", worker=0) == len(descriptors_of(worker))
    assert samples.value("gaiod_worker_max_fds", worker=0) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert used_s <= samples.value("gaiod_worker_cpu_seconds_total", worker=0) <= cpu_s(worker)
    assert 5e6 < samples.value("gaiod_worker_resident_memory_bytes", worker=0) < 40e6
    assert samples.value("process_open_fds") >= len(descriptors_of(running.pid))  # the request's own is one
    assert abs(samples.value("gaiod_start_time_seconds") - time.time()) < LIMIT_S
    assert samples.value("gaiod_ready") == 1
    (info,) = samples.labels("gaiod_build_info")
    assert info["version"] == gaiod.__version__
    assert info["python"] == platform.python_version()
    assert f", {info['engine']} engine," in running.log()


def test_queue_of_a_listener_is_seen_while_its_worker_stands_still(daemon: Start) -> None:
    running = daemon(
        'metrics: {listen: "127.0.0.1:0"}\nlisteners: {echo: {bind: "127.0.0.1:0", handler: echo, backlog: 7}}\n'
    )
    worker = running.worker
    assert running.scrape().value("gaiod_listen_queue_limit", listener="echo", worker=0) == 7
    assert running.scrape().value("gaiod_listen_queue_length", listener="echo", worker=0) == 0
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: is_stopped(worker), "the worker's stop")
    with ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(connect(running.address()))
        assert running.scrape().value("gaiod_listen_queue_length", listener="echo", worker=0) == 3
    os.kill(worker, signal.SIGCONT)


def test_loop_and_collector_are_counted_while_clients_are_served(daemon: Start) -> None:
    running = daemon()
    before = running.scrape()
    with connect(running.address()) as sock:
        for _ in range(50):
            exchange(sock, b"x")
    after = running.scrape()
    for name in ("gaiod_loop_iterations_total", "gaiod_loop_events_total", "gaiod_loop_lag_seconds_count"):
        assert after.value(name, worker=0) >= before.value(name, worker=0) + 50, name
    assert after.value("gaiod_loop_busy_seconds_total", worker=0) > before.value(
        "gaiod_loop_busy_seconds_total", worker=0
    )
    assert after.total("python_gc_collections_total") >= 1
    assert after.total("gaiod_python_gc_pause_seconds_count") == after.total("python_gc_collections_total")


def test_worker_is_not_woken_by_scrapes(daemon: Start) -> None:
    """They cost the data path nothing: the supervisor reads what workers have counted anyway."""
    running = daemon()
    before = running.scrape().value("gaiod_loop_iterations_total", worker=0)
    for _ in range(500):
        assert request(running.metrics, "/metrics").status == 200
    after = running.scrape().value("gaiod_loop_iterations_total", worker=0)
    assert after - before < 250, "its loop completes a pass a few times a second by itself"


def test_scrapes_are_counted_by_status(daemon: Start) -> None:
    running = daemon()
    running.scrape()
    request(running.metrics, "/nothing")
    samples = running.scrape()
    assert samples.value("gaiod_scrapes_total", code=200) == 1  # it counts when it has answered
    assert samples.value("gaiod_scrapes_total", code=404) == 1
    assert 0 < samples.value("gaiod_scrape_duration_seconds") < LIMIT_S


@pytest.fixture
def large(daemon: Start) -> Daemon:
    """8 workers, and 4 listeners that each have 8 servers or a source."""
    servers = ", ".join(f'"127.0.0.1:{port}"' for port in range(1, 9))
    proxy = f'{{bind: "127.0.0.1:0", handler: proxy, with: {{servers: [{servers}]}}}}'
    push = '{bind: "127.0.0.1:0", handler: push, with: {source: {every: 1s}}}'
    listeners = f"{{a: {proxy}, b: {proxy}, c: {push}, d: {push}}}"
    running = daemon(f'workers: 8\nmetrics: {{listen: "127.0.0.1:0"}}\nlisteners: {listeners}\n')
    running.scrape()  # what is counted for the first time here is there in the next
    return running


def test_scrape_of_a_large_daemon_is_clean_for_promtool_and_the_same_in_both_formats_and_small(large: Daemon) -> None:
    text = request(large.metrics, "/metrics").body
    lint = subprocess.run(
        [tool("promtool", "prometheus"), "check", "metrics"],
        input=text,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b"")
    samples = Samples(text.decode())
    assert len(samples.labels("gaiod_connections_active")) == 8 * 4
    assert 1000 < len(samples) <= SERIES_MAX
    families = parse_openmetrics(request(large.metrics, "/metrics", headers=OPENMETRICS).body.decode())
    same = {(sample.name, frozenset(sample.labels.items())) for family in families for sample in family.samples}
    assert same == {key for key, _ in samples.items()}


@pytest.mark.parametrize("version", ["abc", "1.x", "", "1.0.0.\xe9"])
def test_daemon_survives_an_accept_header_that_makes_no_sense(daemon: Start, version: str) -> None:
    running = daemon()
    headers = {"accept": f"application/openmetrics-text; version={version}"}
    assert request(running.metrics, "/metrics", headers=headers).status in (200, 400)
    assert running.scrape().value("gaiod_ready") == 1


@pytest.mark.quiet
def test_metrics_answer_at_once_while_300_clients_send_half_a_request(daemon: Start) -> None:
    """Whoever connects and waits must not shut Prometheus out, nor cost a thread each."""
    running = daemon()
    threads = threads_of(running.pid)
    with ExitStack() as slow:
        for _ in range(300):
            slow.enter_context(connect(running.metrics)).sendall(b"GET /metrics HTTP/1.1\r\nhost:")
        began_s = time.monotonic()
        reply = request(running.metrics, "/metrics")
        assert time.monotonic() - began_s < ANSWER_MAX_S * TIME_UNIT
        assert reply.status == 200
        assert threads_of(running.pid) == threads
        assert len(descriptors_of(running.pid)) < 100
