"""Health: hung workers end, worn ones are replaced, one after the other."""

import os
import signal
import time
from pathlib import Path

import pytest
from e2e.support.clients import connect, echoes, exchange, is_ended
from e2e.support.handlers import HANGS
from e2e.support.waiting import wait_until

from gaiod.settings import RecycleSettings
from gaiod.supervisor.processes import health as module
from gaiod.supervisor.processes.health import Health
from supervisor.support.fleets import FleetUnderTest


@pytest.fixture
def health(fleet: FleetUnderTest, monkeypatch: pytest.MonkeyPatch) -> Health:
    """One that looks often."""
    monkeypatch.setattr(module, "TICK_S", 0.02)
    monkeypatch.setattr(module, "WEAR_INTERVAL_S", 0.02)
    return Health(fleet.watcher, fleet.fleet, lambda: None)


def test_hung_worker_is_ended_and_replaced(fleet: FleetUnderTest, health: Health, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    fleet.serve(handler=str(tmp_path / "mine.py"), heartbeat_timeout_s=1.0)
    old = fleet.pid()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"hang me") == b"hanging"
        wait_until(lambda: not health.all_beat, "a heartbeat that is old")  # the health itself has no turn meanwhile
        fleet.run_until(lambda: 0 in fleet.fleet.serving and fleet.pid() != old)
    assert fleet.fleet.slots[0].restarts == {"watchdog": 1}
    assert health.all_beat


def test_stopped_worker_is_ended_and_replaced(fleet: FleetUnderTest, health: Health) -> None:
    fleet.serve(heartbeat_timeout_s=1.0)
    old = fleet.pid()
    os.kill(old, signal.SIGSTOP)
    fleet.run_until(lambda: 0 in fleet.fleet.serving and fleet.pid() != old)
    assert echoes(fleet.address)


def test_nobody_is_ended_when_it_is_the_supervisor_that_stood_still(
    fleet: FleetUnderTest, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is after a suspend of the machine: everybody's heartbeat is old."""
    monkeypatch.setattr(module, "LATE_S", 0.5)
    fleet.serve(heartbeat_timeout_s=1.0)
    pid = fleet.pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.3)
    os.kill(pid, signal.SIGCONT)
    until_s = time.monotonic() + 0.3
    fleet.run_until(lambda: time.monotonic() > until_s)
    assert fleet.pid() == pid


def test_worker_that_does_not_get_to_serve_is_ended(
    fleet: FleetUnderTest, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.2)
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(3600)\n")
    prepared, generation = fleet.prepare(handler=str(tmp_path / "mine.py"))
    failure = fleet.launch(generation)
    fleet.listeners.abandon(prepared)
    assert failure is not None
    assert "it did not serve within 0.2 s" in failure.text


def test_draining_worker_that_does_not_end_is_killed(
    fleet: FleetUnderTest, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaiod.supervisor.processes.fleet.DRAIN_MARGIN_S", 0.1)
    (tmp_path / "mine.py").write_text(HANGS)
    fleet.serve(handler=str(tmp_path / "mine.py"))
    with connect(fleet.address) as sock:
        assert exchange(sock, b"hang me") == b"hanging"
        fleet.fleet.drain(0, eager=True)
        fleet.run_until(lambda: len(fleet.fleet) == 0)
    assert fleet.fleet.was_forced


def test_worn_worker_is_replaced(fleet: FleetUnderTest, health: Health) -> None:
    fleet.serve(recycle=RecycleSettings(connections=3))
    old = fleet.pid()
    for _ in range(3):
        assert echoes(fleet.address)
    fleet.run_until(lambda: fleet.pid() != old)
    assert fleet.fleet.slots[0].restarts == {"recycle": 1}


@pytest.mark.parametrize("why", ["age", "restart"])
def test_worker_that_keeps_connections_ends_when_it_is_worn_or_workers_are_restarted(
    fleet: FleetUnderTest, health: Health, why: str
) -> None:
    fleet.serve(drain_timeout_s=0.0)
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        limits = RecycleSettings(age_s=0.001 if why == "age" else None)
        fleet.serve(drain_timeout_s=0.0, recycle=limits)
        assert old.kept == frozenset({"echo"})
        if why == "restart":
            health.replace_all("admin", lambda replaced, failed: None)
        fleet.run_until(lambda: old not in list(fleet.fleet))
        assert is_ended(sock)


def test_worker_that_keeps_connections_and_hangs_is_ended(
    fleet: FleetUnderTest, health: Health, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HANGS)
    handler = str(tmp_path / "mine.py")
    fleet.serve(handler=handler, heartbeat_timeout_s=1.0)
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        fleet.serve(handler=handler, heartbeat_timeout_s=60.0)
        assert old.kept == frozenset({"echo"})
        assert exchange(sock, b"hang me") == b"hanging"
        fleet.run_until(lambda: old not in list(fleet.fleet))
    assert old.is_hung
    assert fleet.fleet.slots[0].restarts == {"reload": 1}


def test_all_are_replaced_one_after_the_other(fleet: FleetUnderTest, health: Health) -> None:
    fleet.serve(workers=3)
    before = [fleet.pid(slot) for slot in range(3)]
    done: list[tuple[list[int], list[int]]] = []
    starting: list[int] = []

    def look() -> bool:
        starting.append(sum(member.process.ready_s is None for member in fleet.fleet))
        return bool(done)

    health.replace_all("admin", lambda replaced, failed: done.append((replaced, failed)))
    fleet.run_until(look)
    assert done == [([0, 1, 2], [])]
    assert max(starting) == 1
    assert not set(before) & {fleet.pid(slot) for slot in range(3)}


def test_replacing_nobody_is_done_at_once(fleet: FleetUnderTest, health: Health) -> None:
    done: list[tuple[list[int], list[int]]] = []
    health.replace_all("admin", lambda replaced, failed: done.append((replaced, failed)))
    assert done == [([], [])]
