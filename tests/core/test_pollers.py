"""Pollers: the same bits from epoll and from kqueue, each edge once, owners held weakly."""

import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from core.support import kqueue as fake_kqueue
from core.support.descriptors import open_descriptors
from core.support.sockets import NewPair, fill, listen, pattern, pump, receive, reset
from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    assert_quiet,
    collect,
    collect_one,
    collect_rest,
    contexts,
    interpreted_only,
    soon,
)
from gaiod.core import engine, pollers
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.pollers import BROKEN, HUNG, READABLE, WRITABLE, EpollPoller, KqueuePoller
from gaiod.core.watcher import Watcher

AnyPoller = EpollPoller | KqueuePoller


class Owner:
    """Somebody a descriptor belongs to."""


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kqueue, on systems that have none."""
    monkeypatch.setattr(pollers, "kernel", fake_kqueue)


@pytest.fixture(params=["epoll", "kqueue"])
def poller(request: pytest.FixtureRequest) -> Iterator[AnyPoller]:
    """Each of the pollers."""
    if request.param == "kqueue":
        request.getfixturevalue("faked")
        made: AnyPoller = KqueuePoller()
    elif hasattr(select, "epoll"):
        made = EpollPoller()
    else:
        pytest.skip("no epoll on this system")
    yield made
    made.close()


def events(poller: AnyPoller, timeout_s: float = 0.0) -> dict[Any, int]:
    """Return the bits told of each owner that is alive, by one wait."""
    told: dict[Any, int] = {}
    for i in range(poller.wait(timeout_s)):
        if (owner := poller.owner(i)) is not None:
            told[owner] = told.get(owner, 0) | poller.events(i)
    return told


Watched = tuple[AnyPoller, socket.socket, socket.socket, Owner]


@pytest.fixture
def watched(poller: AnyPoller, tcp_pair: NewPair) -> Watched:
    """A poller, a socket it watches, the peer, and the owner; the first edge was seen."""
    near, far = tcp_pair()
    near.setblocking(False)
    owner = Owner()
    poller.add(near.fileno(), owner)
    assert events(poller) == {owner: WRITABLE}
    return poller, near, far, owner


def test_quiet_descriptor_tells_nothing_and_time_passes(watched: Watched) -> None:
    poller, _, _, _ = watched
    begin_s = time.monotonic()
    assert events(poller, MOMENT_S) == {}
    assert time.monotonic() - begin_s >= MOMENT_S * 0.9


def test_bytes_are_told_once(watched: Watched) -> None:
    poller, _, far, owner = watched
    far.sendall(b"a")
    assert events(poller, LIMIT_S)[owner] & READABLE
    assert events(poller) == {}, "an edge is told once, though the byte is still there"
    far.sendall(b"b")
    assert events(poller, LIMIT_S)[owner] & READABLE


def test_room_is_told_again_after_the_kernel_was_full(watched: Watched) -> None:
    poller, near, far, owner = watched
    filled = fill(near, far)
    assert not events(poller).get(owner, 0) & BROKEN
    receive(far, filled)
    assert events(poller, LIMIT_S)[owner] & WRITABLE


@pytest.mark.parametrize("end", ["half-close", "close", "reset"])
def test_end_of_the_peer_is_told_as_broken(watched: Watched, end: str) -> None:
    poller, _, far, owner = watched
    if end == "half-close":
        far.shutdown(socket.SHUT_WR)
    elif end == "close":
        far.close()
    else:
        reset(far)
    assert events(poller, LIMIT_S)[owner] & BROKEN


def test_removed_descriptor_tells_nothing(watched: Watched) -> None:
    poller, near, far, owner = watched
    poller.remove(near.fileno())
    far.sendall(b"a")
    assert events(poller) == {}
    assert poller.find(near.fileno()) is None
    assert poller.owners() == []
    poller.remove(near.fileno())
    poller.add(near.fileno(), owner)
    assert events(poller)[owner] & READABLE, "watched anew, what is there is an edge"


def test_owner_that_is_gone_gets_no_events(poller: AnyPoller, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    owner = Owner()
    poller.add(near.fileno(), owner)
    del owner
    far.sendall(b"a")
    assert events(poller) == {}
    assert poller.owners() == []
    assert poller.find(near.fileno()) is None


def test_add_of_what_cannot_be_polled_raises_and_registers_nothing(poller: AnyPoller) -> None:
    with open(__file__, "rb") as file:
        owner = Owner()
        with pytest.raises(OSError):
            poller.add(file.fileno(), owner)
        assert poller.owners() == []
        assert poller.find(file.fileno()) is None


def test_wake_ends_a_wait(poller: AnyPoller) -> None:
    waker = threading.Timer(MOMENT_S, poller.wake)
    waker.start()
    begin_s = time.monotonic()
    assert events(poller, LIMIT_S) == {}
    assert time.monotonic() - begin_s < LIMIT_S / 2
    waker.join()


def test_wake_before_a_wait_ends_it_once(poller: AnyPoller) -> None:
    for _ in range(100_000):
        poller.wake()
    begin_s = time.monotonic()
    events(poller, LIMIT_S)
    assert time.monotonic() - begin_s < LIMIT_S / 2
    assert events(poller, MOMENT_S) == {}


def test_more_events_than_one_wait_takes_come_with_the_next(poller: AnyPoller) -> None:
    pairs = [socket.socketpair() for _ in range(pollers.EVENTS_MAX + 10)]
    owners = [Owner() for _ in pairs]
    for (near, _), owner in zip(pairs, owners, strict=True):
        poller.add(near.fileno(), owner)
    told: set[Owner] = set()
    for _ in range(10):
        told |= set(events(poller))
    assert told == set(owners)
    for pair in pairs:
        for end in pair:
            end.close()


def test_close_closes_what_the_poller_opened(faked: None) -> None:
    before = open_descriptors()
    for kind in (EpollPoller, KqueuePoller):
        poller = kind()
        assert open_descriptors() != before
        poller.close()
        assert open_descriptors() == before


def test_clock_and_thread_are_pythons(poller: AnyPoller) -> None:
    before_s = time.monotonic()
    assert before_s <= poller.now() <= time.monotonic()
    assert poller.thread() == threading.get_ident()


class Script:
    """A kqueue that tells what it was told to tell."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float | None]] = []
        self.events: list[fake_kqueue.kevent] = []

    def control(self, changes: Any, max_events: int, timeout: float | None = None) -> list[fake_kqueue.kevent]:
        if changes is None:
            self.asked.append((max_events, timeout))
        return self.events if max_events else []

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "flags", "bits"),
    [
        (fake_kqueue.KQ_FILTER_READ, 0, READABLE),
        (fake_kqueue.KQ_FILTER_WRITE, 0, WRITABLE),
        (fake_kqueue.KQ_FILTER_READ, fake_kqueue.KQ_EV_EOF, READABLE | BROKEN | HUNG),
        (fake_kqueue.KQ_FILTER_WRITE, fake_kqueue.KQ_EV_EOF, WRITABLE | BROKEN | HUNG),
        (fake_kqueue.KQ_FILTER_READ, fake_kqueue.KQ_EV_ERROR, READABLE | BROKEN | HUNG),
    ],
)
def test_kqueue_events_become_bits(faked: None, monkeypatch: Any, kind: int, flags: int, bits: int) -> None:
    script = Script()
    monkeypatch.setattr(fake_kqueue, "kqueue", lambda: script)
    poller = KqueuePoller()
    owner = Owner()
    poller.add(5, owner)
    script.events = [fake_kqueue.kevent(5, kind, flags), fake_kqueue.kevent(6, kind, flags)]
    assert poller.wait(-1.0) == 2
    assert (poller.owner(0), poller.events(0)) == (owner, bits)
    assert poller.owner(1) is None, "nobody owns that one"
    poller.wait(0.5)
    assert script.asked == [(pollers.EVENTS_MAX, None), (pollers.EVENTS_MAX, 0.5)]
    poller.close()


# -- the poller of the engine in use, and a whole watcher on kqueue ------------------------------------------


def test_poller_of_the_engine_knows_owners_until_they_are_removed(tcp_pair: NewPair) -> None:
    poller = engine.Poller()
    near, _ = tcp_pair()
    owner = Owner()
    poller.add(near.fileno(), owner)
    assert poller.owners() == [owner]
    with pytest.raises(OSError):
        poller.add(near.fileno(), owner)
    poller.remove(near.fileno())
    poller.remove(near.fileno())
    poller.remove(99_999)
    assert poller.owners() == []
    poller.wake()
    poller.close()
    poller.close()


@pytest.fixture
def kqueue_watcher(faked: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """A whole watcher on kqueue."""
    monkeypatch.setattr("gaiod.core.pending.Poller", KqueuePoller)
    with Watcher() as watcher:
        assert isinstance(watcher.poller, KqueuePoller)
        yield watcher


@interpreted_only
def test_watcher_on_kqueue_echoes_accepts_connects_and_expires(kqueue_watcher: Watcher) -> None:
    watcher = kqueue_watcher
    sock = listen()
    address = sock.getsockname()
    watcher.accept(sock, context="accept")
    client = watcher.connect(address, context="connect")
    done = {result.context: result.conn for result in collect(watcher, 2)}
    server = done["accept"]
    assert server is not None
    for number in range(50):
        message = pattern(1_000, number)
        client.write(message, context="sent")
        server.read(context="arrived")
        views = {result.context: bytes(result.buffer) for result in collect(watcher, 2)}
        assert views["arrived"] == message
    server.read(deadline=soon())
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    client.close()
    server.read()
    assert isinstance(collect_one(watcher).error, EOFError)


@interpreted_only
def test_watcher_on_kqueue_moves_megabytes_resets_and_ends(kqueue_watcher: Watcher, tcp_pair: NewPair) -> None:
    watcher = kqueue_watcher
    near, far = tcp_pair()
    data = pattern(5_000_000)
    conn = watcher.delegate(near, context="mine")
    conn.write(data)
    received, done = pump(watcher, far, len(data))
    assert received == data
    assert contexts(done or [collect_one(watcher)]) == ["mine"]
    conn.read()
    assert_quiet(watcher, 0)
    reset(far)
    assert isinstance(collect_one(watcher).error, (ConnectionResetError, EOFError))
    waker = threading.Timer(MOMENT_S, watcher.post, ("wake up",))
    waker.start()
    assert collect_one(watcher).context == "wake up"
    waker.join()
    watcher.timer(1e9)
    assert len(collect_rest(watcher)) == 1
