"""Draw what happens when a server stops reading behind the proxy: `python tests/bench/stall.py --help`.

A client writes as fast as it can through `gaiod serve` to a server that reads, does not for a while, and reads again.
A Prometheus scrapes the daemon all the time, and the picture is drawn from what it has stored.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.processes import BenchError
from harness.stalls import SAMPLES_PER_RATE, Plan, Stall, run

PICTURE = Path(__file__).parent.parent.parent / "deploy" / "grafana" / "proxy-stall.png"
KIB, MIB = 1 << 10, 1 << 20
SETTLED_S = 3.0
"""After the pause's begin the kernel's buffers fill up first."""


def describe(stall: Stall) -> str:
    """Return what was seen, as a line."""
    buffered, resident = stall.during("buffered", SETTLED_S), [value for _, value in stall.series["resident"]]
    limit, paused = stall.series["limit"][0][1], min(stall.during("paused", SETTLED_S))
    resumed_after_s = stall.resumed_s - stall.ended_s
    return (
        f"{stall.received / MIB:.0f} MiB through the proxy, no byte lost; while the server did not read, for "
        f"{stall.ended_s - stall.began_s:.0f} s: at most {max(buffered) / KIB:.0f} KiB buffered (limit "
        f"{limit / KIB:.0f} KiB), {paused:.0f} connection paused; flowing again {resumed_after_s:.2f} s later; "
        f"worker RSS {min(resident) / MIB:.1f} to {max(resident) / MIB:.1f} MiB"
    )


def draw(stall: Stall, path: Path, rate_s: float) -> None:
    """Draw it, four charts above one time axis.

    Args:
        stall: what was seen.
        path: of the picture.
        rate_s: how long a time a rate is the mean of.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: without it there are figures still
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 9.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("The proxy while a server stops reading: its client is paused, nothing piles up")
    rates, buffered, paused, resident = figure.subplots(4, 1, sharex=True, height_ratios=(3, 2, 1.2, 2))

    def line(axes: Any, name: str, unit: int, **how: Any) -> None:
        times, values = zip(*stall.series[name], strict=True)
        axes.plot(times, [value / unit for value in values], **how)

    line(rates, "from_client", MIB, label="received from the client", color="tab:blue", linewidth=3, alpha=0.5)
    line(rates, "to_server", MIB, label="sent to the server", color="tab:orange", linestyle="--")
    rates.set(title=f"Throughput (mean of {rate_s:g} s)", ylabel="MiB/s")
    line(buffered, "buffered", KIB, label="buffered for the server", color="tab:blue")
    line(buffered, "limit", KIB, label="buffer_limit", color="tab:red", linestyle="--")
    buffered.set(title="Bytes that the relay holds (gaiod_buffered_bytes)", ylabel="KiB")
    line(paused, "paused", 1, label="whose server does not take their bytes", color="tab:blue", drawstyle="steps-post")
    paused.set(title="Connections paused (gaiod_backpressure_paused_connections)", ylabel="number", yticks=(0, 1))
    line(resident, "resident", MIB, label="resident memory of the worker", color="tab:green")
    resident.set(title="Memory (gaiod_worker_resident_memory_bytes)", ylabel="MiB", xlabel="seconds")
    for axes in (rates, buffered, paused, resident):
        axes.axvspan(stall.began_s, stall.ended_s, color="tab:gray", alpha=0.15, label="the server does not read")
        room = 1.8 if axes is paused else 1.35  # for the legend
        axes.set_ylim(0, room * axes.get_ylim()[1])  # from zero, or noise would look like growth
        axes.set_xlim(0, stall.series["resident"][-1][0])
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", ncols=3, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Run it, print what was seen, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--stall", type=float, default=60.0, help="seconds for which the server does not read")
    parser.add_argument("--flow", type=float, default=20.0, help="seconds of reading before that, and after it")
    parser.add_argument("--buffer-limit", type=int, default=256 * KIB, help="the proxy's option, in bytes")
    parser.add_argument("--scrape-interval", type=float, default=0.5, help="of Prometheus, in seconds")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="where to save it")
    arguments = parser.parse_args()
    plan = Plan(arguments.flow, arguments.stall, arguments.buffer_limit, arguments.scrape_interval)
    if plan.stall_s <= SETTLED_S:
        parser.error(f"--stall {plan.stall_s:g}: the kernel's buffers fill up first; write more than {SETTLED_S:g}")
    try:
        stall = run(plan)
    except BenchError as error:
        print(f"stall.py: {error}", file=sys.stderr)
        return 1
    print(describe(stall))
    if find_spec("matplotlib") is None:
        print("stall.py: no picture: matplotlib is missing: pip install 'gaiod[docs]'", file=sys.stderr)
    else:
        draw(stall, arguments.picture, SAMPLES_PER_RATE * plan.every_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
