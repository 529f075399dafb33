"""What a handler counts of its servers: each in cells of its own, and nothing that metrics do not know."""

import pytest

from gaiod.handler.server_stats import HandlerCounts, ServerStats
from gaiod.stats.cells import CELL, CONNECT_BOUNDS_S, HANDLER_CELLS, SERVER_CELL, SERVER_FAILURES, Layout

LAYOUT = Layout((1, 2))


class Counting:
    """The second of two listeners, with the servers `a` and `b`, and what it counted."""

    def __init__(self) -> None:
        self.cells = [0] * LAYOUT.size
        self.counts = HandlerCounts(self.cells, LAYOUT, 1, ("a", "b"))

    def changed(self) -> dict[str, int]:
        """Return what is not zero: `retries` of the listener, `a.closed` of a server, a number of anything else."""
        names = {LAYOUT.row(1) + cell: name for name, cell in CELL.items()}
        for number, label in enumerate("ab"):
            names |= {LAYOUT.server(1, number) + cell: f"{label}.{name}" for name, cell in SERVER_CELL.items()}
        return {names.get(index, str(index)): count for index, count in enumerate(self.cells) if count}


@pytest.fixture
def counting() -> Counting:
    """Counts of a listener, all zero."""
    return Counting()


def test_connections_are_counted_for_their_server_and_their_time_for_the_listener(counting: Counting) -> None:
    one, other = counting.counts.server("a"), counting.counts.server("b")
    one.connected(0.004)
    one.connected(0.005)
    other.connected(7.0)
    one.closed()
    assert counting.changed() == {
        "a.connections": 2,
        "a.closed": 1,
        "b.connections": 1,
        "connect_ns": 7_009_000_000,
        "connect_le_0.005": 2,
        "connect_le_inf": 1,
    }


def test_connection_that_arrives_is_not_counted_as_one_that_was_established(counting: Counting) -> None:
    server = counting.counts.server("a")
    server.arrived()
    server.closed()
    assert counting.changed() == {"a.arrived": 1, "a.closed": 1}


@pytest.mark.parametrize("bound_s", CONNECT_BOUNDS_S)
def test_time_to_connect_falls_into_the_bucket_of_its_length(counting: Counting, bound_s: float) -> None:
    counting.counts.server("a").connected(bound_s)
    assert counting.changed()[f"connect_le_{bound_s}"] == 1


@pytest.mark.parametrize("reason", SERVER_FAILURES)
def test_failures_are_counted_by_their_reason(counting: Counting, reason: str) -> None:
    counting.counts.server("b").failed(reason)
    assert counting.changed() == {f"b.failed_{reason}": 1}


def test_failure_for_another_reason_is_refused_and_the_reasons_named(counting: Counting) -> None:
    with pytest.raises(ValueError, match=r"'bored' is no reason .* refused, timeout, unreachable, reset, other"):
        counting.counts.server("a").failed("bored")
    assert counting.changed() == {}


def test_checks_are_counted_by_how_they_went(counting: Counting) -> None:
    server = counting.counts.server("a")
    for passed in (True, True, False):
        server.checked(passed)
    assert counting.changed() == {"a.checks_passed": 2, "a.checks_failed": 1}


def test_server_is_up_until_somebody_says_otherwise(counting: Counting) -> None:
    server: ServerStats = counting.counts.server("b")
    assert server.up is True
    for _ in range(2):
        server.up = False
        assert server.up is False
        assert counting.changed() == {"b.down": 1}
    server.up = True
    assert server.up is True
    assert counting.changed() == {}


def test_server_that_nobody_named_is_refused_and_those_named_are_told(counting: Counting) -> None:
    with pytest.raises(ValueError, match=r"no server is called 'c'; servers_of\(\) names a, b"):
        counting.counts.server("c")
    with pytest.raises(ValueError, match="names none"):
        HandlerCounts(counting.cells, LAYOUT, 0, ()).server("a")


@pytest.mark.parametrize("name", HANDLER_CELLS)
def test_numbers_of_the_listener_go_up_and_down(counting: Counting, name: str) -> None:
    counting.counts.count(name, 3)
    counting.counts.count(name, -1)
    assert counting.changed() == {name: 2}


@pytest.mark.parametrize("name", ["accepted", "upstream_retry", ""])
def test_number_that_is_not_the_handlers_is_refused_and_those_that_are_are_told(counting: Counting, name: str) -> None:
    with pytest.raises(ValueError, match=", ".join(HANDLER_CELLS)):
        counting.counts.count(name, 1)
    assert counting.changed() == {}
