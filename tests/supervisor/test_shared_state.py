"""What workers share outlives them; and one of them leads, whoever ends."""

import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from e2e.support.clients import connect
from e2e.support.handlers import IMPORTS

from gaiod.handler.admin_state import AdminState, admin_key
from gaiod.handler.shared_values import VALUE_MAX_BYTES
from gaiod.supervisor.processes.shared_state import SharedState
from supervisor.support.fleets import FleetUnderTest

KEEPS = (
    IMPORTS
    + '''import os
class Keeps(gaiod.Handler):
    """Shares what a client sends, and answers with all that is shared."""
    def on_open(self, conn):
        conn.read()
    def on_read(self, conn, result):
        word = bytes(result.buffer).decode()
        if word == "?":
            known = " ".join(f"{key}={value}" for key, value in sorted(self.shared.items()))
            conn.write(f"{known}{' leader' if self.is_leader else ''}.".encode())
        else:
            key, _, value = word.partition("=")
            self.share(key, value or None)
            conn.write(b"ok.")
    def on_write(self, conn, result):
        conn.read()
'''
)


@pytest.fixture
def keeps(tmp_path: Path) -> str:
    """A handler."""
    path = tmp_path / "keeps.py"
    path.write_text(KEEPS)
    return f"{path}:Keeps"


def ask(fleet: FleetUnderTest, word: str) -> str:
    """Return what some worker answers."""
    with connect(fleet.address) as sock:
        sock.sendall(word.encode())
        answer = b""
        sock.setblocking(False)

        def look() -> bool:
            nonlocal answer
            try:
                answer += sock.recv(1000)
            except BlockingIOError:
                return False
            return answer.endswith(b".")

        fleet.run_until(look)
    return answer.decode().removesuffix(".")


def answers(fleet: FleetUnderTest, workers: int) -> set[str]:
    """Return what enough workers answer to see each of them, most likely."""
    return {ask(fleet, "?") for _ in range(8 * workers)}


def test_value_reaches_the_other_workers(fleet: FleetUnderTest, keeps: str) -> None:
    fleet.serve(workers=2, handler=keeps)
    assert ask(fleet, "a=1") == "ok"
    fleet.run_until(lambda: answers(fleet, 2) == {"a=1", "a=1 leader"})
    assert ask(fleet, "a=") == "ok"
    fleet.run_until(lambda: answers(fleet, 2) == {"", " leader"})


def test_value_outlives_the_worker_that_shared_it_and_a_reload(fleet: FleetUnderTest, keeps: str) -> None:
    generation = fleet.serve(handler=keeps)
    ask(fleet, "a=1")
    (key,) = generation.keys
    fleet.run_until(lambda: fleet.fleet.shared.of(key) == {"a": "1"})
    pid = fleet.pid()
    os.kill(pid, signal.SIGKILL)
    fleet.run_until(lambda: fleet.fleet.serving.get(0) and fleet.pid() != pid)
    assert ask(fleet, "?") == "a=1 leader"
    fleet.serve(handler=keeps)
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert ask(fleet, "?") == "a=1 leader"


def test_values_of_a_listener_with_another_handler_are_forgotten(fleet: FleetUnderTest, keeps: str) -> None:
    generation = fleet.serve(handler=keeps)
    ask(fleet, "a=1")
    (key,) = generation.keys
    fleet.run_until(lambda: fleet.fleet.shared.of(key))
    fleet.serve()
    fleet.run_until(lambda: len(fleet.fleet) == 1)
    assert not fleet.fleet.shared.of(key)


def test_worker_of_the_lowest_number_leads_and_the_next_when_it_ends(fleet: FleetUnderTest, keeps: str) -> None:
    fleet.serve(workers=2, handler=keeps)
    first, second = (fleet.fleet.serving[number].process for number in (0, 1))
    assert (first._leads, second._leads) == (["echo"], [])
    first.kill()
    fleet.run_until(lambda: second._leads == ["echo"])
    fleet.run_until(lambda: 0 in fleet.fleet.serving)
    assert (fleet.fleet.serving[0].process._leads, second._leads) == (["echo"], [])
    fleet.serve(workers=2, handler=keeps)
    assert (fleet.fleet.serving[0].process._leads, second._leads) == (["echo"], [])


def test_sole_worker_leads_before_it_serves(fleet: FleetUnderTest) -> None:
    prepared, generation = fleet.prepare(2)
    fleet.fleet.launch(generation, fleet.outcomes.append)
    assert [member.process._leads for member in fleet.fleet] == [["echo"], []]
    fleet.run_until(lambda: fleet.outcomes)
    fleet.listeners.abandon(prepared)


# -- alone -----------------------------------------------------------------------------------------------


class Told:
    """A worker that writes down what it is told."""

    def __init__(self, *keys: tuple[str, str]) -> None:
        self.process: Any = self
        self.memory: Any = self
        self.keys = list(keys)
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def test_value_is_passed_to_those_that_serve_the_listener_and_repeated_to_who_shared_it() -> None:
    key, state = ("db", "proxy"), SharedState()
    sender, other, stranger = members = Told(key), Told(key), Told(("db", "echo"))
    state.take(sender, {"listener": "db", "key": "a", "value": 1}, members)  # type: ignore[arg-type]
    passed = {"listener": "db", "key": "a", "value": 1}
    assert sender.sent == [{"shared": {**passed, "own": True}}]
    assert other.sent == [{"shared": {**passed, "own": False}}]
    assert stranger.sent == []


def test_value_without_room_is_logged_and_taken_back_from_who_shared_it(caplog: pytest.LogCaptureFixture) -> None:
    key, state = ("db", "proxy"), SharedState()
    sender: Any = Told(key)
    for number in range(70):
        said = {"listener": "db", "key": f"{number}", "value": "x" * (VALUE_MAX_BYTES - 2)}
        state.take(sender, said, [sender])
    assert sender.sent[-1]["shared"] == {"listener": "db", "key": "69", "value": None, "own": True}
    assert "listener db: shared value" in caplog.text


def test_values_are_handed_over_to_another_daemon() -> None:
    state, successor = SharedState(), SharedState()
    state.put(("db", "proxy"), "a", [1], [])
    successor.adopt(state.handed_over())
    assert successor.of(("db", "proxy")) == {"a": [1]}


def test_what_is_wanted_of_a_server_that_is_not_configured_any_more_is_forgotten() -> None:
    key, state = ("db", "proxy"), SharedState()
    for server in ("10.0.0.1:1", "10.0.0.2:1"):
        state.put(key, admin_key(server), asdict(AdminState("drain")), [])
    state.put(key, "checks 10.0.0.2:1", 1, [])
    state.forget({key: {"10.0.0.1:1"}})
    assert state.of(key).keys() == {admin_key("10.0.0.1:1"), "checks 10.0.0.2:1"}
    state.forget({})
    assert not state.of(key)
