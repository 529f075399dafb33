"""Draw what clients see of reloads and of an upgrade, which is nothing: `python tests/bench/changes.py --help`.

A daemon serves an echo, a proxy and push to clients that stay connected. It is reloaded again and again, with other
options of all listeners, and upgraded. A Prometheus scrapes it, and the picture is drawn from what it has stored of the
connections, and from what the clients have counted.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from harness.changes import CLIENTS, Plan, Seen, run
from harness.processes import BenchError

PICTURE = Path(__file__).parent.parent.parent / "deploy" / "grafana" / "changes.png"
KIB = 1 << 10


def describe(seen: Seen) -> str:
    """Return what was seen, as a line."""
    reloads = sum(text == "reload" for _, text in seen.marks)
    connections = sum(CLIENTS.values())
    return f"{connections} connections; reloads: {reloads}, then an upgrade; connections that ended: {seen.ended}"


def draw(seen: Seen, path: Path) -> None:
    """Draw it to a file, two charts above one time axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: without it there are figures still
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(describe(seen))
    connections, rates = figure.subplots(2, 1, sharex=True)
    for axes, found, unit in ((connections, seen.connections, 1), (rates, seen.rates, KIB)):
        for name, values in found.items():
            axes.plot(*zip(*((at_s, value / unit) for at_s, value in values), strict=True), label=name)
        for at_s, text in seen.marks:
            axes.axvline(at_s, color="tab:gray", linestyle="--" if text == "reload" else "-", alpha=0.6)
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # from zero, or noise would look like a change
        axes.set_xlim(0, seen.length_s)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", ncols=3, fontsize="small")
    for at_s, text in seen.marks:
        connections.annotate(text, (at_s, connections.get_ylim()[1]), ha="center", va="bottom", fontsize="small")
    connections.set(ylabel="gaiod_connections_active")
    rates.set(ylabel="KiB/s that clients receive", xlabel="seconds")
    figure.savefig(path, dpi=100)


def main() -> int:
    """Run it, print what was seen, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--unit", type=float, default=15.0, help="seconds between two changes")
    parser.add_argument("--scrape-interval", type=float, default=1.0, help="of Prometheus, in seconds")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to save it")
    arguments = parser.parse_args()
    plan = Plan(arguments.unit, arguments.scrape_interval)
    try:
        seen = run(plan)
    except BenchError as error:
        print(f"changes.py: {error}", file=sys.stderr)
        return 1
    print(describe(seen))
    if find_spec("matplotlib") is None:
        print("changes.py: no picture: matplotlib is missing: pip install 'gaiod[docs]'", file=sys.stderr)
    else:
        draw(seen, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
