"""Asking a daemon: its answer, or an error that says what to do."""

import json
import os
import socket
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.processes import run_python
from core.support.waiting import LIMIT_S, MOMENT_S
from supervisor.support.controls import played_daemon
from supervisor.support.users import as_nobody, root_only

from gaiod.control import path as module
from gaiod.control.client import Conversation, ask
from gaiod.control.protocol import QUICK_S, VERBS, ControlError, Verb, refused, succeeded


def _failure(path: Path | str | None, verb: str = "status", **arguments: Any) -> tuple[str, int]:
    with pytest.raises(ControlError) as failed:
        ask(path if path is None else str(path), verb, **arguments)
    return str(failed.value), failed.value.status


class Daemon:
    """Answers requests, one after the other, whatever they are; None: it hangs up, and waits for another client."""

    def __init__(self, path: Path, answers: list[dict[str, Any] | None]) -> None:
        self.connections = 0
        self.hung_up = threading.Event()
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(LIMIT_S)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while self._answers:
            conn, _ = self._listener.accept()
            conn.settimeout(LIMIT_S)
            self.connections += 1
            with conn, conn.makefile("rb") as lines:
                while self._answers and (answer := self._answers.pop(0)) is not None:
                    lines.readline()
                    conn.sendall(json.dumps(answer).encode() + b"\n")
            self.hung_up.set()

    def __enter__(self) -> "Daemon":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(LIMIT_S)
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a control socket may be."""
    return tmp_path / "control.sock"


@pytest.mark.parametrize("prefix", ["", "unix:"])
def test_result_is_returned(path: Path, prefix: str) -> None:
    """A path as the command line has it, or as the configuration writes it."""
    with played_daemon(path, succeeded({"total": 0, "connections": []})) as daemon:
        result = ask(f"{prefix}{path}", "connections", listener="echo", limit=3)
    assert result == {"total": 0, "connections": []}
    assert [json.loads(line) for line in daemon.requests] == [{"verb": "connections", "listener": "echo", "limit": 3}]


def test_long_answer_is_returned_whole(path: Path) -> None:
    result = {"connections": ["x" * 1000] * 3000}
    with played_daemon(path, succeeded(result)):
        assert ask(str(path), "connections") == result


def test_daemon_is_looked_for_where_it_is_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    with played_daemon(tmp_path / "control.sock", succeeded({"pid": 1})):
        assert ask(None, "status") == {"pid": 1}


def test_refusal_is_an_error_with_its_status(path: Path) -> None:
    text = "gaiod.yaml:1:1: a: unknown key; remove it\ngaiod.yaml:2:1: b: unknown key; remove it"
    with played_daemon(path, refused(text, 78)):
        assert _failure(path, "reload") == (text, 78)


@pytest.mark.parametrize("kind", ["missing", "folder missing", "folder is a file", "left behind", "a file"])
def test_no_daemon_is_said_so(tmp_path: Path, path: Path, kind: str) -> None:
    if kind == "folder missing":
        path = tmp_path / "no" / "control.sock"
    elif kind == "folder is a file":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "control.sock"
    elif kind == "left behind":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    elif kind == "a file":
        path.touch()
    assert _failure(path) == (f"no gaiod listens on {path}: is it running? --control names another socket", 69)


@root_only
def test_socket_of_somebody_else_is_said_so() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(folder, 0o755)
        path = f"{folder}/control.sock"
        listener.bind(path)
        listener.listen()
        os.chmod(path, 0o600)
        with as_nobody():
            message = f"not permitted to connect to {path}: only root and the user gaiod runs as may"
            assert _failure(path) == (message, 77)


def test_default_socket_in_a_folder_of_somebody_elses_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could make the folder could answer in gaiod's name."""
    monkeypatch.setattr(module, "SHARED_FOLDER", str(tmp_path))
    folder = tmp_path / f"gaiod-{os.geteuid()}"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    folder.mkdir()
    folder.chmod(0o755)
    message, status = _failure(None)
    assert message.startswith(f"{folder}: is not a folder of user {os.geteuid()} alone")
    assert status == 77


def test_path_that_is_too_long_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 200)
    message = f"cannot connect to {path}: AF_UNIX path too long; --control names another socket"
    assert _failure(path) == (message, 64)


@pytest.mark.parametrize("answer", [b"", b'{"ok": tr', b'{"ok": true, "result": {}}'], ids=["none", "half", "no end"])
def test_daemon_that_ends_without_an_answer_is_said_so(path: Path, answer: bytes) -> None:
    with played_daemon(path, answer):
        message, status = _failure(path, "restart")
    assert message.startswith(f"gaiod on {path} closed the connection without an answer: ")
    assert status == 69


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example.org ESMTP\n",
        b"\xff\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"ok": true}\n',
        b'{"ok": true, "result": 1}\n',
        b'{"ok": false}\n',
        b'{"ok": false, "error": "x", "status": "y"}\n',
        b'{"ok": false, "error": "x", "status": null}\n',
    ],
)
def test_what_is_no_gaiod_is_said_so(path: Path, answer: bytes) -> None:
    with played_daemon(path, answer):
        message = f"what answers on {path} is not gaiod; --control names another socket"
        assert _failure(path) == (message, 76)


def test_answer_is_read_when_the_daemon_has_closed_before_it_was_asked(path: Path) -> None:
    """One that has too many clients says so, and waits for no request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        class TurnedAway(socket.socket):
            def connect(self, address: Any) -> None:
                super().connect(address)
                with listener.accept()[0] as accepted:
                    accepted.sendall(json.dumps(refused("16 clients", 69)).encode() + b"\n")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "socket", TurnedAway)
            assert _failure(path) == ("16 clients", 69)


def test_daemon_that_does_not_answer_in_time_is_said_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VERBS["status"].timeout_s == QUICK_S
    monkeypatch.setitem(VERBS, "status", Verb("", is_admin=False, timeout_s=MOMENT_S))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        message = f"gaiod on {path} did not answer within {MOMENT_S:g} s: it is busy, or hangs; see its log"
        assert _failure(path) == (message, 75)


def test_daemon_that_accepts_nobody_is_said_so_at_once(path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        assert _failure(path) == (
            f"gaiod on {path} accepts no connections: it hangs, or is stopped; see its log",
            75,
        )


def test_asking_needs_nothing_but_the_standard_library() -> None:
    code = "import sys, gaiod.control.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert not {"click", "h11", "prometheus_client", "yaml"} & set(done.stdout.split())


# -- one request after the other -----------------------------------------------------------------------------


def test_requests_of_a_conversation_go_over_one_connection_and_a_refusal_does_not_end_it(path: Path) -> None:
    with (
        Daemon(path, [succeeded({"number": 1}), refused("no", 65), succeeded({"number": 3})]) as daemon,
        Conversation(str(path)) as conversation,
    ):
        assert conversation.ask("publish", topic="news", message="1") == {"number": 1}
        with pytest.raises(ControlError, match="no"):
            conversation.ask("publish", topic="news", message="2")
        assert conversation.ask("publish", topic="news", message="3") == {"number": 3}
    assert daemon.connections == 1


def test_conversation_goes_on_over_another_connection_when_the_daemon_hung_up_in_between(path: Path) -> None:
    """As it does after a minute of silence, and when it is upgraded."""
    with (
        Daemon(path, [succeeded({"number": 1}), None, succeeded({"number": 2})]) as daemon,
        Conversation(str(path)) as it,
    ):
        assert it.ask("status") == {"number": 1}
        daemon.hung_up.wait(LIMIT_S)
        assert it.ask("status") == {"number": 2}
    assert daemon.connections == 2
