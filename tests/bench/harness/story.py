"""A daemon to which things happen while clients use it: what there is to see in the dashboard."""

import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Lock, Thread

from harness.daemons import Daemon, daemon
from harness.processes import BenchError
from harness.prometheus import Prometheus, Series, prometheus

CONFIG = """\
workers: 2
drain_timeout: 2s
control: {{listen: false}}
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, connections_max: 50, access: ["deny file:{folder}/blocked.txt"]}}
  db:
    bind: "127.0.0.1:0"
    handler: proxy
    connections_max: 50
    with: {{servers: ["127.0.0.1:{one}", "127.0.0.1:{two}"], buffer_limit: 64KiB, check: {{interval: 300ms}}}}
  ticks: {{bind: "127.0.0.1:0", handler: push, with: {{source: {{every: 50ms}}}}}}
"""

ECHO_CLIENTS, PROXY_CLIENTS, SUBSCRIBERS = 8, 6, 12
MESSAGE_BYTES = 8 << 10
PAUSE_S = 0.02
"""Between two messages of a client: the load is bounded, and a small machine carries it."""
MESSAGES_PER_CONNECTION = (30, 80)
"""At least and at most, or all would connect in the same moment."""
SLOW_BYTES = 64 << 20
TIMEOUT_S = 30.0
SAMPLES_PER_RATE = 4
"""Scrapes that a rate is taken from, as Grafana's $__rate_interval has them."""


@dataclass(frozen=True)
class Plan:
    """How long it takes.

    Attributes:
        unit_s: of the story's scenes, which take about ten of these together.
        every_s: how often to scrape.
    """

    unit_s: float
    every_s: float


@dataclass(frozen=True)
class Mark:
    """A moment at which something happened, in seconds since the beginning."""

    at_s: float
    text: str


@dataclass(frozen=True)
class Seen:
    """What was seen.

    Attributes:
        marks: what happened.
        series: for each expression that was asked for, its series: labels, and values over seconds since the beginning.
        length_s: how long it took.
    """

    marks: list[Mark]
    series: dict[str, list[tuple[dict[str, str], Series]]]
    length_s: float


class _Server:
    """An echo behind the proxy, which can die and come back at its address."""

    def __init__(self) -> None:
        self._conns: set[socket.socket] = set()
        self._lock = Lock()
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, and serve each client in a thread."""
        conns, lock = self._conns, self._lock

        class Echo(BaseRequestHandler):
            def handle(self) -> None:
                with lock:
                    conns.add(self.request)
                with suppress(OSError):
                    while data := self.request.recv(1 << 16):
                        self.request.sendall(data)
                with lock:
                    conns.discard(self.request)

        class Server(ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Echo)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and end every connection."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._lock:
            for conn in self._conns:
                with suppress(OSError):
                    conn.shutdown(socket.SHUT_RDWR)


class Users:
    """The clients, a thread each."""

    def __init__(self, gaiod: Daemon) -> None:
        self._ports = gaiod.ports
        self._is_over = Event()
        jobs = [("echo", self._talk)] * ECHO_CLIENTS + [("db", self._talk)] * PROXY_CLIENTS
        jobs += [("ticks", self._listen)] * SUBSCRIBERS
        self._threads = [Thread(target=self._use, args=job) for job in jobs]

    @contextmanager
    def using(self) -> Iterator[None]:
        """Use the daemon until the block is left."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join(TIMEOUT_S)

    def connect(self, listener: str) -> socket.socket:
        """Connect to a listener."""
        return socket.create_connection(("127.0.0.1", self._ports[listener]), TIMEOUT_S)

    def _use(self, listener: str, use: Callable[[socket.socket], None]) -> None:
        """Connect again and again: what ends a connection, a dead worker say, ends no client."""
        while not self._is_over.is_set():
            try:
                with self.connect(listener) as sock:
                    use(sock)
            except OSError:
                self._is_over.wait(PAUSE_S)

    def _talk(self, sock: socket.socket) -> None:
        for _ in range(random.randint(*MESSAGES_PER_CONNECTION)):
            sock.sendall(bytes(MESSAGE_BYTES))
            missing = MESSAGE_BYTES
            while missing:
                data = sock.recv(missing)
                if not data:
                    return
                missing -= len(data)
            if self._is_over.wait(PAUSE_S):
                return

    def _listen(self, sock: socket.socket) -> None:
        sock.settimeout(2 * PAUSE_S)
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                if not sock.recv(1 << 16):
                    return

    def be_slow(self, rest: Event) -> None:
        """Send much through the proxy, and read nothing of what comes back until `rest` is set; then all of it."""
        with self.connect("db") as sock:
            sock.settimeout(PAUSE_S)
            sent = received = 0
            while sent < SLOW_BYTES and not rest.is_set():
                with suppress(TimeoutError):
                    sent += sock.send(bytes(min(1 << 16, SLOW_BYTES - sent)))
            rest.wait()
            sock.settimeout(TIMEOUT_S)
            while received < sent:
                data = sock.recv(1 << 20)
                if not data:
                    return
                received += len(data)


def run(plan: Plan, expressions: list[str], look: Callable[[str], None]) -> Seen:
    """Run a daemon, its clients and a Prometheus, let things happen, and return what it has stored of them.

    Args:
        plan: how long it takes.
        expressions: what Prometheus is asked in the end.
        look: called while a server is down, with the address of the daemon's status page.

    Raises:
        BenchError: something did not start.
    """
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="gaiod-story-") as name, _servers() as (one, two):
        folder = Path(name)
        (folder / "blocked.txt").write_text("192.0.2.7\n")
        with (
            daemon(folder, CONFIG.format(folder=folder, one=one.port, two=two.port)) as gaiod,
            prometheus(folder, gaiod.metrics_port, plan.every_s, cpu) as scraper,
        ):
            users = Users(gaiod)
            start_s = time.time()
            with users.using():
                marks = [Mark(at_s - start_s, text) for at_s, text in _scenes(plan.unit_s, gaiod, users, two, look)]
                end_s = time.time()
            series = {expression: answer_of(scraper, plan, expression, start_s, end_s) for expression in expressions}
    return Seen(marks, series, end_s - start_s)


@contextmanager
def _servers() -> Iterator[tuple[_Server, _Server]]:
    servers = _Server(), _Server()
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


def _scenes(
    unit_s: float, gaiod: Daemon, users: Users, server: _Server, look: Callable[[str], None]
) -> list[tuple[float, str]]:
    """Let things happen; return when which did, in Unix time."""
    marks: list[tuple[float, str]] = []

    def happens(text: str) -> None:
        marks.append((time.time(), text))

    time.sleep(1.5 * unit_s)
    rest = Event()
    slow = Thread(target=users.be_slow, args=(rest,))
    happens("client stalls")
    slow.start()
    time.sleep(2 * unit_s)
    happens("it goes on")
    rest.set()
    slow.join(TIMEOUT_S)
    time.sleep(unit_s)
    happens("worker killed")
    os.kill(gaiod.workers[0], signal.SIGKILL)
    time.sleep(1.5 * unit_s)
    happens("server dies")
    server.stop()
    time.sleep(1.5 * unit_s)
    look(f"http://127.0.0.1:{gaiod.metrics_port}/")
    happens("it is back")
    server.start()
    time.sleep(1.5 * unit_s)
    happens("reload")
    os.kill(gaiod.pid, signal.SIGHUP)
    _wait_for_end(gaiod.workers[1])  # it drains, and a loaded machine is slow
    time.sleep(1.5 * unit_s)
    return marks


def _wait_for_end(worker: int) -> None:
    """Return once a worker is gone that the daemon was started with.

    Raises:
        BenchError: it is still there.
    """
    until_s = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{worker}").exists():
        if time.monotonic() > until_s:
            raise BenchError(f"gaiod: the reload did not replace process {worker}")
        time.sleep(PAUSE_S)


def answer_of(
    scraper: Prometheus, plan: Plan, expression: str, start_s: float, end_s: float
) -> list[tuple[dict[str, str], Series]]:
    """Return the series of a panel's expression, with the variables filled in as Grafana does.

    Raises:
        BenchError: there is none, or nothing but gaps.
    """
    window = f"{round(1000 * SAMPLES_PER_RATE * plan.every_s)}ms"
    asked = expression.replace("$__rate_interval", window).replace("$job", "gaiod").replace("$instance", ".+")
    found = [
        (labels, [(at_s - start_s, value) for at_s, value in values])
        for labels, values in scraper.labelled(asked, start_s, end_s, plan.every_s)
    ]
    if not any(value == value for _, values in found for _, value in values):  # NaN: a quantile of nothing
        raise BenchError(f"Prometheus: {asked} has no value")
    return found
