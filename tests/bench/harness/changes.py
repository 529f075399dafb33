"""A daemon that is reloaded and upgraded under its clients: what they see, and what a Prometheus stores of it."""

import os
import selectors
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

from gaiod.control.client import ask
from harness.daemons import Daemon, daemon
from harness.prometheus import Series, prometheus

CONFIG = """\
workers: 2
drain_timeout: 2s
control: {{listen: "unix:{folder}/control.sock"}}
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, idle_timeout: {number}m}}
  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["127.0.0.1:{server}"], connect_timeout: {number}s}}}}
  ticks: {{bind: "127.0.0.1:0", handler: push, with: {{source: {{every: 20ms}}, slow_consumer: {{grace: {number}s}}}}}}
"""
"""Each reload has another number: the options of all listeners change."""

CLIENTS = {"echo": 30, "db": 20, "ticks": 50}
SPEAKING = ("echo", "db")
MESSAGE = b"x" * 64
PAUSE_S = 0.1
"""Between two messages of a client."""

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How long it takes.

    Attributes:
        unit_s: between two changes.
        every_s: how often to scrape.
        reloads: how many there are before the upgrade.
    """

    unit_s: float
    every_s: float
    reloads: int = 5


@dataclass(frozen=True)
class Seen:
    """What was seen.

    Attributes:
        marks: when there was which change, in seconds since the beginning.
        connections: open, as Prometheus has stored it, by listener, over seconds since the beginning.
        rates: bytes that clients have received in a second, as they have counted, likewise.
        ended: connections that have ended.
        length_s: how long it took.
    """

    marks: list[tuple[float, str]]
    connections: dict[str, Series]
    rates: dict[str, Series]
    ended: int
    length_s: float


class Clients(Thread):
    """All clients: some speak all the time, and read what comes back, and the others only read."""

    def __init__(self, gaiod: Daemon, every_s: float) -> None:
        super().__init__()
        self.ended = 0
        self.rates: dict[str, Series] = {name: [] for name in CLIENTS}
        self._every_s = every_s
        self._received = dict.fromkeys(CLIENTS, 0)
        self._is_over = Event()
        self._socks = {
            socket.create_connection(("127.0.0.1", gaiod.ports[name]), TIMEOUT_S): name
            for name, count in CLIENTS.items()
            for _ in range(count)
        }

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in self._socks:
                selector.register(sock, selectors.EVENT_READ)
            due_s = time.monotonic()
            counted_s = time.time()
            while not self._is_over.is_set():
                if time.monotonic() >= due_s:
                    due_s = time.monotonic() + PAUSE_S
                    self._speak()
                if time.time() >= counted_s + self._every_s:
                    counted_s = self._count(counted_s)
                for key, _ in selector.select(PAUSE_S / 10):
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(1 << 16)
                    self._received[self._socks[key.fileobj]] += len(data)
                    if not data:
                        selector.unregister(key.fileobj)
                        self.ended += 1

    def _speak(self) -> None:
        for sock, name in self._socks.items():
            if name in SPEAKING:
                sock.sendall(MESSAGE)

    def _count(self, since_s: float) -> float:
        now_s = time.time()
        for name, received in self._received.items():
            self.rates[name].append((now_s, received / (now_s - since_s)))
            self._received[name] = 0
        return now_s

    def stop(self) -> None:
        """End them."""
        self._is_over.set()
        self.join()
        for sock in self._socks:
            sock.close()


def run(plan: Plan) -> Seen:
    """Run a daemon, its clients and a Prometheus, change everything under them, and return what it has stored.

    Raises:
        BenchError: something did not start, or a change failed.
    """
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="gaiod-changes-") as name, _server() as server:
        folder = Path(name)

        def config(number: int) -> str:
            return CONFIG.format(folder=folder, server=server, number=number)

        with (
            daemon(folder, config(1)) as gaiod,
            _ended_in_the_end(folder),
            prometheus(folder, gaiod.metrics_port, plan.every_s, cpu) as scraper,
        ):
            clients = Clients(gaiod, plan.every_s)
            clients.start()
            start_s = time.time()
            marks: list[tuple[float, str]] = []
            try:
                for number in range(2, plan.reloads + 3):
                    verb = "reload" if number < plan.reloads + 2 else "upgrade"
                    time.sleep(plan.unit_s)
                    (folder / "gaiod.yaml").write_text(config(number))
                    marks.append((time.time() - start_s, verb))
                    ask(str(folder / "control.sock"), verb)
                time.sleep(plan.unit_s)
            finally:
                clients.stop()
            end_s = time.time()
            stored = {
                name: scraper.series(f'gaiod_connections_active{{listener="{name}"}}', start_s, end_s, plan.every_s)
                for name in CLIENTS
            }
    connections, rates = (
        {name: [(at_s - start_s, value) for at_s, value in values] for name, values in each.items()}
        for each in (stored, clients.rates)
    )
    return Seen(marks, connections, rates, clients.ended, end_s - start_s)


@contextmanager
def _ended_in_the_end(folder: Path) -> Iterator[None]:
    """Stop the daemon that there is in the end: it is another one than was started."""
    try:
        yield
    finally:
        os.kill(ask(str(folder / "control.sock"), "status")["pid"], signal.SIGTERM)


@contextmanager
def _server() -> Iterator[int]:
    """Give the port of an echo."""

    class Echo(BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(1 << 16):
                self.request.sendall(data)

    class Server(ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
