"""The log of a running daemon: its formats, its file, and the lines about connections."""

import json
from pathlib import Path

import pytest

from e2e.support.clients import connect, exchange
from e2e.support.daemons import ECHO
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
