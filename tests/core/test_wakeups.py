"""Wake-ups: whatever ends an operation before its time, what stood behind it has its turn."""

import errno
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from core.support.relaying import STREAM, fill
from core.support.sockets import NewPair, receive
from core.support.waiting import (
    LIMIT_S,
    MOMENT_S,
    assert_quiet,
    collect,
    collect_one,
    collect_until,
    contexts,
    soon,
)
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

WRITES = 1000
"""More than one pass sends of one connection."""


def stalled_relay(watcher: Watcher, new_pair: NewPair) -> tuple[Conn, Conn, socket.socket, socket.socket]:
    """Return a source whose relay is stalled and which has bytes to be read, its sink, and both far ends."""
    source, far_source = new_pair()
    sink, far_sink = new_pair()
    source_conn, sink_conn = watcher.delegate(source), watcher.delegate(sink)
    source_conn.relay_to(sink_conn, context="relay")
    fill(watcher, far_source)
    return source_conn, sink_conn, far_source, far_sink


ENDS: dict[str, tuple[Callable[[Conn, Conn], None], type[Exception]]] = {
    "cancelled": (lambda source, sink: source.cancel(OpType.RELAY), OSError),
    "its sink freed": (lambda source, sink: sink.abort(), ConnClosed),
    "its sink closed": (lambda source, sink: sink.close(), ConnClosed),
}


@pytest.mark.parametrize("how", ENDS)
def test_read_behind_a_relay_is_served_when_that_ends_before_the_stream(
    watcher: Watcher, stream_pair: NewPair, how: str
) -> None:
    end, kind = ENDS[how]
    source, sink, *_ = stalled_relay(watcher, stream_pair)
    source.read(context="behind")
    end(source, sink)
    done = collect_until(watcher, lambda done: len(done) >= 2)
    assert contexts(done) == ["relay", "behind"]
    assert isinstance(done[0].error, kind)
    assert (done[1].error, done[1].size > 0) == (None, True)


def test_read_behind_a_relay_is_served_at_the_relays_deadline(watcher: Watcher, stream_pair: NewPair) -> None:
    (source, far_source), (sink, _) = stream_pair(), stream_pair()
    conn = watcher.delegate(source)
    conn.relay_to(watcher.delegate(sink), context="relay", deadline=time.monotonic() + 10 * MOMENT_S)
    conn.read(context="behind")
    far_source.setblocking(False)
    done: list[OpResult] = []
    while not done:
        with suppress(BlockingIOError):
            while True:
                far_source.send(STREAM[:65536])
        done = watcher.wait_io(MOMENT_S)
    with suppress(BlockingIOError):
        far_source.send(b"x")  # where the machine was so slow that the relay never stalled
    done += [] if len(done) > 1 else collect(watcher, 1)
    assert contexts(done) == ["relay", "behind"]
    assert isinstance(done[0].error, DeadlineExceeded)
    assert (done[1].error, done[1].size > 0) == (None, True)


def test_read_behind_a_read_that_is_cancelled_is_served(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    whole = bytearray(10)
    conn.read_full(whole, context="whole", deadline=soon())
    conn.read(context="behind")
    far.sendall(b"12345")
    done = collect_until(watcher, bool)
    assert (done[0].context, done[0].size) == ("whole", 5)
    far.sendall(b"678")
    assert collect_one(watcher).context == "behind"


def test_relay_goes_on_when_the_writes_before_it_are_cancelled(watcher: Watcher, stream_pair: NewPair) -> None:
    """Though its sink has been writable all the time, so that no edge tells."""
    (source, far_source), (sink, far_sink) = stream_pair(), stream_pair()
    conn = watcher.delegate(sink)
    watcher.delegate(source).relay_to(conn)
    far_source.sendall(b"R" * 1000)
    for number in range(WRITES):
        conn.write(b"w%03d" % number)
    sent = 4 * len(watcher.wait_io(LIMIT_S))
    assert 0 < sent < 4 * WRITES
    conn.cancel(OpType.WRITE)
    watcher.wait_io(0)
    watcher.wait_io(0)
    assert receive(far_sink, sent)[:4] == b"w000"
    assert receive(far_sink, 1000) == b"R" * 1000


def test_freeing_the_sink_of_a_queued_relay_ends_that_one_only(watcher: Watcher, stream_pair: NewPair) -> None:
    (source, far_source), (sink, far_sink), (other, _) = stream_pair(), stream_pair(), stream_pair()
    conn, second = watcher.delegate(source), watcher.delegate(other)
    conn.relay_to(watcher.delegate(sink), context="running")
    conn.relay_to(second, context="queued")
    second.abort()
    result = collect_one(watcher)
    assert (result.context, type(result.error)) == ("queued", ConnClosed)
    assert f"<Conn {second.serial} " in str(result.error), "it says which connection is closed"
    far_source.sendall(b"hello")
    assert_quiet(watcher)
    assert receive(far_sink, 5) == b"hello"


def test_cancelled_write_lets_the_fin_behind_it_go(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(32 << 20), context="write")
    conn.shutdown_write()
    assert_quiet(watcher)
    conn.cancel(OpType.WRITE)
    result = collect_one(watcher)
    assert (result.context, getattr(result.error, "errno", None)) == ("write", errno.ECANCELED)
    assert len(receive(far, result.size)) == result.size
    watcher.wait_io(0)
    assert far.recv(1) == b""


def test_relay_whose_two_sides_another_thread_frees_is_refused_and_touches_nobody(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    """Their ends wait in the inbox when the relay is asked for."""
    (source, _), (sink, _), (other, far_other) = stream_pair(), stream_pair(), stream_pair()
    conn, to = watcher.delegate(source), watcher.delegate(sink)
    bystander = watcher.delegate(other)
    bystander.read(context="read")

    def free() -> None:
        conn.abort()
        to.abort()

    freer = threading.Thread(target=free)
    freer.start()
    freer.join()
    conn.relay_to(to, context="relay")
    result = collect_one(watcher)
    assert (result.context, type(result.error)) == ("relay", ConnClosed)
    del bystander
    far_other.sendall(b"hello")
    assert collect_one(watcher).context == "read"
