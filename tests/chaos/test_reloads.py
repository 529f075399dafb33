"""Reloads under load: nobody loses a byte or is refused, and a file that is broken changes nothing."""

import signal
import time
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.daemons import Daemon
from e2e.support.procfs import descriptors_of, resident_bytes
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import many, workers_of
from chaos.support.load import Load

pytestmark = pytest.mark.chaos

GROWTH_MAX_BYTES = 5 << 20
WORKERS = (2, 3, 1, 2)
"""The number of workers changes with the reloads: clients may wait at sockets that another worker serves then."""


def outcomes(running: Daemon) -> tuple[int, int]:
    """Return how many reloads have succeeded, and failed."""
    log = running.log()
    return log.count("reloaded: generation"), log.count("the reload failed")


def reload(running: Daemon) -> bool:
    """Reload; return whether it succeeded."""
    before = outcomes(running)
    running.send(signal.SIGHUP)
    try:
        wait_until(lambda: outcomes(running) != before, "the reload's outcome")
    except AssertionError as failure:
        raise AssertionError(f"{failure}\n{running.log()}") from None
    return outcomes(running)[0] > before[0]


@pytest.mark.parametrize(
    ("clients", "reloads", "seconds"),
    [pytest.param(60, 7, 4, id="short"), pytest.param(1000, 50, 60, marks=pytest.mark.slow, id="long")],
)
def test_reloads_cost_nobody_a_byte_and_refuse_nobody(
    daemon: Start, tmp_path: Path, clients: int, reloads: int, seconds: int
) -> None:
    """The clients stay with the workers they have, which drain for long; others connect anew all the time."""
    config = many(tmp_path, drain_timeout="10m")
    running = daemon(config)
    worked = 0
    with (
        Load(running.address("mine"), clients, pause_s=clients / 4000, message_bytes=512) as load,
        Load(running.address("mine"), 5, pause_s=0.01, messages_per_connection=2) as passers,
    ):
        load.wait_until_served()
        for number in range(reloads):
            next_s = time.monotonic() + TIME_UNIT * seconds / reloads
            is_broken = number % 3 == 2
            workers = "many" if is_broken else WORKERS[number % len(WORKERS)]
            (tmp_path / "gaiod.yaml").write_text(config.replace("workers: 2", f"workers: {workers}"))
            serving = set(workers_of(running))
            assert reload(running) is not is_broken
            worked += not is_broken
            if is_broken:
                assert running.scrape().value("gaiod_config_last_reload_successful") == 0
                assert serving >= set(workers_of(running)), "a broken file has started a worker"
            else:
                assert running.scrape().value("gaiod_config_last_reload_successful") == 1
            if number == 0:
                memory = resident_bytes(running.pid)
            time.sleep(max(0.0, next_s - time.monotonic()))  # a rhythm, not a wait
        grown = resident_bytes(running.pid) - memory
        samples = running.scrape()
    for each in (load, passers):
        assert not each.ends and not each.wrong and not each.connect_errors
    assert load.answered > 10 * clients
    assert passers.closed > 20 * seconds
    assert samples.value("gaiod_config_reloads_total", result="success") == worked
    assert samples.value("gaiod_config_reloads_total", result="failure") == reloads - worked
    assert grown < GROWTH_MAX_BYTES
    wait_until(lambda: len(workers_of(running)) == _configured(tmp_path), "the end of workers without clients")


def test_signals_that_come_faster_than_reloads_are_not_lost_and_leave_nothing_behind(
    daemon: Start, tmp_path: Path
) -> None:
    """Those that come during a reload are one more after it: what the last signal was about is loaded."""
    running = daemon(many(tmp_path))
    with Load(running.address("mine"), 50, pause_s=0.02) as load:
        load.wait_until_served()
        _signal_often(running)
        (tmp_path / "gaiod.yaml").write_text(many(tmp_path, workers=3))
        running.send(signal.SIGHUP)
        wait_until(lambda: len(running.scrape().labels("gaiod_worker_up")) == 3, "the last configuration")
    assert not load.ends and not load.wrong and not load.connect_errors
    descriptors = _settled(running, workers=3)
    before = outcomes(running)
    _signal_often(running)
    wait_until(lambda: outcomes(running) > before, "a reload")
    assert _settled(running, workers=3) == descriptors


def _signal_often(running: Daemon) -> None:
    for _ in range(20):
        running.send(signal.SIGHUP)
        time.sleep(0.01)


def _settled(running: Daemon, *, workers: int) -> int:
    """Wait until nothing has changed for half a second, no worker drains, and return the supervisor's descriptors."""
    quiet = 0
    seen: tuple[object, ...] = ()

    def look() -> bool:
        nonlocal quiet, seen
        time.sleep(0.05)
        before, seen = seen, (running.log(), workers_of(running), len(descriptors_of(running.pid)))
        quiet = quiet + 1 if seen == before and len(workers_of(running)) == workers else 0
        return quiet == 10

    wait_until(look, "a quiet daemon", limit_s=2 * LIMIT_S)
    return len(descriptors_of(running.pid))


def _configured(folder: Path) -> int:
    return int((folder / "gaiod.yaml").read_text().partition("workers: ")[2].split()[0])
