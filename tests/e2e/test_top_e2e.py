"""`gaiod top`, as a person sees it: in a terminal."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange
from e2e.support.daemons import ECHO, Daemon
from e2e.support.handlers import FLOODS, beside
from e2e.support.procfs import children_of
from e2e.support.starting import Start
from e2e.support.tmux import PROMPT, Screen, screen
from e2e.support.waiting import wait_until

TOP = f"{sys.executable} -m gaiod top --interval 0.2"
KEYS = "q quit"


@pytest.fixture
def running(daemon: Start) -> Daemon:
    """A daemon with a listener `echo`."""
    return daemon(f"workers: 2\n{ECHO}")


@pytest.fixture
def window(running: Daemon, tmp_path: Path) -> Iterator[Screen]:
    """A terminal whose commands speak to it."""
    with screen(tmp_path, {"GAIOD_CONTROL": running.control}) as window:
        yield window


def _begin(window: Screen, command: str = TOP) -> str:
    window.type(command, "Enter")
    return window.wait_for("connections, by traffic")


def _leave(window: Screen, status: int) -> None:
    """Wait for the shell's prompt; see that the terminal is what it was."""
    window.wait_for(lambda text: KEYS not in text and text.rstrip().endswith(PROMPT.rstrip()))
    window.type("echo status $?; stty -a | tr ' ' '\\n' | grep -x 'icanon\\|echo'", "Enter")
    text = window.wait_for(lambda text: f"status {status}\nicanon\necho\n" in text)
    assert KEYS not in text, "the picture is gone, and what was before is there again"
    assert text.startswith(f"{PROMPT}{TOP.split(maxsplit=1)[0][:20]}")


def test_what_happens_is_seen_as_it_happens(running: Daemon, window: Screen) -> None:
    assert "0 connections, by traffic" in _begin(window)
    with connect(running.address()) as sock:
        assert exchange(sock, bytes(1000)) == bytes(1000)
        host, port = sock.getsockname()
        text = window.wait_for(f"{host}:{port}")
        assert "1000 B" in text
        assert re.search(r"^ +0 +\d+ +serving", text, re.MULTILINE)
        assert re.search(r"^echo +serving +\d/20000 ", text, re.MULTILINE)
    window.wait_for("0 connections, by traffic")
    window.type("q")
    _leave(window, 0)


@pytest.mark.parametrize(("end", "status"), [("q", 0), ("C-c", 0)])
def test_terminal_is_as_it_was_afterwards(window: Screen, end: str, status: int) -> None:
    _begin(window)
    window.type(end)
    _leave(window, status)


def test_terminal_is_as_it_was_after_a_sigterm(window: Screen) -> None:
    _begin(window)
    shell = int(window.run("display-message", "-p", "#{pane_pid}"))
    (process,) = children_of(shell)
    os.kill(process, signal.SIGTERM)
    _leave(window, 128 + signal.SIGTERM)


def test_keys_say_what_comes_first(window: Screen) -> None:
    _begin(window)
    for key, sort in (("s", "stalled"), ("b", "buffered"), ("a", "age"), ("t", "traffic")):
        window.type(key)
        window.wait_for(f"connections, by {sort}")
    window.type("l")
    window.wait_for("listener: echo")
    window.type("l")
    window.wait_for("listener: all")
    window.type("q")
    _leave(window, 0)


@pytest.mark.parametrize(("width", "height"), [(60, 15), (30, 6), (200, 50)])
def test_picture_fits_the_window_whatever_its_size(window: Screen, width: int, height: int) -> None:
    _begin(window)
    window.resize(width, height)

    def fits(text: str) -> bool:
        """Tell whether it is drawn anew: the columns are those that there is room for."""
        lines = text.splitlines()
        return KEYS in lines[0] and "WORKER" in text and ("CPU" in text) == (width == 200)

    lines = window.wait_for(fits).splitlines()
    assert sum(KEYS in line for line in lines) == 1
    assert len(lines) <= height
    window.type("q")
    window.wait_for(lambda text: KEYS not in text)


def test_daemon_that_goes_is_said_to_and_seen_again_when_it_is_back(
    running: Daemon, window: Screen, daemon: Start
) -> None:
    _begin(window)
    running.stop()
    window.wait_for("trying again: no gaiod listens on")
    again = Daemon(running.folder, ["-m", "gaiod", "serve", "--allow-root", "-c", "../gaiod.yaml"], {})
    try:
        window.wait_for(lambda text: f"process {again.pid}," in text and "trying again" not in text)
        window.type("q")
        _leave(window, 0)
    finally:
        again.stop()
        again.clean_up()


def test_daemon_that_is_not_there_is_an_error_as_of_other_commands(running: Daemon) -> None:
    running.stop()
    for arguments in ((), ("--once",), ("--json",)):
        done = running.gaiod("top", *arguments)
        assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
        assert "is it running?" in done.stderr


def test_without_a_terminal_there_is_one_picture(running: Daemon) -> None:
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        done = running.gaiod("top", "--interval", "0.2")
    assert done.returncode == 0, done
    assert "1 connection, by traffic" in done.stdout
    assert "\x1b" not in done.stdout
    assert KEYS not in done.stdout


def test_json_tells_what_status_and_connections_do(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside())
    with connect(running.address("mine")):
        wait_until(lambda: running.ask("connections", sort="stalled")["connections"][0]["waiting_s"] > 1, "a stall")
        done = running.gaiod("top", "--once", "--json", "--interval", "0.2")
    document = json.loads(done.stdout)
    assert document["status"]["listeners"][0]["listener"] == "mine"
    assert document["status"]["workers"][0]["busy"] is None or document["status"]["workers"][0]["busy"] >= 0
    (row,) = document["connections"]
    assert row["bytes_per_s"] == 0
    assert row["buffered_bytes"] > 1 << 20
    assert [stalled["id"] for stalled in document["stalled"]] == [row["id"]]


def test_no_process_of_the_daemon_imports_what_draws() -> None:
    """Every worker would pay 3 MiB for it."""
    code = "import sys, gaiod.cli, gaiod.worker.process, gaiod.feeder.process; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert done.stdout == "False\n"


def test_without_rich_it_is_said_what_to_install() -> None:
    code = "import sys; sys.modules['rich'] = None; import gaiod.cli; gaiod.cli.main()"
    command = [sys.executable, "-c", code, "top"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr == "gaiod top needs the package rich, which is not installed: pip install 'gaiod[top]'\n"
