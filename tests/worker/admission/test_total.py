"""The limit of the daemon: over workers and listeners, beside that of each address."""

from collections.abc import Iterator

import pytest
from gaiod.handlers.echo import Echo

from gaiod.settings import PerAddressSettings
from gaiod.worker.admission.per_address import TOO_MANY, PerAddress
from gaiod.worker.admission.total import FULL, Total, limits_of
from gaiod.worker.listener import Common
from worker.admission.test_per_address import NAMES, wait_for
from worker.support.serving import Recorder, Serving
from worker.support.tallying import Tables, tables
from worker.test_giver_and_taker import Both


@pytest.fixture
def memory() -> Iterator[Tables]:
    """A memory without workers."""
    with tables() as made:
        yield made


def test_limit_is_that_of_all_workers_and_listeners(memory: Tables) -> None:
    tallies = memory.worker()
    limits = [Total(3, tallies, None), Total(3, tallies, None), Total(3, memory.worker(), None)]
    assert [each.admit(1, "") for each in limits] == [None] * 3
    assert [each.admit(2, ("10.0.0.1", 7)) for each in limits] == [FULL] * 3
    limits[2].gone(1)
    limits[2].gone(1)
    limits[2].gone(7)
    limits[0].came(3, "")
    assert [each.admit(2, "") for each in limits] == [FULL] * 3
    memory.ends(1)
    limits[1].gone(1)
    assert limits[1].admit(4, "") is None


def test_connection_that_its_address_may_not_have_takes_no_place(memory: Tables) -> None:
    tallies = memory.worker()
    per_address = PerAddress(PerAddressSettings(connections_max=1), "echo", tallies)
    limits = Total(2, tallies, per_address)
    assert [limits.admit(number, ("10.0.0.1", 7)) for number in range(3)] == [None, TOO_MANY, TOO_MANY]
    assert [limits.admit(number, ("10.0.0.2", 7)) for number in (3, 4)] == [None, FULL]
    limits.gone(0)
    limits.came(5, ("10.0.0.1", 7))
    limits.gone(3)
    assert limits.admit(6, ("10.0.0.1", 7)) == TOO_MANY


def test_where_there_is_no_limit_nobody_counts(memory: Tables) -> None:
    assert limits_of(None, None, memory.worker()) is None
    assert limits_of(None, 3, None) is None


def test_listeners_reject_what_is_beyond_the_total_and_a_hand_over_moves_the_count(
    memory: Tables, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    giver, taker = (Serving(Echo(), common=Common(memory.worker(), connections_max=2), names=names) for names in NAMES)
    both = Both(giver, taker)
    request.addfinalizer(both.close)
    for number in range(2):
        giver.dial()
        wait_for(giver, "accepted", number + 1)
    giver.dial()
    wait_for(giver, "rejected_daemon_limit", 1)
    taker.dial()
    wait_for(taker, "rejected_daemon_limit", 1)
    assert both.hand_over().moved == 2
    both.step_until(lambda: taker.listener.active == 2, "their arrival")
    memory.ends(0)
    taker.dial()
    wait_for(taker, "rejected_daemon_limit", 2)
    assert "is rejected: connections_max is reached" in caplog.text


def test_place_is_free_when_a_connection_has_ended(memory: Tables, request: pytest.FixtureRequest) -> None:
    serving = Serving(Recorder(), common=Common(memory.worker(), connections_max=1))
    request.addfinalizer(serving.close)
    first = serving.dial()
    wait_for(serving, "accepted", 1)
    first.close()
    wait_for(serving, "closed_peer_eof", 1)
    serving.dial()
    wait_for(serving, "accepted", 2)
