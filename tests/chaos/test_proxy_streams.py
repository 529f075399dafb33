"""Streams through the proxy: each half ends on its own, in pieces of any size, and nothing behind a FIN is lost."""

import hashlib
import random
import select
import socket
import threading
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from core.support.sockets import pattern
from core.support.waiting import LIMIT_S
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.upstreams import address_of, config, pair, until, upstreams

pytestmark = pytest.mark.chaos

MIB = 1 << 20


class End:
    """One end of a connection: it sends some bytes in pieces and a FIN, and takes what comes until the other's.

    Attributes:
        received: the hash of what came.
    """

    def __init__(self, sock: socket.socket, data: bytes, pieces: tuple[int, ...], seed: int) -> None:
        self._sock = sock
        self._data = memoryview(data)
        self._pieces = pieces
        self._dice = random.Random(seed)
        self.received = hashlib.sha256()
        self.thread = threading.Thread(target=self._talk)

    def _talk(self) -> None:
        sock, sent, ends = self._sock, 0, False
        sock.setblocking(False)
        while not ends or sent <= len(self._data):
            wanted = select.POLLIN * (not ends) | select.POLLOUT * (sent <= len(self._data))
            poll = select.poll()
            poll.register(sock, wanted)
            for _, events in poll.poll(LIMIT_S * 1000) or [(0, 0)]:
                assert events, "nothing moved"
                if events & (select.POLLIN | select.POLLHUP) and not ends:
                    part = sock.recv(self._dice.choice(self._pieces))
                    self.received.update(part)
                    ends = not part
                if events & select.POLLOUT:
                    sent = self._send(sent)

    def _send(self, sent: int) -> int:
        if sent == len(self._data):
            self._sock.shutdown(socket.SHUT_WR)
            return sent + 1
        return sent + self._sock.send(self._data[sent : sent + self._dice.choice(self._pieces)])


def carry(running: Daemon, upstream: socket.socket, lines: Sequence[tuple[bytes, bytes, tuple[int, ...]]]) -> None:
    """Carry streams both ways, one connection for each, all at a time, and compare what arrives."""
    with ExitStack() as stack:
        ends = []
        for number, (forth, back, pieces) in enumerate(lines):
            client, far = (stack.enter_context(sock) for sock in pair(running, upstream))
            ends.append((End(client, forth, pieces, 2 * number), End(far, back, pieces, 2 * number + 1)))
        for end in (end for both in ends for end in both):
            end.thread.start()
        for end in (end for both in ends for end in both):
            end.thread.join(6 * LIMIT_S)
            assert not end.thread.is_alive()
        for (client_end, far_end), (forth, back, _) in zip(ends, lines, strict=True):
            assert far_end.received.digest() == hashlib.sha256(forth).digest()
            assert client_end.received.digest() == hashlib.sha256(back).digest()
    samples = until(running, len(lines), "connections_closed_total")
    ended = [samples.total("gaiod_connections_closed_total", reason=reason) for reason in ("peer_eof", "server_eof")]
    assert sum(ended) == len(lines), "in order, by whoever was first"


@pytest.mark.parametrize(
    ("forth", "back"),
    [(b"", 10 * MIB), (10 * MIB, b""), (1, 10 * MIB), (10 * MIB, 10 * MIB)],
    ids=["nothing forth", "nothing back", "a byte forth", "both"],
)
def test_half_that_has_ended_leaves_the_other_alone(daemon: Start, forth: int | bytes, back: int | bytes) -> None:
    with upstreams(1) as (upstream,):
        running = daemon(config(f"servers: [{address_of(upstream)}]"))
        streams = [
            pattern(size, number) if isinstance(size, int) else size for number, size in enumerate((forth, back))
        ]
        carry(running, upstream, [(streams[0], streams[1], (65536,))])


def test_bytes_that_are_sent_and_taken_one_by_one_arrive(daemon: Start) -> None:
    with upstreams(1) as (upstream,):
        running = daemon(config(f"servers: [{address_of(upstream)}]"))
        carry(running, upstream, [(pattern(3000), pattern(2000, 1), (1,))])


@pytest.mark.parametrize(
    ("connections", "most"),
    [pytest.param(20, MIB, id="short"), pytest.param(200, 8 * MIB, marks=pytest.mark.slow, id="long")],
)
def test_many_streams_of_any_rhythm_arrive_whole(daemon: Start, connections: int, most: int) -> None:
    dice = random.Random(connections)
    data = [pattern(most, seed) for seed in range(2)]
    sizes = (0, 1, 1000, 70_000, most)
    lines = [
        (
            data[0][: dice.choice(sizes)],
            data[1][: dice.choice(sizes)],
            dice.choice(((1000, 70_000), (300_000,), (4096, 16_384, 200_000))),
        )
        for _ in range(connections)
    ]
    with upstreams(1) as (upstream,):
        running = daemon(config(f"servers: [{address_of(upstream)}]"))
        carry(running, upstream, lines)
        assert running.scrape().total("gaiod_buffered_bytes") == 0
