"""What a hand-over costs the clients: a daemon replaces its worker again and again, and everybody goes over."""

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gaiod.control.client import ask
from harness.daemons import Daemon, daemon
from harness.processes import BenchError, running
from harness.report import markdown_head, markdown_row, spread
from harness.runs import LOAD_TIMEOUT_S, Bench, Row, check_echoes
from harness.scraped import scrape

CONFIG = """\
workers: 1
metrics: {{listen: "127.0.0.1:0"}}
control: {{listen: "unix:{folder}/control"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, connections_max: 20000}}
"""

HANDED = re.compile(r"handed (\d+) of (\d+) connections over in (\d+) ms")
PAUSE = re.compile(r'gaiod_handover_pause_seconds_bucket\{.*le="([^"]+)".*\} ([\d.e+]+)')

BETWEEN_S = 0.5
"""From the end of one replacement to the next: so long everybody is served as ever."""


@dataclass(frozen=True)
class Moves:
    """What was seen.

    Attributes:
        connections: of all, how many went over and were to, in all.
        took_ms: from the first to the last, for each worker.
        pause_ms: bounds of the buckets that 50 and 99 of 100 connections were within: nobody moved their bytes.
        p99_us: of the round trips of those that exchange messages, without and with replacements, each run.
    """

    connections: tuple[int, int]
    took_ms: Sequence[int]
    pause_ms: tuple[float, float]
    p99_us: Mapping[bool, Sequence[float]]


def run_moves(bench: Bench, busy: Row, idle: int, replacements: int, repeats: int) -> Moves:
    """Replace a worker that has idle and busy connections; its daemon is pinned to no core.

    Raises:
        BenchError: the daemon or a load failed, or an echo was wrong or never came.
    """
    p99_us: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="gaiod-moves-") as name:
        folder = Path(name)
        with daemon(folder, CONFIG.format(folder=folder)) as gaiod:
            port = str(gaiod.ports["echo"])
            holding = (str(bench.programs.load), "idle", "127.0.0.1", port, str(idle))
            with running("idle connections", holding, bench.load_cpu) as held:
                held.expect("started", LOAD_TIMEOUT_S)
                for _ in range(repeats):
                    for replaces in (False, True):
                        p99_us[replaces].append(_exchange(bench, busy, port, folder, replacements if replaces else 0))
            handed = [tuple(map(int, found)) for found in HANDED.findall("".join(gaiod.lines))]
            pauses = _pauses(gaiod)
    if len(handed) < replacements * repeats:
        raise BenchError(
            f"{len(handed)} workers handed their connections over, where {replacements * repeats} were due"
        )
    went, were, took = zip(*handed, strict=True)
    return Moves((sum(went), sum(were)), took, pauses, p99_us)


def _exchange(bench: Bench, busy: Row, port: str, folder: Path, replacements: int) -> float:
    """Have messages exchanged, and workers replaced meanwhile; return the 99th percentile of the round trips, in us."""
    seconds = bench.seconds * max(1, replacements)
    sizes = (busy.connections, busy.message_bytes, seconds, bench.warmup_s)
    command = (str(bench.programs.load), "echo", "127.0.0.1", port, *map(str, sizes))
    with running("busy connections", command, bench.load_cpu) as load:
        load.expect("started", bench.warmup_s + LOAD_TIMEOUT_S)
        load.go_on()
        for _ in range(replacements):
            ask(f"{folder}/control", "restart")
            time.sleep(min(BETWEEN_S, bench.seconds / 2))
        return check_echoes(load, load.expect("stopped", seconds + LOAD_TIMEOUT_S))["p99_us"]


def _pauses(gaiod: Daemon) -> tuple[float, float]:
    text = scrape(gaiod.metrics_port)[1].decode()
    buckets = [(float(bound), float(count)) for bound, count in PAUSE.findall(text)]
    if not buckets or not buckets[-1][1]:
        raise BenchError("no connection was handed over")
    half, most = (
        next(1e3 * bound for bound, count in buckets if count >= share * buckets[-1][1]) for share in (0.5, 0.99)
    )
    return half, most


def moves_table(results: Mapping[str, Moves]) -> list[str]:
    """Return the table of what hand-overs cost, by what the connections did."""
    head = markdown_head(
        (
            "connections",
            "handed over",
            "a worker's, ms (least-most)",
            "pause p50, p99 within, ms",
            "p99 without, us",
            "with",
        )
    )
    rows = [
        markdown_row(
            (
                what,
                f"{each.connections[0]} of {each.connections[1]}",
                spread(each.took_ms, 0),
                f"{each.pause_ms[0]:g}, {each.pause_ms[1]:g}",
                *(f"{median(each.p99_us[replaces]):.0f}" for replaces in (False, True)),
            )
        )
        for what, each in results.items()
    ]
    return [head, *rows]
