"""What a reload does not change stays where it is: connections, their servers, their messages."""

import os
import signal
import socket
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT

from e2e.support.clients import connect, echoes, exchange, is_ended
from e2e.support.daemons import Daemon
from e2e.support.feeding import PUSHES, feeder_of, subscribers
from e2e.support.handlers import ECHOES, IMPORTS
from e2e.support.starting import Start
from e2e.support.upstreams import accept, address_of, until, upstreams
from e2e.support.waiting import wait_until

TOP = 'metrics: {listen: "127.0.0.1:0"}\ndrain_timeout: 100ms\nhandover: {enabled: false}\n'
ONE = '  one: {bind: "127.0.0.1:0", handler: echo}\n'
TWO = '  two: {bind: "127.0.0.1:0", handler: echo}\n'
CHANGED = '  two: {bind: "127.0.0.1:0", handler: echo, idle_timeout: 1h}\n'


def config(*listeners: str, top: str = TOP) -> str:
    """Return the text of a configuration whose drain ends at once."""
    return f"{top}listeners:\n{''.join(listeners)}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The configuration's file."""
    return tmp_path / "gaiod.yaml"


def _reload(running: Daemon, file: Path, text: str) -> list[str]:
    """Have it serve another text; return what has changed."""
    file.write_text(text)
    changes: list[str] = running.ask("reload")["changes"]
    return changes


def _states(running: Daemon) -> list[tuple[str, int]]:
    return [(row["state"], row["generation"]) for row in running.ask("status")["workers"]]


def _connected(running: Daemon, name: str) -> socket.socket:
    sock = connect(running.address(name))
    assert exchange(sock, b"before") == b"before"
    return sock


def test_connections_of_unchanged_listeners_outlive_drain_timeout_and_others_do_not(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE, TWO))
    with _connected(running, "one") as one, _connected(running, "two") as two:
        assert _reload(running, file, config(ONE, CHANGED)) == ["listener two: changed: idle_timeout"]
        assert is_ended(two)
        assert exchange(one, b"after") == b"after"
        assert _states(running) == [("keeping", 1), ("serving", 2)]
        running.wait_for("1 connection of 1 unchanged listener stays with worker 0 of generation 1")
        samples = running.scrape()
        assert samples.value("gaiod_workers_keeping") == 1
        for name, kept in (("one", 1), ("two", 0)):
            labels = {"listener": name, "handler": "echo", "worker": 0}
            assert samples.value("gaiod_connections_kept", **labels) == kept
            assert samples.value("gaiod_connections_active", **labels) == kept
        (row,) = running.ask("connections")["connections"]
        explained = running.gaiod("explain", row["id"]).stdout
        assert "Reloads have not changed its listener, so it stays with this worker, of generation 1." in explained
    wait_until(lambda: _states(running) == [("serving", 2)], "the old worker's end")


def test_reload_that_changes_nothing_says_so_and_starts_new_workers(daemon: Start, file: Path) -> None:
    """A handler may read a file in on_start."""
    running = daemon(config(ONE))
    (old,) = running.workers
    with _connected(running, "one") as one:
        done = running.gaiod("reload")
        assert done.stdout == "reloaded: generation 2\n  nothing has changed; connections go on\n"
        assert running.workers != [old]
        assert exchange(one, b"after") == b"after"
        assert echoes(running.address("one"))


def test_each_reload_may_leave_a_worker_and_all_end_with_their_connections(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    socks = []
    for generation in range(1, 4):
        socks.append(_connected(running, "one"))
        _reload(running, file, config(ONE))
        assert _states(running) == [
            *(("keeping", number) for number in range(1, generation + 1)),
            ("serving", generation + 1),
        ]
    assert [exchange(sock, b"after") for sock in socks] == [b"after"] * 3
    for sock in socks:
        sock.close()
    wait_until(lambda: _states(running) == [("serving", 4)], "their end")


def test_restart_of_the_workers_ends_those_that_keep_connections(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE))
    with _connected(running, "one") as one:
        _reload(running, file, config(ONE))
        assert running.gaiod("workers", "restart").returncode == 0
        assert is_ended(one)


def test_listener_that_a_later_reload_removes_drains_then(daemon: Start, file: Path) -> None:
    running = daemon(config(ONE, TWO))
    with _connected(running, "one") as one, _connected(running, "two") as two:
        _reload(running, file, config(ONE, TWO))
        assert exchange(two, b"after") == b"after"
        _reload(running, file, config(ONE))
        assert is_ended(two)
        assert exchange(one, b"after") == b"after"


def test_code_that_changed_drains_its_own_listener_only(daemon: Start, file: Path, tmp_path: Path) -> None:
    mine = '  mine: {bind: "127.0.0.1:0", handler: ./mine.py}\n'
    (tmp_path / "mine.py").write_text(IMPORTS + ECHOES)
    running = daemon(config(ONE, mine))
    with _connected(running, "one") as one, _connected(running, "mine") as own:
        assert _reload(running, file, config(ONE, mine)) == []
        assert exchange(own, b"after") == b"after"
        (tmp_path / "mine.py").write_text(IMPORTS + ECHOES + "# another\n")
        assert _reload(running, file, config(ONE, mine)) == ["listener mine: changed: code"]
        assert is_ended(own)
        assert exchange(one, b"after") == b"after"


@pytest.mark.parametrize("change", ["log: {format: json}\n", "slow_hook: 1s\n"])
def test_what_a_worker_has_for_its_whole_life_changes_all_listeners(daemon: Start, file: Path, change: str) -> None:
    running = daemon(config(ONE))
    with _connected(running, "one") as one:
        _reload(running, file, config(ONE, top=TOP + change))
        assert is_ended(one)


@pytest.mark.parametrize("how", ["stop", "upgrade"])
def test_stop_and_upgrade_drain_what_was_kept(daemon: Start, file: Path, how: str) -> None:
    running = daemon(config(ONE))
    with _connected(running, "one") as one:
        _reload(running, file, config(ONE))
        if how == "stop":
            running.send(signal.SIGTERM)
        else:
            assert running.gaiod("upgrade").returncode == 0
            os.kill(running.ask("status")["pid"], signal.SIGTERM)
        assert is_ended(one)
        assert running.wait() == 0


def test_worker_that_keeps_connections_hangs_and_is_ended(daemon: Start, file: Path, tmp_path: Path) -> None:
    running = daemon(config(ONE, top=f"{TOP}heartbeat_timeout: {max(1, round(3 * TIME_UNIT))}s\n"))
    (old,) = running.workers
    with _connected(running, "one") as one:
        _reload(running, file, config(ONE, top=f"{TOP}heartbeat_timeout: 60s\n"))
        os.kill(old, signal.SIGSTOP)
        assert is_ended(one)
    running.wait_for(f"worker 0, process {old}: its loop had completed no pass")
    wait_until(lambda: _states(running) == [("serving", 2)], "its end")


# -- the proxy -----------------------------------------------------------------------------------------------


def test_health_checks_go_on_where_connections_were_kept(daemon: Start, file: Path) -> None:
    """Each worker checks for itself: that one, too, finds that the server is down."""
    with upstreams(1) as (upstream,):
        server = address_of(upstream)
        proxy = (
            f'  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: [{server}], '
            "check: {interval: 50ms, fall: 2}, on_down: close}}\n"
        )
        running = daemon(config(proxy))
        with connect(running.address("db")) as client, _served(upstream, client):
            assert _reload(running, file, config(proxy)) == []
            assert _states(running) == [("keeping", 1), ("serving", 2)]
            upstream.close()
            assert is_ended(client)
        until(running, 1, "connections_closed_total", listener="db", reason="server_down")


def _served(upstream: socket.socket, client: socket.socket) -> socket.socket:
    """Return the server's end of a client's connection: checks connect, too, and say nothing."""
    client.sendall(b"ping")
    while True:
        far = accept(upstream)
        if far.recv(4) == b"ping":
            return far
        far.close()


# -- push ----------------------------------------------------------------------------------------------------


def test_subscribers_are_fed_without_a_gap_over_reloads_and_the_feeders_death(
    daemon: Start, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PUSHES)
    mine = '  mine: {bind: "127.0.0.1:0", handler: "./mine.py:Pushes", with: {clocks: [a]}}\n'
    running = daemon(config(mine))
    with subscribers(running, 1) as (old,):
        last = old.number
        for listeners in ((mine,), (mine, ONE), (mine, CHANGED)):
            _reload(running, file, config(*listeners))
            number = old.number
            assert number == last + 1
            last = number
        assert [old.number for _ in range(50)] == list(range(last + 1, last + 51))
        with subscribers(running, 1) as (new,):
            assert new.worker != old.worker
            first = new.number
            while old.number < first:
                pass
            assert new.number == old.number
        feeder = feeder_of(running)
        os.kill(feeder, signal.SIGKILL)
        while old.number != 1:  # another feeder's clock
            pass
        assert old.number == 2
