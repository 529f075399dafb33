"""The watcher's face: how it is made, asked and closed."""

import pytest

from core.support.sockets import NewPair, listen
from core.support.waiting import collect_one
from gaiod.core.errors import WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.watcher import BUFFER_SIZE_MAX, Watcher


@pytest.mark.parametrize("size", [0, -1, BUFFER_SIZE_MAX + 1])
def test_buffer_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="buffer_size"):
        Watcher(size)


def test_read_returns_at_most_the_buffer_size(unix_pair: NewPair) -> None:
    with Watcher(buffer_size=10) as watcher:
        near, far = unix_pair()
        conn = watcher.delegate(near)
        far.sendall(b"0123456789abcde")
        conn.read()
        assert bytes(collect_one(watcher).buffer) == b"0123456789"
        conn.read()
        assert bytes(collect_one(watcher).buffer) == b"abcde"


def test_context_manager_closes_everything(unix_pair: NewPair) -> None:
    near, far = unix_pair()
    with Watcher() as watcher:
        conn = watcher.delegate(near)
        conn.read(context="pending")
    assert watcher.closed
    assert conn.closed
    assert far.recv(1) == b""
    (last,) = watcher.wait_io()
    assert isinstance(last.error, WatcherClosed)
    with pytest.raises(WatcherClosed):
        watcher.wait_io()


def test_connections_are_told_by_context_and_by_how_long_they_are_idle(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    one = watcher.delegate(near, context="one")
    other = watcher.delegate(unix_pair()[0], context="other")
    watcher.accept(listen())
    assert set(watcher.connections()) == {one, other}
    assert watcher.connections(context="one") == [one]
    far.sendall(b"x")
    one.read(bytearray(1))
    collect_one(watcher)
    assert watcher.connections(idle_since_s=other.opened_s) == [other]
    other.abort()
    assert watcher.connections() == [one]


def test_close_of_a_connection_is_reported_when_asked_for(unix_pair: NewPair) -> None:
    with Watcher(report_closes=True) as watcher:
        conn = watcher.delegate(unix_pair()[0], context="mine")
        conn.abort()
        report = collect_one(watcher)
        assert (report.operation, report.conn, report.context) == (OpType.CLOSE, conn, "mine")


def test_watcher_is_four_classes() -> None:
    """A class that another derives from only to be in a file of its own is harder to read than a long file."""
    assert [kind.__name__ for kind in Watcher.__mro__] == ["Watcher", "Loop", "Operations", "Submitter", "object"]
