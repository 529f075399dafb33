"""Fronts: who serves a socket whose file was made anew."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.opening import Opening
from gaiod.supervisor.sockets import fronts as module
from gaiod.supervisor.sockets.fronts import Fronts
from gaiod.supervisor.sockets.listeners import OpenListener

NAMES = ("echo", "metrics", "control")


class Served:
    """Stands for the endpoint, the control socket and the fleet: remembers what it was given to serve."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def open(self, sock: socket.socket) -> None:
        self.close()
        self.sockets.append(sock)

    def close(self) -> None:
        while self.sockets:
            self.sockets.pop().close()

    def pass_socket(self, listener: OpenListener) -> None:
        self.open(listener.sockets[0].dup())


@pytest.fixture
def served() -> Iterator[dict[str, Served]]:
    """Who serves, by the name of what is served."""
    served = {name: Served() for name in NAMES}
    yield served
    for each in served.values():
        each.close()


@pytest.fixture
def fronts(tmp_path: Path, served: dict[str, Served]) -> Iterator[Fronts]:
    """Fronts that answer, of a daemon with three sockets in `tmp_path`."""
    opening = Opening()
    listener = ListenerSettings("echo", f"unix:{tmp_path}/echo", "echo")
    settings = Settings(
        (listener,), metrics_listen=f"unix:{tmp_path}/metrics", control_listen=f"unix:{tmp_path}/control"
    )
    prepared = opening.open(settings, tmp_path)
    opening.listeners.commit(prepared)
    fleet, endpoint, control = (cast(Any, served[name]) for name in NAMES)
    fronts = Fronts(opening, fleet, endpoint, control)
    fronts.serve_metrics(prepared.metrics)
    fronts.serve_control()
    yield fronts
    opening.close()


def _is_served(path: Path, served: Served) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        served.sockets[0].setblocking(False)
        try:
            served.sockets[0].accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("name", NAMES)
def test_socket_whose_file_was_removed_is_served_by_whom_it_was(
    fronts: Fronts, served: dict[str, Served], tmp_path: Path, name: str
) -> None:
    before = {other: list(each.sockets) for other, each in served.items() if other != name}
    (tmp_path / name).unlink()
    fronts.renew()
    assert _is_served(tmp_path / name, served[name])
    assert {other: each.sockets for other, each in served.items() if other != name} == before


def test_files_are_looked_at_once_in_a_while(fronts: Fronts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo").unlink()
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 1e9)
    fronts.look_after_files()
    assert not (tmp_path / "echo").exists()
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.0)
    fronts.look_after_files()
    assert (tmp_path / "echo").exists()
