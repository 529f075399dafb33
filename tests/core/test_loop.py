"""The loop: nobody waits for ever while somebody else is busy, and large messages come whole."""

import time

from core.support.sockets import NewPair
from core.support.waiting import collect_one, collect_until, contexts, soon
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher

LARGE_BYTES = 65_536
BATCH_MAX, PASSES_PER_POLL = 512, 4  # of gaiod/core/loop.py, where they compile to C


def test_read_completes_while_another_connection_writes_without_end(watcher: Watcher, unix_pair: NewPair) -> None:
    """Passes that have completions to return need not poll, but must not go on so."""
    pumped, drain = unix_pair()
    reading, far = unix_pair()
    pump = watcher.delegate(pumped)
    watcher.delegate(reading).read(context="read")
    pump.write(b"a", context="pump")
    far.sendall(b"hello")
    passes = 0
    while "read" not in contexts(watcher.wait_io(0)):
        passes += 1
        assert passes <= PASSES_PER_POLL + 1, "the poller was not asked for too long"
        drain.recv(10)
        pump.write(b"a", context="pump")


def test_timer_rings_while_a_connection_writes_without_end(watcher: Watcher, unix_pair: NewPair) -> None:
    pumped, drain = unix_pair()
    pump = watcher.delegate(pumped)
    deadline = soon()
    watcher.timer(deadline, context="timer")
    done: list[object] = []
    while "timer" not in done:
        assert time.monotonic() < deadline + 1, "it was never looked at"
        pump.write(b"a", context="pump")
        done = contexts(watcher.wait_io())
        drain.recv(10)


def test_every_connection_gets_its_turn_when_messages_fill_a_batch(watcher: Watcher, unix_pair: NewPair) -> None:
    """A batch is full after a few large messages; those behind come in the next ones, whole and their own."""
    pairs = [unix_pair() for _ in range(40)]
    for number, (near, far) in enumerate(pairs):
        watcher.delegate(near, context=number).read(bytearray(LARGE_BYTES))
        far.sendall(bytes([number]) * LARGE_BYTES)
    done = collect_until(watcher, lambda done: len(done) == len(pairs))
    assert sorted(contexts(done)) == list(range(40))  # type: ignore[type-var]
    for result in done:
        assert bytes(result.buffer[: result.size]) == bytes([result.context]) * result.size


def test_swap_buffer_is_full_size_however_many_are_ready(watcher: Watcher, unix_pair: NewPair) -> None:
    """No read gets the short remainder of a buffer that others have filled."""
    pairs = [unix_pair() for _ in range(20)]
    conns = [watcher.delegate(near) for near, _ in pairs]
    for conn, (_, far) in zip(conns, pairs, strict=True):
        far.sendall(b"x" * LARGE_BYTES)
        conn.read()
    sizes: list[int] = []
    while len(sizes) < len(pairs):
        sizes += [result.size for result in watcher.wait_io(1)]
    assert sizes == [LARGE_BYTES] * len(pairs)


def test_more_connections_than_a_batch_holds_all_complete(watcher: Watcher, unix_pair: NewPair) -> None:
    pairs = [unix_pair() for _ in range(BATCH_MAX + 50)]
    for near, far in pairs:
        conn = watcher.delegate(near)
        conn.read(bytearray(10))
        conn.write(b"answer")
        far.sendall(b"question")
    done = collect_until(watcher, lambda done: len(done) == 2 * len(pairs))
    assert sum(result.operation is OpType.READ and result.size == 8 for result in done) == len(pairs)
    assert all(far.recv(10) == b"answer" for _, far in pairs)


def test_wait_returns_nothing_when_its_time_is_up(watcher: Watcher, unix_pair: NewPair) -> None:
    watcher.delegate(unix_pair()[0]).read()
    began_s = time.monotonic()
    assert watcher.wait_io(0.05) == []
    assert time.monotonic() - began_s >= 0.05


def test_write_of_many_pieces_reaches_the_peer_in_order(watcher: Watcher, unix_pair: NewPair) -> None:
    """More pieces than one pass sends of a connection."""
    near, far = unix_pair()
    conn = watcher.delegate(near)
    for number in range(100):
        conn.write(bytes([number]))
    collect_until(watcher, lambda done: len(done) == 100)
    assert far.recv(200) == bytes(range(100))
    conn.read()
    far.sendall(b"still there")
    assert bytes(collect_one(watcher).buffer) == b"still there"
