"""Files of sockets: made anew when they are removed, never taken from the living, removed only if they are ours."""

import os
import signal
import socket
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import exchange
from e2e.support.daemons import SERVE, Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

ALL = """\
metrics: {{listen: "unix:{folder}/metrics.sock"}}
control: {{listen: "unix:{folder}/control.sock"}}
listeners:
  echo: {{bind: "unix:{folder}/echo.sock", handler: echo}}
  feed: {{bind: "127.0.0.1:0", handler: push, with: {{source: {source}}}}}
"""
LINES = '{{lines: "unix:{folder}/lines.sock"}}'


def config(folder: Path) -> str:
    return ALL.format(folder=folder, source=LINES.format(folder=folder))


def client(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(LIMIT_S)
    sock.connect(str(path))
    return sock


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.sock")}


NAMES = {"metrics.sock", "control.sock", "echo.sock", "lines.sock"}


@pytest.fixture
def running(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon that listens at four files, in `tmp_path`."""
    running = daemon(config(tmp_path))
    wait_until(lambda: files(tmp_path) == NAMES, "all sockets")
    return running


def test_files_that_were_removed_are_made_anew_within_a_moment_and_connections_go_on(
    running: Daemon, tmp_path: Path
) -> None:
    with client(tmp_path / "echo.sock") as before:
        assert exchange(before, b"before") == b"before"
        for name in NAMES:
            (tmp_path / name).unlink()
        wait_until(lambda: files(tmp_path) == NAMES, "the files to be there again")
        with client(tmp_path / "echo.sock") as after:
            assert exchange(after, b"after") == b"after"
        assert exchange(before, b"still") == b"still"
    assert running.gaiod("status", "--control", str(tmp_path / "control.sock")).returncode == 0
    with client(tmp_path / "metrics.sock") as scrape:
        scrape.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert scrape.recv(100).startswith(b"HTTP/1.1 200")
    assert running.log().count("the file was removed; it is recreated") == 4
    running.stop()
    assert files(tmp_path) == set()


def test_reload_makes_a_file_anew_before_it_says_that_it_worked(running: Daemon, tmp_path: Path) -> None:
    (tmp_path / "echo.sock").unlink()
    assert running.gaiod("reload", "--control", str(tmp_path / "control.sock")).returncode == 0
    with client(tmp_path / "echo.sock") as sock:
        assert exchange(sock, b"ping") == b"ping"


def test_files_that_are_anothers_by_now_are_told_of_and_stay(running: Daemon, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).unlink()
        (tmp_path / name).write_text("another's")
    wait_until(lambda: running.log().count("another file is there now") == 4, "the lines about it")
    running.send(signal.SIGTERM)
    assert running.wait() == 0
    assert {(tmp_path / name).read_text() for name in NAMES} == {"another's"}


@pytest.mark.parametrize(("name", "source"), [("lines", LINES), ("http", '{{http: "127.0.0.1:{port}"}}')])
def test_source_takes_nothing_over_from_a_living_service(daemon: Start, tmp_path: Path, name: str, source: str) -> None:
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0), reuse_port=True) as tcp:
        unix.bind(str(tmp_path / "lines.sock"))
        unix.listen()
        source = source.format(folder=tmp_path, port=tcp.getsockname()[1])
        text = f'listeners: {{feed: {{bind: "127.0.0.1:0", handler: push, with: {{source: {source}}}}}}}\n'
        running = daemon(text, ready=False)
        assert running.wait() == 71
        assert f"ERROR supervisor: listener feed: source {name}: cannot listen on" in running.log()
        assert "another process listens there: stop it" in running.log()
        with client(tmp_path / "lines.sock"), socket.create_connection(tcp.getsockname()):
            unix.accept()[0].close()
            tcp.accept()[0].close()


def test_start_that_fails_leaves_no_socket_behind(daemon: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        more = f'  late: {{bind: "127.0.0.1:{taken.getsockname()[1]}", handler: echo}}\n'
        running = daemon(config(tmp_path) + more, ready=False)
        assert running.wait() == 71
    assert files(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_start_that_fails_once_rights_are_given_up_leaves_no_socket_behind(daemon: Start, tmp_path: Path) -> None:
    """The user that it became could not remove them from a folder of root's."""
    more = f"user: nobody\nlog: {{file: {tmp_path}/missing/log}}\n"
    running = daemon(more + config(tmp_path), command=SERVE[:3], ready=False)
    assert running.wait() in (77, 78), running.log()
    assert files(tmp_path) == set()
