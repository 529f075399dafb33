"""Tables in Markdown, from the runs of each server."""

from collections.abc import Mapping, Sequence
from statistics import median

from harness.runs import Run

DISTURBED_SHARE = 0.02
"""A server that waited longer for its core than this shared it with something."""

Runs = Mapping[str, Sequence[Run]]


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


def load_head(unit: str, references: Sequence[str]) -> str:
    """Return the head of a table whose body `load_rows` makes."""
    measured = (f"{unit}s/s", f"CPU us/{unit}", "user us", "kernel us", "p50 us", "p99 us", "busy %")
    return markdown_head(("load", "server", *measured, *(f"x {name}" for name in references)))


def load_rows(row: str, runs: Runs, references: Sequence[str]) -> list[str]:
    """Return a line for each server: medians over its runs, and its ratio to each reference."""
    return [markdown_row((row, name, *_medians(own), *_ratios(name, runs, references))) for name, own in runs.items()]


def _medians(runs: Sequence[Run]) -> tuple[str, ...]:
    def middle(figure: str, digits: int) -> str:
        return f"{median(getattr(run, figure) for run in runs):.{digits}f}"

    return (
        middle("messages_per_s", 0),
        middle("cpu_us", 2),
        middle("user_us", 2),
        middle("kernel_us", 2),
        middle("p50_us", 0),
        middle("p99_us", 0),
        f"{100 * median(run.busy_share for run in runs):.0f}",
    )


def _ratios(name: str, runs: Runs, references: Sequence[str]) -> list[str]:
    return [
        spread(pairwise_ratios(runs[name], runs[reference]), 2) if reference in runs and reference != name else "-"
        for reference in references
    ]


def idle_table(connections: int, bytes_per_connection: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the whole table of memory per idle connection."""
    head = markdown_head(("idle connections", "server", "bytes/connection (min-max)"))
    rows = (markdown_row((str(connections), name, spread(values, 0))) for name, values in bytes_per_connection.items())
    return [head, *rows]


def disturbed(runs: Sequence[Run]) -> str:
    """Return a sentence on how many runs shared the server's core with something else."""
    count = sum(run.wait_share > DISTURBED_SHARE for run in runs)
    return f"In {count} of {len(runs)} runs the server waited for its core for over {DISTURBED_SHARE:.0%} of the time."
