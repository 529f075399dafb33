"""Draw the status page, and panels of the dashboard, of a daemon to which things happen: `pictures.py --help`.

A daemon serves an echo, a proxy and push; a client stops reading, a worker is killed, a server dies, the
configuration is reloaded. A Prometheus scrapes it, and is asked what the dashboard's panels ask; while the server is
dead, Chromium looks at the page.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from harness.processes import BenchError
from harness.prometheus import Series
from harness.story import Mark, Plan, Seen, run

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
GRAFANA = DEPLOY / "grafana"
sys.path.append(str(GRAFANA))

from generate import expressions  # noqa: E402 - what a panel asks is said beside the dashboard
from panels import ROWS, Line, Panel  # noqa: E402

PICTURES: dict[str, tuple[tuple[str, str], ...]] = {
    "overview": (
        ("Overview", "Bytes received"),
        ("Overview", "Bytes sent"),
        ("Overview", "Accepted and rejected"),
        ("Overview", "Busiest worker's loop"),
        ("Overview", "Lag of loops"),
        ("Overview", "Reloads, files read again, and workers replaced"),
    ),
    "backpressure": (
        ("Back-pressure", "Paused connections"),
        ("Back-pressure", "Bytes held, and the limit of one connection"),
        ("Back-pressure", "Pauses and resumes"),
        ("Upstreams", "Connections to servers"),
        ("Upstreams", "Server is up"),
        ("Push", "Delivered"),
    ),
    "workers": (
        ("Workers and garbage collection", "CPU"),
        ("Workers and garbage collection", "Loop busy"),
        ("Workers and garbage collection", "Resident memory"),
        ("Workers and garbage collection", "Replaced"),
        ("Listeners", "Closed"),
        ("Workers and garbage collection", "Pauses for garbage collection"),
    ),
}
"""Which panels a picture has: row and title."""

COLUMNS = 2
SERIES_MAX = 8
"""In a panel: those with the largest values."""
SIZE_INCHES = (13, 3.3)
"""Of a row of panels."""

PAGE_WIDTH, PAGE_HEIGHT = 1100, 960


def photograph(url: str, path: Path) -> None:
    """Take a picture of a page with Chromium.

    Raises:
        BenchError: there is none.
    """
    with tempfile.TemporaryDirectory(prefix="gaiod-chromium-", ignore_cleanup_errors=True) as folder:
        command = [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            f"--user-data-dir={folder}", f"--window-size={PAGE_WIDTH},{PAGE_HEIGHT}", f"--screenshot={path}", url,
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise BenchError(f"chromium: {error}") from error


def panel(row: str, title: str) -> Panel:
    """Return a panel of the dashboard.

    Raises:
        StopIteration: it has none of that name.
    """
    return next(each for each in ROWS[row] if each.title == title)


def asked(picture: Sequence[tuple[str, str]]) -> list[str]:
    """Return every expression of a picture's panels."""
    return [
        expression
        for place in picture
        for line in panel(*place).lines
        for expression, _ in _expressions(panel(*place), line)
    ]


def _expressions(shown: Panel, line: Line) -> list[tuple[str, str]]:
    return expressions(line, is_alone=len(shown.lines) == 1)


def lines_of(shown: Panel, seen: Seen) -> list[tuple[str, Series, bool]]:
    """Return what is drawn: the legend of each series, its values, and whether it is a limit."""
    found = [
        (_legend(legend, labels), values, line.is_limit)
        for line in shown.lines
        for expression, legend in _expressions(shown, line)
        for labels, values in seen.series[expression]
    ]
    by_size = sorted(found, key=lambda each: -_largest(each[1]))
    moved = [each for each in by_size if shown.kind == "state" or _largest(each[1])]
    return sorted(moved[:SERIES_MAX] or by_size[:1])


def _largest(values: Series) -> float:
    return max((value for _, value in values if isfinite(value)), default=0.0)


def _legend(text: str, labels: dict[str, str]) -> str:
    """Fill in a legend; with one daemon its name says nothing."""
    shown = text.replace("{{instance}}", "").strip() or text
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), shown)


def _scaled(prefixes: Sequence[str], step: float, suffix: str) -> Callable[[float, object], str]:
    """Return how numbers of a unit are written, with its prefixes."""

    def write(value: float, _: object) -> str:
        for prefix in ["", *prefixes]:
            if abs(value) < step or prefix == prefixes[-1]:
                return f"{value:.3g} {prefix}{suffix}"
            value /= step
        raise AssertionError

    return write


def _seconds(value: float, _: object) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


WRITTEN: dict[str, Callable[[float, object], str]] = {
    "Bps": _scaled("kMG", 1000, "B/s"),
    "bytes": _scaled(("Ki", "Mi", "Gi"), 1024, "B"),
    "cps": lambda value, _: f"{value:g}/s",
    "percentunit": lambda value, _: f"{100 * value:.3g}%",
    "s": _seconds,
    "short": lambda value, _: f"{value:g}",
    "bool_yes_no": lambda value, _: "yes" if value else "no",
}
"""How each unit of Grafana's is written at an axis."""


def draw(seen: Seen, picture: Sequence[tuple[str, str]], path: Path) -> None:
    """Draw panels in two columns, what happened marked in each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: without it there are figures still
    from matplotlib.figure import Figure

    rows = -(-len(picture) // COLUMNS)
    figure = Figure(figsize=(SIZE_INCHES[0], SIZE_INCHES[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, place in zip(figure.subplots(rows, COLUMNS, sharex=True).flat, picture, strict=True):
        _draw_panel(axes, panel(*place), seen)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _draw_panel(axes: Any, shown: Panel, seen: Seen) -> None:
    from matplotlib.ticker import MaxNLocator

    lines = lines_of(shown, seen)
    for number, (legend, values, is_limit) in enumerate(lines):
        width = max(1.2, 2.6 - 0.5 * number)  # one that lies below another can be seen
        look: dict[str, Any] = {"color": "tab:red", "linestyle": "--"} if is_limit else {"linewidth": width}
        if shown.kind in ("events", "state"):
            look["drawstyle"] = "steps-post"
        else:
            look |= {"marker": ".", "markersize": 2}  # a quantile has gaps: of nothing there is none
        (drawn,) = axes.plot(*zip(*values, strict=True), label=legend, **look)
        if shown.kind == "events":
            axes.fill_between(*zip(*values, strict=True), step="post", alpha=0.3, color=drawn.get_color())
    axes.set_title(shown.title, loc="left", fontsize="medium", fontweight="bold", pad=16)
    top = 1.08 * max((_largest(values) for _, values, _ in lines), default=0.0) or 1.0
    axes.set_ylim(0, top)
    if shown.unit == "bytes":
        axes.set_yticks(_round_bytes(top))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=shown.unit in ("short", "bool_yes_no")))
    axes.yaxis.set_major_formatter(WRITTEN[shown.unit])
    axes.set_xlim(0, seen.length_s)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axes.tick_params(labelbottom=True, labelsize="small")
    axes.grid(alpha=0.3)
    _draw_marks(axes, seen.marks)
    columns = 2 if max(len(legend) for legend, _, _ in lines) < 30 else 1
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=columns, fontsize="small", frameon=False)


def _round_bytes(top: float) -> list[float]:
    """Return ticks up to `top`: multiples of a power of 2."""
    step = 1
    while top / step > 5:
        step *= 2
    return [float(step * number) for number in range(int(top / step) + 1)]


def _draw_marks(axes: Any, marks: Sequence[Mark]) -> None:
    for mark in marks:
        axes.axvline(mark.at_s, color="tab:gray", linewidth=1, linestyle=":")
        axes.annotate(
            mark.text, (mark.at_s, 1.02), xycoords=("data", "axes fraction"), fontsize="x-small", color="tab:gray"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--unit", type=float, default=10.0, help="seconds; all of it takes eleven times as long")
    parser.add_argument("--scrape-interval", type=float, default=1.0, help="of Prometheus, in seconds")
    parser.add_argument("--folder", type=Path, default=GRAFANA, help="where the panels are saved")
    parser.add_argument("--page", type=Path, default=DEPLOY / "status.png", help="where the status page is saved")
    arguments = parser.parse_args(argv)
    wanted = list(dict.fromkeys(expression for picture in PICTURES.values() for expression in asked(picture)))
    try:
        seen = run(Plan(arguments.unit, arguments.scrape_interval), wanted, lambda url: photograph(url, arguments.page))
    except BenchError as error:
        print(f"pictures.py: {error}", file=sys.stderr)
        return 1
    print(arguments.page)
    for name, picture in PICTURES.items():
        draw(seen, picture, arguments.folder / f"{name}.png")
        print(arguments.folder / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
