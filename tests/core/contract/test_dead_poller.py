"""Point 11: a poller that dies is an exception out of `wait_io`, never a silent stall."""

import os

import pytest

from core.support.descriptors import FOLDER, eventpolls, open_descriptors
from core.support.sockets import NewPair
from core.support.waiting import LIMIT_S
from gaiod.core.watcher import Watcher

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="finds the epoll instance in /proc")


@pytest.mark.parametrize("timeout", [0, LIMIT_S, None], ids=["at_once", "bounded", "for_ever"])
def test_wait_io_raises_when_the_poller_is_dead(unix_pair: NewPair, timeout: float | None) -> None:
    before = eventpolls()
    watcher = Watcher()
    (epoll,) = eventpolls() - before
    conn = watcher.delegate(unix_pair()[0]).read()
    os.close(epoll)
    for _ in range(2):
        with pytest.raises((OSError, ValueError)):
            watcher.wait_io(timeout)
    assert not conn.closed
    watcher.close()
    assert conn.closed


def test_close_releases_everything_though_the_poller_is_dead(unix_pair: NewPair) -> None:
    pairs = [unix_pair() for _ in range(3)]
    before, open_before = eventpolls(), len(open_descriptors())
    watcher = Watcher()
    (epoll,) = eventpolls() - before
    conns = [watcher.delegate(near).read() for near, _ in pairs]
    os.close(epoll)
    watcher.close()
    assert all(conn.closed for conn in conns)
    assert all(far.recv(1) == b"" for _, far in pairs)
    assert len(watcher.wait_io(0)) == 3
    assert len(open_descriptors()) == open_before - 3
