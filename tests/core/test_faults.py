"""Faults that the kernel has on a bad day, injected: the one concerned is told, the others notice nothing.

The interpreted engine makes its calls where a test can get in between.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from typing import Any

import pytest

from core.support.descriptors import open_descriptors
from core.support.sockets import Clients, NewPair, listen, pattern, receive
from core.support.waiting import (
    assert_quiet,
    collect,
    collect_one,
    collect_until,
    contexts,
    interpreted_only,
)
from gaiod.core import syscalls
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

pytestmark = interpreted_only

Faults = Iterator[int]

REST_S = 0.1
"""How long a listener rests that lacked something."""


class FaultyBatch(syscalls.Batch):
    """A batch of which some calls fail before they are made: 0 stands for one that does not."""

    faults: Faults = repeat(0)

    def _make(self, one_by_one: Callable[[], object]) -> int:
        calls, self._calls = self._calls, []
        for call in calls:
            if fault := next(self.faults):
                self._results.append(-fault)
                self._wanted.append(1)
                self._data.append(None)
                continue
            self._calls = [call]
            one_by_one()
        self._calls = calls
        return len(calls)

    def send(self) -> None:
        self._make(super().send)

    def receive(self) -> int:
        return self._make(super().receive)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """A watcher whose sends and receives fail as `faulty.batch.faults` says."""
    monkeypatch.setattr("gaiod.core.pending.Batch", FaultyBatch)
    with Watcher() as watcher:
        yield watcher


def inject(watcher: Watcher, faults: Faults) -> None:
    assert isinstance(watcher.batch, FaultyBatch)
    watcher.batch.faults = faults


def test_interrupted_sends_and_receives_are_made_again(faulty: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = faulty.delegate(near)
    inject(faulty, cycle([errno.EINTR, errno.EINTR, 0]))
    for number in range(30):
        message = pattern(100, number)
        far.sendall(message)
        conn.read()
        conn.write(collect_one(faulty).buffer)
        assert collect_one(faulty).error is None
        assert receive(far, 100) == message


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM, errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH])
@pytest.mark.parametrize("call", range(6))
def test_failing_call_fails_its_own_operation_only(
    faulty: Watcher, stream_pair: NewPair, error: int, call: int
) -> None:
    """Two connections with three sends each, then three receives each: the call of one number fails."""
    pairs = [stream_pair() for _ in range(2)]
    conns = [faulty.delegate(near) for near, _ in pairs]
    for way in ("write", "read"):
        inject(faulty, chain(repeat(0, call), [error], repeat(0)))
        for number in range(3):
            for conn, (_, far) in zip(conns, pairs, strict=True):
                if way == "write":
                    conn.write(b"hello", context=(conn, number))
                else:
                    far.sendall(b"hello")
                    conn.read(bytearray(5), context=(conn, number))
        done = collect(faulty, 6)
        failed = [result for result in done if result.error is not None]
        assert [getattr(result.error, "errno", None) for result in failed] == [error]
        assert all(result.size == 5 for result in done if result.error is None)
        for conn in conns:
            assert [number for owner, number in contexts_of(done) if owner is conn] == [0, 1, 2]


def contexts_of(done: list[OpResult]) -> list[tuple[Any, int]]:
    found: list[Any] = contexts(done)
    return found


# -- accepting -----------------------------------------------------------------------------------------


@pytest.fixture
def accepts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Faults], None]:
    """Has accept() fail as told."""

    def inject_accepts(faults: Faults) -> None:
        def accept(fd: int) -> int:
            return -fault if (fault := next(faults)) else syscalls.accept(fd)

        monkeypatch.setattr("gaiod.core.loop.accept", accept)

    return inject_accepts


@pytest.fixture
def clients() -> Iterator[tuple[Any, Clients]]:
    """A listener, and its clients."""
    with listen() as listener:
        clients = Clients(listener.getsockname())
        yield listener, clients
        clients.close()


LACK = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]


@pytest.mark.parametrize("error", LACK, ids=errno.errorcode.get)
def test_accept_that_lacks_something_is_told_and_goes_on_after_a_pause(
    watcher: Watcher, clients: Any, accepts: Any, error: int
) -> None:
    accepts(chain([0, error], repeat(0)))
    listener, crowd = clients
    crowd.connect(3)
    watcher.accept(listener)
    done = collect(watcher, 4)
    assert [getattr(result.error, "errno", None) for result in done] == [None, error, None, None]
    assert [result.conn is None for result in done] == [False, True, False, False]


@pytest.mark.parametrize("error", LACK, ids=errno.errorcode.get)
def test_accept_that_lacks_something_for_long_is_told_a_few_times_only(
    watcher: Watcher, clients: Any, accepts: Any, error: int
) -> None:
    accepts(repeat(error))
    listener, crowd = clients
    crowd.connect(1)
    watcher.accept(listener)
    told, began_s = 0, time.monotonic()
    for _ in range(1_000):
        told += len(watcher.wait_io(0))
    assert told <= 2 + (time.monotonic() - began_s) / REST_S


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM], ids=errno.errorcode.get)
def test_accept_of_a_connection_that_is_gone_is_told_and_goes_on_at_once(
    watcher: Watcher, clients: Any, accepts: Any, error: int
) -> None:
    accepts(chain([error, error], repeat(0)))
    listener, crowd = clients
    crowd.connect(2)
    watcher.accept(listener)
    done = watcher.wait_io(1)
    assert [getattr(result.error, "errno", None) for result in done] == [error, error, None, None]


def test_interrupted_accept_is_made_again(watcher: Watcher, clients: Any, accepts: Any) -> None:
    accepts(cycle([errno.EINTR, errno.EINTR, 0]))
    listener, crowd = clients
    crowd.connect(5)
    watcher.accept(listener)
    assert [result.error for result in collect(watcher, 5)] == [None] * 5


@pytest.mark.parametrize("error", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK], ids=errno.errorcode.get)
def test_listener_that_is_none_any_more_ends_with_one_last_completion(
    watcher: Watcher, clients: Any, accepts: Any, error: int
) -> None:
    accepts(chain([0, error], repeat(0)))
    listener, crowd = clients
    crowd.connect(2)
    accepting = watcher.accept(listener)
    done = collect(watcher, 2)
    assert done[1].conn is accepting
    assert getattr(done[1].error, "errno", None) == error
    assert_quiet(watcher)


# -- the poller takes no more descriptors -------------------------------------------------------------------


@pytest.fixture
def full_poller(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    """A watcher that can watch nothing more: /proc/sys/fs/epoll/max_user_watches."""

    def add(fd: int, owner: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(watcher.poller, "add", add)
    return watcher


def test_delegate_raises_and_leaves_the_socket_when_the_poller_is_full(
    full_poller: Watcher, unix_pair: NewPair
) -> None:
    near, far = unix_pair()
    before = open_descriptors()
    with pytest.raises(OSError) as caught:
        full_poller.delegate(near)
    assert caught.value.errno == errno.ENOSPC
    assert open_descriptors() == before
    near.sendall(b"still mine")
    assert receive(far, 10) == b"still mine"
    assert full_poller.get_gc() == (0, 0)


def test_accepted_connection_that_cannot_be_watched_is_closed_and_told(
    watcher: Watcher, clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, crowd = clients
    watcher.accept(listener)
    add = watcher.poller.add
    monkeypatch.setattr(watcher.poller, "add", lambda fd, owner: os.listdir("/no such folder"))
    (client,) = crowd.connect(1)
    result = collect_one(watcher)
    assert isinstance(result.error, OSError)
    assert result.conn is None
    assert client.recv(1) == b""
    monkeypatch.setattr(watcher.poller, "add", add)
    crowd.connect(1)
    assert collect_one(watcher).error is None
    assert watcher.get_gc() == (1, 1), "that is the second one, which nobody kept"


def test_connect_that_cannot_be_watched_completes_with_the_errno(full_poller: Watcher) -> None:
    with listen() as listener:
        conn = full_poller.connect(listener.getsockname())
        result = collect_one(full_poller)
    assert getattr(result.error, "errno", None) == errno.ENOSPC
    before = len(open_descriptors())
    conn.abort()
    assert len(open_descriptors()) == before - 1


def test_descriptor_that_cannot_be_unwatched_is_closed_all_the_same(
    watcher: Watcher, unix_pair: NewPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near).read()

    def unregister(fd: int) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(watcher.poller, "_unregister", unregister)
    conn.abort()
    assert conn.closed
    assert far.recv(1) == b""
    collect_until(watcher, lambda done: len(done) == 1)
