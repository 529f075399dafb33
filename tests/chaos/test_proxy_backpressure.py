"""A server that reads slowly, and clients that write as fast as they can: what is held has a bound, and all arrives."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.procfs import resident_bytes
from e2e.support.starting import Start
from e2e.support.upstreams import address_of, config, pair, until, upstreams

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

RATE = 10_000_000
"""Bytes a second that the reader takes, of all connections."""

STEP_S = 0.02
LIMIT = 64 * 1024
GROWTH_MAX_BYTES = 1 << 20
"""The allocator's reserves."""

WHOLE_SHARE = 0.95
"""Of its own pace that a reader has to get: the proxy must not be what makes it wait."""


class Writer:
    """A client that writes a pattern as fast as it can until it is told to stop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.stopping = False
        self.sent = 0
        self.thread = threading.Thread(target=self._write)
        self.thread.start()

    def _write(self) -> None:
        block = bytes(range(256)) * 256
        while not self.stopping:
            self.sent += self._sock.send(block[self.sent % 256 :])
        self._sock.shutdown(socket.SHUT_WR)


class PacedReader:
    """Reads so many bytes a second, in small steps, and checks each of them."""

    def __init__(self, far: socket.socket) -> None:
        self._far = far
        self._pattern = bytes(range(256)) * 4096
        self.received = 0
        self.at_end = False

    def read(self, wanted: int) -> None:
        while wanted > 0 and not self.at_end:
            part = self._far.recv(min(wanted, 1 << 19))
            start = self.received % 256
            assert part == self._pattern[start : start + len(part)]
            self.at_end = not part
            self.received += len(part)
            wanted -= len(part)


@pytest.mark.parametrize("seconds", [pytest.param(4, id="short"), pytest.param(60, marks=pytest.mark.slow, id="long")])
def test_slow_reader_gets_its_pace_while_what_is_held_stays_bounded(daemon: Start, seconds: int) -> None:
    with upstreams(1) as (upstream,), ExitStack() as stack:
        running = daemon(config(f"servers: [{address_of(upstream)}], buffer_limit: 64KiB"))
        pairs = [pair(running, upstream) for _ in range(4)]
        writers = [Writer(stack.enter_context(client)) for client, _ in pairs]
        readers = [PacedReader(stack.enter_context(far)) for _, far in pairs]
        assert running.scrape().value("gaiod_buffer_limit_bytes", listener="db", side="upstream") == LIMIT
        began_s = looked_s = time.monotonic()
        memory = None
        owed = 0.0
        held, paused = [], []
        while (now_s := time.monotonic()) - began_s < seconds:
            owed += RATE * STEP_S / len(readers)
            for reader in readers:
                reader.read(int(owed - reader.received))
            if now_s - looked_s > 10 * STEP_S:
                looked_s = now_s
                samples = running.scrape()
                held.append(samples.value("gaiod_buffered_bytes", listener="db", side="upstream"))
                paused.append(samples.value("gaiod_backpressure_paused_connections", listener="db", side="upstream"))
                memory = memory or resident_bytes(running.worker)
            time.sleep(max(0.0, began_s + owed * len(readers) / RATE - time.monotonic()))
        taken = sum(reader.received for reader in readers)
        took_s = time.monotonic() - began_s
        assert memory is not None
        grown = resident_bytes(running.worker) - memory
        for writer in writers:
            writer.stopping = True
        while not all(reader.at_end for reader in readers):
            for reader in readers:
                reader.read(1 << 20)
        for writer in writers:
            writer.thread.join(LIMIT_S)
    assert taken >= WHOLE_SHARE * RATE * took_s
    assert 0 < max(held) <= LIMIT * len(pairs)
    assert max(paused) <= len(pairs)
    assert max(paused) > 0
    assert grown < GROWTH_MAX_BYTES
    assert [reader.received for reader in readers] == [writer.sent for writer in writers]
    samples = until(running, 0, "backpressure_paused_connections", side="upstream")
    pauses = samples.value("gaiod_backpressure_pauses_total", listener="db", side="upstream")
    assert pauses == samples.value("gaiod_backpressure_resumes_total", listener="db", side="upstream") > 0
    assert samples.value("gaiod_backpressure_paused_seconds_total", listener="db", side="upstream") > 0
    assert samples.total("gaiod_buffered_bytes") == 0
