"""Workers that are nothing but numbers, and the collector that reads them."""

import socket
from typing import Any

from prometheus_client.metrics_core import Metric

from gaiod.core import counters
from gaiod.observe.collector import Collector, Source
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.stats import CELL, Layout

USAGE = {"cpu_seconds": 1.25, "resident_bytes": 9_000_000.0, "open_fds": 12.0, "max_fds": 1024.0}


class FakeWorker:
    """A worker's process: its slot's number, whether it serves, and what it uses."""

    def __init__(self, number: int, *, ready: bool = True, usage: dict[str, float] | None = None) -> None:
        self.number = number
        self.ready = ready
        self._usage = USAGE if usage is None else usage

    def usage(self) -> dict[str, float]:
        """What it uses of the machine."""
        return self._usage


class FakeDaemon:
    """Slots of `workers` with `listeners` each, named l0, l1, ... with handlers h0, h1, ..."""

    def __init__(self, workers: int = 1, listeners: int = 1, *, handler: str | None = None) -> None:
        self.layout = Layout(listeners)
        self.cells = [memoryview(bytearray(8 * self.layout.size)).cast("q") for _ in range(workers)]
        self.workers = [FakeWorker(number) for number in range(workers)]
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in range(listeners)]
        self.sources = [
            Source(ListenerSettings(name=f"l{number}", bind="unix:/x", handler=handler or f"h{number}"), sock)
            for number, sock in enumerate(self.sockets)
        ]
        self.is_ready = True

    @property
    def collector(self) -> Collector:
        """A new collector of it."""
        return Collector(self.layout, self.sources, self.pairs(), lambda: self.is_ready)

    def pairs(self) -> list[tuple[Any, Any]]:
        """The workers, each with its slot."""
        return list(zip(self.workers, self.cells, strict=True))

    def set(self, cell: str, value: int, *, worker: int = 0, listener: int = 0) -> None:
        """Set one of a listener's cells."""
        self.cells[worker][self.layout.row(listener) + CELL[cell]] = value

    def set_operations(self, operation: str, worker: int = 0, **counts: int) -> None:
        """Set the counts of an operation, by outcome."""
        for outcome, count in counts.items():
            self.cells[worker][counters.operation_index(operation, outcome)] = count

    def fill(self) -> None:
        """Put a number into every cell, another in each."""
        for cells in self.cells:
            for position in range(len(cells)):
                cells[position] = position + 1

    def close(self) -> None:
        """Close its sockets."""
        for sock in self.sockets:
            sock.close()


def samples_of(collector: Collector) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples of a scrape by name and labels; fail if one comes twice."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in collector.collect():
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples, f"{key} twice"
            samples[key] = sample.value
    return samples


def value_of(collector: Collector, name: str, **labels: object) -> float:
    """Return one sample."""
    return samples_of(collector)[name, tuple(sorted((key, str(value)) for key, value in labels.items()))]


def family_of(collector: Collector, name: str) -> Metric:
    """Return one family, by its name without `_total`."""
    (family,) = (each for each in collector.collect() if each.name == name)
    return family
