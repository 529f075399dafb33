"""The benchmark's own tests: they time nothing, they ask whether its figures can be believed."""

import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from harness import packages
from harness.conditions import conditions
from harness.network import congestion_control
from harness.processes import BenchError, compile_c, running
from harness.procfs import CpuCounters, cpu_counters, parse_anonymous_bytes, parse_schedstat, parse_stat
from harness.proxies import free_port
from harness.report import disturbed, idle_table, load_columns, load_head, load_rows, overview, pairwise_ratios
from harness.runs import Bench, Row, Run, interleaved, parse_stopped, run_idle, run_load
from harness.servers import Programs, Server, known_coroutine_servers, known_servers, missing_servers
from needs import needs_module
from run import COROUTINE_NAMES, ECHO_ROWS, allow_files, files_wanted, parse_arguments

pytest_plugins = ("bench_fixtures",)
BENCH = Path(__file__).parent
SERVERS = ("c", "gaiod", "uvloop", "aiofastnet", "asyncio", "gaiod-interpreted")

FALSE_ECHO = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print("listening", listener.getsockname()[1], flush=True)
while True:
    conn, _ = listener.accept()
    while data := conn.recv(65536):
        answer = {answer}
        if not answer:
            break
        conn.sendall(answer)
    conn.close()
"""

UNIX_ECHO = """
import socket, sys
listener = socket.create_server(sys.argv[1], family=socket.AF_UNIX)
print("listening", flush=True)
conn, _ = listener.accept()
while data := conn.recv(65536):
    conn.sendall(data)
"""


def server_named(name: str, programs: Programs) -> Server:
    """Return a known server, or skip the test where what it needs is not installed."""
    if name in (missing := missing_servers()):
        pytest.skip(f"{name}: {missing[name]}")
    server = known_servers(programs)[name]
    if name in ("gaiod", "gaiod-interpreted", "uvloop", "aiofastnet"):
        needs_module(name.partition("-")[0], server.environment)
    return server


def run_of(cpu_us: float, *, wait_share: float = 0.0) -> Run:
    """Return a run of 1,000 messages in a second."""
    cpu = CpuCounters(int(cpu_us * 1e6), int(wait_share * 1e9), 25, 75)
    return Run(messages=1000, seconds=1.0, p50_us=10.0, p99_us=20.0, p999_us=30.0, cpu=cpu)


@pytest.mark.parametrize("source", ["load.c", "echo_epoll.c", "relay_epoll.c", "subscribe.c", "push_epoll.c"])
def test_c_program_compiles_without_a_warning(programs: Programs, tmp_path: Path, source: str) -> None:
    compile_c(BENCH / source, tmp_path, "-Wall", "-Wextra", "-Werror")


def test_compile_says_which_source_the_compiler_refuses(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "broken.c").write_text("int main(void) { return }")
    with pytest.raises(BenchError, match=r"broken\.c: cc ended with status 1"):
        compile_c(tmp_path / "broken.c", tmp_path)


@pytest.mark.parametrize("name", SERVERS)
def test_server_echoes_every_message(bench: Bench, name: str) -> None:
    """`run_load` refuses a run with a wrong, failed or missing echo."""
    server = server_named(name, bench.programs)
    run = run_load(Bench(bench.programs, bench.server_cpu, bench.load_cpu, 0.5, 0.1), server, Row(10, 1024))
    assert run.messages >= 10
    assert run.cpu.run_ns > 0


@pytest.mark.parametrize("name", COROUTINE_NAMES[1:])
def test_coroutine_echoes_every_message(bench: Bench, name: str) -> None:
    server = known_coroutine_servers()[name]
    needs_module(name.partition("-")[0], server.environment)
    assert run_load(bench, server, Row(2, 1024 * 1024)).messages >= 2


@pytest.mark.parametrize("name", SERVERS)
def test_server_echoes_messages_larger_than_its_buffers(bench: Bench, name: str) -> None:
    """4 MiB are more than a socket takes at once: both sides send in parts."""
    run = run_load(bench, server_named(name, bench.programs), Row(2, 4 * 1024 * 1024))
    assert run.messages >= 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("data[:-1] + bytes([data[-1] ^ 1])", "mismatches=1 errors=0"),
        ("bytes([data[0] ^ 1]) + data[1:]", "mismatches=1 errors=0"),
        ("data[:500] + bytes([data[500] ^ 1]) + data[501:]", "mismatches=1 errors=0"),
        ("data + b'?'", "mismatches=1 errors=0"),
        ("data[1:] + b'?'", "mismatches=1 errors=0"),
        ("b''", "mismatches=0 errors=1"),
    ],
    ids=["last byte", "first byte", "byte within", "too long", "shifted", "hangs up"],
)
def test_load_refuses_a_false_echo(bench: Bench, answer: str, reason: str) -> None:
    server = Server("false", (sys.executable, "-c", FALSE_ECHO.format(answer=answer)))
    with pytest.raises(BenchError, match=reason):
        run_load(bench, server, Row(1, 1024))


def test_load_exits_non_zero_after_a_false_echo(bench: Bench) -> None:
    source = FALSE_ECHO.format(answer="data + b'?'")
    with running("false", (sys.executable, "-c", source), bench.server_cpu) as server:
        command = (str(bench.programs.load), "echo", "127.0.0.1", server.expect("listening", 5), "1", "64", "0.1", "0")
        with running("load", command, bench.load_cpu) as load:
            load.expect("stopped", 5)
            load.go_on()
            assert load.wait(5) == 1


def test_load_speaks_over_a_unix_socket(bench: Bench, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with running("unix", (sys.executable, "-c", UNIX_ECHO, path), bench.server_cpu) as server:
        server.expect("listening", 5)
        command = (str(bench.programs.load), "echo", "unix", path, "1", "64", "0.1", "0")
        with running("load", command, bench.load_cpu) as load:
            load.expect("started", 5)
            load.go_on()
            assert parse_stopped(load.expect("stopped", 5))["messages"] > 0
            load.go_on()
            assert load.wait(5) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "echo",
        "echo 127.0.0.1 1 1 64 1",
        "echo 127.0.0.1 1 0 64 1 1",
        "echo 127.0.0.1 1 1 7 1 1",
        "nap 127.0.0.1 1 1",
    ],
)
def test_load_refuses_wrong_arguments(programs: Programs, arguments: str) -> None:
    done = subprocess.run((str(programs.load), *arguments.split()), capture_output=True, timeout=5, check=False)
    assert done.returncode == os.EX_USAGE
    assert done.stderr


@pytest.fixture
def many_files() -> Iterator[None]:
    """More open files than most systems allow at first."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_files(5000)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("many_files")
def test_load_opens_more_connections_than_a_listen_backlog_holds(bench: Bench) -> None:
    run = run_load(bench, server_named("c", bench.programs), Row(4500, 64))
    assert run.messages >= 4500


def test_connect_mode_opens_a_connection_for_every_message(bench: Bench) -> None:
    run = run_load(bench, server_named("c", bench.programs), Row(2, 64), "connect")
    assert run.messages >= 2


def test_idle_connections_cost_asyncio_some_memory(bench: Bench) -> None:
    """asyncio's objects for one connection are about 2 KiB."""
    assert 500 < run_idle(bench, server_named("asyncio", bench.programs), 500) < 20_000


def test_server_that_does_not_listen_is_an_error(bench: Bench) -> None:
    server = Server("gone", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(BenchError, match="gone: ended with status 3"):
        run_load(bench, server, Row(1, 64))


def test_child_is_gone_when_its_block_is_left_by_an_error() -> None:
    cpu = min(os.sched_getaffinity(0))
    with pytest.raises(ZeroDivisionError), running("sleeper", ("sleep", "60"), cpu) as child:
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_child_is_gone_when_its_runner_was_killed() -> None:
    source = "from harness.processes import running\nwith running('sleeper', ('sleep', '60'), {cpu}) as child:\n    "
    source += "print(child.pid, flush=True)\n    input()"
    command = (sys.executable, "-c", source.format(cpu=min(os.sched_getaffinity(0))))
    with subprocess.Popen(command, cwd=BENCH, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        sleeper = os.pidfd_open(int(runner.stdout.readline()))
        runner.kill()
        readable, _, _ = select.select([sleeper], [], [], 5)
        os.close(sleeper)
    assert readable


def test_child_that_ends_instead_of_listening_is_an_error() -> None:
    cpu = min(os.sched_getaffinity(0))
    with (
        running("ended", (sys.executable, "-c", "raise SystemExit(3)"), cpu) as child,
        pytest.raises(BenchError, match="ended: ended with status 3"),
    ):
        child.expect_connection(free_port(), 5)


def test_child_that_never_listens_is_an_error() -> None:
    with (
        running("sleeper", ("sleep", "60"), min(os.sched_getaffinity(0))) as child,
        pytest.raises(BenchError, match="sleeper: did not listen for 0 s"),
    ):
        child.expect_connection(free_port(), 0.1)


def test_child_runs_on_its_core_only() -> None:
    cpu = max(os.sched_getaffinity(0))
    source = "import os; print('cpus', *os.sched_getaffinity(0), flush=True)"
    with running("pinned", (sys.executable, "-c", source), cpu) as child:
        assert child.expect("cpus", 5) == str(cpu)


def test_runner_prints_every_row_asked_for(programs: Programs) -> None:
    servers = ("c", "asyncio")
    command = [sys.executable, str(BENCH / "run.py"), "echo", "--rows", "2x64,3x1024", "--servers", ",".join(servers)]
    command += ["--repeats", "1", "--seconds", "0.1", "--warmup", "0"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    table = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    loads = ("2 x 64", "3 x 1024")
    assert [row[:2] for row in table[1:5]] == [[load, name] for load in loads for name in servers]
    assert table[0][-1] == "x c"
    assert [row[0] for row in table[5:]] == ["load", *loads]
    assert [len(row) for row in table] == [10] * 5 + [3] * 3


def test_runner_ends_with_the_reason_when_a_server_fails(programs: Programs, tmp_path: Path) -> None:
    """A `uvloop` that cannot be imported stands for any server that does not start."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('not this one')")
    command = [sys.executable, str(BENCH / "run.py"), "echo", "--rows", "1x64", "--servers", "uvloop"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment)
    assert done.returncode == 1
    assert "not this one" in done.stderr
    assert done.stderr.endswith("run.py: uvloop: ended with status 1: its messages are above\n")


def test_runner_says_what_is_not_installed(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['aiofastnet'] = None")
    command = [sys.executable, str(BENCH / "run.py"), "echo", "--rows", "1x64", "--servers", "aiofastnet,c"]
    command += ["--repeats", "1", "--seconds", "0.1", "--warmup", "0"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert "run.py: aiofastnet is left out: pip install aiofastnet\n" in done.stderr
    assert "| 1 x 64 | c | " in done.stdout
    assert "| 1 x 64 | aiofastnet | " not in done.stdout


def test_runner_refuses_a_server_it_does_not_know() -> None:
    command = [sys.executable, str(BENCH / "run.py"), "echo", "--servers", "twisted"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "no such server: twisted; known: gaiod, c, uvloop" in done.stderr


def test_echo_has_one_connection_a_few_and_thousands() -> None:
    assert {str(row) for row in ECHO_ROWS} >= {"1 x 64", "10 x 64", "100 x 64", "1000 x 64", "9000 x 64"}


def test_files_are_enough_for_the_most_connections_of_any_load() -> None:
    assert files_wanted(parse_arguments([])) > 6 * 2000
    assert files_wanted(parse_arguments(["echo", "--rows", "1x64,15000x64"])) > 15000
    assert files_wanted(parse_arguments(["idle", "--idle-connections", "20000"])) > 20000


def test_runner_says_when_the_system_allows_fewer_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    allow_files(2000)
    assert not capsys.readouterr().err
    allow_files(9200)
    assert limits == [(2000, 4096), (4096, 4096)]
    assert "9200 open files are wanted and 4096 allowed" in capsys.readouterr().err


def test_interleaved_turns_the_order_round() -> None:
    numbers = count(1)
    servers = [Server(name, ()) for name in "abc"]
    results = interleaved(servers, 2, lambda _: next(numbers), lambda *_: None)
    assert results == {"a": [1, 6], "b": [2, 5], "c": [3, 4]}


def test_schedstat_is_run_time_and_waiting_time() -> None:
    assert parse_schedstat("123456789 4242 17\n") == (123456789, 4242)


def test_stat_is_read_past_a_name_with_spaces_and_parentheses() -> None:
    stat = "77 (a) b (c)) R 1 1 1 0 -1 4194304 105 0 0 0 31 41 5 6 20 0 1 0 122827 3133440 380\n"
    assert parse_stat(stat) == (31, 41)


def test_anonymous_memory_is_read_from_smaps_rollup() -> None:
    assert parse_anonymous_bytes("Rss:  1744 kB\nAnonymous:   116 kB\nAnonHugePages:  0 kB\n") == 116 * 1024


def test_cpu_counters_see_this_process_work() -> None:
    """The counters of a running process lag by a tick, 10 ms at most: half of what is burnt must show."""
    before, begun_s = cpu_counters(os.getpid()), time.process_time()
    while time.process_time() - begun_s < 0.05:
        pass
    assert (cpu_counters(os.getpid()) - before).run_ns > 25_000_000


def test_run_divides_the_time_by_the_messages() -> None:
    run = run_of(4.0)
    assert (run.messages_per_s, run.cpu_us, run.user_us, run.kernel_us) == (1000.0, 4.0, 1.0, 3.0)
    assert run.busy_share == pytest.approx(0.004)


def test_stopped_line_is_read_by_name() -> None:
    assert parse_stopped("messages=5 seconds=0.5 p50_us=1.5") == {"messages": 5, "seconds": 0.5, "p50_us": 1.5}


def test_ratio_is_of_the_same_round_and_above_one_when_cheaper() -> None:
    assert pairwise_ratios([run_of(4.0), run_of(8.0)], [run_of(5.0), run_of(9.0)]) == [1.25, 1.125]


def test_table_has_a_cell_for_every_column_and_no_ratio_to_itself() -> None:
    runs = {"gaiod": [run_of(4.0), run_of(8.0)], "uvloop": [run_of(5.0), run_of(9.0)]}
    columns = load_columns("message")
    head, rule = load_head(columns, ("uvloop", "c")).splitlines()
    gaiod, uvloop = load_rows("100 x 64", runs, columns, ("uvloop", "c"))
    assert gaiod == "| 100 x 64 | gaiod | 1000 | 6.00 | 10 | 20 | 1.50 | 4.50 | 1 | 1.19 (1.12-1.25) | - |"
    assert uvloop.endswith("| - | - |")
    assert head.count("|") == rule.count("|") == gaiod.count("|") == uvloop.count("|")


def test_idle_table_shows_the_spread() -> None:
    assert idle_table("connections", 5000, {"c": [0.0, 8.0, 4.0]})[1] == "| 5000 | c | 4 (0-8) |"


def test_overview_has_a_line_for_each_load_and_a_column_for_each_server_and_peer() -> None:
    results = {
        "1 x 64": {"c": [run_of(10.0)], "gaiod": [run_of(12.5)], "uvloop": [run_of(15.0)]},
        "4 x 262144": {"c": [run_of(100.0)], "gaiod": [run_of(400.0)], "uvloop": [run_of(1600.4)]},
    }
    peers = {"uvloop": ["uvloop"], "aiofastnet": ["aiofastnet"], "c": ["c"]}
    explained, _, head, *lines = overview("message", results, peers)
    assert explained == "CPU us/message / p50 us. Above 1, gaiod takes less CPU."
    assert head.splitlines() == ["| load | c | gaiod | uvloop | gaiod x uvloop | gaiod x c |", "|---" * 6 + "|"]
    assert lines == [
        "| 1 x 64 | 10.0 / 10.0 | 12.5 / 10.0 | 15.0 / 10.0 | 1.20 (1.20-1.20) | 0.80 (0.80-0.80) |",
        "| 4 x 262144 | 100 / 10.0 | 400 / 10.0 | 1600 / 10.0 | 4.00 (4.00-4.00) | 0.25 (0.25-0.25) |",
    ]


def test_overview_holds_gaiod_against_the_best_of_each_load() -> None:
    results = {
        "50 x 256": {"haproxy": [run_of(4.0), run_of(9.0)], "nginx": [run_of(6.0)] * 2, "gaiod": [run_of(4.0)] * 2},
        "1 x 256": {"haproxy": [run_of(5.0)] * 2, "nginx": [run_of(9.0), run_of(2.0)], "gaiod": [run_of(4.0)] * 2},
    }
    lines = overview("message", results, {"best": ["haproxy", "haproxy-splice", "nginx"]})[-2:]
    assert [line.strip("| ").split(" | ")[-1] for line in lines] == [
        "1.50 (1.50-1.50), nginx",
        "1.25 (1.25-1.25), haproxy",
    ]


def test_overview_without_gaiod_has_no_ratio() -> None:
    _, _, head, line = overview("message", {"1 x 64": {"c": [run_of(4.0)]}}, {"c": ["c"]})
    assert head.splitlines()[0] == "| load | c |"
    assert line == "| 1 x 64 | 4.00 / 10.0 |"


def test_waiting_servers_are_counted_and_named_over_all_loads() -> None:
    loads = [
        {"c": [run_of(4.0), run_of(4.0, wait_share=0.03)], "gaiod": [run_of(4.0, wait_share=0.001)] * 2},
        {"c": [run_of(4.0, wait_share=0.02)], "gaiod": [run_of(4.0)]},
    ]
    assert disturbed(loads) == (
        "In 1 of 6 runs the server waited for its core for over 2% of the time. "
        "Time waited, in the median and in the largest run: c 2.0% and 3.0%, gaiod 0.1% and 0.1%."
    )


def test_conditions_name_the_versions_of_all_that_is_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(packages, "NEXT_ROOT", tmp_path)
    assert "haproxy none, nginx none, Linux " in conditions()
    says = {
        "haproxy": "HAProxy version 2.6.12-1 2026/10/17 - https://haproxy.org/",
        "nginx": "nginx version: nginx/1.22.1",
    }
    for name, line in says.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{line}' >&2\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr("harness.conditions.DISTRIBUTIONS", ("pytest", "not-installed"))
    assert f", pytest {pytest.__version__}, not-installed none, haproxy 2.6.12-1, nginx 1.22.1, Linux " in conditions()
    assert f"; congestion control {congestion_control()} by default, " in conditions()
