"""The log of a running daemon: its formats, its file, and the lines about connections."""

import json
import signal
from pathlib import Path

import pytest

from e2e.support.clients import connect, echoes, exchange
from e2e.support.daemons import ECHO
from e2e.support.procfs import files_of, session_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until


def test_every_line_is_an_object_in_json(daemon: Start) -> None:
    running = daemon(f"log: {{format: json, connections: {{open: true, close: true}}}}\n{ECHO}")
    with connect(running.ask("status")["listeners"][0]["bind"]) as sock:
        assert exchange(sock, b"ping") == b"ping"
    wait_until(lambda: "connection closed" in running.log(), "the connection's last line")
    running.stop()
    lines = [json.loads(line) for line in running.log().splitlines()]
    (closed,) = (line for line in lines if "connection closed" in line.values())
    assert (closed["listener"], closed["received"], closed["sent"], closed["reason"]) == ("echo", 4, 4, "peer_eof")


def test_lines_have_a_priority_for_the_journal(daemon: Start) -> None:
    running = daemon(f"log: {{format: journald}}\n{ECHO}")
    running.stop()
    assert all(line.startswith("<") and line[2] == ">" for line in running.log().splitlines())


@pytest.mark.parametrize("way", ["moved", "removed"])
def test_file_that_is_moved_away_is_opened_anew(daemon: Start, tmp_path: Path, way: str) -> None:
    """As logrotate does, without a word to the daemon."""
    path = tmp_path / "gaiod.log"
    running = daemon(f"log: {{file: {path}, connections: {{open: true}}}}\n{ECHO}", ready=False)
    wait_until(lambda: path.exists() and "ready:" in path.read_text(), "readiness")
    if way == "moved":
        path.rename(tmp_path / "gaiod.log.1")
    else:
        path.unlink()
    bind = running.ask("status")["listeners"][0]["bind"]

    def look() -> bool:
        connect(bind).close()
        return path.exists() and "connection opened" in path.read_text()

    wait_until(look, "a line in the new file")


def test_rotated_file_is_let_go_of_by_processes_that_have_nothing_to_say(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "gaiod.log"
    push = 'feed: {bind: "127.0.0.1:0", handler: push, with: {source: {every: 1h}}}'
    running = daemon(f"log: {{file: {path}}}\n{ECHO}  {push}\n", ready=False)
    wait_until(lambda: path.exists() and "ready:" in path.read_text(), "readiness")
    rotated = path.rename(tmp_path / "gaiod.log.1")
    processes = session_of(running.pid)
    assert len(processes) == 3, "a supervisor, a worker, a feeder"
    wait_until(lambda: not any(str(rotated) in files_of(pid) for pid in processes), "the old file to be closed")
    assert all(str(path) in files_of(pid) for pid in processes)


def test_signal_of_logrotate_recipes_opens_the_log_anew(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "gaiod.log"
    running = daemon(f"log: {{file: {path}}}\n{ECHO}", ready=False)
    wait_until(lambda: path.exists() and "ready:" in path.read_text(), "readiness")
    path.rename(tmp_path / "gaiod.log.1")
    running.send_to_all(signal.SIGUSR1)
    wait_until(lambda: path.exists() and f"SIGUSR1: the log goes to {path}" in path.read_text(), "the line about it")
    assert echoes(running.ask("status")["listeners"][0]["bind"])
