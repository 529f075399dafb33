"""Measure `gaiod serve` with one worker and with two, side by side: `python tests/bench/workers.py --help`.

Two loads, one on each core, so that both runs differ in the server only. Loads and workers share the
cores: the sum says what a machine of two cores gains, the CPU per message what a worker costs.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from harness.daemons import daemon
from harness.processes import BenchError, running
from harness.procfs import cpu_counters
from harness.runs import LOAD_TIMEOUT_S, parse_stopped
from harness.servers import Programs, compile_programs

CONFIG = """\
workers: {workers}
metrics: {{listen: "127.0.0.1:0"}}
control: {{listen: false}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo}}
"""
WARMUP_S = 0.5


def run(programs: Programs, workers: int, connections: int, message_bytes: int, seconds: float) -> tuple[float, float]:
    """Return the messages per second of both loads together, and the workers' CPU microseconds per message."""
    sizes = (connections // 2, message_bytes, seconds, WARMUP_S)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        gaiod = stack.enter_context(daemon(Path(folder), CONFIG.format(workers=workers)))
        pids = gaiod.workers
        command = (str(programs.load), "echo", "127.0.0.1", str(gaiod.ports["echo"]), *map(str, sizes))
        cpus = sorted(os.sched_getaffinity(0))[:2]
        loads = [stack.enter_context(running(f"load on core {cpu}", command, cpu)) for cpu in cpus]
        for load in loads:
            load.expect("started", WARMUP_S + LOAD_TIMEOUT_S)
        before = [cpu_counters(pid) for pid in pids]
        for load in loads:
            load.go_on()
        stopped = [parse_stopped(load.expect("stopped", seconds + LOAD_TIMEOUT_S)) for load in loads]
        used = [cpu_counters(pid) - counters for pid, counters in zip(pids, before, strict=True)]
    messages = sum(figures["messages"] for figures in stopped)
    if any(figures["mismatches"] or figures["errors"] or figures["lost"] for figures in stopped):
        raise BenchError("not every message was echoed")
    rate = sum(figures["messages"] / figures["seconds"] for figures in stopped)
    return rate, sum(counters.run_ns for counters in used) / messages / 1e3


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    parser.add_argument("--seconds", type=float, default=3.0, help="the measured part of a run")
    parser.add_argument("--connections", type=int, default=100, help="of both loads together")
    parser.add_argument("--bytes", type=int, default=1024, help="of a message")
    arguments = parser.parse_args()
    ratios, costs = [], []
    try:
        with tempfile.TemporaryDirectory(prefix="gaiod-bench-") as folder:
            programs = compile_programs(Path(folder))
            for repeat in range(arguments.repeats):
                results = {}
                for workers in (1, 2) if repeat % 2 == 0 else (2, 1):
                    results[workers] = run(programs, workers, arguments.connections, arguments.bytes, arguments.seconds)
                    print(f"{workers} workers: {results[workers][0]:.0f}/s, {results[workers][1]:.2f} us of CPU each")
                ratios.append(results[2][0] / results[1][0])
                costs.append(results[2][1] / results[1][1])
    except BenchError as error:
        print(f"workers.py: {error}", file=sys.stderr)
        return 1
    print(f"2 workers against 1: messages/s {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", end=", ")
    print(f"CPU per message {median(costs):.2f} ({min(costs):.2f}-{max(costs):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
