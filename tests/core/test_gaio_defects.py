"""What gaio gets wrong, each a test: the defects that were known of the design this one follows."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from core.support.descriptors import open_descriptors
from core.support.sockets import NewPair, fill, reset
from core.support.waiting import LIMIT_S, assert_quiet, collect, collect_one, collect_rest, collect_until
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, TooManyOperations, WatcherClosed
from gaiod.core.watcher import Watcher

OPERATIONS_MAX = 65_536
"""The documented bound, as a number: the compiled engine has it as a C constant."""

LIST_DESCRIPTORS = """
import os
for name in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink("/proc/self/fd/" + name))
    except OSError:
        pass
"""


def fill_queue(submit: Callable[[], object]) -> None:
    """Submit as often as is allowed."""
    for _ in range(OPERATIONS_MAX):
        submit()


def test_reads_of_one_connection_are_bounded(watcher: Watcher, unix_pair: NewPair) -> None:
    conn = watcher.delegate(unix_pair()[0])
    fill_queue(conn.read)
    with pytest.raises(TooManyOperations, match=f"{OPERATIONS_MAX} reads are pending"):
        conn.read()
    conn.cancel()
    assert len(watcher.wait_io(0)) == OPERATIONS_MAX
    conn.read()


def test_writes_of_one_connection_are_bounded(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    fill_queue(lambda: conn.write(b"a"))
    with pytest.raises(TooManyOperations, match=f"{OPERATIONS_MAX} writes are pending"):
        conn.write(b"a")
    conn.cancel()
    assert len(watcher.wait_io(0)) == OPERATIONS_MAX
    conn.write(b"a")


def test_posts_that_nobody_collects_are_bounded(watcher: Watcher) -> None:
    fill_queue(lambda: watcher.post("message"))
    with pytest.raises(TooManyOperations, match=f"{OPERATIONS_MAX} submissions wait"):
        watcher.post("one too many")
    assert len(watcher.wait_io(0)) == OPERATIONS_MAX
    watcher.post("room again")
    assert collect_one(watcher).context == "room again"


def test_bound_of_one_connection_leaves_another_alone(watcher: Watcher, unix_pair: NewPair) -> None:
    full, other = watcher.delegate(unix_pair()[0]), watcher.delegate(unix_pair()[0])
    fill_queue(full.read)
    with pytest.raises(TooManyOperations):
        full.read()
    other.write(b"a", context="other")
    assert collect_one(watcher).context == "other"


def test_free_of_an_unknown_socket_opens_and_leaks_nothing(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    before = open_descriptors()
    for _ in range(100):
        watcher.free(near)
    assert open_descriptors() == before
    assert watcher.connections() == []


@pytest.mark.parametrize("has_run", [False, True], ids=["at_once", "after_a_pass"])
def test_double_free_yields_no_stray_completion(watcher: Watcher, stream_pair: NewPair, has_run: bool) -> None:
    conn = watcher.delegate(stream_pair()[0]).read()
    if has_run:
        assert_quiet(watcher, 0)
    watcher.free(conn)
    watcher.free(conn)
    assert isinstance(collect_one(watcher).error, ConnClosed)
    watcher.free(conn)
    assert_quiet(watcher)


def test_get_gc_does_not_count_freed_connections(watcher: Watcher, stream_pair: NewPair) -> None:
    conns = [watcher.delegate(stream_pair()[0]) for _ in range(20)]
    for conn in conns:
        watcher.free(conn)
    del conn
    conns.clear()
    gc.collect()
    assert watcher.get_gc() == (0, 0)


def stuck_both_ways(watcher: Watcher, near: object, far: object) -> Conn:
    fill(near, far)  # type: ignore[arg-type]
    conn = watcher.delegate(near)  # type: ignore[arg-type]
    conn.read(context="read")
    conn.write(b"a", context="write")
    assert_quiet(watcher, 0)
    return conn


def test_reset_wakes_a_write_that_is_stuck_and_a_read(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    stuck_both_ways(watcher, near, far)
    reset(far)
    done = collect(watcher, 2)
    assert sorted(str(result.context) for result in done) == ["read", "write"]
    assert all(isinstance(result.error, (OSError, EOFError)) for result in done)


def test_hang_up_wakes_a_write_that_is_stuck_and_a_read(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    stuck_both_ways(watcher, near, far)
    far.close()
    done = collect(watcher, 2)
    assert sorted(str(result.context) for result in done) == ["read", "write"]


def test_reset_wakes_a_read_submitted_after_the_event_was_seen(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    assert_quiet(watcher, 0)
    reset(far)
    assert_quiet(watcher)
    conn.read()
    assert isinstance(collect_one(watcher).error, ConnectionResetError)


def test_child_process_inherits_no_descriptor_of_the_watcher(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    near.set_inheritable(True)
    own = set(open_descriptors().values())
    conn = watcher.delegate(near)
    made = {os.readlink(f"/proc/self/fd/{conn.fileno()}")} | (set(open_descriptors().values()) - own)
    child = subprocess.run(
        [sys.executable, "-c", LIST_DESCRIPTORS], close_fds=False, capture_output=True, text=True, check=True
    )
    inherited = set(child.stdout.split())
    assert not made & inherited
    assert "anon_inode:[eventpoll]" not in inherited


@pytest.mark.parametrize("batch", [1, 1_000])
def test_close_loses_no_completion(watcher: Watcher, unix_pair: NewPair, batch: int) -> None:
    conns = [watcher.delegate(unix_pair()[0]) for _ in range(10)]
    expected = 0
    for conn in conns:
        for _ in range(batch):
            conn.read()
            conn.write(b"a")
            expected += 2
    for _ in range(batch):
        watcher.post("message")
        watcher.timer(0.0)
        expected += 2
    done = collect_until(watcher, lambda done: len(done) > 0)  # some are done by now, whichever
    done += collect_rest(watcher)
    assert len(done) == expected
    assert len({id(result) for result in done}) == expected
    assert {type(result.error) for result in done} <= {type(None), WatcherClosed}
    with pytest.raises(WatcherClosed):
        watcher.wait_io(LIMIT_S)
