"""What being scraped costs: the worker that moves bytes meanwhile, and the supervisor that answers."""

import http.client
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread

from harness.daemons import daemon
from harness.processes import BenchError
from harness.procfs import cpu_counters
from harness.report import markdown_head, markdown_row, spread
from harness.servers import START_TIMEOUT_S, Measured

ONE_WORKER = """\
workers: 1
metrics: {listen: "127.0.0.1:0"}
control: {listen: false}
listeners:
  echo: {bind: "127.0.0.1:0", handler: echo}
"""

LARGE = """\
workers: 8
metrics: {listen: "127.0.0.1:0"}
control: {listen: false}
listeners:
  echo: {bind: "127.0.0.1:0", handler: echo}
  one: {bind: "127.0.0.1:0", handler: proxy, with: {servers: [SERVERS]}}
  two: {bind: "127.0.0.1:0", handler: proxy, with: {servers: [SERVERS]}}
  ticks: {bind: "127.0.0.1:0", handler: push, with: {source: {every: 1s}}}
""".replace("SERVERS", ", ".join(f'"127.0.0.1:{port}"' for port in range(1, 9)))
"""8 workers, 4 listeners and 16 servers: what the budget of 2,000 series is for."""

FORMATS: Mapping[str, Mapping[str, str]] = {
    "text": {},
    "OpenMetrics, gzip": {"accept": "application/openmetrics-text;version=1.0.0", "accept-encoding": "gzip"},
}
"""What is asked for: as curl does, and as Prometheus does."""


@dataclass(frozen=True)
class _Worker:
    """The process that is measured."""

    pid: int


@dataclass(frozen=True)
class Served:
    """`gaiod serve` with one worker, scraped every so often, or never.

    Attributes:
        name: what the tables call it.
        load_cpu: the core of everything but its worker.
        every_s: between two scrapes; None: nobody scrapes.
    """

    name: str
    load_cpu: int
    every_s: float | None = None

    @contextmanager
    def serving(self, cpu: int) -> Iterator[tuple[Measured, int]]:
        """Run it, its worker pinned to one core; yield that and the port that echoes.

        Raises:
            BenchError: it did not start, or a scrape failed.
        """
        with tempfile.TemporaryDirectory(prefix="gaiod-served-") as name, daemon(Path(name), ONE_WORKER) as gaiod:
            (worker,) = gaiod.workers
            os.sched_setaffinity(worker, {cpu})
            os.sched_setaffinity(gaiod.pid, {self.load_cpu})
            with _scraping(gaiod.metrics_port, self.every_s):
                yield _Worker(worker), gaiod.ports["echo"]


@contextmanager
def _scraping(port: int, every_s: float | None) -> Iterator[None]:
    """Scrape until the block is left, from its beginning on."""
    if every_s is None:
        yield
        return
    is_over = Event()
    statuses: list[int] = []

    def run() -> None:
        while not is_over.is_set():
            statuses.append(scrape(port, FORMATS["OpenMetrics, gzip"])[0])
            is_over.wait(every_s)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    if set(statuses) != {200}:
        raise BenchError(f"the scrapes ended with {statuses}, where 200 was due")


def scrape(port: int, headers: Mapping[str, str] = FORMATS["text"]) -> tuple[int, bytes]:
    """Return the status and the body of one answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
    try:
        client.request("GET", "/metrics", headers=dict(headers))
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


@dataclass(frozen=True)
class Answers:
    """What scrapes cost: milliseconds from the request to the answer, and of the supervisor's CPU on average."""

    series: int
    wall_ms: Sequence[float]
    cpu_ms: float


def run_scrapes(count: int, config: str = LARGE) -> dict[str, Answers]:
    """Scrape a daemon, in each format.

    Raises:
        BenchError: it did not start.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="gaiod-scraped-") as name, daemon(Path(name), config) as gaiod:
        _, text = scrape(gaiod.metrics_port, FORMATS["text"])
        series = sum(not line.startswith(b"#") for line in text.splitlines())
        for what, headers in FORMATS.items():
            wall_ms = []
            before = cpu_counters(gaiod.pid)
            for _ in range(count):
                began_s = time.perf_counter()
                scrape(gaiod.metrics_port, headers)
                wall_ms.append(1e3 * (time.perf_counter() - began_s))
            cpu = cpu_counters(gaiod.pid) - before
            found[what] = Answers(series, wall_ms, cpu.run_ns / 1e6 / count)
    return found


def scrapes_table(results: Mapping[str, Answers]) -> list[str]:
    """Return the table of what scrapes cost."""
    head = markdown_head(("scrape", "series", "ms (least-most)", "CPU ms", "ms/1000 series"))
    rows = [
        markdown_row(
            (
                what,
                str(each.series),
                spread(each.wall_ms, 1),
                f"{each.cpu_ms:.1f}",
                f"{1e3 * median(each.wall_ms) / each.series:.1f}",
            )
        )
        for what, each in results.items()
    ]
    return [head, *rows]
