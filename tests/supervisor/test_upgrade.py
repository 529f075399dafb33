"""Both sides of an upgrade, the other one played by a few lines of Python."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.sockets import listen
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Watcher
from gaiod.process.dispatch import dispatch
from gaiod.supervisor import upgrade as module
from gaiod.supervisor.upgrade import (
    FAILURE_VARIABLE,
    VARIABLE,
    HandedOver,
    Predecessor,
    Upgrade,
    own_command,
    predecessor,
    tell_failure,
)

READY = "from gaiod.supervisor.upgrade import predecessor\nimport os, sys, time\nold = predecessor(os.environ)\n"

TELLS_SOCKETS = (
    READY
    + """
import socket
((fds, shared),) = old.sockets.values()
sock = socket.socket(fileno=fds[0])
known = old.control == {"auto": 2} and old.inodes == {"/run/here.sock": (1, 2)}
known = known and old.shared == [("db", "proxy", {"a": [1]})]
known = known and (old.feed is not None and old.feed["address"] == "here")
if sock.getsockname()[0] == "127.0.0.1" and not shared and known:
    old.tell_ready({"to": [{"stream": "a"}]})
    time.sleep(3600)
"""
)


SHARED = [("db", "proxy", {"a": [1]})]


class Upgrading:
    """An upgrade to a program that is a few lines of Python."""

    def __init__(self, watcher: Watcher, code: str) -> None:
        self._watcher = watcher
        self.outcomes: list[tuple[int, str]] = []
        self.listener = listen()
        sockets = {"here": ([self.listener.fileno()], False)}
        command = [sys.executable, "-c", code]
        feed = {"links": 0, "journal": 1, "address": "here"}
        given = HandedOver(sockets, {"auto": 2}, {"/run/here.sock": (1, 2), "/run/none.sock": None}, SHARED, feed)
        self.upgrade = Upgrade(watcher, command, given, lambda *outcome: self.outcomes.append(outcome))

    def run(self) -> tuple[int, str]:
        """Run the loop until it is over, and return how."""
        until_s = time.monotonic() + LIMIT_S
        while not self.outcomes:
            assert time.monotonic() < until_s
            dispatch(self._watcher.wait_io(0.01))
            self.upgrade.reap()
        return self.outcomes[0]

    def close(self) -> None:
        self.listener.close()
        self.upgrade._process.kill()
        self.upgrade._process.wait(LIMIT_S)


@pytest.fixture
def start(watcher: Watcher) -> Iterator[list[Upgrading]]:
    """Where upgrades are kept until the end of the test."""
    started: list[Upgrading] = []
    yield started
    for each in started:
        each.close()


# -- the program -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("started", "begins"),
    [
        (["python", "-X", "dev", "-m", "gaiod", "serve", "-c", "a.yaml"], ["-X", "dev", "-m", "gaiod"]),
        (["python3", "bin/gaiod", "serve", "--config=a.yaml"], ["{folder}/bin/gaiod"]),
        (["python3", "/opt/bin/gaiod", "serve"], ["/opt/bin/gaiod"]),
    ],
    ids=["module", "relative script", "script"],
)
def test_program_is_found_again_wherever_the_daemon_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: list[str], begins: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    at = started.index("serve")
    monkeypatch.setattr(sys, "orig_argv", started)
    monkeypatch.setattr(sys, "argv", ["/lib/gaiod/__main__.py" if "-m" in started else started[at - 1], *started[at:]])
    expected = [sys.executable, *(each.format(folder=tmp_path) for each in begins), "serve", "--config", "/a.yaml"]
    assert own_command("serve", "--config", "/a.yaml") == expected


# -- the old daemon --------------------------------------------------------------------------------------


def test_new_daemon_gets_the_sockets_and_says_that_it_serves(watcher: Watcher, start: list[Upgrading]) -> None:
    start.append(Upgrading(watcher, TELLS_SOCKETS))
    status, text = start[0].run()
    assert (status, int(text)) == (0, start[0].upgrade._process.pid)


def test_new_daemon_gets_what_is_shared_until_it_serves(
    watcher: Watcher, start: list[Upgrading], tmp_path: Path
) -> None:
    """More than the channel has room for, while nobody reads there."""
    file = tmp_path / "later"
    code = f"{READY}import json\ntime.sleep(0.3)\nlater = old.tell_ready({{}})\n"
    code += f"file = {str(file)!r}\nopen(file + '.new', 'w').write(json.dumps(later))\n"
    code += "import os\nos.rename(file + '.new', file)\ntime.sleep(3600)"
    start.append(Upgrading(watcher, code))
    for number in range(100):
        start[0].upgrade.share(("db", "proxy"), f"key {number}", "x" * 10_000)
    start[0].upgrade.share(("db", "proxy"), "a", None)
    assert start[0].run()[0] == 0
    start[0].upgrade.share(("db", "proxy"), "a", "too late")
    until_s = time.monotonic() + LIMIT_S
    while not file.exists():
        assert time.monotonic() < until_s
        dispatch(watcher.wait_io(0.01))
    later = json.loads(file.read_text())
    assert later[0] == [["db", "proxy"], "key 0", "x" * 10_000]
    assert later[100:] == [[["db", "proxy"], "a", None]]


@pytest.mark.parametrize(
    ("code", "status", "how"),
    [
        ("import sys; sys.exit(78)", 78, "ended with exit status 78 before it served"),
        ("import os; os.kill(os.getpid(), 9)", 70, "ended by SIGKILL before it served"),
        ("pass", 70, "ended with exit status 0 before it served"),
    ],
)
def test_end_of_the_new_daemon_is_told(
    watcher: Watcher, start: list[Upgrading], code: str, status: int, how: str
) -> None:
    start.append(Upgrading(watcher, code))
    outcome = start[0].run()
    assert outcome[0] == status
    assert how in outcome[1]


@pytest.mark.parametrize(
    "code",
    [
        "import os, sys\nfrom gaiod.supervisor.upgrade import tell_failure\ntell_failure(os.environ, 'no\\nmemory')\n",
        f"{READY}old.tell_failure('no\\nmemory')\nold.close()\n",
    ],
    ids=["before the sockets are taken over", "after it"],
)
def test_reason_of_the_new_daemon_is_told(watcher: Watcher, start: list[Upgrading], code: str) -> None:
    start.append(Upgrading(watcher, code + "sys.exit(78)"))
    status, text = start[0].run()
    assert status == 78
    assert text.endswith("ended with exit status 78 before it served:\nno\nmemory")


def test_reason_that_was_not_told_is_to_be_found_elsewhere(watcher: Watcher, start: list[Upgrading]) -> None:
    start.append(Upgrading(watcher, "import sys; sys.exit(78)"))
    assert start[0].run()[1].endswith("before it served; the log or the daemon's standard error says why")


def test_new_daemon_that_hangs_up_and_lives_is_given_up(
    watcher: Watcher, start: list[Upgrading], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", MOMENT_S)
    code = f"import os, time; os.close(int(os.environ[{VARIABLE!r}])); time.sleep(3600)"
    start.append(Upgrading(watcher, code))
    status, text = start[0].run()
    assert status == 70
    assert "was given up: it hung up" in text


def test_new_daemon_that_takes_too_long_is_given_up(
    watcher: Watcher, start: list[Upgrading], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", MOMENT_S)
    start.append(Upgrading(watcher, "import time; time.sleep(3600)"))
    status, text = start[0].run()
    assert status == 70
    assert "was given up: it did not serve within" in text
    assert start[0].upgrade._process.wait(LIMIT_S) != 0


def test_upgrade_is_over_once(watcher: Watcher, start: list[Upgrading]) -> None:
    start.append(Upgrading(watcher, "import time; time.sleep(3600)"))
    start[0].upgrade.cancel()
    start[0].upgrade._process.wait(LIMIT_S)
    start[0].upgrade.reap()
    dispatch(watcher.wait_io(0))
    assert len(start[0].outcomes) == 1
    assert "this one was told to stop" in start[0].outcomes[0][1]


# -- the new daemon --------------------------------------------------------------------------------------


def test_daemon_without_a_predecessor_has_none() -> None:
    assert predecessor({}) is None


def test_predecessor_hands_over_and_is_told_to_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(json.dumps({"sockets": {"a": [[5], True]}, "control": {"auto": 6}}).encode() + b"\n")
        environment = {VARIABLE: str(theirs.detach())}
        old = predecessor(environment)
        assert old is not None
        assert environment == {}
        assert list(old.sockets["a"]) == [[5], True]
        assert old.control == {"auto": 6}
        ours.sendall(json.dumps({"shared": ["db", "proxy", "a", 1]}).encode() + b"\n")
        ours.shutdown(socket.SHUT_WR)
        assert old.tell_ready({"to": [{"stream": "a"}]}) == [(("db", "proxy"), "a", 1)]
        assert json.loads(ours.makefile().readline()) == {"ready": True, "to": [{"stream": "a"}]}


def test_predecessor_that_does_not_ask_is_not_told_why_this_one_ends() -> None:
    """It is of an older version."""
    tell_failure({}, "no memory")
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b'{"sockets": {}, "control": {}}\n')
        old = Predecessor(theirs.detach())
        old.tell_failure("no memory")
        old.close()
        assert ours.recv(1) == b""


def test_nothing_is_left_for_the_next_upgrade_once_this_one_serves(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    file = os.open(tmp_path / "failure", os.O_CREAT | os.O_RDWR)
    with ours:
        ours.sendall(b'{"sockets": {}, "control": {}}\n')
        ours.shutdown(socket.SHUT_WR)
        environment = {VARIABLE: str(theirs.detach()), FAILURE_VARIABLE: str(file)}
        old = predecessor(environment)
        assert old is not None
        assert environment == {}
        old.tell_ready({})
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


def test_predecessor_that_does_not_hang_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", MOMENT_S)
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b'{"sockets": {}, "control": {}}\n{"shared": ["db", "proxy", "a", 1]}\n')
        assert Predecessor(theirs.detach()).tell_ready({}) == [(("db", "proxy"), "a", 1)]


def test_predecessor_that_is_gone_at_once_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(OSError, match="ended before it had handed over its sockets"):
        Predecessor(theirs.detach())


def test_predecessor_that_is_gone_later_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b'{"sockets": {}, "control": {}}\n')
    old = Predecessor(theirs.detach())
    ours.close()
    old.tell_ready({"to": [{"stream": "a"}]})
    assert "the old daemon ended too early" in caplog.text
