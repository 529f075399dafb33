"""Slow hooks in a worker: who is seen, where, and how often."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from core.support.waiting import MOMENT_S
from e2e.support.clients import connect, exchange
from e2e.support.waiting import wait_until

from gaiod.worker.slow_hooks.report import SlowHooks
from gaiod.worker.slow_hooks.sampler import Sampler
from worker.support.workers import NOW, WorkerUnderTest, started_worker

SLOW_S = 0.05 + MOMENT_S
"""The limit of hooks here; quick ones are far below it."""

SOURCE = f"""
import time

import gaiod


class Mine(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        data = bytes(result.buffer)
        getattr(self, data.decode())(conn)
        conn.write(data)

    def on_write(self, conn, result):
        conn.read()

    def on_timer(self, conn):
        time.sleep({4 * SLOW_S})
        conn.write(b"done")

    def sleeps(self, conn):
        time.sleep({4 * SLOW_S})

    def keeps_the_gil(self, conn):
        numbers, took_s = 1 << 20, 0.0
        while took_s < {2 * SLOW_S}:
            numbers *= 2
            began_s = time.monotonic()
            sum(range(numbers))
            took_s = time.monotonic() - began_s

    def later(self, conn):
        self.timer(0.001, conn)

    def quick(self, conn):
        time.sleep({SLOW_S / 20})
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerUnderTest]:
    """A worker with a handler whose hook does what it is sent the name of."""
    (tmp_path / "mine.py").write_text(SOURCE)
    with started_worker(tmp_path) as worker:
        worker.slow_hook_s = SLOW_S
        yield worker


def _line_of(text: str) -> int:
    return SOURCE[: SOURCE.index(text)].count("\n") + 1


def _serve(worker: WorkerUnderTest, tmp_path: Path) -> None:
    worker.serve(str(tmp_path / "mine.py"))


def _threads(worker: WorkerUnderTest) -> int:
    return len(os.listdir(f"/proc/{worker.pid}/task"))


def test_slow_hook_is_logged_with_its_stack_and_counted_once(worker: WorkerUnderTest, tmp_path: Path) -> None:
    _serve(worker, tmp_path)
    with connect(worker.address()) as sock:
        exchange(sock, b"sleeps")
        exchange(sock, b"quick")
        log = worker.log()
        assert worker.count("slow_hook_on_read") == 1
        assert "listener listener-0, handler mine: on_read blocks its worker for" in log
        assert "connection 7-" in log and "127.0.0.1:" in log
        assert f'mine.py", line {_line_of("def sleeps") + 1}, in sleeps' in log
        assert "in dispatch" not in log and "worker.py" not in log
        assert "on_read is over after" in log


def test_hook_that_holds_the_gil_is_counted(worker: WorkerUnderTest, tmp_path: Path) -> None:
    _serve(worker, tmp_path)
    with connect(worker.address()) as sock:
        exchange(sock, b"keeps_the_gil")
        exchange(sock, b"quick")
    assert worker.count("slow_hook_on_read") == 1
    assert "on_read block" in worker.log()


def test_slow_timer_is_counted_as_its_hook(worker: WorkerUnderTest, tmp_path: Path) -> None:
    _serve(worker, tmp_path)
    with connect(worker.address()) as sock:
        exchange(sock, b"later")
        assert sock.recv(4) == b"done"
        exchange(sock, b"quick")
    assert (worker.count("slow_hook_on_timer"), worker.count("slow_hook_on_read")) == (1, 0)
    assert "on_timer blocks its worker" in worker.log()


def test_pass_of_many_quick_hooks_is_no_slow_hook(worker: WorkerUnderTest, tmp_path: Path) -> None:
    """Together they take twice the limit: sent while the worker stands still, they come in one pass."""
    _serve(worker, tmp_path)
    socks = [connect(worker.address()) for _ in range(40)]
    try:
        for sock in socks:
            exchange(sock, b"quick")
        worker.kill(signal.SIGSTOP)
        for sock in socks:
            sock.sendall(b"quick")
        worker.kill(signal.SIGCONT)
        for sock in socks:
            assert sock.recv(5) == b"quick"
    finally:
        for sock in socks:
            sock.close()
    assert worker.count("slow_hook_on_read") == 0
    assert "on_read" not in worker.log()


def test_hook_that_is_always_slow_is_logged_once_and_counted_each_time(worker: WorkerUnderTest, tmp_path: Path) -> None:
    _serve(worker, tmp_path)
    with connect(worker.address()) as sock:
        for _ in range(3):
            exchange(sock, b"sleeps")
        exchange(sock, b"quick")
    assert worker.count("slow_hook_on_read") == 3
    assert worker.log().count("Stack (most") == 1


def test_no_thread_looks_and_nothing_is_counted_when_it_is_off(worker: WorkerUnderTest, tmp_path: Path) -> None:
    worker.slow_hook_s = None
    _serve(worker, tmp_path)
    with connect(worker.address()) as sock:
        exchange(sock, b"sleeps")
        exchange(sock, b"quick")
    assert worker.count("slow_hook_on_read") == 0
    assert worker.log() == ""
    assert _threads(worker) == 1


def test_worker_ends_in_order_while_the_sampler_looks(worker: WorkerUnderTest, tmp_path: Path) -> None:
    _serve(worker, tmp_path)
    wait_until(lambda: _threads(worker) == 2, "the sampler")
    worker.send(NOW)
    assert worker.wait() == 0


def test_worker_serves_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit on processes counts threads, too."""

    def fail(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", fail)
    sampler = Sampler(SlowHooks(0.1))
    sampler.start()
    sampler.stop()
    assert caplog.messages == [
        "slow hooks are logged without their stacks: can't start new thread; see the limit on processes"
    ]
