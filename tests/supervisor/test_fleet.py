"""The fleet: generations that take over from one another, and workers that are replaced."""

import os
import signal
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.clients import connect, echoes, exchange, is_ended
from e2e.support.handlers import IMPORTS

from gaiod.supervisor.processes import crash_loop
from gaiod.supervisor.processes.child import Phase
from supervisor.support.fleets import FleetUnderTest

DIES = IMPORTS + "class Dies(gaiod.Handler):\n    tick_interval_s = 0.01\n    def on_tick(self):\n        os._exit(3)\n"


# -- generations -----------------------------------------------------------------------------------------


def test_generation_serves_when_all_of_its_workers_do(fleet: FleetUnderTest) -> None:
    generation = fleet.serve(workers=2)
    assert fleet.outcomes == [None]
    assert sorted(fleet.fleet.serving) == [0, 1]
    assert fleet.fleet.generation is generation
    assert echoes(fleet.address)


def test_generation_before_drains_when_the_next_serves_its_listener_otherwise(fleet: FleetUnderTest) -> None:
    fleet.serve()
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"before") == b"before"
        fleet.serve(slow_hook_s=0.5)
        assert old.process.phase is Phase.DRAINING
        assert exchange(sock, b"after") == b"after"
        assert len(fleet.fleet) == 2
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert fleet.fleet.slots[0].restarts == {"reload": 1}


def test_connections_of_an_unchanged_listener_stay_until_a_generation_changes_it(fleet: FleetUnderTest) -> None:
    fleet.serve(drain_timeout_s=0.0)
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"before") == b"before"
        for _ in range(2):
            fleet.serve(drain_timeout_s=0.0)
            assert old.process.phase is Phase.KEEPING
            assert old.connections_of({"echo"}) == 1
            assert exchange(sock, b"after") == b"after"
        fleet.run_until(lambda: len(fleet.fleet) == 2)
        assert fleet.fleet.keeping == [old]
        fleet.serve(drain_timeout_s=0.0, slow_hook_s=0.5)
        assert old.process.phase is Phase.DRAINING
        assert is_ended(sock)
    fleet.run_until(lambda: len(fleet.fleet) == 1)


def test_worker_that_keeps_connections_ends_with_the_last(fleet: FleetUnderTest) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve()
        assert len(fleet.fleet.keeping) == 1
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert fleet.fleet.slots[0].restarts == {"reload": 1}


def test_worker_that_keeps_connections_and_dies_has_a_successor_already(
    fleet: FleetUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.serve()
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve()
        os.kill(old.process.pid, signal.SIGKILL)
        assert is_ended(sock)
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert fleet.fleet.slots[0].restarts == {"reload": 1}
    assert f"worker 0, process {old.process.pid}, ended by SIGKILL" in caplog.text


def test_worker_that_keeps_connections_and_is_told_to_end_drains(fleet: FleetUnderTest) -> None:
    fleet.serve(drain_timeout_s=0.0)
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve(drain_timeout_s=0.0)
        os.kill(old.process.pid, signal.SIGTERM)
        fleet.run_until(lambda: len(fleet.fleet) == 1)
        assert is_ended(sock)
    assert fleet.fleet.slots[0].restarts == {"reload": 1}


def test_stop_drains_kept_connections_too(fleet: FleetUnderTest) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.serve()
        fleet.fleet.drain(0.0, eager=True)
        fleet.run_until(lambda: fleet.fleet.is_over)
        assert is_ended(sock)
    assert not fleet.fleet.was_forced


@pytest.mark.parametrize("when", ["before the reload", "after it"])
def test_connections_of_a_listener_that_an_operator_drained_do_not_stay(fleet: FleetUnderTest, when: str) -> None:
    fleet.serve()
    old = fleet.fleet.serving[0]
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        if when == "before the reload":
            fleet.fleet.drain_listener("echo", 3600.0)
            fleet.serve(drain_timeout_s=0.0)
        else:
            fleet.serve()
            fleet.fleet.drain_listener("echo", 3600.0)
            fleet.serve(drain_timeout_s=0.0)
        assert old.process.phase is Phase.DRAINING
        assert is_ended(sock)


def test_generation_that_fails_leaves_the_one_before_as_it_was(fleet: FleetUnderTest) -> None:
    generation = fleet.serve(workers=2)
    pids = [fleet.pid(0), fleet.pid(1)]
    prepared, broken = fleet.prepare(2, "/no/such/file.py")
    failure = fleet.launch(broken)
    fleet.listeners.abandon(prepared)
    assert failure is not None
    assert failure.status == 78
    assert "there is no file /no/such/file.py" in failure.text
    fleet.run_until(lambda: len(fleet.fleet) == 2)
    assert fleet.fleet.generation is generation
    assert [fleet.pid(0), fleet.pid(1)] == pids


def test_launch_fails_once_when_a_worker_is_killed_before_it_serves(fleet: FleetUnderTest) -> None:
    prepared, generation = fleet.prepare(2)
    fleet.fleet.launch(generation, fleet.outcomes.append)
    os.kill(next(iter(fleet.fleet)).process.pid, signal.SIGKILL)
    fleet.run_until(lambda: len(fleet.fleet) == 0)
    fleet.listeners.abandon(prepared)
    (failure,) = fleet.outcomes
    assert failure is not None
    assert (failure.status, failure.text) == (70, "worker 0 ended by SIGKILL before it served")


def test_launch_fails_when_no_process_can_be_started(fleet: FleetUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("subprocess.Popen", refuse)
    prepared, generation = fleet.prepare()
    failure = fleet.launch(generation)
    fleet.listeners.abandon(prepared)
    assert failure is not None
    assert failure.status == 71
    assert "Cannot allocate memory" in failure.text
    assert len(fleet.fleet) == 0


def test_slot_that_is_not_configured_any_more_is_forgotten_when_its_worker_is_gone(fleet: FleetUnderTest) -> None:
    fleet.serve(workers=2)
    fleet.serve(workers=1)
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert list(fleet.fleet.slots) == [0]


# -- replacing -------------------------------------------------------------------------------------------


def test_worker_that_dies_is_replaced(fleet: FleetUnderTest) -> None:
    fleet.serve()
    old = fleet.pid()
    os.kill(old, signal.SIGKILL)
    fleet.run_until(lambda: 0 in fleet.fleet.serving and fleet.pid() != old)
    assert fleet.fleet.slots[0].restarts == {"signal": 1}
    assert echoes(fleet.address)


def test_fleet_is_crash_looping_when_workers_die_again_and_again(
    fleet: FleetUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_loop, "BACKOFF_FIRST_S", 0.001)
    (tmp_path / "mine.py").write_text(DIES)
    fleet.serve(handler=str(tmp_path / "mine.py"))
    fleet.run_until(lambda: fleet.crash_looping)
    assert fleet.fleet.slots[0].restarts == {"exit": crash_loop.FAILURES_MAX - 1}


def test_slot_waits_between_two_workers_that_die_at_once(fleet: FleetUnderTest) -> None:
    fleet.serve()
    os.kill(fleet.pid(), signal.SIGKILL)
    fleet.run_until(lambda: fleet.fleet.waiting)
    assert fleet.fleet.waiting == {0}
    assert not fleet.fleet.serving


def test_successor_takes_over_and_the_worn_worker_drains(fleet: FleetUnderTest) -> None:
    fleet.serve()
    old, told = fleet.pid(), list[bool]()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"before") == b"before"
        fleet.fleet.replace(0, "recycle", told.append)
        fleet.run_until(lambda: told)
        assert told == [True]
        assert fleet.pid() != old
        assert exchange(sock, b"after") == b"after"
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert fleet.fleet.slots[0].restarts == {"recycle": 1}


def test_worn_worker_goes_on_when_its_successor_fails(fleet: FleetUnderTest, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(IMPORTS + "class Mine(gaiod.Handler):\n    pass\n")
    fleet.serve(handler=str(path))
    path.unlink()
    old, told = fleet.pid(), list[bool]()
    fleet.fleet.replace(0, "recycle", told.append)
    fleet.run_until(lambda: told)
    assert told == [False]
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert fleet.pid() == old


def test_successor_that_is_on_its_way_ends_when_another_generation_takes_over(fleet: FleetUnderTest) -> None:
    fleet.serve()
    prepared, generation = fleet.prepare()
    assert fleet.launch(generation) is None
    told = list[bool]()
    fleet.fleet.replace(0, "admin", told.append)
    fleet.fleet.adopt(generation)
    fleet.listeners.commit(prepared)
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert told == [False]
    assert fleet.fleet.serving[0].generation is generation


# -- ending ----------------------------------------------------------------------------------------------


def test_fleet_ends_in_order_and_starts_nobody_any_more(fleet: FleetUnderTest) -> None:
    fleet.serve(workers=2)
    fleet.fleet.drain(LIMIT_S, eager=True)
    fleet.run_until(lambda: len(fleet.fleet) == 0)
    assert fleet.fleet.is_stopping
    assert not fleet.fleet.was_forced
    _, generation = fleet.prepare()
    failure = fleet.launch(generation)
    assert failure is not None
    assert len(fleet.fleet) == 0


def test_fleet_remembers_that_a_worker_did_not_end_in_order(fleet: FleetUnderTest) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        fleet.fleet.drain(LIMIT_S, eager=False)
        os.kill(fleet.pid(), signal.SIGKILL)
        fleet.run_until(lambda: len(fleet.fleet) == 0)
    assert fleet.fleet.was_forced


def test_worker_that_starts_is_ended_when_the_fleet_ends(fleet: FleetUnderTest) -> None:
    prepared, generation = fleet.prepare()
    fleet.fleet.launch(generation, fleet.outcomes.append)
    fleet.fleet.drain(LIMIT_S, eager=True)
    fleet.run_until(lambda: len(fleet.fleet) == 0)
    fleet.listeners.abandon(prepared)
    assert len(fleet.outcomes) == 1
    assert fleet.outcomes[0] is not None


def test_drained_listener_is_not_given_to_later_workers(fleet: FleetUnderTest) -> None:
    fleet.serve()
    fleet.fleet.drain_listener("echo", 0.0)
    told = list[bool]()
    fleet.fleet.replace(0, "admin", told.append)
    fleet.run_until(lambda: told)
    with connect(fleet.address) as sock:
        sock.sendall(b"x")
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
