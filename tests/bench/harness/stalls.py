"""A stream through the proxy to a server that stops reading for a while, and what Prometheus says of it."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from harness.daemons import daemon
from harness.processes import BenchError
from harness.prometheus import Series, prometheus

CONFIG = """\
workers: 1
metrics: {{listen: "127.0.0.1:0"}}
control: {{listen: false}}
listeners:
  db:
    bind: "127.0.0.1:0"
    handler: proxy
    with: {{servers: ["127.0.0.1:{port}"], buffer_limit: {limit}}}
"""
PIECE_BYTES = 1 << 18
LIMIT_S = 30.0
"""Longest wait for what must happen; the server's pause comes on top of it."""
SAMPLES_PER_RATE = 4
"""Scrapes that a rate is taken from: two would do, were none ever late."""


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        flow_s: how long bytes flow before the pause, and again after it.
        stall_s: how long the server does not read.
        buffer_limit: the proxy's option, in bytes.
        every_s: how often to scrape.
    """

    flow_s: float
    stall_s: float
    buffer_limit: int
    every_s: float


@dataclass(frozen=True)
class Stall:
    """What was seen: times and series are in seconds since the start of the stream.

    Attributes:
        began_s: when the server stopped reading.
        ended_s: when it went on.
        resumed_s: when it received the first byte that was sent after that.
        sent: bytes that the client sent in all.
        received: bytes that the server received in all.
        series: by name, as in `EXPRESSIONS`.
    """

    began_s: float
    ended_s: float
    resumed_s: float
    sent: int
    received: int
    series: dict[str, Series]

    def during(self, name: str, late_s: float = 0.0) -> list[float]:
        """Return the values of a series within the pause, from `late_s` after its begin."""
        return [value for at_s, value in self.series[name] if self.began_s + late_s <= at_s <= self.ended_s]


EXPRESSIONS = {
    "from_client": 'rate(gaiod_received_bytes_total{{listener="db",side="downstream"}}[{window}ms])',
    "to_server": 'rate(gaiod_sent_bytes_total{{listener="db",side="upstream"}}[{window}ms])',
    "buffered": 'gaiod_buffered_bytes{{listener="db",side="upstream"}}',
    "limit": 'gaiod_buffer_limit_bytes{{listener="db",side="upstream"}}',
    "paused": 'gaiod_backpressure_paused_connections{{listener="db",side="upstream"}}',
    "resident": "gaiod_worker_resident_memory_bytes",
}


class _Stream:
    """A client that writes as fast as it can, and a server that reads when it may: a thread each."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.sent = self.received = 0
        self.may_read = Event()
        self.may_read.set()
        self._client, self._server = client, server
        self._is_over = False
        self._threads = [Thread(target=self._send), Thread(target=self._receive)]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Let it flow; at the end, what was sent is received, too.

        Raises:
            BenchError: that does not come to an end.
        """
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over = True
            self.may_read.set()
            until_s = time.monotonic() + LIMIT_S
            for thread in self._threads:
                thread.join(max(0.0, until_s - time.monotonic()))
            stuck = [thread for thread in self._threads if thread.is_alive()]
            for sock in (self._client, self._server) if stuck else ():
                sock.shutdown(socket.SHUT_RDWR)
            for thread in stuck:
                thread.join()
        if stuck:
            raise BenchError(f"the stream did not end: {self.sent} bytes were sent and {self.received} received")

    def wait_until_resumed(self, limit_s: float) -> None:
        """Wait until something arrives that is sent from now on.

        Raises:
            BenchError: nothing does.
        """
        queued, until_s = self.sent, time.monotonic() + limit_s
        while self.received <= queued:
            if time.monotonic() > until_s:
                raise BenchError(f"the server reads again, and received nothing new for {limit_s:.0f} s")
            time.sleep(0.01)

    def _send(self) -> None:
        piece = bytes(PIECE_BYTES)
        try:
            while not self._is_over:
                self.sent += self._client.send(piece)
            self._client.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the sums say what was lost

    def _receive(self) -> None:
        buffer = bytearray(PIECE_BYTES)
        try:
            while self.may_read.wait() and (n := self._server.recv_into(buffer)):
                self.received += n
        except OSError:
            return


def run(plan: Plan) -> Stall:
    """Run a daemon and a Prometheus, let a stream flow, stall and flow, and return what was seen.

    Raises:
        BenchError: something did not start, or bytes were lost.
    """
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="gaiod-stall-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        folder = Path(name)
        listener.settimeout(LIMIT_S)
        config = CONFIG.format(port=listener.getsockname()[1], limit=plan.buffer_limit)
        with (
            daemon(folder, config) as gaiod,
            prometheus(folder, gaiod.metrics_port, plan.every_s, cpu) as scraper,
            socket.create_connection(("127.0.0.1", gaiod.ports["db"]), LIMIT_S) as client,
            listener.accept()[0] as server,
        ):
            client.settimeout(None)
            stream = _Stream(client, server)
            start_s = time.time()
            with stream.flowing():
                time.sleep(plan.flow_s)
                stream.may_read.clear()
                began_s = time.time()
                time.sleep(plan.stall_s)
                ended_s = time.time()
                stream.may_read.set()
                stream.wait_until_resumed(plan.stall_s + LIMIT_S)  # TCP may take as long as it has backed off for
                resumed_s = time.time()
                time.sleep(plan.flow_s)
                end_s = time.time()
            if stream.sent != stream.received:
                raise BenchError(f"{stream.sent} bytes were sent and {stream.received} received")
            window = round(1000 * SAMPLES_PER_RATE * plan.every_s)
            series = {
                key: [
                    (at_s - start_s, value)
                    for at_s, value in scraper.series(text.format(window=window), start_s, end_s, plan.every_s)
                ]
                for key, text in EXPRESSIONS.items()
            }
    began_s, ended_s, resumed_s = began_s - start_s, ended_s - start_s, resumed_s - start_s
    return Stall(began_s, ended_s, resumed_s, stream.sent, stream.received, series)
