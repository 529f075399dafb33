"""Workers that hang: stopped, or inside a hook that does not return. The others serve on, and a replacement comes."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.procfs import is_alive
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import NAMED, kill, many, workers_of
from chaos.support.load import Load

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

BLOCKS = NAMED.replace(
    "        conn.write(result.buffer)",
    """        if bytes(result.buffer) == b"block":
            self.wait_for_database()
        conn.write(result.buffer)

    def wait_for_database(self):
        time.sleep(30)""",
)

FLOOR_S = 0.05
"""Latencies up to here are the scheduler's: two cores run the clients, the workers, this test, and its neighbours."""


def stop(running: Daemon) -> int:
    """Stop one worker, and return it."""
    victim = workers_of(running)[0]
    kill(victim, signal.SIGSTOP)
    return victim


def block(running: Daemon) -> int:
    """Call the hook of one worker that does not return for half a minute, and return that worker."""
    with connect(running.address("mine")) as sock:
        victim = int.from_bytes(sock.recv(4), "big")
        sock.sendall(b"block")
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    return victim


@pytest.mark.parametrize("hang", [stop, block])
@pytest.mark.parametrize(
    ("timeout_s", "clients"),
    [pytest.param(1, 40, id="short"), pytest.param(10, 400, marks=pytest.mark.slow, id="long")],
)
def test_hung_worker_is_replaced_and_nobody_else_is_slowed_down(
    daemon: Start, tmp_path: Path, hang: Callable[[Daemon], int], timeout_s: int, clients: int
) -> None:
    """Within the heartbeat's timeout and a second: it is at most a quarter of one old, and looked at four times one."""
    timeout_s = int(timeout_s * TIME_UNIT)
    running = daemon(many(tmp_path, handler=BLOCKS, heartbeat_timeout=f"{timeout_s}s"))
    before = set(workers_of(running))
    with ExitStack() as stack:
        load = stack.enter_context(Load(running.address("mine"), clients, pause_s=clients / 2000))
        load.wait_until_served()
        calm_s = time.monotonic()
        time.sleep(timeout_s)  # to measure, not to wait
        hung_s = time.monotonic()
        victim = hang(running)
        (other,) = before - {victim}
        late = stack.enter_context(Load(running.address("mine"), 20, pause_s=0.05))  # half of them queue at the victim
        wait_until(lambda: not is_alive(victim), "the hung worker's end", limit_s=timeout_s + TIME_UNIT)
        wait_until(lambda: len(workers_of(running)) == 2, "a replacement", limit_s=TIME_UNIT)
        late.wait_until_served()
        load.wait_until_served()
        over_s = time.monotonic()
        (replacement,) = set(workers_of(running)) - {other}
        assert late.workers[replacement] > 0
        assert late.workers[replacement] + late.workers[other] == 20
        assert running.scrape().total("gaiod_worker_restarts_total", reason="watchdog") == 1
    assert not load.wrong and not late.wrong
    assert not load.connect_errors and not late.connect_errors
    assert not late.ends
    assert {end.worker for end in load.ends} == {victim}
    calm, meanwhile = (
        load.percentile_s(0.99, since_s, until_s, worker=other)
        for since_s, until_s in ((calm_s, hung_s), (hung_s, over_s))
    )
    assert meanwhile < max(2 * calm, FLOOR_S * TIME_UNIT)


def test_stack_of_a_hook_that_does_not_return_is_in_the_log(daemon: Start, tmp_path: Path) -> None:
    """What an operator needs to know at 3 a.m.: which line of whose file."""
    running = daemon(many(tmp_path, handler=BLOCKS, heartbeat_timeout="1s"))
    victim = block(running)
    running.wait_for("serves again")
    log = running.log()
    assert f"process {victim}: its loop had completed no pass for 1." in log
    assert f"process {victim}, was here when it ended:" in log
    assert f'File "{tmp_path / "mine.py"}", line' in log
    assert "in wait_for_database" in log
    assert "in on_read" in log


def test_stopped_worker_says_where_it_was_too(daemon: Start, tmp_path: Path) -> None:
    running = daemon(many(tmp_path, heartbeat_timeout="1s"))
    victim = stop(running)
    running.wait_for("serves again")
    assert f"process {victim}, was here when it ended:" in running.log()
    assert "main_loop.py" in running.log()
