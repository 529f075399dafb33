"""A daemon serves what its configuration says, and says where."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from core.support.sockets import has_ipv6, pattern
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, echoes, exchange, refuses, request
from e2e.support.daemons import SERVE
from e2e.support.starting import Start
from e2e.support.tools import tool

DEFAULT_ADDRESSES = ("127.0.0.1:7000", "127.0.0.1:9464")


def _run(*command: str, feed: bytes = b"") -> bytes:
    return subprocess.run(command, input=feed, capture_output=True, timeout=LIMIT_S, check=True).stdout


def test_echo_returns_every_byte_when_a_client_sends_a_megabyte(daemon: Start) -> None:
    data = pattern(1 << 20)
    with connect(daemon().address()) as sock:
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            assert exchange(sock, part) == part


def test_echo_answers_socat_when_it_half_closes(daemon: Start) -> None:
    """socat sends its FIN at the end of its input, and wants the rest of the answer."""
    command = [tool("socat", "socat"), "-t", str(LIMIT_S), "-", f"TCP:{daemon().address()}"]
    assert _run(*command, feed=b"through socat\n") == b"through socat\n"


def test_echo_answers_nc(daemon: Start) -> None:
    host, _, port = daemon().address().rpartition(":")
    assert _run(tool("nc", "netcat-openbsd"), "-N", host, port, feed=b"through nc\n") == b"through nc\n"


def test_echo_answers_over_ipv6_when_the_bind_is_in_brackets(daemon: Start) -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    running = daemon('metrics: {listen: "[::1]:0"}\nlisteners: {six: {bind: "[::1]:0", handler: echo}}\n')
    assert running.address("six").startswith("[::1]:")
    assert echoes(running.address("six"))
    assert request(running.metrics, "/readyz").status == 200


def test_echo_answers_on_a_unix_socket_and_removes_its_file_when_stopped(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    config = f'metrics: {{listen: "127.0.0.1:0"}}\nlisteners: {{local: {{bind: "unix:{path}", handler: echo}}}}\n'
    running = daemon(config)
    assert running.address("local") == f"unix:{path}"
    assert echoes(f"unix:{path}")
    running.stop()
    assert not path.exists()


def test_metrics_answer_curl_on_a_unix_socket(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    daemon(f'metrics: {{listen: "unix:{path}"}}\nlisteners: {{echo: {{bind: "127.0.0.1:0", handler: echo}}}}\n')
    command = [tool("curl", "curl"), "--silent", "--fail", "--unix-socket", str(path), "http://localhost/metrics"]
    assert b"\ngaiod_ready 1.0\n" in _run(*command)


def test_listeners_are_served_together_when_there_are_two(daemon: Start) -> None:
    running = daemon(
        'metrics: {listen: "127.0.0.1:0"}\n'
        "listeners:\n"
        '  one: {bind: "127.0.0.1:0", handler: echo}\n'
        '  two: {bind: "127.0.0.1:0", handler: echo}\n'
    )
    assert running.address("one") != running.address("two")
    assert echoes(running.address("one"))
    assert echoes(running.address("two"))


def test_configuration_in_json_serves(daemon: Start) -> None:
    config = {
        "metrics": {"listen": "127.0.0.1:0"},
        "listeners": {"echo": {"bind": "127.0.0.1:0", "handler": "echo", "idle_timeout": "1m"}},
    }
    assert echoes(daemon(json.dumps(config), name="gaiod.json").address())


def test_packaged_configuration_is_served_and_named_when_none_is_given(daemon: Start) -> None:
    for address in DEFAULT_ADDRESSES:
        if not refuses(address):
            pytest.skip(f"{address} is in use on this machine")
    running = daemon(None, command=("-m", "gaiod", "serve"))
    assert ("running as root, which only the packaged default may" in running.log()) == (os.geteuid() == 0)
    assert re.search(
        r"no --config was given: serving the packaged default, .*gaiod\.yaml$", running.log(), re.MULTILINE
    )
    assert running.address() == "127.0.0.1:7000"
    assert echoes("127.0.0.1:7000")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_ends_with_0_and_closes_its_connections_when_signalled(daemon: Start, number: signal.Signals) -> None:
    running = daemon()
    with connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        running.send(number)
        assert sock.recv(1) == b""
    assert running.wait() == 0
    assert f"{number.name}: stopping" in running.log()
    with pytest.raises(ConnectionRefusedError):
        connect(running.address())


def test_second_daemon_ends_with_71_and_says_what_to_do_when_the_port_is_taken(daemon: Start) -> None:
    address = daemon().address()
    config = f'metrics: {{listen: "127.0.0.1:0"}}\nlisteners: {{mine: {{bind: "{address}", handler: echo}}}}\n'
    second = daemon(config, name="second.yaml", ready=False)
    assert second.wait() == 71
    assert f"listener mine: cannot listen on {address}: Address already in use; another process" in second.log()
    assert "Traceback" not in second.log()
    assert echoes(address), "the first daemon no longer serves"


def test_daemon_starts_at_once_where_one_was_stopped_with_connections_open(daemon: Start) -> None:
    """Connections in TIME_WAIT must not keep the port."""
    first = daemon()
    address, metrics = first.address(), first.metrics
    with connect(address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        first.stop()
    config = f'metrics: {{listen: "{metrics}"}}\nlisteners: {{echo: {{bind: "{address}", handler: echo}}}}\n'
    assert echoes(daemon(config, name="again.yaml").address())


def test_daemon_ends_with_78_and_a_place_when_the_configuration_is_wrong(daemon: Start) -> None:
    running = daemon("listeners:\n  echo: {bind: 127.0.0.1:0, handler: ehco}\n", ready=False)
    assert running.wait() == 78
    assert re.search(r"gaiod\.yaml:2:38: listeners\.echo\.handler: .*ehco", running.log()), running.log()
    assert "Traceback" not in running.log()


def test_modules_in_the_working_directory_are_not_imported(daemon: Start) -> None:
    """Where gaiod is started must not decide what runs with its rights."""
    config = 'listeners: {evil: {bind: "127.0.0.1:0", handler: "evil:Evil"}}\n'
    source = "import gaiod\nclass Evil(gaiod.Handler):\n    pass\n"
    running = daemon(config, files={"evil.py": source, "resource.py": "raise SystemExit(3)"}, ready=False)
    assert running.wait() == 78
    assert "there is no module evil" in running.log()


def test_version_engine_and_process_are_in_the_first_line(daemon: Start) -> None:
    running = daemon()
    first = running.log().partition("\n")[0]
    assert re.search(rf"gaiod \d+\.\d+\.\d+, (compiled|interpreted) engine, process {running.pid}$", first), first


def test_interpreted_engine_serves_when_it_is_asked_for(daemon: Start) -> None:
    running = daemon(environment={"GAIOD_ENGINE": "interpreted"})
    assert "interpreted engine" in running.log()
    assert echoes(running.address())


def test_command_gaiod_serves_as_the_module_does(daemon: Start) -> None:
    command = ["-c", "import sys; from gaiod.cli import main; sys.argv[0] = 'gaiod'; main()", *SERVE[2:]]
    assert echoes(daemon(command=command).address())


def test_client_gets_a_reset_or_refusal_when_the_daemon_is_gone(daemon: Start) -> None:
    running = daemon()
    running.stop()
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", int(running.address().rpartition(":")[2]))) != 0
