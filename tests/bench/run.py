"""Run the benchmarks and print their tables: `python tests/bench/run.py --help`."""

import argparse
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.conditions import conditions
from harness.moves import moves_table, run_moves
from harness.network import congestion_control, enter_own_network
from harness.processes import BenchError
from harness.proxies import PROXY_NAMES, REFERENCES, known_proxies, known_tls_proxies, missing_proxies
from harness.push import (
    BURST,
    PUSH_NAMES,
    PUSH_REFERENCES,
    Fanout,
    PushRun,
    known_publishers,
    paced,
    run_push,
    run_push_idle,
    saturated,
)
from harness.report import PUSH_COLUMNS, Runs, disturbed, idle_table, load_columns, load_head, load_rows, overview
from harness.runs import IDLE_WARMUP_CONNECTIONS, Bench, LoadMode, Row, Run, interleaved, run_idle, run_load
from harness.scraped import Served, run_scrapes, scrapes_table
from harness.servers import (
    Contestant,
    Server,
    compile_programs,
    known_coroutine_servers,
    known_servers,
    missing_servers,
)
from harness.tls import make_pair, with_tls

SERVER_NAMES = ("gaiod", "c", "uvloop", "aiofastnet", "asyncio", "gaiod-interpreted")
ECHO_REFERENCES = ("uvloop", "aiofastnet", "c")
ECHO_PEERS = {name: (name,) for name in ECHO_REFERENCES}
PROXY_PEERS = {
    "best of haproxy and nginx": ("haproxy", "haproxy-splice", "nginx"),
    "better c": ("c-copy", "c-splice"),
}
COROUTINE_NAMES = ("gaiod", "gaiod-coroutine", "uvloop", "uvloop-streams", "asyncio-streams")
COROUTINE_PEERS = {"hooks": ("gaiod",), **{name: (name,) for name in COROUTINE_NAMES[2:]}}
NAMES = tuple(dict.fromkeys((*SERVER_NAMES, *COROUTINE_NAMES, *PROXY_NAMES, *PUSH_NAMES)))
ECHO_ROWS = (
    Row(1, 64),
    Row(10, 64),
    *(Row(count, size) for count in (100, 1000) for size in (64, 1024, 4096, 16384, 65536)),
    Row(9000, 64),
)
CONNECT_ROWS = (Row(50, 1024),)
"""Of servers and of proxies."""
COROUTINE_ROWS = (Row(1, 64), Row(10, 64), Row(100, 64), Row(100, 1024), Row(1000, 1024))
DEADLINES_ROWS = (Row(100, 1024),)
SCRAPE_ROWS = (Row(100, 1024),)
SCRAPES = 50
MOVES_ROWS = (Row(1, 64), Row(10, 1024), Row(100, 1024))
"""A worker with one connection that exchanges messages has half its core busy; with 100 it is busy all the time."""
REPLACEMENTS = 5
"""Of the worker, in each run."""
"""Of a large daemon, one after the other."""
DEADLINES_FLAGS = ((), ("--timers", "10000"), ("--read-deadline", "300"))
PROXY_ROWS = (Row(1, 256), Row(10, 256), Row(50, 256), Row(50, 16384), Row(4, 262144))
PACED_ROWS = tuple(Row(count, size) for count in (100, 1000, 10000) for size in (64, 1024))
SATURATED_ROWS = (Row(100, 64), Row(1000, 64), Row(1000, 1024), Row(10000, 64))
TLS_ROWS = (Row(1, 1024), Row(10, 1024), Row(100, 1024), Row(100, 16384), Row(1000, 1024))
TLS_CONNECT_ROWS = (Row(1, 1024), Row(20, 1024))
TLS_PROXY_ROWS = (Row(1, 1024), Row(10, 1024), Row(100, 1024), Row(100, 16384))
TLS_PROXY_REFERENCES = ("haproxy", "nginx")
FILES_PER_PROXIED = 6
"""Two sockets, and the two ends of a pipe for each direction."""
SPARE_FILES = 200
"""Descriptors of a process on top of its connections."""


@dataclass(frozen=True)
class Comparison:
    """One table: the loads, the servers that carry each of them, and those the others are held against.

    Attributes:
        peers: those that the subject is held against in a second table, by its columns; none: there is no such table.
        subject: the server that all of this is about.
    """

    rows: Sequence[Row]
    servers: Sequence[Contestant]
    references: Sequence[str]
    mode: LoadMode = "echo"
    peers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    subject: str = "gaiod"

    @property
    def unit(self) -> str:
        """Return what CPU time is divided by."""
        return "connection" if self.mode == "connect" else "message"

    def label(self, row: Row) -> str:
        """Return what the tables call a load."""
        return f"connect, {row}, close" if self.mode == "connect" else str(row)


def tell(text: str) -> None:
    """Say how far it is, beside the tables."""
    print(text, file=sys.stderr, flush=True)


def tell_missing(missing: Mapping[str, str], asked: Sequence[str]) -> None:
    """Say which of the servers that were asked for are not installed, and what to do about each."""
    for name in asked:
        if name in missing:
            tell(f"run.py: {name} is left out: {missing[name]}")


def measure_row(bench: Bench, comparison: Comparison, row: Row, repeats: int) -> dict[str, list[Run]]:
    """Run all servers under one load, in turns."""

    def tell_run(name: str, repeat: int, run: Run) -> None:
        figures = f"{run.cpu_us:.2f} us, {run.messages_per_s:.0f}/s"
        tell(f"{comparison.mode} {row}, {repeat + 1}/{repeats}, {name}: {figures}, waited {run.wait_share:.1%}")

    return interleaved(
        comparison.servers, repeats, lambda server: run_load(bench, server, row, comparison.mode), tell_run
    )


def print_comparison(bench: Bench, comparison: Comparison, repeats: int) -> None:
    """Measure, and print each row as soon as it is done; then the overview, and how disturbed all of it was."""
    results: dict[str, Runs] = {}
    columns = load_columns(comparison.unit)
    print(load_head(columns, comparison.references))
    for row in comparison.rows:
        label = comparison.label(row)
        results[label] = measure_row(bench, comparison, row, repeats)
        print(*load_rows(label, results[label], columns, comparison.references), sep="\n", flush=True)
    if comparison.peers:
        print("", *overview(comparison.unit, results, comparison.peers, comparison.subject), sep="\n")
    print(f"\n{disturbed(results.values())}\n", flush=True)


def print_idle(
    bench: Bench,
    servers: Sequence[Contestant],
    repeats: int,
    count: int,
    what: str = "connections",
    run: Callable[[Bench, Contestant, int], float] = run_idle,
) -> None:
    """Measure the memory of idle connections, and print it."""

    def tell_run(name: str, repeat: int, bytes_each: float) -> None:
        tell(f"idle {count} {what}, {repeat + 1}/{repeats}, {name}: {bytes_each:.0f} bytes")

    results = interleaved(servers, repeats, lambda server: run(bench, server, count), tell_run)
    print(*idle_table(what, count, results), "", sep="\n", flush=True)


def measure_fanout(
    bench: Bench, servers: Sequence[Contestant], fanout: Fanout, repeats: int
) -> dict[str, list[PushRun]]:
    """Run all publishers under one load, in turns."""

    def tell_run(name: str, repeat: int, run: PushRun) -> None:
        tell(f"push {fanout}, {repeat + 1}/{repeats}, {name}: {run.cpu_us:.3f} us, {run.messages_per_s:.0f}/s")

    return interleaved(servers, repeats, lambda server: run_push(bench, server, fanout), tell_run)


def print_fanouts(bench: Bench, servers: Sequence[Contestant], fanouts: Sequence[Fanout], repeats: int) -> None:
    """Measure the publishers, and print each row as soon as it is done."""
    results: list[Runs] = []
    references = [name for name in PUSH_REFERENCES if name in {server.name for server in servers}]
    print(load_head(PUSH_COLUMNS, references))
    for fanout in fanouts:
        runs = measure_fanout(bench, servers, fanout, repeats)
        print(*load_rows(str(fanout), runs, PUSH_COLUMNS, references), sep="\n", flush=True)
        results.append(runs)
    print(f"\n{disturbed(results)}\n", flush=True)


def print_push(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure the publishers: paced, as fast as they can, and what an idle subscriber costs; print all tables."""
    servers = [server for name, server in known_publishers(bench.programs).items() if name in arguments.servers]
    print("A message every so often, seldom enough for every server to keep up.\n")
    rows = arguments.rows or PACED_ROWS
    print_fanouts(bench, servers, [paced(row.connections, row.message_bytes) for row in rows], arguments.repeats)
    print(f"{BURST} messages at once, and the next as soon as the kernel has taken these for every subscriber.\n")
    rows = arguments.rows or SATURATED_ROWS
    print_fanouts(bench, servers, [saturated(row.connections, row.message_bytes) for row in rows], arguments.repeats)
    print_idle(bench, servers, arguments.repeats, arguments.idle_connections, "subscribers", run_push_idle)


def print_proxies(bench: Bench, arguments: argparse.Namespace, folder: Path) -> None:
    """Measure the proxies in a network of their own, and print all their tables."""
    try:
        enter_own_network()
    except OSError as error:
        tell(f"run.py: no network of its own: {error}: haproxy's and nginx's connections use the system's default")
    tell_missing(missing_proxies(), arguments.servers)
    known = known_proxies(bench.programs, folder, bench.load_cpu)
    proxies = [proxy for name, proxy in known.items() if name in arguments.servers]
    references = [name for name in REFERENCES if name in known and name in arguments.servers]
    print(
        f"Proxy on core {bench.server_cpu}, load and the echo server behind it on core {bench.load_cpu}; the proxies' "
        f"connections to it use {congestion_control()} where they do not choose.\n"
    )
    loads = Comparison(arguments.rows or PROXY_ROWS, proxies, references, peers=PROXY_PEERS)
    print_comparison(bench, loads, arguments.repeats)
    print_comparison(bench, replace(loads, rows=CONNECT_ROWS, mode="connect"), arguments.repeats)
    print_idle(bench, proxies, arguments.repeats, arguments.proxied_connections)


def print_tls(bench: Bench, arguments: argparse.Namespace, folder: Path) -> None:
    """Measure echoes, handshakes, idle connections and proxies that speak TLS with their clients; print all tables."""
    pair = make_pair(folder)
    secure = replace(bench, programs=with_tls(bench.programs, folder))
    known = known_servers(secure.programs, pair.words)
    servers = [server for name, server in known.items() if name in arguments.servers]
    references = [name for name in ECHO_REFERENCES if name in {server.name for server in servers}]
    print("TLS 1.3, AES-128-GCM, a certificate with a key on P-256; `connect` makes a full handshake each time.\n")
    loads = Comparison(arguments.rows or TLS_ROWS, servers, references, peers=ECHO_PEERS)
    print_comparison(secure, loads, arguments.repeats)
    print_comparison(secure, replace(loads, rows=TLS_CONNECT_ROWS, mode="connect"), arguments.repeats)
    print_idle(secure, servers, arguments.repeats, arguments.tls_connections)
    proxies = [
        proxy
        for name, proxy in known_tls_proxies(bench.programs, folder, bench.load_cpu, pair).items()
        if name in arguments.servers
    ]
    references = [name for name in TLS_PROXY_REFERENCES if name in {proxy.name for proxy in proxies}]
    print("Proxies that speak TLS with clients and none with the server: one decrypts, and encrypts the answer.\n")
    loads = Comparison(arguments.rows or TLS_PROXY_ROWS, proxies, references, peers={n: (n,) for n in references})
    print_comparison(secure, loads, arguments.repeats)


def print_coroutines(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure echoes that are coroutines, beside hooks and a protocol of callbacks; print all tables."""
    servers = [server for name, server in known_coroutine_servers().items() if name in arguments.servers]
    references = [server.name for server in servers if server.name in ("gaiod", "uvloop")]
    loads = Comparison(
        arguments.rows or COROUTINE_ROWS, servers, references, peers=COROUTINE_PEERS, subject="gaiod-coroutine"
    )
    print_comparison(bench, loads, arguments.repeats)
    print_idle(bench, servers, arguments.repeats, arguments.idle_connections)


def print_scrapes(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure an echo while somebody scrapes it every second and while nobody does, and what a scrape takes."""
    print("`gaiod serve` with one worker: its CPU is measured. The supervisor, which answers, is on the load's core.\n")
    servers = (Served("not scraped", bench.load_cpu), Served("scraped every second", bench.load_cpu, every_s=1.0))
    comparison = Comparison(arguments.rows or SCRAPE_ROWS, servers, [servers[0].name])
    print_comparison(bench, comparison, arguments.repeats)
    print(f"{SCRAPES} scrapes of a daemon with 8 workers, 4 listeners and 16 servers.\n")
    print(*scrapes_table(run_scrapes(SCRAPES)), "", sep="\n", flush=True)


def print_moves(bench: Bench, arguments: argparse.Namespace) -> None:
    """Measure what it costs connections that their worker is replaced by another."""
    print("`gaiod serve` with one worker, replaced again and again; the daemon may use both cores.\n")
    results = {}
    for busy in arguments.rows or MOVES_ROWS:
        what = f"{busy} busy, {arguments.moved_connections} idle"
        results[what] = run_moves(bench, busy, arguments.moved_connections, REPLACEMENTS, arguments.repeats)
        tell(f"handover {what}: {results[what].took_ms} ms")
    print(*moves_table(results), "", sep="\n", flush=True)


def deadline_servers(servers: Sequence[Server]) -> list[Server]:
    """Return gaiod's engines, each without and with the deadlines whose cost is asked for."""
    return [
        server.with_flags(*flags) for server in servers if server.name.startswith("gaiod") for flags in DEADLINES_FLAGS
    ]


def described(arguments: argparse.Namespace) -> str:
    """Return the sentence without which the figures mean nothing."""
    return (
        f"Conditions: {conditions()}; loopback; "
        f"server on core {arguments.server_cpu}, load on core {arguments.load_cpu}, of {os.cpu_count()}; "
        f"{arguments.repeats} repeats of {arguments.seconds:g} s after {arguments.warmup:g} s of warm-up.\n"
    )


def row_argument(text: str) -> Row:
    """Parse `CONNECTIONSxBYTES`."""
    connections, _, message_bytes = text.partition("x")
    return Row(int(connections), int(message_bytes))


def rows_argument(text: str) -> tuple[Row, ...]:
    """Parse rows with commas between them."""
    return tuple(row_argument(word) for word in text.split(","))


def servers_argument(text: str) -> tuple[str, ...]:
    """Parse servers' names with commas between them."""
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - set(NAMES)):
        raise argparse.ArgumentTypeError(f"no such server: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    return names


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        choices=(
            "echo",
            "idle",
            "deadlines",
            "connect",
            "proxy",
            "tls",
            "push",
            "scrape",
            "handover",
            "coroutines",
            "all",
        ),
        default="all",
    )
    add("--repeats", type=int, default=5, help="runs of each server under each load")
    add("--seconds", type=float, default=2.0, help="the measured part of a run")
    add("--warmup", type=float, default=0.5, metavar="SECONDS", help="load before the measured part")
    add(
        "--servers",
        type=servers_argument,
        default=",".join(NAMES),
        help="names with commas between them",
    )
    add(
        "--rows",
        type=rows_argument,
        help="loads of all but `idle` and `connect`: CONNECTIONSxBYTES,... (default: theirs)",
    )
    add("--idle-connections", type=int, default=5000, help="connections of `idle`, and of `push`'s")
    add("--proxied-connections", type=int, default=2000, help="idle connections of `proxy`")
    add("--tls-connections", type=int, default=1000, help="idle connections of `tls`")
    add("--moved-connections", type=int, default=1000, help="idle connections of `handover`")
    add("--server-cpu", type=int, default=cpus[0], help="the server's core")
    add("--load-cpu", type=int, default=cpus[min(1, len(cpus) - 1)], help="the load's core and the runner's")
    arguments = parser.parse_args(argv)
    if arguments.what == "deadlines" and not any(name.startswith("gaiod") for name in arguments.servers):
        parser.error("deadlines: only gaiod's servers have them")
    if arguments.what == "proxy" and not set(arguments.servers) & set(PROXY_NAMES):
        parser.error(f"proxy: none of the servers is one; there are {', '.join(PROXY_NAMES)}")
    if arguments.what == "push" and not set(arguments.servers) & set(PUSH_NAMES):
        parser.error(f"push: none of the servers is a publisher; there are {', '.join(PUSH_NAMES)}")
    return arguments


def run_all(arguments: argparse.Namespace, folder: Path) -> None:
    """Run what was asked for.

    Raises:
        BenchError: a server or the load failed; the tables so far are printed.
    """
    programs = compile_programs(folder)
    bench = Bench(programs, arguments.server_cpu, arguments.load_cpu, arguments.seconds, arguments.warmup)
    servers = [server for name, server in known_servers(programs).items() if name in arguments.servers]
    if arguments.what in ("echo", "connect", "idle", "all"):
        tell_missing(missing_servers(), arguments.servers)
    references = [name for name in ECHO_REFERENCES if name in {server.name for server in servers}]
    deadlines = deadline_servers(servers)
    comparisons = {
        "echo": Comparison(arguments.rows or ECHO_ROWS, servers, references, peers=ECHO_PEERS),
        "deadlines": Comparison(
            DEADLINES_ROWS, deadlines, [server.name for server in deadlines[:: len(DEADLINES_FLAGS)]]
        ),
        "connect": Comparison(CONNECT_ROWS, servers, references, "connect", ECHO_PEERS),
    }
    print(described(arguments))
    for name, comparison in comparisons.items():
        if arguments.what in (name, "all") and comparison.servers:
            print_comparison(bench, comparison, arguments.repeats)
    if arguments.what in ("idle", "all"):
        print_idle(bench, servers, arguments.repeats, arguments.idle_connections)
    if arguments.what in ("proxy", "all"):
        print_proxies(bench, arguments, folder)
    if arguments.what in ("tls", "all"):
        print_tls(bench, arguments, folder)
    if arguments.what in ("push", "all"):
        print_push(bench, arguments)
    if arguments.what in ("scrape", "all"):
        print_scrapes(bench, arguments)
    if arguments.what in ("coroutines", "all"):
        print_coroutines(bench, arguments)
    if arguments.what in ("handover", "all"):
        print_moves(bench, arguments)


def files_wanted(arguments: argparse.Namespace) -> int:
    """Return the open files that the largest of all loads takes in one process."""
    rows = arguments.rows or (*ECHO_ROWS, *PACED_ROWS, *SATURATED_ROWS)
    connections: int = max(row.connections for row in rows)
    idle: int = arguments.idle_connections + IDLE_WARMUP_CONNECTIONS
    proxied: int = FILES_PER_PROXIED * (arguments.proxied_connections + IDLE_WARMUP_CONNECTIONS)
    return max(connections, idle, proxied) + SPARE_FILES


def allow_files(wanted: int) -> None:
    """Raise the limit on open files for this process and its children; say where the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed < wanted:
        tell(f"run.py: {wanted} open files are wanted and {hard} allowed: loads of more connections fail: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def prepare_process(arguments: argparse.Namespace) -> None:
    """Keep off the server's core, end children on SIGTERM too, and allow enough open files."""
    os.sched_setaffinity(0, {arguments.load_cpu})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    allow_files(files_wanted(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = parse_arguments(argv)
    prepare_process(arguments)
    if arguments.server_cpu == arguments.load_cpu:
        tell("run.py: server and load share one core: the ratios lean towards 1")
    try:
        with tempfile.TemporaryDirectory(prefix="gaiod-bench-") as folder:
            run_all(arguments, Path(folder))
    except BenchError as error:
        tell(f"run.py: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
