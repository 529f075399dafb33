"""A pass that an exception ends: a program that goes on finds nothing doubled, and no post lost."""

import errno
import gc
import os
import resource
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from core.support.sockets import NewPair, listen
from core.support.waiting import collect, collect_one, contexts, soon
from gaiod import Watcher
from gaiod.core.errors import WatcherClosed


@contextmanager
def breaking(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> Iterator[None]:
    """Have a function of `os` that the loop calls raise."""

    def break_off(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, name, break_off)
        yield


def test_post_behind_a_request_that_raises_comes_all_the_same(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = min(os.sched_getaffinity(0))

    def submit() -> None:
        watcher.set_loop_affinity(cpu)
        watcher.post("hello")

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    with (
        breaking(monkeypatch, "sched_setaffinity", PermissionError(errno.EPERM, "not allowed")),
        pytest.raises(PermissionError),
    ):
        watcher.wait_io(0)
    assert contexts(watcher.wait_io(0)) == ["hello"]


def test_nothing_is_sent_twice_after_a_close_that_failed(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    other = watcher.delegate(unix_pair()[0])
    watcher.wait_io(0)
    conn.write(b"w0")
    os.close(other.fileno())  # as a program does that believes it owns it
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        watcher.wait_io(0)
    conn.cancel()
    watcher.wait_io(0)
    for data in (b"w1", b"w2", b"w3", b"w4"):
        conn.write(data)
    assert [result.size for result in collect(watcher, 4)] == [2, 2, 2, 2]
    far.setblocking(False)
    assert far.recv(100).removeprefix(b"w0") == b"w1w2w3w4"


def test_accept_that_broke_off_does_not_break_later_passes(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = listen()
    accepting = watcher.accept(listener)
    near, far = unix_pair()
    conn = watcher.delegate(near)
    watcher.wait_io(0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(accepting.local_address):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
        try:
            with breaking(monkeypatch, "strerror", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
                watcher.wait_io(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        watcher.cancel(accepting)
        watcher.wait_io(0)
        for _ in range(3):
            conn.read(bytearray(1), deadline=soon())
            far.send(b"x")
            assert collect_one(watcher).size == 1


def test_watcher_whose_pass_broke_off_is_freed(tcp_pair: NewPair, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = tcp_pair()
    watcher = Watcher()
    conn = watcher.delegate(near)
    conn.read()
    watcher.wait_io(0)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    with breaking(monkeypatch, "strerror", KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        watcher.wait_io(1)
    watcher.close()
    with pytest.raises(WatcherClosed):
        while True:
            watcher.wait_io(0)
    held = weakref.ref(watcher)
    del watcher, conn
    gc.collect()
    assert held() is None
