"""The feeder, as its supervisor has it: there when it is needed, again when it died, gone in the end."""

import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import MOMENT_S
from e2e.support.clients import connect
from e2e.support.feeding import PUSHES
from e2e.support.procfs import is_alive

from gaiod.feeder.journal import Journal
from gaiod.process.backoff import Backoff
from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.processes import feeder as module
from gaiod.supervisor.processes.feeder import Feeding
from gaiod.supervisor.processes.generation import Generation
from gaiod.supervisor.sockets.feeder_socket import FeederSocket
from supervisor.support.fleets import FleetUnderTest


class Fed:
    """A fleet whose listener `mine` takes messages."""

    def __init__(self, fleet: FleetUnderTest, folder: Path) -> None:
        self.fleet = fleet
        self.feeding = fleet.fleet.feeding
        self._path = folder / "mine.py"
        self._path.write_text(PUSHES)

    def generation(
        self, *clocks: str, takes: bool = True, handler: str | None = None, inlet: str = "", **more: Any
    ) -> Any:
        """Open what a generation needs; return that, and the generation."""
        listener = ListenerSettings(
            name="mine",
            bind="127.0.0.1:0",
            handler=handler or f"{self._path}:Pushes",
            options={"clocks": list(clocks), "inlet": inlet},
            sources=("publish", *clocks, *["inlet"][: len(inlet)]) if takes else (),
            inlets=(("inlet", inlet),) if inlet else (),
        )
        settings = Settings((listener,), metrics_listen="127.0.0.1:0", **more)
        prepared = self.fleet.listeners.prepare(settings)
        before = self.fleet.fleet.generation
        number = 1 if before is None else before.number + 1
        return prepared, Generation(number, settings, prepared.listeners, inlets=prepared.inlets)

    def serve(self, *clocks: str, takes: bool = True, **more: Any) -> None:
        """Let a generation serve, and wait until its sources run."""
        prepared, generation = self.generation(*clocks, takes=takes, **more)
        assert self.fleet.launch(generation) is None
        self.fleet.listeners.commit(prepared)
        self.fleet.fleet.adopt(generation)
        self.fleet.run_until(lambda: self.runs(generation) or not takes)

    def runs(self, generation: Generation) -> bool:
        """Tell whether the feeder runs its sources."""
        process = self.feeding.process
        return process is not None and process.generation is generation and process.runs == self.feeding._sets

    @property
    def pid(self) -> int:
        """The feeder's process."""
        assert self.feeding.process is not None
        return self.feeding.process.pid

    def published(self, source: str) -> int:
        """Return how many messages a source has published."""
        return self.feeding.counts.rows()["mine", source][0]

    def ask(self, message: str) -> dict[str, Any]:
        """Publish as an operator does; return the answer."""
        answers: list[dict[str, Any]] = []
        request = {"verb": "publish", "listener": None, "topic": "news", "message": message}
        self.feeding.publish(request, answers.append)
        self.fleet.run_until(lambda: answers)
        return answers[0]


@pytest.fixture
def fed(fleet: FleetUnderTest, tmp_path: Path) -> Fed:
    """A fleet that does not serve yet."""
    return Fed(fleet, tmp_path)


def test_no_feeder_and_no_socket_is_there_when_no_listener_takes_messages(fed: Fed) -> None:
    fed.serve(takes=False)
    assert fed.feeding.process is None
    assert fed.feeding.address == ""
    assert not fed.feeding.is_needed


def test_feeder_is_there_before_the_workers_and_runs_sources_once_they_serve(fed: Fed) -> None:
    prepared, generation = fed.generation("a")
    fed.fleet.fleet.launch(generation, fed.fleet.outcomes.append)
    assert fed.feeding.process is not None
    assert not fed.feeding.is_up
    fed.fleet.run_until(lambda: fed.fleet.outcomes)
    fed.fleet.listeners.commit(prepared)
    assert not fed.feeding.is_up, "nobody serves yet"
    fed.fleet.fleet.adopt(generation)
    fed.fleet.run_until(lambda: fed.feeding.is_up and fed.published("a"))


def test_message_right_after_a_reload_is_for_the_listeners_that_it_brought(fed: Fed) -> None:
    """Though the feeder is told of them only when their workers say that messages get to them."""
    fed.serve("a", takes=False)
    fed.serve("a")
    prepared, generation = fed.generation("a", "b")
    assert fed.fleet.launch(generation) is None
    fed.fleet.listeners.commit(prepared)
    fed.fleet.fleet.adopt(generation)
    assert not fed.runs(generation)
    assert fed.ask("hello") == {"listeners": ["mine"]}
    assert fed.runs(generation), "and not to those of before"


def test_feeder_goes_on_over_a_reload_and_sources_that_went_are_forgotten(fed: Fed) -> None:
    fed.serve("a", "b")
    pid = fed.pid
    fed.serve("b")
    assert fed.pid == pid
    assert set(fed.feeding.counts.rows()) == {("mine", "publish"), ("mine", "b")}


def test_clients_of_a_source_wait_while_its_feeder_is_replaced(fed: Fed, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/in.sock"
    fed.serve(inlet=address)
    pid = fed.pid
    os.kill(pid, signal.SIGKILL)
    fed.fleet.run_until(lambda: fed.feeding.process is not None and fed.pid != pid)
    with connect(address) as client:
        client.sendall(b"waits\n")
    fed.fleet.run_until(lambda: fed.published("inlet") == 1)


def test_socket_of_a_source_that_was_made_anew_is_served(fed: Fed, tmp_path: Path) -> None:
    fed.serve(inlet=f"unix:{tmp_path}/in.sock")
    with connect(f"unix:{tmp_path}/in.sock") as before:
        (tmp_path / "in.sock").unlink()
        (renewed,) = fed.fleet.listeners.renew()
        fed.fleet.fleet.pass_socket(renewed)
        with connect(f"unix:{tmp_path}/in.sock") as after:
            after.sendall(b"after\n")
            before.sendall(b"before\n")
            fed.fleet.run_until(lambda: fed.published("inlet") == 2)
    assert fed.feeding.restarts == 0


def test_feeder_that_died_is_started_again_at_once_and_its_counts_are_kept(fed: Fed, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 0.0)
    fed.serve("a")
    fed.fleet.run_until(lambda: fed.published("a"))
    pid, before = fed.pid, fed.published("a")
    os.kill(pid, signal.SIGKILL)
    fed.fleet.run_until(lambda: fed.feeding.process is not None and fed.pid != pid and fed.feeding.is_up)
    assert fed.feeding.restarts == 1
    fed.fleet.run_until(lambda: fed.published("a") > before)
    assert fed.feeding.counts.rows()["mine", "a"][4] == 1, "a gap"


def test_feeder_that_dies_at_once_is_started_less_and_less_often_and_never_given_up(
    fed: Fed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SETTLED_S", 1000.0)
    fed.feeding._backoff = Backoff(0.01, 0.02)
    fed.serve("a")
    for number in range(3):
        fed.fleet.run_until(lambda: fed.feeding.process)
        os.kill(fed.pid, signal.SIGKILL)
        fed.fleet.run_until(lambda number=number: fed.feeding.restarts == number + 1)  # type: ignore[misc]
    pauses = [line.rpartition(" in ")[2] for line in caplog.text.splitlines() if "feeder is started again" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.02 s"]
    fed.fleet.run_until(lambda: fed.feeding.is_up)
    assert fed.fleet.crash_looping == 0


def test_feeder_that_hangs_is_ended_and_another_started(
    fed: Fed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fed.serve("a", heartbeat_timeout_s=1.0)
    pid = fed.pid
    os.kill(pid, signal.SIGSTOP)
    fed.fleet.run_until(lambda: fed.feeding.process is not None and fed.pid != pid)
    assert f"the feeder, process {pid}: its loop had completed no pass for " in caplog.text
    assert f"the feeder, process {pid}, was here when it ended" in caplog.text


def test_feeder_ends_when_no_listener_takes_messages_any_more(fed: Fed) -> None:
    fed.serve("a")
    pid = fed.pid
    fed.serve(takes=False)
    fed.fleet.run_until(lambda: fed.feeding.process is None)
    assert not is_alive(pid)
    assert fed.feeding.restarts == 0


def test_feeder_that_is_needed_again_while_it_ends_is_started_again(fed: Fed) -> None:
    fed.serve("a")
    pid = fed.pid
    fed.serve(takes=False)
    fed.serve("a")
    assert fed.pid != pid
    fed.fleet.run_until(lambda: fed.published("a"))


def test_launch_that_fails_leaves_no_feeder_where_there_was_none(fed: Fed, tmp_path: Path) -> None:
    prepared, generation = fed.generation(handler=str(tmp_path / "gone.py"))
    assert fed.fleet.launch(generation) is not None
    fed.fleet.listeners.abandon(prepared)
    fed.fleet.run_until(lambda: fed.feeding.process is None)
    assert not fed.feeding.is_needed


def test_launch_that_fails_leaves_the_sources_as_they_are(fed: Fed, tmp_path: Path) -> None:
    fed.serve("a")
    pid, sets = fed.pid, fed.feeding._sets
    prepared, generation = fed.generation(handler=str(tmp_path / "gone.py"))
    assert fed.fleet.launch(generation) is not None
    fed.fleet.listeners.abandon(prepared)
    assert (fed.pid, fed.feeding._sets) == (pid, sets)
    before = fed.published("a")
    fed.fleet.run_until(lambda: fed.published("a") > before)


def test_workers_that_do_not_say_that_they_serve_are_not_waited_for_long(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FED_S", MOMENT_S)
    prepared, generation = fed.generation("a")
    assert fed.fleet.launch(generation) is None
    fed.fleet.listeners.commit(prepared)
    (member,) = fed.fleet.fleet
    os.kill(member.process.pid, signal.SIGSTOP)
    fed.fleet.fleet.adopt(generation)
    fed.fleet.run_until(lambda: fed.feeding.is_up)
    os.kill(member.process.pid, signal.SIGCONT)


# -- operators -------------------------------------------------------------------------------------------


def test_operator_is_told_when_the_feeder_does_not_run(fed: Fed) -> None:
    answer = fed.ask("hello")
    assert answer["status"] == os.EX_TEMPFAIL == 75
    assert "does not run just now" in answer["error"]
    fed.serve("a")
    assert fed.ask("hello") == {"listeners": ["mine"]}


def test_operator_is_told_when_the_feeder_dies_before_it_answers(fed: Fed) -> None:
    fed.serve("a")
    os.kill(fed.pid, signal.SIGSTOP)
    answers: list[dict[str, Any]] = []
    fed.feeding.publish({"verb": "publish", "listener": None, "topic": "t", "message": "m"}, answers.append)
    os.kill(fed.pid, signal.SIGKILL)
    fed.fleet.run_until(lambda: answers)
    assert answers[0]["status"] == os.EX_TEMPFAIL


# -- the end -----------------------------------------------------------------------------------------------


def test_feeder_of_another_daemon_goes_on_with_what_was_handed_over(fed: Fed) -> None:
    fed.serve("a")
    pid, feed = fed.pid, fed.feeding.handed_over()
    assert feed is not None
    other = FeederSocket({**feed, "links": os.dup(feed["links"]), "journal": os.dup(feed["journal"])})
    fed.feeding.hand_over()
    fed.fleet.run_until(lambda: fed.feeding.is_over)
    assert not is_alive(pid)
    assert feed["feeders"] == 1
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(other.address)  # it waits, for the next one
    with closing(Journal(os.dup(other.journal))) as journal:
        assert journal.lock(), "nobody writes to it any more"
        assert journal.sequences == {"mine": fed.published("a")}
    other.close()


def test_fleet_is_over_when_its_feeder_is_and_that_ends_last(fed: Fed) -> None:
    fed.serve("a")
    pid = fed.pid
    fed.fleet.fleet.drain(0.0, eager=True)
    assert not fed.fleet.fleet.is_over
    fed.fleet.run_until(lambda: len(fed.fleet.fleet) == 0)
    assert fed.feeding.process is not None
    assert fed.feeding.process.is_stopping
    fed.fleet.run_until(lambda: fed.fleet.fleet.is_over)
    assert not is_alive(pid)
    assert not fed.feeding.was_forced


def test_feeder_whose_sources_do_not_stop_is_killed(
    fed: Fed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STOP_S", MOMENT_S)
    fed.serve("a")
    os.kill(fed.pid, signal.SIGSTOP)
    fed.fleet.fleet.drain(0.0, eager=True)
    fed.fleet.run_until(lambda: fed.fleet.fleet.is_over)
    assert fed.feeding.was_forced
    assert "ended by SIGKILL (it did not end in time)" in caplog.text


def test_feeding_that_was_never_needed_is_over_at_once(fleet: FleetUnderTest) -> None:
    feeding = Feeding(fleet.watcher, lambda: None, list)
    assert not feeding.is_over
    feeding.stop()
    assert feeding.is_over


def test_feeder_that_cannot_be_started_is_tried_again(
    fed: Fed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fed.feeding._backoff = Backoff(0.01, 30.0)
    launch, failures = module.FeederProcess.launch, [OSError(12, "Cannot allocate memory")]

    def refuse(self: Any, *arguments: Any, **rest: Any) -> None:
        if failures:
            raise failures.pop()
        launch(self, *arguments, **rest)

    monkeypatch.setattr(module.FeederProcess, "launch", refuse)
    fed.serve("a")
    assert "the feeder cannot be started: [Errno 12] Cannot allocate memory" in caplog.text
    fed.fleet.run_until(lambda: fed.published("a"))
