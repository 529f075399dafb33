"""Handlers that are broken: one that cannot start any more, and one that raises whenever it is called."""

import re
import time
from pathlib import Path

import pytest
from e2e.support.clients import connect, is_ended
from e2e.support.handlers import IMPORTS
from e2e.support.procfs import cpu_s
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import NAMED, kill, many, workers_of
from chaos.support.load import Load

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

CANNOT_START = NAMED + '\nif os.path.exists("broken"):\n    raise RuntimeError("the database is not there any more")\n'

RAISES = (
    IMPORTS
    + """
class Raises(gaiod.Handler):
    def on_open(self, conn):
        raise RuntimeError("as always")
"""
)
RAISED = re.compile(r"listener bad: on_open raised")


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_daemon_gives_up_when_its_workers_cannot_start_any_more(daemon: Start, tmp_path: Path, workers: int) -> None:
    """Five times within thirty seconds, with longer and longer pauses: then another program has to decide.

    The supervisor's CPU time is looked at, not that of the workers: there are five of them in each slot.
    """
    running = daemon(many(tmp_path, workers=workers, handler=CANNOT_START))
    with Load(running.address("mine"), 10, pause_s=0.05) as load:
        load.wait_until_served()
        time.sleep(1.1)  # a worker that has served for a second is replaced at once
        (tmp_path / "daemon-0" / "broken").touch()
        began_s, began_cpu_s = time.monotonic(), cpu_s(running.pid)
        for pid in workers_of(running):
            kill(pid)
        running.wait_for("restarting does not help")
        assert cpu_s(running.pid) - began_cpu_s < 0.05 * (time.monotonic() - began_s)
        assert running.wait() == 70
        assert time.monotonic() - began_s < 35
    errors = [line for line in running.log().splitlines() if "ERROR" in line]
    failed = [line for line in errors if "the database is not there any more" in line]
    crash_looping = [line for line in errors if "restarting does not help" in line]
    assert 1 <= len(crash_looping) <= workers
    assert 4 * workers + 1 <= len(failed) <= 5 * workers, "the first slot that gives up ends them all"
    assert len(errors) == workers + len(failed) + len(crash_looping), running.log()


@pytest.mark.parametrize(
    ("clients", "seconds"), [pytest.param(100, 2, id="short"), pytest.param(400, 20, marks=pytest.mark.slow, id="long")]
)
def test_handler_that_always_raises_costs_its_own_connections_only(
    daemon: Start, tmp_path: Path, clients: int, seconds: int
) -> None:
    """In the same workers; the log gets a message a second from each of them, not one for each connection."""
    (tmp_path / "bad.py").write_text(RAISES)
    running = daemon(many(tmp_path) + '  bad: {bind: "127.0.0.1:0", handler: ./bad.py}\n')
    tried = 0
    with Load(running.address("mine"), clients, pause_s=clients / 2000) as load:
        load.wait_until_served()
        began_s = time.monotonic()
        while time.monotonic() < began_s + seconds:
            with connect(running.address("bad")) as sock:
                assert is_ended(sock)
                tried += 1
        raised = len(RAISED.findall(running.log()))
        over_s = time.monotonic()
    assert not load.wrong and not load.connect_errors and not load.ends
    assert tried > 20 * seconds

    def closed() -> float:
        return running.scrape().total("gaiod_connections_closed_total", listener="bad", reason="handler_error")

    wait_until(lambda: closed() == tried, "the last one's end in the metrics")
    assert running.scrape().total("gaiod_handler_errors_total", hook="on_open") == tried
    assert 2 <= raised <= 2 * (over_s - began_s + 1)
