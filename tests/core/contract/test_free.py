"""Points 7 and 9: freeing closes at once and for good, and nobody is mistaken for somebody else."""

import socket

import pytest

from core.support.descriptors import open_descriptors
from core.support.sockets import NewPair, fill, listen, receive
from core.support.waiting import assert_quiet, collect, collect_one, collect_until, contexts, soon
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.watcher import Watcher


def test_free_completes_what_is_pending_with_conn_closed(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    conn.read(context="read")
    conn.write(b"a", context="write")
    watcher.free(conn)
    done = collect(watcher, 2)
    assert sorted(map(str, contexts(done))) == ["read", "write"]
    assert {type(result.error) for result in done} == {ConnClosed}
    assert {result.conn for result in done} == {conn}


def test_free_closes_the_descriptor_at_once(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    before = len(open_descriptors())
    watcher.free(conn)
    assert len(open_descriptors()) == before - 1
    assert (conn.closed, conn.fileno()) == (True, -1)
    assert far.recv(1) == b""


def test_free_twice_is_a_no_op(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0]).read()
    watcher.free(conn)
    watcher.free(conn)
    conn.abort()
    conn.close()
    collect_one(watcher)
    watcher.free(conn)
    assert_quiet(watcher)


def test_free_twice_does_not_close_the_next_owner_of_the_descriptor(watcher: Watcher, stream_pair: NewPair) -> None:
    first = watcher.delegate(stream_pair()[0])
    fd = first.fileno()
    watcher.free(first)
    near, far = stream_pair()
    second = watcher.delegate(near)
    taken = {near.fileno(), far.fileno(), second.fileno()}
    assert fd in taken, "the kernel gives the lowest descriptor that is free"
    watcher.free(first)
    second.write(b"alive")
    assert collect_one(watcher).error is None
    assert receive(far, 5) == b"alive"


def test_free_of_a_socket_that_was_never_delegated_is_a_no_op(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    before = open_descriptors()
    watcher.free(near)
    assert open_descriptors() == before
    near.sendall(b"untouched")
    assert receive(far, 9) == b"untouched"


def test_free_takes_the_socket_that_an_operation_delegated(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    conn = watcher.read(near)
    watcher.free(near)
    assert conn.closed
    assert isinstance(collect_one(watcher).error, ConnClosed)


def test_free_takes_the_socket_that_was_delegated_by_hand(watcher: Watcher, unix_pair: NewPair) -> None:
    near, _ = unix_pair()
    conn = watcher.delegate(near)
    watcher.free(near)
    assert conn.closed


def test_free_takes_the_socket_of_a_listener(watcher: Watcher) -> None:
    sock = listen()
    listener = watcher.accept(sock)
    watcher.free(sock)
    assert listener.closed
    assert isinstance(collect_one(watcher).error, ConnClosed)


def test_free_inside_a_batch_of_completions_stops_the_others_operations(watcher: Watcher, stream_pair: NewPair) -> None:
    """The first completion's handler frees the connection of the second: that one still reports, once."""
    pairs = [stream_pair(), stream_pair()]
    conns = [watcher.delegate(near) for near, _ in pairs]
    for conn, (_, far) in zip(conns, pairs, strict=True):
        conn.read(bytearray(1))
        far.sendall(b"ab")
    done = collect(watcher, 2)
    for conn in conns:
        conn.read(bytearray(1), context="second")
    watcher.free(conns[1])
    done = collect(watcher, 2)
    assert {result.conn: type(result.error) for result in done} == {conns[0]: type(None), conns[1]: ConnClosed}


def test_free_is_final_though_bytes_are_on_their_way(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near).read()
    far.sendall(b"too late")
    watcher.free(conn)
    assert isinstance(collect_one(watcher).error, ConnClosed)
    assert_quiet(watcher)


# -- serial numbers -------------------------------------------------------------------------------


def test_serials_are_never_used_again_though_descriptors_are(watcher: Watcher, stream_pair: NewPair) -> None:
    serials, fds = set(), set()
    for _ in range(50):
        near, far = stream_pair()
        conn = watcher.delegate(near)
        serials.add(conn.serial)
        fds.add(conn.fileno())
        conn.abort()
        far.close()
    assert len(serials) == 50
    assert len(fds) < 50


def test_serials_differ_between_watchers(stream_pair: NewPair) -> None:
    with Watcher() as one, Watcher() as other:
        conns = [watcher.delegate(stream_pair()[0]) for watcher in (one, other, one, other)]
        assert len({conn.serial for conn in conns}) == 4


def test_event_of_a_descriptors_former_life_does_not_reach_its_next(watcher: Watcher) -> None:
    """Both in one pass: bytes for the old connection are known to the kernel when the new one takes its number."""
    for _ in range(20):
        near, far = socket.socketpair()
        old = watcher.delegate(near).read(context="old")
        fd = old.fileno()
        far.sendall(b"for the old one")
        old.abort()
        far.close()
        near, far = socket.socketpair()
        new = watcher.delegate(near).read(context="new")
        assert fd in (new.fileno(), far.fileno())
        (result,) = collect_until(watcher, lambda done: len(done) >= 1)
        assert (result.context, type(result.error)) == ("old", ConnClosed)
        far.sendall(b"for the new one")
        assert bytes(collect_one(watcher).buffer) == b"for the new one"
        new.abort()
        far.close()


def test_deadline_of_a_descriptors_former_life_does_not_reach_its_next(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    old = watcher.delegate(near).read(deadline=soon())
    old.abort()
    assert isinstance(collect_one(watcher).error, ConnClosed)
    far.close()
    conns = [watcher.delegate(stream_pair()[0]).read() for _ in range(3)]
    assert_quiet(watcher, 0.06)
    conns[0].read(deadline=soon())
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)


@pytest.mark.parametrize("end", ["abort", "close"])
def test_connection_closed_and_reopened_a_thousand_times_leaks_nothing(watcher: Watcher, end: str) -> None:
    before = len(open_descriptors())
    for number in range(1_000):
        near, far = socket.socketpair()
        conn = watcher.delegate(near)
        far.sendall(b"a")
        conn.read(context=number)
        result = collect_one(watcher)
        assert (result.context, bytes(result.buffer)) == (number, b"a")
        getattr(conn, end)()
        watcher.wait_io(0)
        assert far.recv(1) == b""
        far.close()
    assert len(open_descriptors()) == before
