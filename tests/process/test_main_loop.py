"""The loop of a process that the supervisor has started."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from core.support.waiting import LIMIT_S

from gaiod import Watcher, WatcherClosed
from gaiod.process.channel import Channel
from gaiod.process.main_loop import MainLoop


@pytest.fixture
def loop_of(watcher: Watcher) -> Iterator[tuple[MainLoop, Channel, socket.socket]]:
    """A loop, its channel, and the supervisor's end of that."""
    near, far = socket.socketpair()
    with far:
        far.settimeout(LIMIT_S)
        channel = Channel(watcher.delegate(near), _ignore, b"")
        yield MainLoop(watcher, channel), channel, far


def _ignore(message: dict[str, Any] | None) -> None:
    pass


def test_heartbeat_is_written_again_and_again_and_so_is_what_goes_with_it(
    loop_of: tuple[MainLoop, Channel, socket.socket],
) -> None:
    loop, _, _ = loop_of
    cells = [0, 0]
    beats: list[int] = []

    def also() -> None:
        beats.append(cells[1])
        if len(beats) == 3:
            loop.end()

    before_ns = time.monotonic_ns()
    loop.beat_every(0.001, cells, 1, [also])
    loop.run(lambda: None)
    assert cells[0] == 0
    assert before_ns <= beats[0] < beats[1] < beats[2] == cells[1]


def test_last_words_are_sent_before_the_end_and_the_watcher_is_closed_after_it(
    watcher: Watcher, loop_of: tuple[MainLoop, Channel, socket.socket]
) -> None:
    loop, channel, far = loop_of
    ends: list[bytes] = []
    channel.send({"last": "words" * 100_000})  # more than the kernel takes at once
    loop.end()

    def at_end() -> None:
        ends.append(far.recv(8))
        assert not watcher.closed

    loop.run(at_end)
    assert ends == [b'{"last":']
    assert loop.ended
    with pytest.raises(WatcherClosed):
        watcher.wait_io()


def test_supervisor_that_does_not_read_delays_the_end_only_so_long(
    watcher: Watcher, loop_of: tuple[MainLoop, Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gaiod.process.main_loop.GOODBYE_S", 0.01)
    loop, channel, far = loop_of
    channel.send({"last": "words" * 1_000_000})
    loop.end()
    loop.run(lambda: None)
    received = 0
    while part := far.recv(1 << 20):
        received += len(part)
    assert 0 < received < 5_000_000, "what the kernel had taken"
