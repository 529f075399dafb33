"""The declarations keep the rules that Prometheus makes for names, units, labels and their number."""

import re
from pathlib import Path

import pytest

from gaiod.observe.metrics import BY_NAME, METRICS, Metric, as_markdown
from gaiod.stats.cells import PUSH_DROP_REASONS, RESTART_REASONS, STAY_REASONS
from observe.support.slots import FakeDaemon, samples_of

LABELS = {
    "cause", "code", "engine", "errno", "file", "generation", "handler", "hook", "kind", "layer", "library",
    "listener", "name", "op", "python", "reason", "result", "server", "side", "source", "state", "upstream", "version",
    "worker",
}  # fmt: skip
"""Values from the configuration and from enums: never an address, a process or a connection."""

OTHER_UNITS = {
    "ms", "us", "ns", "millis", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "kb", "mb",
    "kib", "mib", "kilobytes", "megabytes", "bits", "percent",
}  # fmt: skip
"""Prometheus has base units only: seconds, bytes, ratios."""

SERIES_MAX = 2600

metrics = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@metrics
def test_name_keeps_the_rules(metric: Metric) -> None:
    words = metric.name.split("_")
    assert re.fullmatch(r"(gaiod|python_gc|gaiod_python_gc)(_[a-z0-9]+)+", metric.name)
    assert not OTHER_UNITS & set(words), "not a base unit"
    assert (words[-1] == "total") == (metric.kind == "counter"), "_total is for counters, and for all of them"
    assert words[-1] not in ("count", "sum", "bucket", "created"), "reserved for histograms"
    for unit in ("seconds", "bytes"):
        if unit in words[:-1]:
            assert words.index(unit) == len(words) - 2, "the unit comes last, but for _total"
            assert words[-1] == "total"


@metrics
def test_help_is_a_sentence(metric: Metric) -> None:
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")
    assert "\n" not in metric.help


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("gaiod_worker_restarts_total", RESTART_REASONS),
        ("gaiod_handover_stayed_total", STAY_REASONS),
        ("gaiod_push_dropped_total", PUSH_DROP_REASONS),
    ],
)
def test_help_that_lists_reasons_has_those_that_are_counted(name: str, reasons: tuple[str, ...]) -> None:
    text = BY_NAME[name].help.partition("by reason: ")[2]
    listed = re.split(r", (?:or )?", re.sub(r" \([^)]*\)", "", text.rstrip(".")))
    assert [word for word in listed if word in reasons] == list(reasons)
    assert not [word for word in listed if re.fullmatch("[a-z_]+", word) and word not in reasons]


@metrics
def test_labels_are_from_the_configuration_or_enums(metric: Metric) -> None:
    assert set(metric.labels) <= LABELS
    assert len(set(metric.labels)) == len(metric.labels)


@metrics
def test_histogram_has_rising_bounds_and_nothing_else_has_any(metric: Metric) -> None:
    assert bool(metric.bounds) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(set(metric.bounds))
    assert all(0 < bound < float("inf") for bound in metric.bounds)


def test_names_are_unique_with_and_without_their_suffix() -> None:
    families = [metric.name.removesuffix("_total") for metric in METRICS]
    assert len(set(families)) == len(METRICS) == len(BY_NAME)


def test_duration_metrics_say_so_in_seconds() -> None:
    for metric in METRICS:
        if metric.kind == "histogram":
            assert metric.name.endswith("_seconds")


def test_series_stay_few_when_eight_workers_serve_four_listeners() -> None:
    """As declared, and as a collector gives them at its fullest; each listener has eight servers."""
    workers, listeners = 8, 4
    daemon = FakeDaemon(workers, listeners, servers=tuple(f"s{number}" for number in range(8)))
    try:
        daemon.fill()
        collector = daemon.collector
        for code in (200, 400, 404, 405, 431, 503):
            collector.count_scrape(code)
        samples = samples_of(collector)
    finally:
        daemon.close()
    assert len(samples) <= SERIES_MAX
    assert _declared_at_most(samples, workers, listeners) <= SERIES_MAX


def _declared_at_most(
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], workers: int, listeners: int
) -> int:
    """Return the product of the values that each label can have, over all metrics."""
    seen: dict[tuple[str, str], set[str]] = {}
    for name, labels in samples:
        for label, value in labels:
            seen.setdefault((re.sub("_(bucket|sum|count)$", "", name), label), set()).add(value)
    total = 0
    for metric in METRICS:
        series = len(metric.bounds) + 3 if metric.bounds else 1
        for label in metric.labels:
            series *= len(seen.get((metric.name, label), {"-"}))
        if {"listener", "handler"} <= set(metric.labels):
            series //= listeners  # each listener has one handler
        total += series
    assert workers * listeners < total
    return total


def test_table_has_a_row_for_every_metric() -> None:
    lines = as_markdown().splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 5
    rows = [re.split(r" ?\| ?", line.strip("| ")) for line in lines[2:]]
    assert [row[0] for row in rows] == [f"`{metric.name}`" for metric in METRICS]
    assert all(len(row) == 4 and all(row) for row in rows)


def test_table_for_people_says_what_is_declared() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "METRICS.md").read_text()
    assert text.endswith(as_markdown()), "deploy/METRICS.md is not what gaiod.observe.metrics.as_markdown() returns"
