"""Signals arrive in the loop, and wake it."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod import Watcher
from gaiod.process.dispatch import dispatch
from gaiod.process.signals import Signals

WANTED = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM]


class Taken:
    """The signals that arrived."""

    def __init__(self, watcher: Watcher) -> None:
        self.numbers: list[signal.Signals] = []
        self.threads: set[int] = set()
        self._watcher = watcher
        self.signals = Signals(watcher, WANTED, self._take)

    def _take(self, number: signal.Signals) -> None:
        self.numbers.append(number)
        self.threads.add(threading.get_ident())

    def wait_for(self, number: signal.Signals) -> None:
        """Run the loop until this one has arrived."""
        until_s = time.monotonic() + LIMIT_S
        while number not in self.numbers:
            assert time.monotonic() < until_s, self.numbers
            dispatch(self._watcher.wait_io(LIMIT_S))


@pytest.fixture
def taken(watcher: Watcher) -> Iterator[Taken]:
    """Signals are taken from here on."""
    taken = Taken(watcher)
    yield taken
    taken.signals.close()


def test_signal_wakes_a_sleeping_loop(taken: Taken) -> None:
    began_s = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, MOMENT_S)
    taken.wait_for(signal.SIGALRM)
    assert time.monotonic() - began_s >= MOMENT_S
    assert taken.numbers == [signal.SIGALRM]
    assert taken.threads == {threading.get_ident()}


def test_signal_that_comes_late_does_not_kill_a_process_that_ends_in_order(watcher: Watcher) -> None:
    signals = Signals(watcher, [signal.SIGUSR1], lambda number: None)
    signals.close(ignore=True)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_signals_that_came_before_the_loop_are_taken_in_order(taken: Taken) -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    taken.wait_for(signal.SIGUSR1)
    assert taken.numbers == [signal.SIGUSR2, signal.SIGUSR1]


def test_signals_are_taken_when_there_are_very_many(taken: Taken) -> None:
    """More than the pair holds are as good as one: no error, no message."""
    for _ in range(2000):
        os.kill(os.getpid(), signal.SIGUSR1)
    taken.wait_for(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    taken.wait_for(signal.SIGUSR2)


def test_signal_of_somebody_else_is_not_taken(taken: Taken) -> None:
    """Python tells of every signal that has a handler, not of ours only."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        taken.wait_for(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert taken.numbers == [signal.SIGUSR1]


def test_signals_mean_what_they_did_when_they_are_no_longer_taken(watcher: Watcher) -> None:
    taken = Taken(watcher)
    taken.signals.close()
    assert [signal.getsignal(number) for number in WANTED] == [signal.SIG_DFL] * 3
    with socket.socket() as sock:
        sock.setblocking(False)
        assert signal.set_wakeup_fd(sock.fileno()) == -1
        signal.set_wakeup_fd(-1)
    watcher.wait_io(0)
    assert watcher.connections() == []


def test_close_is_possible_when_the_watcher_is_closed_already() -> None:
    with Watcher() as watcher:
        taken = Taken(watcher)
    taken.signals.close()
    assert taken.numbers == []
