"""Tables in Markdown, from the runs of each server."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from harness.runs import Run

DISTURBED_SHARE = 0.02
"""A server that waited longer for its core than this shared it with something."""

Runs = Mapping[str, Sequence[Run]]


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
        Column("user us", "user_us", 2),
        Column("kernel us", "kernel_us", 2),
        Column("p50 us", "p50_us"),
        Column("p99 us", "p99_us"),
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


def disturbed(runs: Sequence[Run]) -> str:
    """Return a sentence on how many runs shared the server's core with something else."""
    count = sum(run.wait_share > DISTURBED_SHARE for run in runs)
    return f"In {count} of {len(runs)} runs the server waited for its core for over {DISTURBED_SHARE:.0%} of the time."
