"""Inlets: what a source may bind, and what becomes of the files of its sockets."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.sockets import has_ipv6
from core.support.waiting import LIMIT_S, MOMENT_S
from gaiod.handlers.echo import Echo
from worker.support.stepping import Stepped

from gaiod import Watcher
from gaiod.core.sockets import UNIX_PATH_MAX_BYTES
from gaiod.feeder import source_listener as module
from gaiod.feeder.source_listener import CONNECTIONS_MAX, LAYOUT, SourceListener


class Inlets(Stepped):
    """Inlets on a watcher of their own, each an echo."""

    def __init__(self) -> None:
        self._cells = memoryview(bytearray(8 * LAYOUT.size)).cast("q")
        super().__init__(Watcher(counters=self._cells, report_closes=True))

    def open(self, bind: str, idle_timeout_s: float = 60.0) -> SourceListener:
        """Return another."""
        return SourceListener(
            self.watcher, self._cells, "source one of listener ticks", bind, Echo(), idle_timeout_s=idle_timeout_s
        )

    def echoes(self, sock: socket.socket) -> bool:
        """Tell whether a client gets back what it says."""
        sock.settimeout(LIMIT_S)
        sock.sendall(b"ping")
        sock.setblocking(False)
        received = bytearray()

        def look() -> bool:
            try:
                received.extend(sock.recv(16))
            except BlockingIOError:
                pass
            return len(received) == 4

        self.step_until(look, "the echo")
        return received == b"ping"


@pytest.fixture
def inlets() -> Iterator[Inlets]:
    """A maker of inlets."""
    inlets = Inlets()
    yield inlets
    inlets.watcher.close()


def _connected_to(bind: str) -> socket.socket:
    if bind.startswith("unix:"):
        return _connected(Path(bind.removeprefix("unix:")))
    host, _, port = bind.rpartition(":")
    return socket.create_connection((host, int(port)))


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def _free_port(family: socket.AddressFamily, host: str) -> int:
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_inlet_listens_on_the_loopback(inlets: Inlets, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    family = socket.AF_INET6 if host == "::1" else socket.AF_INET
    port = _free_port(family, host)
    inlet = inlets.open(f"[{host}]:{port}" if host == "::1" else f"{host}:{port}")
    with socket.create_connection((host, port)) as sock:
        assert inlets.echoes(sock)
    inlet.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port)).close()


def test_inlet_closes_its_connections_and_takes_its_file_away(inlets: Inlets, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    inlet = inlets.open(f"unix:{path}")
    assert os.listdir(tmp_path) == ["inlet.sock"]
    with _connected(path) as sock:
        assert inlets.echoes(sock)
        inlet.close()
        sock.settimeout(LIMIT_S)
        assert sock.recv(1) == b""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_nothing_is_taken_over_from_somebody_who_lives(inlets: Inlets, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "inlet.sock"
    bind = f"unix:{path}" if kind == "unix" else f"127.0.0.1:{_free_port(socket.AF_INET, '127.0.0.1')}"
    first = inlets.open(bind)
    with pytest.raises(OSError, match="Address already in use"):
        inlets.open(bind)
    with _connected_to(bind) as sock:
        assert inlets.echoes(sock)
    first.close()
    inlets.open(bind).close()


def test_file_that_is_anothers_by_now_stays(inlets: Inlets, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    inlet = inlets.open(f"unix:{path}")
    path.unlink()
    path.write_text("another's")
    inlet.close()
    assert path.read_text() == "another's"


def test_file_that_was_removed_is_made_anew_and_connections_go_on(
    inlets: Inlets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_INTERVAL_S", 0.01)
    path = tmp_path / "inlet.sock"
    inlet = inlets.open(f"unix:{path}")
    with _connected(path) as before:
        assert inlets.echoes(before)
        path.unlink()
        inlets.step_until(path.exists, "the file")
        with _connected(path) as after:
            assert inlets.echoes(after)
            assert inlets.echoes(before)
    inlet.close()
    assert not path.exists()


def test_what_a_killed_process_has_left_is_taken_over(inlets: Inlets, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    inlet = inlets.open(f"unix:{path}")
    with _connected(path) as sock:
        assert inlets.echoes(sock)
    inlet.close()
    assert os.listdir(tmp_path) == []


def test_file_that_is_no_socket_is_never_replaced(inlets: Inlets, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="there is a file, and it is no socket"):
        inlets.open(f"unix:{path}")
    assert path.read_text() == "data"
    assert os.listdir(tmp_path) == ["precious"]


def test_folder_that_is_not_there_is_an_error(inlets: Inlets, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inlets.open(f"unix:{tmp_path}/no/inlet.sock")


@pytest.mark.parametrize(
    "bind",
    ["0.0.0.0:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "localhost:80", "[::]:80", ":80", ""],
)
def test_address_that_others_could_reach_is_refused(inlets: Inlets, bind: str) -> None:
    with pytest.raises(ValueError, match=r"; write "):
        inlets.open(bind)


@pytest.mark.parametrize("path", ["relative.sock", "/" + "x" * UNIX_PATH_MAX_BYTES])
def test_path_that_is_relative_or_too_long_is_refused(inlets: Inlets, path: str) -> None:
    with pytest.raises(ValueError, match=r"is not an absolute path; write|has 108 bytes; write one of at most 107"):
        inlets.open(f"unix:{path}")


def test_connections_are_bounded(inlets: Inlets, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    inlet = inlets.open(f"unix:{path}")
    socks = [_connected(path) for _ in range(CONNECTIONS_MAX)]
    inlets.step_until(lambda: inlets.clients() == CONNECTIONS_MAX, "all of them")
    with _connected(path) as late:
        late.setblocking(False)
        ended = []

        def look() -> bool:
            try:
                ended.append(late.recv(1))
            except BlockingIOError:
                return False
            return True

        inlets.step_until(look, "the end of the one too many")
        assert ended == [b""]
    for sock in socks:
        sock.close()
    inlet.close()


def test_connection_that_says_nothing_is_closed_after_the_inlets_own_time(inlets: Inlets, tmp_path: Path) -> None:
    patient, impatient = inlets.open(f"unix:{tmp_path / 'patient'}"), inlets.open(f"unix:{tmp_path / 'not'}", MOMENT_S)
    with _connected(tmp_path / "patient") as stays, _connected(tmp_path / "not") as goes:
        goes.setblocking(False)

        def has_ended() -> bool:
            try:
                return goes.recv(1) == b""
            except BlockingIOError:
                return False

        inlets.step_until(has_ended, "the connection being closed")
        assert inlets.echoes(stays)
    patient.close()
    impatient.close()
