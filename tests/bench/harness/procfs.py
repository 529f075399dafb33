"""What the kernel says a process has used. Sources: proc(5), Documentation/scheduler/sched-stats.rst."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuCounters:
    """CPU use of a process since it began, or between two readings."""

    run_ns: int
    """On a CPU, all living threads; counts system calls and the softirqs they run into."""
    wait_ns: int
    """Ready to run while something else had the CPU."""
    user_ticks: int
    kernel_ticks: int
    """Sampled at the tick and rounded to 10 ms: good for the share of each, not for a sum."""

    def __sub__(self, earlier: "CpuCounters") -> "CpuCounters":
        return CpuCounters(
            self.run_ns - earlier.run_ns,
            self.wait_ns - earlier.wait_ns,
            self.user_ticks - earlier.user_ticks,
            self.kernel_ticks - earlier.kernel_ticks,
        )

    @property
    def user_share(self) -> float:
        """The part of the time spent in user mode, 0 to 1; 0 when no tick was seen."""
        ticks = self.user_ticks + self.kernel_ticks
        return self.user_ticks / ticks if ticks else 0.0


def parse_schedstat(text: str) -> tuple[int, int]:
    """Return (run_ns, wait_ns) from a schedstat file: `run_ns wait_ns timeslices`."""
    run_ns, wait_ns, _timeslices = text.split()
    return int(run_ns), int(wait_ns)


def parse_stat(text: str) -> tuple[int, int]:
    """Return (user_ticks, kernel_ticks) from a stat file, fields 14 and 15.

    Field 2, the program's name in parentheses, may itself contain spaces and parentheses.
    """
    fields_from_3 = text.rpartition(")")[2].split()
    return int(fields_from_3[11]), int(fields_from_3[12])


def parse_anonymous_bytes(text: str) -> int:
    """Return the anonymous memory (heap, stacks, private mappings) from a smaps_rollup file."""
    for line in text.splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise ValueError("smaps_rollup has no line `Anonymous:`")


def cpu_counters(pid: int) -> CpuCounters:
    """Read the counters of a process, all threads."""
    process = Path(f"/proc/{pid}")
    threads = [
        parse_schedstat((process / "task" / tid / "schedstat").read_text()) for tid in os.listdir(process / "task")
    ]
    user_ticks, kernel_ticks = parse_stat((process / "stat").read_text())
    return CpuCounters(sum(run for run, _ in threads), sum(wait for _, wait in threads), user_ticks, kernel_ticks)


def anonymous_bytes(pid: int) -> int:
    """Read the anonymous memory of a process."""
    return parse_anonymous_bytes(Path(f"/proc/{pid}/smaps_rollup").read_text())
