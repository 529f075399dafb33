"""Opening everything: what a daemon inherits, what it opens, and what it leaves to others at its end."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaiod.addresses import parse_address
from gaiod.process.socket_files import UnixListener
from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.opening import Opening
from gaiod.supervisor.sockets.bind import BindError, SocketOptions, open_listener
from gaiod.supervisor.upgrade import VARIABLE


def _settings(folder: Path, **more: str | None) -> Settings:
    listener = ListenerSettings("echo", f"unix:{folder}/echo.sock", "echo")
    places = {"metrics_listen": f"unix:{folder}/metrics.sock", "control_listen": f"unix:{folder}/control.sock", **more}
    return Settings((listener,), **places)  # type: ignore[arg-type]


@pytest.fixture
def opening() -> Iterator[Opening]:
    """Nothing opened yet."""
    opening = Opening()
    yield opening
    opening.close()


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, socket.socket]]:
    """A daemon that hands its sockets over: by their addresses."""
    names = [f"unix:{tmp_path}/{name}.sock" for name in ("echo", "metrics", "control")]
    sockets = {name: open_listener(name, parse_address(name, listen=True), SocketOptions()) for name in names}
    near, far = socket.socketpair()
    *listeners, control = names
    message = {
        "sockets": {name: ([os.dup(sockets[name].fileno())], True) for name in listeners},
        "control": {control: os.dup(sockets[control].fileno())},
        "inodes": {sock.path: sock.inode for sock in sockets.values() if isinstance(sock, UnixListener)},
    }
    near.sendall(json.dumps(message).encode() + b"\n")
    monkeypatch.setenv(VARIABLE, str(far.detach()))
    with near:
        yield sockets
    for sock in sockets.values():
        sock.close()


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.sock")}


def test_everything_is_opened_and_goes_at_the_end(opening: Opening, tmp_path: Path) -> None:
    prepared = opening.open(_settings(tmp_path), tmp_path)
    opening.listeners.commit(prepared)
    assert _files(tmp_path) == {"echo.sock", "metrics.sock", "control.sock"}
    assert opening.predecessor is None
    opening.close()
    assert _files(tmp_path) == set()


def test_nothing_stays_when_the_control_socket_cannot_be_opened(opening: Opening, tmp_path: Path) -> None:
    with pytest.raises(BindError, match="control: cannot listen on"):
        opening.open(_settings(tmp_path, control_listen=f"unix:{tmp_path}/missing/control.sock"), tmp_path)
    assert _files(tmp_path) == set()


def test_sockets_of_the_daemon_before_are_taken_over_and_their_files_are_left_to_it(
    opening: Opening, old: dict[str, socket.socket], tmp_path: Path
) -> None:
    prepared = opening.open(_settings(tmp_path), tmp_path)
    inodes = {os.fstat(sock.fileno()).st_ino for each in prepared.by_key.values() for sock in each.sockets}
    assert opening.control is not None
    inodes.add(os.fstat(opening.control.fileno()).st_ino)
    assert inodes == {os.fstat(sock.fileno()).st_ino for sock in old.values()}
    assert VARIABLE not in os.environ
    opening.close()
    assert _files(tmp_path) == {"echo.sock", "metrics.sock", "control.sock"}


def test_control_socket_that_is_not_configured_any_more_is_not_kept(
    opening: Opening, old: dict[str, socket.socket], tmp_path: Path
) -> None:
    opening.open(_settings(tmp_path, control_listen=None), tmp_path)
    assert opening.control is None
    assert opening.predecessor is not None
    (fd,) = opening.predecessor.control.values()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_successor_gets_the_control_socket_by_its_address(opening: Opening, tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    opening.listeners.commit(opening.open(settings, tmp_path))
    given = opening.handed_over(
        settings.control_listen,
        shared=[],
        feed=None,
        instances=1003,
        closes={"past": 1, "live": []},
        ticket_keys={},
        seats=None,
        bans=[],
    )
    assert set(given.sockets) == {f"unix:{tmp_path}/echo.sock", f"unix:{tmp_path}/metrics.sock"}
    assert opening.control is not None
    assert given.control == {f"unix:{tmp_path}/control.sock": opening.control.fileno()}
    assert given.inodes == {
        str(path): (path.stat().st_dev, path.stat().st_ino)
        for path in (tmp_path / name for name in ("echo.sock", "metrics.sock", "control.sock"))
    }


def test_file_that_is_anothers_by_now_is_left_to_it_by_the_successor_too(
    opening: Opening, old: dict[str, socket.socket], tmp_path: Path
) -> None:
    """The daemon before this one tells of which inode its files were."""
    for path in (tmp_path / "echo.sock", tmp_path / "control.sock"):
        path.unlink()
        path.write_text("another's")
    opening.listeners.commit(opening.open(_settings(tmp_path), tmp_path))
    opening.owns_files = True
    opening.close()
    assert {path.name for path in tmp_path.iterdir()} == {"echo.sock", "control.sock"}
