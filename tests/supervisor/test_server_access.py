"""Who gets to the control socket, and may do what there."""

import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gaiod.control import path as path_module
from gaiod.control.client import ask
from gaiod.control.protocol import refused
from gaiod.supervisor.operators import server as module
from gaiod.supervisor.operators.server import open_control_socket
from gaiod.supervisor.sockets.bind import BindError, bound_address, close_listener
from supervisor.support.controls import STATUS, ControlUnderTest
from supervisor.support.users import as_nobody, root_only

# -- who may ---------------------------------------------------------------------------------------------


@root_only
def test_somebody_else_may_look_and_not_touch(control: ControlUnderTest) -> None:
    """Only an operator who opened the socket's mode up gets here."""
    control.path.chmod(0o666)
    with as_nobody():
        sock = control.connect()
    assert control.ask(STATUS, sock)["ok"]
    answer = control.ask({"verb": "reload"}, sock)
    assert answer == refused("reload: not permitted; only root and the daemon's own user may", 77)
    assert [request["verb"] for request in control.requests] == ["status"]


@root_only
def test_somebody_else_cannot_connect(control: ControlUnderTest) -> None:
    with as_nobody(), pytest.raises(PermissionError):
        control.connect()


@root_only
def test_daemons_own_user_may_do_everything_and_so_may_root(control: ControlUnderTest) -> None:
    control.path.chmod(0o666)
    root = control.connect()
    with as_nobody():
        own = control.connect()
        assert control.ask({"verb": "reload"}, own)["ok"]
        assert control.ask({"verb": "reload"}, root)["ok"]


@root_only
def test_user_counts_that_the_daemon_has_now(control: ControlUnderTest) -> None:
    """A daemon that gives its privileges up has bound its sockets before."""
    control.path.chmod(0o666)
    with as_nobody():
        sock = control.connect()
        control.step_until(lambda: control.clients() == 1, "the client")
    assert control.ask({"verb": "reload"}, sock)["status"] == 77
    with as_nobody():
        assert control.ask({"verb": "reload"}, sock)["ok"]


def test_client_that_cannot_be_told_may_look_and_not_touch(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "peer_uid", lambda fd: None)
    sock = control.connect()
    assert control.ask(STATUS, sock)["ok"]
    assert control.ask({"verb": "reload"}, sock)["status"] == 77


# -- the socket ------------------------------------------------------------------------------------------


def test_socket_is_its_users_alone(control: ControlUnderTest) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600


def test_socket_is_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "gaiod"))
    sock = open_control_socket("auto")
    path = tmp_path / "gaiod" / "control.sock"
    assert str(bound_address(sock)) == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    close_listener(sock)


def test_folder_is_not_made_for_a_path_that_was_written_down(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"control: cannot listen on .*; make the folder first"):
        open_control_socket(f"unix:{tmp_path}/no/control.sock")


def test_folder_that_cannot_be_trusted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_module, "SHARED_FOLDER", str(tmp_path))
    folder = tmp_path / f"gaiod-{os.geteuid()}"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BindError, match=r"control: .* is not a folder of user \d+ alone"):
        open_control_socket("auto")


def test_both_ends_understand_each_other(control: ControlUnderTest) -> None:
    """The client in a thread, as it blocks."""
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, str(control.path), "kill", connection="3-1831")
        control.step_until(asked.done, "the answer")
        assert asked.result() == {"echo": {"verb": "kill", "connection": "3-1831"}}
        asked = pool.submit(ask, str(control.path), "drain")
        control.step_until(asked.done, "the refusal")
        assert str(asked.exception()) == "drain: listener is missing; write the name of a listener"


def test_logging_of_the_daemon_is_not_for_clients(control: ControlUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Who may connect may still not fill the disk with nonsense."""
    with caplog.at_level(logging.DEBUG):
        for _ in range(10):
            control.ask(b"nonsense\n")
    assert caplog.records == []
