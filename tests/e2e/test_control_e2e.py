"""Looking at a running daemon, and commanding it, as an operator does."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import reset

from e2e.support.clients import connect, exchange, is_ended
from e2e.support.daemons import ECHO
from e2e.support.handlers import FLOODS, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the sockets that it is given."""
    with ExitStack() as stack:
        yield stack


def test_status_tells_what_runs(daemon: Start, clients: ExitStack) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    for _ in range(3):
        sock = clients.enter_context(connect(running.address()))
        assert exchange(sock, b"ping") == b"ping"
    done = running.gaiod("status", "--json")
    assert done.returncode == 0, done
    status = json.loads(done.stdout)
    assert (status["state"], status["pid"], status["generation"]) == ("serving", running.pid, 1)
    assert [row["worker"] for row in status["workers"]] == [0, 1]
    assert sum(row["connections"] for row in status["workers"]) == 3
    assert all(row["memory_bytes"] > 5e6 and row["heartbeat_age_s"] < 5 for row in status["workers"])
    (listener,) = status["listeners"]
    assert (listener["listener"], listener["bind"], listener["handler"]) == ("echo", running.address(), "echo")
    assert (listener["connections"], listener["accepted"], listener["received_bytes"]) == (3, 3, 12)
    text = running.gaiod("status").stdout
    assert f"serving, up {text.partition('up ')[2].partition(',')[0]}, process {running.pid}" in text


def test_rates_are_told_after_a_while(daemon: Start) -> None:
    running = daemon()

    def look() -> float:
        with connect(running.address()) as sock:
            assert exchange(sock, bytes(100)) == bytes(100)
        return running.ask("status")["listeners"][0]["rates"]["received_bytes"] or 0.0

    assert wait_until(look, "a rate") > 0


def test_connections_are_told_from_all_workers_in_the_order_that_is_asked_for(
    daemon: Start, clients: ExitStack
) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    peers = []
    for number in range(8):
        sock = clients.enter_context(connect(running.address()))
        size = 10 * (number * 5 % 8 + 1)
        assert exchange(sock, bytes(size)) == bytes(size)
        peers.append("{}:{}".format(*sock.getsockname()))
    rows = json.loads(running.gaiod("connections", "--json").stdout)
    assert rows["total"] == 8
    assert sorted(row["peer"] for row in rows["connections"]) == sorted(peers)
    ages = [row["age_s"] for row in rows["connections"]]
    assert ages == sorted(ages, reverse=True)
    assert {row["worker"] for row in rows["connections"]} <= {0, 1}
    by_bytes = json.loads(running.gaiod("connections", "--json", "--sort", "bytes", "--limit", "3").stdout)
    assert [row["received_bytes"] for row in by_bytes["connections"]] == [80, 70, 60]
    assert by_bytes["total"] == 8
    text = running.gaiod("connections", "--listener", "echo").stdout
    assert all(peer in text for peer in peers)


def test_connections_that_take_nothing_come_first_when_stalled_ones_are_asked_for(
    daemon: Start, clients: ExitStack, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside())
    sock = clients.enter_context(connect(running.address("mine")))
    assert sock.recv(1) == b"\0"
    wait_until(lambda: running.ask("connections", sort="stalled")["connections"][0]["stalled_s"] > 0.05, "a stall")
    (row,) = running.ask("connections", sort="stalled")["connections"]
    assert row["pending_bytes"] > 0
    reset(sock)


def test_kill_ends_one_connection(daemon: Start, clients: ExitStack) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    socks = [clients.enter_context(connect(running.address())) for _ in range(4)]
    for sock in socks:
        assert exchange(sock, b"x") == b"x"
    victim, *others = socks
    peer = "{}:{}".format(*victim.getsockname())
    rows = running.ask("connections")["connections"]
    name = next(row["id"] for row in rows if row["peer"] == peer)
    assert running.gaiod("kill", name).returncode == 0
    assert is_ended(victim)
    for sock in others:
        assert exchange(sock, b"still") == b"still"
    samples = running.scrape()
    assert samples.value("gaiod_connections_closed_total", listener="echo", reason="admin") == 1
    again = running.gaiod("kill", name)
    assert again.returncode == os.EX_UNAVAILABLE
    assert f"there is no connection {name}" in again.stderr


def test_control_socket_is_the_users_alone_and_goes_with_the_daemon(daemon: Start) -> None:
    running = daemon()
    assert stat.S_IMODE(os.stat(running.control).st_mode) == 0o600
    running.stop()
    assert not os.path.exists(running.control)
    done = running.gaiod("status")
    assert done.returncode == os.EX_UNAVAILABLE
    assert "is it running?" in done.stderr


def test_daemon_without_a_control_socket_serves(daemon: Start) -> None:
    running = daemon(f"control: {{listen: false}}\n{ECHO}")
    assert not os.path.exists(running.control)
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
