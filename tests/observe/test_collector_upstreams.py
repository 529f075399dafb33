"""What the collector tells of servers, and of what waits for a side to take its bytes."""

from typing import Any

import pytest

from gaiod.stats.cells import CONNECT_BOUNDS_S, SERVER_FAILURES, UNAVAILABLE_CAUSES
from observe.support.slots import FakeDaemon, family_of, samples_of, value_of

ONE = {"upstream": "l0", "server": "s0"}
OTHER = {"upstream": "l0", "server": "s1"}
SIDES = ("downstream", "upstream")


@pytest.fixture
def two_workers() -> Any:
    """Two workers with one listener and two servers, all numbers."""
    daemon = FakeDaemon(workers=2)
    yield daemon
    daemon.close()


# -- servers -------------------------------------------------------------------------------------------


def test_connections_to_a_server_are_summed_over_the_workers(two_workers: FakeDaemon) -> None:
    for worker, (connections, closed) in enumerate([(10, 4), (5, 5)]):
        two_workers.set_server("connections", connections, worker=worker, server=1)
        two_workers.set_server("closed", closed, worker=worker, server=1)
    collector = two_workers.collector
    assert value_of(collector, "gaiod_upstream_connections_total", **OTHER) == 15
    assert value_of(collector, "gaiod_upstream_connections_active", **OTHER) == 6
    assert value_of(collector, "gaiod_upstream_connections_total", **ONE) == 0


def test_connections_to_a_server_are_never_fewer_than_none(fake: FakeDaemon) -> None:
    fake.set_server("closed", 1)
    assert value_of(fake.collector, "gaiod_upstream_connections_active", **ONE) == 0


def test_failures_and_checks_are_told_by_reason_and_result(fake: FakeDaemon) -> None:
    for number, reason in enumerate(SERVER_FAILURES, 1):
        fake.set_server(f"failed_{reason}", number)
    fake.set_server("checks_passed", 8)
    fake.set_server("checks_failed", 9)
    collector = fake.collector
    for number, reason in enumerate(SERVER_FAILURES, 1):
        assert value_of(collector, "gaiod_upstream_connect_failures_total", **ONE, reason=reason) == number
    assert value_of(collector, "gaiod_upstream_health_checks_total", **ONE, result="passed") == 8
    assert value_of(collector, "gaiod_upstream_health_checks_total", **ONE, result="failed") == 9


def test_routes_are_told_once_there_were_some(fake: FakeDaemon) -> None:
    assert "gaiod_upstream_routed_total" not in {name for name, _ in samples_of(fake.collector)}
    fake.set("upstream_route_unknown_name", 2)
    assert value_of(fake.collector, "gaiod_upstream_routed_total", upstream="l0", result="unknown_name") == 2
    assert value_of(fake.collector, "gaiod_upstream_routed_total", upstream="l0", result="sni") == 0


def test_handshakes_with_servers_are_told_once_there_were_some(fake: FakeDaemon) -> None:
    handshakes, failures = "gaiod_upstream_tls_handshakes_total", "gaiod_upstream_tls_failures_total"
    assert not {handshakes, failures} & {name for name, _ in samples_of(fake.collector)}
    fake.set("upstream_tls_resumed_1.3", 2)
    fake.set("upstream_tls_failed_wrong_name", 3)
    assert value_of(fake.collector, handshakes, upstream="l0", result="full", version="1.3") == 0
    assert value_of(fake.collector, handshakes, upstream="l0", result="resumed", version="1.3") == 2
    assert value_of(fake.collector, failures, upstream="l0", reason="wrong_name") == 3


@pytest.mark.parametrize(("down", "is_up"), [((0, 0), 1), ((0, 1), 0), ((1, 1), 0)])
def test_server_is_up_unless_a_worker_says_that_it_is_down(
    two_workers: FakeDaemon, down: tuple[int, int], is_up: int
) -> None:
    for worker, says in enumerate(down):
        two_workers.set_server("down", says, worker=worker)
    assert value_of(two_workers.collector, "gaiod_upstream_up", **ONE) == is_up
    assert value_of(two_workers.collector, "gaiod_upstream_up", **OTHER) == 1


def test_server_that_no_worker_has_counted_for_yet_is_there_and_up(fake: FakeDaemon) -> None:
    """A scrape may come between a reload and its first worker."""
    fake.all_slots.clear()
    collector = fake.collector
    assert value_of(collector, "gaiod_upstream_up", **ONE) == 1
    assert value_of(collector, "gaiod_upstream_connections_total", **ONE) == 0


def test_listener_tells_what_its_handler_counts(two_workers: FakeDaemon) -> None:
    for worker in range(2):
        for number, cell in enumerate(("retries", "queued", "queue_timeouts", "unavailable"), 1):
            two_workers.set(f"upstream_{cell}", number, worker=worker)
    collector = two_workers.collector
    assert value_of(collector, "gaiod_upstream_retries_total", upstream="l0") == 2
    assert value_of(collector, "gaiod_upstream_queue_length", upstream="l0") == 4
    assert value_of(collector, "gaiod_upstream_queue_timeouts_total", upstream="l0") == 6
    assert value_of(collector, "gaiod_upstream_unavailable_total", upstream="l0", cause="other") == 8


def test_why_there_was_no_server_is_told_by_cause(two_workers: FakeDaemon) -> None:
    for worker in range(2):
        for number, cause in enumerate(UNAVAILABLE_CAUSES, 1):
            two_workers.set(f"upstream_unavailable_{cause}", number, worker=worker)
    collector = two_workers.collector
    for number, cause in enumerate(UNAVAILABLE_CAUSES, 1):
        assert value_of(collector, "gaiod_upstream_unavailable_total", upstream="l0", cause=cause) == 2 * number


def test_time_to_connect_is_a_cumulative_histogram(fake: FakeDaemon) -> None:
    for number, bound in enumerate((*CONNECT_BOUNDS_S, "inf"), 1):
        fake.set(f"connect_le_{bound}", number)
    fake.set("connect_ns", 2_500_000_000)
    name = "gaiod_upstream_connect_duration_seconds"
    buckets = [each.value for each in family_of(fake.collector, name).samples if each.name == f"{name}_bucket"]
    assert buckets == [sum(range(1, n + 1)) for n in range(1, len(CONNECT_BOUNDS_S) + 2)]
    assert value_of(fake.collector, f"{name}_sum", upstream="l0") == 2.5


def test_listener_without_servers_has_no_series_of_any() -> None:
    daemon = FakeDaemon(servers=())
    try:
        daemon.fill()
        assert not [name for name, _ in samples_of(daemon.collector) if name.startswith("gaiod_upstream")]
    finally:
        daemon.close()


# -- back-pressure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_paused_connections_are_those_paused_and_not_resumed_of_workers_that_live(
    two_workers: FakeDaemon, side: str
) -> None:
    two_workers.set_past(f"{side}_pauses", 100)  # of a worker that died amid its pauses
    for worker, (pauses, resumes) in enumerate([(10, 4), (5, 3)]):
        two_workers.set(f"{side}_pauses", pauses, worker=worker)
        two_workers.set(f"{side}_resumes", resumes, worker=worker)
    collector = two_workers.collector
    labels = {"listener": "l0", "side": side}
    assert value_of(collector, "gaiod_backpressure_pauses_total", **labels) == 115
    assert value_of(collector, "gaiod_backpressure_resumes_total", **labels) == 7
    assert value_of(collector, "gaiod_backpressure_paused_connections", **labels) == 8


@pytest.mark.parametrize("side", SIDES)
def test_buffered_bytes_are_summed_over_the_workers(two_workers: FakeDaemon, side: str) -> None:
    for worker in range(2):
        two_workers.set(f"{side}_buffered_bytes", 1000 + worker, worker=worker)
    assert value_of(two_workers.collector, "gaiod_buffered_bytes", listener="l0", side=side) == 2001


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("downstream_resumes", "gaiod_backpressure_paused_connections"),
        ("downstream_buffered_bytes", "gaiod_buffered_bytes"),
    ],
)
def test_gauge_is_never_negative_while_the_worker_goes_on_counting(fake: FakeDaemon, cell: str, name: str) -> None:
    """What ended may have been read, and its beginning not yet."""
    fake.set(cell, 1 if cell.endswith("resumes") else -1)
    assert value_of(fake.collector, name, listener="l0", side="downstream") == 0


@pytest.mark.parametrize("limit_bytes", [None, 0, 65536])
def test_buffer_limit_is_what_the_handler_says_and_missing_where_it_says_nothing(limit_bytes: int | None) -> None:
    daemon = FakeDaemon(buffer_limit_bytes=limit_bytes)
    try:
        told = {
            dict(labels)["side"]: value
            for (name, labels), value in samples_of(daemon.collector).items()
            if name == "gaiod_buffer_limit_bytes"
        }
    finally:
        daemon.close()
    assert told == ({} if limit_bytes is None else dict.fromkeys(SIDES, limit_bytes))
