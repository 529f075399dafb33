"""What there is to see of a daemon."""

import hashlib
import os
import signal
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from core.support.tls import certificate
from core.support.waiting import LIMIT_S
from e2e.support.clients import connect, exchange

from gaiod.config.tls.certificates import certificate_of
from gaiod.config.tls.pem import read_pem
from gaiod.core import counters
from gaiod.settings import TlsSettings
from gaiod.stats.cells import CELL
from gaiod.supervisor.file_watch import FileWatch
from gaiod.supervisor.operators import rates as module
from gaiod.supervisor.operators.snapshot import Snapshot
from gaiod.supervisor.reload import Reloads
from supervisor.support.fleets import FleetUnderTest


class Seen:
    """A fleet, and what is seen of it."""

    def __init__(self, fleet: FleetUnderTest) -> None:
        self.state = "serving"
        self.reloads = Reloads(
            fleet.watcher,
            Path("/no/such/file.yaml"),
            fleet.listeners,
            fleet.fleet,
            check=lambda settings: None,
            begun=lambda: None,
            adopted=lambda prepared: None,
            ended=lambda: None,
        )
        self.watch = FileWatch(fleet.watcher, fleet.fleet, lambda: True)
        self.subject = Snapshot(fleet.fleet, self.reloads, self.watch, lambda: self.state)


@pytest.fixture
def seen(fleet: FleetUnderTest) -> Seen:
    """What is seen of a fleet without workers."""
    return Seen(fleet)


def test_daemon_is_ready_when_it_serves_and_has_a_worker(fleet: FleetUnderTest, seen: Seen) -> None:
    assert not seen.subject.is_ready
    fleet.serve()
    assert seen.subject.is_ready
    seen.state = "reloading"
    assert seen.subject.is_ready
    seen.state = "stopping"
    assert not seen.subject.is_ready
    assert seen.subject.is_draining


def test_daemon_is_not_ready_while_no_worker_serves(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve()
    os.kill(fleet.pid(), signal.SIGKILL)
    fleet.run_until(lambda: fleet.fleet.waiting)
    assert not seen.subject.is_ready
    assert seen.subject.usage(0) == {}
    assert seen.subject.heartbeat_age_s(0) is None
    (row,) = seen.subject.status()["workers"]
    assert (row["worker"], row["state"], row["pid"], row["restarts"]) == (0, "waiting", None, 0)


def test_status_before_anything_serves_is_empty(seen: Seen) -> None:
    status = seen.subject.status()
    assert (status["generation"], status["workers"], status["listeners"]) == (0, [], [])
    assert seen.subject.listeners() == []


def test_status_has_a_row_for_each_worker_and_listener(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve(workers=2)
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        status = seen.subject.status()
    assert [(row["worker"], row["pid"]) for row in status["workers"]] == [(0, fleet.pid(0)), (1, fleet.pid(1))]
    assert sum(row["connections"] for row in status["workers"]) == 1
    (listener,) = status["listeners"]
    assert (listener["listener"], listener["bind"], listener["state"]) == ("echo", fleet.address, "serving")
    assert (listener["connections"], listener["accepted"], listener["received_bytes"]) == (1, 1, 4)
    assert listener["rates"] == {"accepted": None, "received_bytes": None, "sent_bytes": None}


def test_worker_that_drains_is_shown_beside_its_successor(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve(slow_hook_s=0.5)
        rows = seen.subject.status()["workers"]
        assert [(row["worker"], row["state"], row["generation"]) for row in rows] == [
            (0, "draining", 1),
            (0, "serving", 2),
        ]


def test_connections_that_stay_with_an_earlier_generation_are_shown(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve()
        status = seen.subject.status()
        assert [(row["worker"], row["state"], row["generation"]) for row in status["workers"]] == [
            (0, "keeping", 1),
            (0, "serving", 2),
        ]
        (listener,) = status["listeners"]
        assert (listener["state"], listener["connections"], listener["connections_kept"]) == ("serving", 1, 1)
        assert seen.subject.keeping_workers == 1
        assert seen.subject.kept_connections(("echo", "Echo"), 0) == 1
        assert seen.subject.kept_connections(("echo", "Echo"), 1) == 0


def test_cpu_time_of_a_slot_never_goes_back(fleet: FleetUnderTest, seen: Seen) -> None:
    """Not while a worker drains, not when it has ended, nor when one is killed and another starts."""
    fleet.serve()
    first = fleet.fleet.serving[0].process
    used_s = [seen.subject.cpu_s(0)]
    fleet.serve()
    used_s.append(seen.subject.cpu_s(0))
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    used_s.append(seen.subject.cpu_s(0))
    second = fleet.fleet.serving[0].process
    os.kill(second.pid, signal.SIGKILL)
    fleet.run_until(lambda: fleet.fleet.waiting)
    used_s.append(seen.subject.cpu_s(0))
    fleet.run_until(lambda: fleet.fleet.serving)
    used_s.append(seen.subject.cpu_s(0))
    assert used_s == sorted(used_s)
    assert used_s[3] == round(first.cpu_s() + second.cpu_s(), 6)
    assert used_s[4] > used_s[3]


def test_cpu_time_is_the_same_sum_whoever_of_a_slot_is_gone(
    fleet: FleetUnderTest, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1 + (0.2 + 0.3) is less than (0.1 + 0.2) + 0.3, and a counter that falls is a reset to Prometheus."""
    fleet.serve()
    first = fleet.fleet.serving[0].process
    monkeypatch.setattr(type(first), "cpu_s", lambda worker: 0.2 if worker is first else 0.3)
    fleet.serve()
    slot = fleet.fleet.slots[0]
    slot.retired_cpu_s = 0.1
    assert len(fleet.fleet) == 2
    assert seen.subject.cpu_s(0) == 0.6
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert slot.retired_cpu_s + 0.3 != 0.6
    assert seen.subject.cpu_s(0) == 0.6


def test_rates_are_differences_over_the_samples(
    fleet: FleetUnderTest, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.serve()
    seen.subject.sample()
    with connect(fleet.address) as sock:
        assert exchange(sock, bytes(100)) == bytes(100)
    monkeypatch.setattr(module, "SAMPLE_INTERVAL_S", 0.0)
    (listener,) = seen.subject.status()["listeners"]
    rates = listener["rates"]
    assert rates["accepted"] > 0
    assert rates["received_bytes"] > 50 * rates["accepted"]


def test_listener_that_came_after_a_sample_has_rates_since_the_next(
    fleet: FleetUnderTest, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_INTERVAL_S", 0.0)
    seen.subject.sample()
    fleet.serve()
    assert set(seen.subject.status()["listeners"][0]["rates"].values()) == {None}
    seen.subject.sample()
    with connect(fleet.address) as sock:
        assert exchange(sock, bytes(100)) == bytes(100)
    assert seen.subject.status()["listeners"][0]["rates"]["received_bytes"] > 0


def test_drained_listener_is_shown_as_such_and_has_no_queue(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve()
    fleet.fleet.drain_listener("echo", 0.0)
    (listener,) = seen.subject.status()["listeners"]
    assert (listener["state"], listener["queue"], listener["queue_limit"]) == ("drained", None, None)


def test_worker_says_how_busy_it_was_and_how_late(
    fleet: FleetUnderTest, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.serve()
    (row,) = seen.subject.status()["workers"]
    assert (row["busy"], row["loop_lag_s"]) == (None, None)
    seen.subject.sample()
    with connect(fleet.address) as sock:
        assert exchange(sock, bytes(100)) == bytes(100)
    monkeypatch.setattr(module, "SAMPLE_INTERVAL_S", 0.0)
    (row,) = seen.subject.status()["workers"]
    assert 0 < row["busy"] <= 1
    assert row["loop_lag_s"] in (*counters.LAG_BOUNDS_S, module.LAG_MAX_S)


def test_listener_says_who_is_waited_for_on_either_side(fleet: FleetUnderTest, seen: Seen) -> None:
    fleet.serve()
    memory = fleet.fleet.serving[0].process.memory
    first = memory.layout.row(0)
    for cell, value in (("upstream_pauses", 5), ("upstream_resumes", 3), ("upstream_buffered_bytes", 4096)):
        memory.cells[first + CELL[cell]] = value
    (listener,) = seen.subject.status()["listeners"]
    assert listener["backpressure"] == {
        "downstream": {"paused_connections": 0, "buffered_bytes": 0},
        "upstream": {"paused_connections": 2, "buffered_bytes": 4096},
    }
    assert listener["connections_max"] == 10_000
    assert listener["waiting_for_server"] is None, "it has none"


def test_certificates_are_told_with_their_end_and_since_when_they_are_in_force(
    fleet: FleetUnderTest, seen: Seen, tmp_path: Path
) -> None:
    made = certificate()
    files = (tmp_path / "app.pem", tmp_path / "app.key")
    for path, text in zip(files, (made.chain, made.key), strict=True):
        path.write_text(text)
    shown = certificate_of(read_pem(str(files[0]), "a file"), read_pem(str(files[1]), "a file"))
    generation = fleet.serve()
    assert seen.subject.certificates() == []
    listener = replace(generation.settings.listeners[0], tls=TlsSettings((shown,)))
    settings = replace(generation.settings, listeners=(listener,))
    fleet.fleet.generation = replace(generation, settings=settings)
    (row,) = seen.subject.certificates()
    assert (row["listener"], row["names"], row["days_left"]) == ("echo", ("localhost", "*.localhost"), 29)
    assert row["fingerprint"] == hashlib.sha256(ssl.PEM_cert_to_DER_cert(made.chain)).hexdigest()
    assert (row["files"], row["ok"], row["error"]) == (tuple(map(str, files)), True, None)
    assert 0 <= time.time() - row["since"] < LIMIT_S
    assert row["ocsp_not_after"] is None
    assert "PRIVATE" not in str(row)
    fleet.fleet.generation = generation
