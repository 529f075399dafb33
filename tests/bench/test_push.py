"""The benchmark of publishers: each publishes to all, nothing lost or doubled is overlooked, the runner prints them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.processes import BenchError
from harness.procfs import CpuCounters
from harness.push import (
    PUSH_NAMES,
    Fanout,
    PushRun,
    known_publishers,
    paced,
    run_push,
    run_push_idle,
    saturated,
)
from harness.report import PUSH_COLUMNS, load_head, load_rows
from harness.runs import Bench
from harness.servers import Programs, Server
from needs import needs_module

pytest_plugins = ("bench_fixtures",)
BENCH = Path(__file__).parent

FALSE_PUBLISHER = """
import socket, struct, sys, time
from publication import Publication
listener = socket.create_server(("127.0.0.1", 0))
print("listening", listener.getsockname()[1], flush=True)
listener.accept()[0].close()
control = listener.accept()[0]
subscribers = []
while request := control.recv(256):
    if request == b"count\\n":
        listener.settimeout(10)
        while len(subscribers) < 2:
            subscribers.append(listener.accept()[0])
            assert subscribers[-1].recv(256) == b"subscribe\\n"
        control.sendall(b"2\\n")
        continue
    publication, messages = Publication(request), []
    while not publication.is_over:
        messages += publication.next_burst()
    subscribers[0].sendall(b"".join(messages))
    {falsify}
    subscribers[1].sendall(b"".join(messages))
    control.sendall(b"%d\\n" % publication.count)
"""


@pytest.fixture
def publisher(request: pytest.FixtureRequest, programs: Programs) -> Server:
    """The publisher of this name; what is not installed skips the test."""
    name: str = request.param
    server = known_publishers(programs)[name]
    if name != "asyncio" and not name.startswith("c"):
        needs_module(name.partition("-")[0], server.environment)
    return server


every_publisher = pytest.mark.parametrize("publisher", PUSH_NAMES, indirect=True)


@every_publisher
def test_every_subscriber_gets_every_message(bench: Bench, publisher: Server) -> None:
    """`run_push` refuses a run where a message is missing, wrong, out of order or there twice."""
    run = run_push(bench, publisher, Fanout(5, 64, 1, 10_000_000))
    assert run.messages == 5 * 10
    assert run.cpu.run_ns > 0


@every_publisher
def test_every_subscriber_gets_every_burst(bench: Bench, publisher: Server) -> None:
    run = run_push(bench, publisher, saturated(5, 1024))
    assert run.messages >= 5 * 16
    assert run.messages % (5 * 16) == 0


@every_publisher
def test_bursts_larger_than_the_socket_buffers_arrive_whole(bench: Bench, publisher: Server) -> None:
    """4 MiB to each: the kernel takes a part, and nothing more is published until it has all."""
    run = run_push(bench, publisher, saturated(3, 256 * 1024))
    assert run.messages >= 3 * 16


@pytest.mark.parametrize("publisher", ["asyncio"], indirect=True)
def test_idle_subscribers_cost_asyncio_some_memory(bench: Bench, publisher: Server) -> None:
    """asyncio's objects for one connection are about 2 KiB."""
    assert 500 < run_push_idle(bench, publisher, 500) < 20_000


@pytest.mark.parametrize(
    ("falsify", "reason"),
    [
        ("del messages[3]", "subscriber 1: message 5 came where 4 was due"),
        ("messages[3:3] = [messages[3]]", "subscriber 1: message 4 came where 5 was due"),
        ("messages[3:5] = reversed(messages[3:5])", "subscriber 1: message 5 came where 4 was due"),
        ("messages[3] = messages[3][:40] + bytes(1) + messages[3][41:]", "subscriber 1: message 4 is not as published"),
        ("messages[3] = messages[3][:-1]", "subscriber 1: message 4 is not as published"),
        ("subscribers[1].close(); messages.clear(); subscribers[1] = subscribers[0]", "subscriber 1: closed by"),
        ("messages[-1:] = []", "1 of 2 subscribers miss the last message"),
    ],
    ids=["gap", "twice", "reordered", "wrong byte", "cut", "closed", "last one lost"],
)
def test_load_refuses_a_false_publication(
    bench: Bench, capfd: pytest.CaptureFixture[str], falsify: str, reason: str
) -> None:
    source = FALSE_PUBLISHER.format(falsify=falsify)
    server = Server("false", (sys.executable, "-c", source), {"PYTHONPATH": str(BENCH / "servers")})
    with pytest.raises(BenchError, match="2 subscribers of false: ended with status 1"):
        run_push(bench, server, Fanout(2, 64, 16, 0))
    assert reason in capfd.readouterr().err


def test_count_that_differs_from_the_publishers_is_an_error(bench: Bench) -> None:
    source = FALSE_PUBLISHER.format(falsify="publication.count += 1")
    server = Server("false", (sys.executable, "-c", source), {"PYTHONPATH": str(BENCH / "servers")})
    with pytest.raises(BenchError, match="false: 17 messages were published, and received: "):
        run_push(bench, server, Fanout(2, 64, 16, 0))


@pytest.mark.parametrize("arguments", ["", "1 1", "0 1 64", "1 0 64", "1 1 15", "1 1 64 1"])
def test_load_of_subscribers_refuses_wrong_arguments(programs: Programs, arguments: str) -> None:
    done = subprocess.run((str(programs.subscribe), *arguments.split()), capture_output=True, timeout=5, check=False)
    assert done.returncode == os.EX_USAGE
    assert done.stderr


def test_paced_load_leaves_every_server_time_to_spare() -> None:
    assert [str(paced(count, 64)) for count in (100, 1000, 10000, 100000)] == [
        "100 x 64, 100/s",
        "1000 x 64, 50/s",
        "10000 x 64, 5/s",
        "100000 x 64, 1/s",
    ]


def test_table_of_publishers_has_a_cell_for_every_column() -> None:
    cpu = CpuCounters(500_000_000, 0, 25, 75)
    run = PushRun(
        messages=100_000, seconds=1.0, p50_us=10, p99_us=20, p999_us=30, cpu=cpu, skew_p50_us=5, skew_p99_us=6
    )
    head, rule = load_head(PUSH_COLUMNS, ("c",)).splitlines()
    (row,) = load_rows(str(saturated(100, 64)), {"gaiod": [run]}, PUSH_COLUMNS, ("c",))
    assert row == (
        "| 100 x 64, bursts of 16 | gaiod | 100000 | 5.000 | 1.250 | 3.750 | 200000 | 10 | 20 | 5 | 6 | 50 | - |"
    )
    assert head.count("|") == rule.count("|") == row.count("|")


def run_bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the shortest of benchmarks."""
    command = [sys.executable, str(BENCH / "run.py"), *arguments, "--repeats", "1", "--seconds", "0.1", "--warmup", "0"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_runner_prints_every_table_of_publishers(bench: Bench) -> None:
    servers = ("c", "c-writev", "asyncio")
    done = run_bench("push", "--rows", "2x64,3x1024", "--servers", ",".join(servers), "--idle-connections", "20")
    assert done.returncode == 0, done.stderr
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    loads = ("2 x 64, 100/s", "3 x 1024, 100/s", "2 x 64, bursts of 16", "3 x 1024, bursts of 16", "20")
    order = ("c", "c-writev", "asyncio")
    assert [row[:2] for row in table if row[1] != "server"] == [[load, name] for load in loads for name in order]
    assert table[0][-2:] == ["x c", "x c-writev"]
    assert {len(row) for row in table} == {14, 3}
    assert table[-4][:2] == ["idle subscribers", "server"]


def test_runner_refuses_publishers_that_are_none() -> None:
    done = run_bench("push", "--servers", "nginx")
    assert done.returncode == 2
    assert "push: none of the servers is a publisher; there are gaiod, uvloop, c, c-writev" in done.stderr
