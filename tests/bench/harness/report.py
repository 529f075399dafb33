"""Tables in Markdown, from the runs of each server."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import NamedTuple

from harness.runs import Run

DISTURBED_SHARE = 0.02
"""A server that waited longer for its core than this shared it with something."""

SUBJECT = "gaiod"
"""The server that an overview holds against the others."""

Runs = Mapping[str, Sequence[Run]]
"""Those of each server under one load."""


class Column(NamedTuple):
    """One figure of the runs: its title, the run's attribute, the digits behind the point, and a factor."""

    title: str
    figure: str
    digits: int = 0
    factor: float = 1.0


def load_columns(unit: str) -> tuple[Column, ...]:
    """Return what is shown of a run under load."""
    return (
        Column(f"{unit}s/s", "messages_per_s"),
        Column(f"CPU us/{unit}", "cpu_us", 2),
        Column("p50 us", "p50_us"),
        Column("p99 us", "p99_us"),
        Column("user us", "user_us", 2),
        Column("kernel us", "kernel_us", 2),
        Column("busy %", "busy_share", factor=100.0),
    )


PUSH_COLUMNS = (
    Column("deliveries/s", "messages_per_s"),
    Column("CPU us/delivery", "cpu_us", 3),
    Column("user us", "user_us", 3),
    Column("kernel us", "kernel_us", 3),
    Column("deliveries/CPU s", "messages_per_cpu_s"),
    Column("p50 us", "p50_us"),
    Column("p99 us", "p99_us"),
    Column("skew p50 us", "skew_p50_us"),
    Column("skew p99 us", "skew_p99_us"),
    Column("busy %", "busy_share", factor=100.0),
)
"""What is shown of a `PushRun`."""


def markdown_row(cells: Sequence[str]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cells) + " |"


def markdown_head(columns: Sequence[str]) -> str:
    """Return the two lines above a table's body."""
    return markdown_row(columns) + "\n" + "|---" * len(columns) + "|"


def spread(values: Sequence[float], digits: int) -> str:
    """Return `median (min-max)`."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def pairwise_ratios(runs: Sequence[Run], reference: Sequence[Run]) -> list[float]:
    """Return reference CPU per message / own CPU per message, round by round: above 1 is cheaper."""
    return [theirs.cpu_us / own.cpu_us for own, theirs in zip(runs, reference, strict=True)]


def load_head(columns: Sequence[Column], references: Sequence[str]) -> str:
    """Return the head of a table whose body `load_rows` makes."""
    return markdown_head(
        ("load", "server", *(column.title for column in columns), *(f"x {name}" for name in references))
    )


def load_rows(row: str, runs: Runs, columns: Sequence[Column], references: Sequence[str]) -> list[str]:
    """Return a line for each server: medians over its runs, and its ratio to each reference."""
    return [
        markdown_row((row, name, *(_median(own, column) for column in columns), *_ratios(name, runs, references)))
        for name, own in runs.items()
    ]


def _median(runs: Sequence[Run], column: Column) -> str:
    return f"{column.factor * median(getattr(run, column.figure) for run in runs):.{column.digits}f}"


def _ratios(name: str, runs: Runs, references: Sequence[str]) -> list[str]:
    return [
        spread(pairwise_ratios(runs[name], runs[reference]), 2) if reference in runs and reference != name else "-"
        for reference in references
    ]


def idle_table(what: str, count: int, bytes_each: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the whole table of memory per idle connection: `what` says in the plural what they are."""
    head = markdown_head((f"idle {what}", "server", f"bytes/{what.removesuffix('s')} (min-max)"))
    rows = (markdown_row((str(count), name, spread(values, 0))) for name, values in bytes_each.items())
    return [head, *rows]


def overview(
    unit: str, results: Mapping[str, Runs], peers: Mapping[str, Sequence[str]], subject: str = SUBJECT
) -> list[str]:
    """Return a table with one line for each load, and the sentence that explains it.

    Args:
        unit: what the CPU time is for.
        results: the runs by load.
        peers: for each column the servers that the subject is held against: in each line the cheapest of them.
        subject: what is held against them.
    """
    ran = list(next(iter(results.values())))
    columns = {title: found for title, names in peers.items() if (found := [name for name in names if name in ran])}
    if subject not in ran:
        columns = {}
    return [
        f"CPU us/{unit} / p50 us. Above 1, {subject} takes less CPU.",
        "",
        markdown_head(("load", *ran, *(f"{subject} x {title}" for title in columns))),
        *(
            markdown_row(
                (
                    load,
                    *map(_cpu_and_p50, runs.values()),
                    *(_against_best(runs, names, subject) for names in columns.values()),
                )
            )
            for load, runs in results.items()
        ),
    ]


def _cpu_and_p50(runs: Sequence[Run]) -> str:
    cpu_us, p50_us = (median(getattr(run, figure) for run in runs) for figure in ("cpu_us", "p50_us"))
    return f"{_three_digits(cpu_us)} / {_three_digits(p50_us)}"


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _against_best(runs: Runs, names: Sequence[str], subject: str) -> str:
    """Return the ratio to the server that needs the least CPU: one for all rounds, lest each picks a lucky run."""
    best = min(names, key=lambda name: median(run.cpu_us for run in runs[name]))
    ratio = spread(pairwise_ratios(runs[subject], runs[best]), 2)
    return ratio if len(names) == 1 else f"{ratio}, {best}"


def disturbed(loads: Iterable[Runs]) -> str:
    """Return two sentences on how much the servers shared their core with something else, over all loads."""
    shares: dict[str, list[float]] = {}
    for name, runs in chain.from_iterable(load.items() for load in loads):
        shares.setdefault(name, []).extend(run.wait_share for run in runs)
    every = list(chain.from_iterable(shares.values()))
    count = sum(share > DISTURBED_SHARE for share in every)
    each = ", ".join(f"{name} {median(own):.1%} and {max(own):.1%}" for name, own in shares.items())
    return (
        f"In {count} of {len(every)} runs the server waited for its core for over {DISTURBED_SHARE:.0%} of the time. "
        f"Time waited, in the median and in the largest run: {each}."
    )
