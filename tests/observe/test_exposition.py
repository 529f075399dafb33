"""What is written is what prometheus_client would write, to the byte."""

from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from gaiod.observe import exposition
from observe.support.slots import FakeDaemon

both = pytest.mark.parametrize(
    ("ours", "theirs"),
    [(exposition.text, generate_latest), (exposition.openmetrics, generate_openmetrics)],
    ids=["text", "openmetrics"],
)
Write = Callable[[CollectorRegistry], bytes]


class _Fixed(Collector):
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._families


def _registry(*collectors: Collector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return registry


@both
def test_large_daemon_is_written_as_the_library_does(
    ours: Write, theirs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)  # how long the scrape takes would differ
    daemon = FakeDaemon(8, 4)
    try:
        daemon.fill()
        collector = daemon.collector
        collector.count_scrape(200)
        registry = _registry(collector)
        assert ours(registry) == theirs(registry)
    finally:
        daemon.close()


@both
@pytest.mark.parametrize("value", ['"', "\\", "a\nb", "ü€", "", "a,b{c}=d", "\\n"])
def test_label_is_escaped(ours: Write, theirs: Write, value: str) -> None:
    family = GaugeMetricFamily("gaiod_ready", "Help.", labels=("z", "listener"))
    family.add_metric([value, "x"], 1)
    registry = _registry(_Fixed(family))
    assert ours(registry) == theirs(registry)


@both
@pytest.mark.parametrize("documentation", ['Says "yes".', "a\\b", "two\nlines"])
def test_help_is_escaped(ours: Write, theirs: Write, documentation: str) -> None:
    registry = _registry(_Fixed(GaugeMetricFamily("gaiod_ready", documentation, value=1)))
    assert ours(registry) == theirs(registry)


@both
@pytest.mark.parametrize(
    "value", [0, 1, -1, 0.1, 1e-9, 123456.5, 1234567.0, 2**62, 1e300, float("inf"), float("nan"), True]
)
def test_number_is_written_as_go_does(ours: Write, theirs: Write, value: float) -> None:
    registry = _registry(_Fixed(GaugeMetricFamily("gaiod_ready", "Help.", value=value)))
    assert ours(registry) == theirs(registry)


@both
def test_histogram_is_written_with_all_its_parts(ours: Write, theirs: Write) -> None:
    family = HistogramMetricFamily("gaiod_loop_lag_seconds", "Help.", labels=("worker",))
    family.add_metric(["0"], [("0.1", 5), ("+Inf", 6)], 0.75)
    registry = _registry(_Fixed(family))
    assert ours(registry) == theirs(registry)
    assert b'gaiod_loop_lag_seconds_bucket{le="0.1",worker="0"} 5.0\n' in ours(registry)


@both
def test_process_of_the_client_library_is_written_too(ours: Write, theirs: Write) -> None:
    """Its numbers change from one look to the next: names are compared, and the kinds."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)

    def shape(data: bytes) -> list[bytes]:
        return [line if line.startswith(b"#") else line.split()[0] for line in data.splitlines()]

    assert shape(ours(registry)) == shape(theirs(registry))
    assert b"process_open_fds" in ours(registry)
