"""Killed processes: a worker costs its own connections and nothing else, a supervisor leaves nothing behind."""

import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from core.support.sockets import receive
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect, readable
from e2e.support.daemons import Daemon
from e2e.support.procfs import descriptors_of, is_alive, is_stopped, resident_bytes
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import kill, many, workers_of
from chaos.support.load import NAME_BYTES, Load

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

GROWTH_MAX_BYTES = 3 << 20
"""What the supervisor may take more after workers were replaced: the allocator's reserves, not a list that grows."""


def wait_for_replacement(running: Daemon, nth: int) -> None:
    """Wait until the nth replacement serves: a second is what it may take."""
    wait_until(lambda: running.log().count("serves again") == nth, "a replacement", limit_s=TIME_UNIT)


@pytest.mark.parametrize(
    ("clients", "kills", "pause_s"),
    [pytest.param(100, 3, 1.2, id="short"), pytest.param(1000, 30, 2.0, marks=pytest.mark.slow, id="long")],
)
def test_killed_worker_costs_nobody_else_a_byte_when_it_happens_again_and_again(
    daemon: Start, tmp_path: Path, clients: int, kills: int, pause_s: float
) -> None:
    """A worker that has served for 1 s is replaced at once, in less than a second (the time unit of a slow machine)."""
    running = daemon(many(tmp_path))
    killed: list[int] = []
    with Load(running.address("mine"), clients, pause_s=clients / 5000) as load:
        load.wait_until_served()
        for number in range(kills):
            time.sleep(pause_s * TIME_UNIT)  # a rhythm, not a wait: each has settled, and the load goes on
            before = set(workers_of(running))
            victim = random.choice(sorted(before))
            kill(victim)
            killed.append(victim)
            (survivor,) = before - {victim}
            wait_for_replacement(running, number + 1)
            load.wait_until_served()
            assert survivor in workers_of(running)
            if number == 0:
                fds, memory = len(descriptors_of(running.pid)), resident_bytes(running.pid)
        replaced = running.scrape().total("gaiod_worker_restarts_total", reason="signal")
        assert replaced == kills
        assert running.scrape().total("gaiod_connections_closed_total", reason="worker_lost") > 0
    assert not load.wrong
    assert not load.connect_errors
    assert [end for end in load.ends if end.worker not in {*killed, None}] == []
    assert len(descriptors_of(running.pid)) == fds
    assert resident_bytes(running.pid) - memory < GROWTH_MAX_BYTES


@pytest.mark.parametrize(
    "queued", [pytest.param(100, id="short"), pytest.param(400, marks=pytest.mark.slow, id="long")]
)
def test_replacement_serves_whoever_was_queued_at_a_killed_worker(daemon: Start, tmp_path: Path, queued: int) -> None:
    """The kernel spreads them over both workers' sockets: those of the other one are answered all along."""
    running = daemon(many(tmp_path))
    victim, other = workers_of(running)
    kill(victim, signal.SIGSTOP)
    wait_until(lambda: is_stopped(victim), "the worker's stop")

    def waiting() -> int:
        samples = running.scrape()
        return max(int(samples.value("gaiod_listen_queue_length", listener="mine", worker=slot)) for slot in (0, 1))

    socks: list[socket.socket] = []
    try:
        while waiting() < queued:
            for _ in range(20):
                socks.append(connect(running.address("mine")))
                socks[-1].sendall(b"%08d" % (len(socks) - 1))
        at_victim = waiting()
        wait_until(lambda: len(readable(socks)) == len(socks) - at_victim, "the other worker's answers")
        kill(victim)
        answers = [receive(sock, NAME_BYTES + 8) for sock in socks]
    finally:
        for sock in socks:
            sock.close()
    assert [answer[NAME_BYTES:] for answer in answers] == [b"%08d" % number for number in range(len(socks))]
    served = Counter(int.from_bytes(answer[:NAME_BYTES], "big") for answer in answers)
    (replacement,) = set(workers_of(running)) - {other}
    assert served == {other: len(socks) - at_victim, replacement: at_victim}


def test_nothing_is_left_of_a_daemon_whose_supervisor_is_killed(daemon: Start, tmp_path: Path) -> None:
    """The next one binds the same address at once, while clients' connections of the old one are still dying."""
    running = daemon(many(tmp_path, workers=3))
    address, workers = running.address("mine"), workers_of(running)
    with Load(address, 30, pause_s=0.001) as load:
        load.wait_until_served()
        running.send(signal.SIGKILL)
        running.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in workers), "the workers' end", limit_s=TIME_UNIT)
        again = daemon(many(tmp_path, workers=3).replace('mine: {bind: "127.0.0.1:0"', f'mine: {{bind: "{address}"'))
        assert again.address("mine") == address
        load.wait_until_served()
    assert not load.wrong
