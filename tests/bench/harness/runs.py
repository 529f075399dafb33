"""One run of one server under load, and many runs in an order that is fair."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

from harness.processes import BenchError, Child, running
from harness.procfs import CpuCounters, anonymous_bytes, cpu_counters
from harness.servers import Contestant, Programs

LOAD_TIMEOUT_S = 15.0
"""On top of what the load was asked for: opening its connections and waiting 5 s for lost echoes, twice."""
IDLE_WARMUP_CONNECTIONS = 200
SETTLE_STEP_S = 0.1
SETTLE_STEPS_MAX = 30

T = TypeVar("T")
LoadMode = Literal["echo", "connect"]


@dataclass(frozen=True)
class Row:
    """One load: so many connections, each with one message of so many bytes under way."""

    connections: int
    message_bytes: int

    def __str__(self) -> str:
        return f"{self.connections} x {self.message_bytes}"


@dataclass(frozen=True)
class Bench:
    """What all runs have in common."""

    programs: Programs
    server_cpu: int
    load_cpu: int
    seconds: float
    warmup_s: float


@dataclass(frozen=True)
class Run:
    """What one run measured."""

    messages: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    cpu: CpuCounters

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Server CPU time per message, user and kernel."""
        return self.cpu.run_ns / self.messages / 1e3

    @property
    def user_us(self) -> float:
        return self.cpu_us * self.cpu.user_share

    @property
    def kernel_us(self) -> float:
        return self.cpu_us - self.user_us

    @property
    def busy_share(self) -> float:
        """The part of the window the server was on its core: below 0.95 the load was the slower half."""
        return self.cpu.run_ns / 1e9 / self.seconds

    @property
    def wait_share(self) -> float:
        """The part of the window the server was kept off its core by something else."""
        return self.cpu.wait_ns / 1e9 / self.seconds


def parse_stopped(text: str) -> dict[str, float]:
    """Return the figures of a `stopped` line: `messages=N seconds=S p50_us=..`."""
    return {name: float(value) for name, _, value in (word.partition("=") for word in text.split())}


def check_echoes(load: Child, stopped: str) -> dict[str, float]:
    """Return the figures of a load's `stopped` line.

    Raises:
        BenchError: an echo was wrong or never came.
    """
    figures = parse_stopped(stopped)
    if figures["mismatches"] or figures["errors"] or figures["lost"] or not figures["messages"]:
        raise BenchError(f"{load.name}: not every message was echoed: {stopped}")
    return figures


def _load(bench: Bench, server: Contestant, port: int, mode: str, *sizes: float) -> AbstractContextManager[Child]:
    command = (str(bench.programs.load), mode, "127.0.0.1", str(port), *map(str, sizes))
    return running(f"load {mode} on {server.name}", command, bench.load_cpu)


def run_load(bench: Bench, server: Contestant, row: Row, mode: LoadMode = "echo") -> Run:
    """Run a fresh server under one load.

    The load has no message in flight when the counters are read, so the CPU time between the two
    readings is that of the messages it has counted.

    Raises:
        BenchError: the server or the load failed, or an echo was wrong or never came.
    """
    with server.serving(bench.server_cpu) as (child, port):
        sizes = (row.connections, row.message_bytes, bench.seconds, bench.warmup_s)
        with _load(bench, server, port, mode, *sizes) as load:
            load.expect("started", bench.warmup_s + LOAD_TIMEOUT_S)
            before = cpu_counters(child.pid)
            load.go_on()
            stopped = load.expect("stopped", bench.seconds + LOAD_TIMEOUT_S)
            cpu = cpu_counters(child.pid) - before
            figures = check_echoes(load, stopped)
    return Run(
        int(figures["messages"]),
        figures["seconds"],
        figures["p50_us"],
        figures["p99_us"],
        figures["p999_us"],
        cpu,
    )


def settled_bytes(read_bytes: Callable[[], int]) -> int:
    """Read until two readings in a row are the same, for at most 3 s; return the last."""
    last = read_bytes()
    for _ in range(SETTLE_STEPS_MAX):
        time.sleep(SETTLE_STEP_S)
        previous, last = last, read_bytes()
        if previous == last:
            break
    return last


def run_idle(bench: Bench, server: Contestant, connections: int) -> float:
    """Return the bytes of server memory per idle connection.

    Each connection has echoed one message before it falls idle. The first 200 are not counted: they
    pay for what a server allocates once.

    Raises:
        BenchError: the server or the load failed, or an echo was wrong or never came.
    """
    with (
        server.serving(bench.server_cpu) as (child, port),
        _load(bench, server, port, "idle", IDLE_WARMUP_CONNECTIONS) as first,
    ):
        first.expect("started", LOAD_TIMEOUT_S)
        before_bytes = settled_bytes(lambda: anonymous_bytes(child.pid))
        with _load(bench, server, port, "idle", connections) as load:
            load.expect("started", LOAD_TIMEOUT_S)
            after_bytes = settled_bytes(lambda: anonymous_bytes(child.pid))
    return (after_bytes - before_bytes) / connections


def interleaved(
    servers: Sequence[Contestant], repeats: int, run: Callable[[Contestant], T], tell: Callable[[str, int, T], None]
) -> dict[str, list[T]]:
    """Run every server `repeats` times in turn: A B C, C B A, A B C ...

    The runs of one round lie next to each other in time and are compared with each other only, and
    turning the order round lets a drift of the machine favour nobody.
    """
    results: dict[str, list[T]] = {server.name: [] for server in servers}
    for repeat in range(repeats):
        for server in servers if repeat % 2 == 0 else reversed(servers):
            result = run(server)
            results[server.name].append(result)
            tell(server.name, repeat, result)
    return results
