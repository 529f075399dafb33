"""What feeds outlive: every entry of a stream and of a file comes once, whoever is killed, reloaded or replaced."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.entries import Entries, collectors
from e2e.support.feeding import feeder_of
from e2e.support.procfs import is_alive, session_of
from e2e.support.redis import RedisServer
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

SUBSCRIBERS = 8
"""So many that two workers have some each, but for one time in 128."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


def _config(server: RedisServer, path: Path, *, more: str = "") -> str:
    return (
        'metrics: {listen: "127.0.0.1:0"}\nworkers: 2\ndrain_timeout: 10s\nheartbeat_timeout: 60s\n'
        'listeners:\n  mine: {bind: "127.0.0.1:0", handler: push, with: {source: '
        f'[{{redis: "{server.url}", streams: [orders]}}, {{lines: "{path}"}}]{more}}}}}\n'
    )


def _kill_feeder(running: Daemon) -> None:
    feeder = feeder_of(running)
    os.kill(feeder, signal.SIGKILL)
    wait_until(lambda: feeder_of(running) != feeder, "another feeder")


def _expect_nothing_missing(running: Daemon) -> None:
    samples = running.scrape()
    assert samples.value("gaiod_push_feed_gaps_total", listener="mine") == 0
    for source in "redis", "lines":
        assert samples.value("gaiod_push_source_gaps_total", listener="mine", source=source) == 0


@pytest.mark.parametrize(
    ("kills", "pause_s"), [pytest.param(3, 0.5, id="short"), pytest.param(30, 2.0, marks=pytest.mark.slow, id="long")]
)
def test_killed_feeder_loses_no_entry_and_doubles_none(
    daemon: Start, tmp_path: Path, server: RedisServer, kills: int, pause_s: float
) -> None:
    path = tmp_path / "log"
    path.touch()
    running = daemon(_config(server, path))
    feeder_of(running)
    with Entries(server, "orders", path) as entries, collectors(running.address("mine"), SUBSCRIBERS) as all_of_them:
        for _ in range(kills):
            time.sleep(pause_s * TIME_UNIT)  # a rhythm, not a wait
            _kill_feeder(running)
        entries.stop()
        for each in all_of_them:
            each.wait_for(entries.count)
            each.check()
    _expect_nothing_missing(running)
    assert running.scrape().value("gaiod_feeder_restarts_total") == kills


def test_reload_of_a_listeners_options_loses_no_entry_and_doubles_none(
    daemon: Start, tmp_path: Path, server: RedisServer
) -> None:
    """The sources go on, and the workers before still get what these publish."""
    path = tmp_path / "log"
    path.touch()
    running = daemon(_config(server, path))
    feeder_of(running)
    with Entries(server, "orders", path) as entries, collectors(running.address("mine"), SUBSCRIBERS) as old:
        for limit in 512, 256:
            slow = f", slow_consumer: {{limit: {limit}KiB}}"
            (tmp_path / "gaiod.yaml").write_text(_config(server, path, more=slow))
            running.ask("reload")
            with collectors(running.address("mine"), SUBSCRIBERS) as new:
                for each in (*old, *new):
                    each.wait_for(entries.count)
                    each.check()
    _expect_nothing_missing(running)


def test_upgrade_loses_no_entry_and_doubles_none_at_the_clients_of_either_daemon(
    daemon: Start, tmp_path: Path, server: RedisServer
) -> None:
    path = tmp_path / "log"
    path.touch()
    running = daemon(_config(server, path))
    feeder = feeder_of(running)
    with Entries(server, "orders", path) as entries, collectors(running.address("mine"), SUBSCRIBERS) as old:
        assert running.gaiod("upgrade").returncode == 0
        with collectors(running.address("mine"), SUBSCRIBERS) as new:
            assert feeder_of(running) != feeder
            for _ in range(2):
                for each in (*old, *new):
                    each.wait_for(entries.count)
                    each.check()
                _kill_feeder(running)
            entries.stop()
            for each in (*old, *new):
                each.wait_for(entries.count)
                each.check()
    assert running.wait() == 0, running.log()
    assert not is_alive(feeder)
    _expect_nothing_missing(running)
    os.kill(running.ask("status")["pid"], signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    assert "Traceback" not in running.log()


def test_last_value_is_there_for_the_clients_of_every_new_worker(daemon: Start, tmp_path: Path) -> None:
    last = ", subscribe: {}, last_value: true}"
    text = (
        'metrics: {listen: "127.0.0.1:0"}\nworkers: 1\ndrain_timeout: 10s\nheartbeat_timeout: 60s\n'
        f'listeners:\n  mine: {{bind: "127.0.0.1:0", handler: push, with: {{source: []{last}}}\n'
    )
    running = daemon(text)
    feeder_of(running)
    assert running.gaiod("publish", "news", "of the day").returncode == 0
    assert running.gaiod("publish", "weather", "fine").returncode == 0

    def expect(news: str) -> None:
        with connect(running.address("mine")) as client:
            client.sendall(b"SUBSCRIBE news weather\n")
            assert client.makefile("r").readline() == f"{news}\n"

    expect("of the day")
    running.ask("reload")
    expect("of the day")
    (tmp_path / "gaiod.yaml").write_text(text.replace("workers: 1", "workers: 2"))
    running.ask("reload")
    for _ in range(6):
        expect("of the day")
    _kill_feeder(running)
    for worker in running.workers:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: running.log().count("serves again") == 2, "other workers")
    for _ in range(6):
        expect("of the day")
    assert running.gaiod("publish", "news", "of another day").returncode == 0
    for _ in range(6):
        expect("of another day")
