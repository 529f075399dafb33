"""The benchmark of proxies: each of them forwards, the runner prints them, and what is not there is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import packages
from harness.proxies import PROXY_NAMES, REFERENCES, Proxy, known_proxies, missing_proxies
from harness.runs import Bench, Row, run_idle, run_load
from needs import needs_module
from run import PROXY_PEERS, PROXY_ROWS

pytest_plugins = ("bench_fixtures",)
BENCH = Path(__file__).parent


@pytest.fixture
def proxy(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> Proxy:
    """The proxy of this name; what is not installed skips the test."""
    name: str = request.param
    if name in (missing := missing_proxies()):
        pytest.skip(f"{name}: {missing[name]}")
    known = known_proxies(bench.programs, tmp_path, bench.load_cpu)[name]
    if name.startswith("gaiod"):
        needs_module("gaiod", known.environment)
    return known


every_proxy = pytest.mark.parametrize("proxy", PROXY_NAMES, indirect=True)


@every_proxy
def test_proxy_forwards_every_message(bench: Bench, proxy: Proxy) -> None:
    """`run_load` refuses a run with a wrong, failed or missing echo."""
    run = run_load(Bench(bench.programs, bench.server_cpu, bench.load_cpu, 0.3, 0.1), proxy, Row(10, 1024))
    assert run.messages >= 10
    assert run.cpu.run_ns > 0


@every_proxy
def test_proxy_forwards_messages_larger_than_its_buffers(bench: Bench, proxy: Proxy) -> None:
    assert run_load(bench, proxy, Row(2, 4 * 1024 * 1024)).messages >= 2


@every_proxy
def test_proxy_opens_a_connection_for_every_client(bench: Bench, proxy: Proxy) -> None:
    assert run_load(bench, proxy, Row(2, 1024), "connect").messages >= 2


@pytest.mark.parametrize("proxy", ["c-copy"], indirect=True)
def test_idle_connections_cost_the_relay_what_it_keeps_of_a_pair(bench: Bench, proxy: Proxy) -> None:
    """A pair is 184 bytes; the allocator adds 8, and takes its memory in pages."""
    assert 150 < run_idle(bench, proxy, 500) < 500


def run_bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the shortest of benchmarks."""
    command = [sys.executable, str(BENCH / "run.py"), *arguments, "--repeats", "1", "--seconds", "0.1", "--warmup", "0"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_runner_prints_every_table_of_proxies(bench: Bench) -> None:
    servers = ("c-copy", "gaiod", "c-splice")
    done = run_bench("proxy", "--rows", "2x64", "--servers", ",".join(servers), "--proxied-connections", "20")
    assert done.returncode == 0, done.stderr
    table = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    loads = ("2 x 64", "connect, 50 x 1024, close", "20")
    assert [row[:2] for row in table if row[0] in loads and row[1] in servers] == [
        [load, name] for load in loads for name in servers
    ]
    assert table[0][-2:] == ["x c-copy", "x c-splice"]
    overviews = [row for row in table if len(row) == 5]
    assert [row[0] for row in overviews] == ["load", loads[0], "load", loads[1]]
    assert overviews[0] == ["load", "c-copy", "gaiod", "c-splice", "gaiod x better c"]
    assert {len(row) for row in table} == {11, 5, 3}


def test_runner_refuses_proxies_that_are_none() -> None:
    done = run_bench("proxy", "--servers", "uvloop")
    assert done.returncode == 2
    assert "proxy: none of the servers is one; there are gaiod, haproxy" in done.stderr


def test_proxies_are_measured_with_one_connection_and_a_few() -> None:
    assert {str(row) for row in PROXY_ROWS} >= {"1 x 256", "10 x 256", "50 x 256", "50 x 16384", "4 x 262144"}


def test_best_of_the_peers_is_one_of_all_that_are_no_bare_c() -> None:
    """Whoever adds a proxy says which one it stands beside."""
    assert sorted(name for names in PROXY_PEERS.values() for name in names) == sorted(REFERENCES)


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, bench: Bench, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "NEXT_ROOT", tmp_path)
    assert set(missing_proxies()) == {"haproxy", "haproxy-splice", "nginx"}
    known = known_proxies(bench.programs, tmp_path, bench.load_cpu)
    assert set(known) == {"gaiod", "gaiod-interpreted", "c-copy", "c-splice"}


def test_programs_of_a_root_are_started_by_its_loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program, loader, libraries = (
        tmp_path / each for each in ("usr/sbin/haproxy", "lib64/ld-linux.so.2", "usr/lib/x-linux-gnu")
    )
    for file in (program, loader):
        file.parent.mkdir(parents=True)
        file.touch()
    libraries.mkdir(parents=True)
    monkeypatch.setattr(packages, "NEXT_ROOT", tmp_path)
    command = packages.haproxy_command(tmp_path, 1, 2, splice=False)
    assert command[:4] == (str(loader), "--library-path", str(libraries), str(program))


def test_own_network_has_reno_and_leaves_the_system_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may make a network namespace")
    source = "from harness.network import *; enter_own_network(); print(congestion_control())"
    theirs = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    before = theirs.read_text()
    command = (sys.executable, "-c", source)
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False, timeout=30)
    if "PermissionError" in done.stderr:
        pytest.skip("this root may not make a network namespace")
    assert done.stdout == "reno\n", done.stderr
    assert theirs.read_text() == before
