"""systemd's side, played by a real datagram socket and by the real systemd-socket-activate."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core.support.processes import REPOSITORY
from core.support.waiting import LIMIT_S
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

from gaiod.supervisor.host.systemd import Inherited, Notifier, inherited_sockets


class Systemd:
    """The socket that systemd listens on, and a notifier that was told of it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0") if address.startswith("@") else address)
        self.socket.settimeout(LIMIT_S)
        self.notifier = Notifier({"NOTIFY_SOCKET": address})

    def message(self) -> list[str]:
        """Return the next message's lines."""
        return self.socket.recv(1 << 16).decode().split("\n")

    def close(self) -> None:
        self.notifier.close()
        self.socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Listens at a path."""
    systemd = Systemd(str(tmp_path / "notify"))
    yield systemd
    systemd.close()


# -- telling -------------------------------------------------------------------------------------------


def test_every_message_is_what_the_protocol_says(systemd: Systemd) -> None:
    notifier = systemd.notifier
    notifier.ready("serving 2 listeners")
    assert systemd.message() == ["READY=1", "STATUS=serving 2 listeners"]
    notifier.stopping("draining 3 connections")
    assert systemd.message() == ["STOPPING=1", "STATUS=draining 3 connections"]
    notifier.watchdog()
    assert systemd.message() == ["WATCHDOG=1"]
    notifier.main_pid(4711)
    assert systemd.message() == ["MAINPID=4711"]
    notifier.extend_timeout(2.5)
    assert systemd.message() == ["EXTEND_TIMEOUT_USEC=2500000"]


def test_reloading_carries_the_time_at_which_it_was_said(systemd: Systemd) -> None:
    before_us = time.monotonic_ns() // 1000
    systemd.notifier.reloading("reading the configuration")
    after_us = time.monotonic_ns() // 1000
    what, when, status = systemd.message()
    assert (what, status) == ("RELOADING=1", "STATUS=reading the configuration")
    name, _, us = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(us) <= after_us


def test_abstract_address_is_reached() -> None:
    systemd = Systemd(f"@gaiod-test-{os.getpid()}")
    systemd.notifier.watchdog()
    assert systemd.message() == ["WATCHDOG=1"]
    systemd.close()


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x85", "\u2028", "\udcff"])
def test_status_cannot_end_its_line_nor_have_the_message_refused(systemd: Systemd, character: str) -> None:
    """systemd drops messages with a NUL, and statuses that are not UTF-8."""
    systemd.notifier.ready(f"grüße{character}STOPPING=1")
    assert systemd.message() == ["READY=1", "STATUS=grüße STOPPING=1"]


def test_status_never_makes_a_message_too_long_for_systemd(systemd: Systemd) -> None:
    systemd.notifier.reloading("😀" * 5000)
    assert 1000 < len(systemd.socket.recv(1 << 16)) <= 4096


def test_socket_is_one_not_blocking_and_not_inherited(systemd: Systemd) -> None:
    systemd.notifier.watchdog()
    sock = systemd.notifier._socket
    assert sock is not None
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    systemd.notifier.watchdog()
    assert systemd.notifier._socket is sock


def test_nothing_is_sent_nor_opened_where_systemd_did_not_start_it(caplog: pytest.LogCaptureFixture) -> None:
    """The descriptors are counted after every test."""
    notifier = Notifier({})
    notifier.ready("x")
    notifier.watchdog()
    assert notifier._socket is None
    assert not caplog.records


def test_address_of_another_kind_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": "vsock:2:1234"}).ready("x")
    assert [record.getMessage() for record in caplog.records] == [
        "NOTIFY_SOCKET=vsock:2:1234 is neither a path nor an abstract address: not notifying systemd"
    ]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/no/such/folder/notify", "No such file or directory"),
        (f"/{'x' * 200}", "AF_UNIX path too long"),
        ("@gaiod-nobody-listens-here", "Connection refused"),
    ],
)
def test_systemd_that_cannot_be_told_is_warned_of_once(
    address: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("x")
    notifier.watchdog()
    notifier.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"cannot tell systemd READY=1 through {address}: {reason}" in record.getMessage()


def test_systemd_that_reads_nothing_is_not_waited_for(systemd: Systemd, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100_000):
        systemd.notifier.watchdog()
        if caplog.records:
            break
    assert "Resource temporarily unavailable" in caplog.text


def test_systemd_that_comes_back_is_told_again(tmp_path: Path) -> None:
    """It re-executes itself when it is updated."""
    address = str(tmp_path / "notify")
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.watchdog()
    systemd = Systemd(address)
    notifier.ready("here")
    assert systemd.message() == ["READY=1", "STATUS=here"]
    notifier.close()
    systemd.close()


# -- the watchdog --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pid", [None, os.getpid()], ids=["anybody", "this process"])
def test_watchdog_interval_is_half_of_what_systemd_allows(pid: int | None) -> None:
    environment = {"WATCHDOG_USEC": "30000000"} | ({} if pid is None else {"WATCHDOG_PID": str(pid)})
    assert Notifier(environment).watchdog_interval_s == 15.0


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "1_000_000"},
        {"WATCHDOG_USEC": "30s"},
        {"WATCHDOG_USEC": "9" * 5000},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": ""},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "x"},
    ],
    ids=str,
)
def test_watchdog_is_off_when_it_is_not_meant(environment: dict[str, str]) -> None:
    assert Notifier(environment).watchdog_interval_s is None


# -- sockets that systemd opened -----------------------------------------------------------------------

TAKE = """
import json, logging, os, sys
from gaiod.supervisor.host.systemd import inherited_sockets

logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
found = inherited_sockets(os.environ).sockets
print(json.dumps({
    "found": {name: [sock.fileno() for sock in socks] for name, socks in found.items()},
    "names": [str(sock.getsockname()) for socks in found.values() for sock in socks],
    "inheritable": [sock.get_inheritable() for socks in found.values() for sock in socks],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "open": [fd for fd in (3, 4, 5, 6) if os.path.exists(f"/proc/self/fd/{fd}")],
}))
for socks in found.values():
    for sock in socks:
        if "last.sock" in str(sock.getsockname()):
            sock.accept()[0].sendall(b"served")
"""
"""A process that takes what is passed, says what it is, and serves one connection that comes."""

PASS = """
import json, os
fds, variables = json.loads(os.environ.pop("PASS"))
for number, fd in enumerate([os.dup2(fd, 100 + fd) for fd in fds], 3):
    os.dup2(fd, number)
os.environ |= {name: value.replace("OWN PID", str(os.getpid())) for name, value in variables.items()}
"""
"""What systemd does in its child, for what systemd-socket-activate does not pass."""


def _activated(tmp_path: Path, *options: str) -> dict[str, Any]:
    """Return what is found by a process that systemd-socket-activate starts; `options` say what it opens besides."""
    path = tmp_path / "last.sock"
    command = [
        tool("systemd-socket-activate", "systemd"), *options, "-l", str(path), "-E", f"PYTHONPATH={REPOSITORY}",
        sys.executable, "-c", TAKE,
    ]  # fmt: skip
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process,
        socket.socket(socket.AF_UNIX) as client,
    ):
        try:
            wait_until(lambda: client.connect_ex(str(path)) == 0, "systemd-socket-activate listens")
            client.settimeout(LIMIT_S)
            assert client.recv(100) == b"served"
            output, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    found: dict[str, Any] = json.loads(output)
    return found


def test_sockets_are_found_by_their_names_in_order(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:  # systemd takes no port 0
        port = free.getsockname()[1]
    found = _activated(tmp_path, "-l", f"127.0.0.1:{port}", "--fdname=echo:local")
    assert found["found"] == {"echo": [3], "local": [4]}
    assert found["names"] == [f"('127.0.0.1', {port})", str(tmp_path / "last.sock")]
    assert found["inheritable"] == [False, False]
    assert found["left"] == []


def test_sockets_of_one_name_keep_their_order(tmp_path: Path) -> None:
    found = _activated(tmp_path, "-l", str(tmp_path / "first.sock"), "--fdname=echo:echo")
    assert found["found"] == {"echo": [3, 4]}
    assert found["names"] == [str(tmp_path / "first.sock"), str(tmp_path / "last.sock")]


def test_sockets_without_names_are_called_unknown(tmp_path: Path) -> None:
    assert _activated(tmp_path)["found"] == {"unknown": [3]}


def _taken(*sockets: socket.socket | int, **variables: str) -> tuple[dict[str, Any], str]:
    """Return what a process finds that has these as its descriptors from 3 on, and what it logs."""
    fds = [sock if isinstance(sock, int) else sock.fileno() for sock in sockets]
    done = subprocess.run(
        [sys.executable, "-c", PASS + TAKE],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PASS": json.dumps([fds, variables])},
        pass_fds=fds, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that can be served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_socket_of_a_process_that_systemd_did_not_mean_is_left_alone(listener: socket.socket) -> None:
    """A parent forgot to take the variables away; they go now, and nothing is said of what is nobody's mistake here."""
    found, said = _taken(listener, LISTEN_PID="1", LISTEN_FDS="1", LISTEN_FDNAMES="echo")
    assert (found["found"], found["left"], said) == ({}, [], "")
    assert 3 in found["open"]


def test_nothing_is_found_where_systemd_passed_nothing() -> None:
    found, said = _taken()
    assert (found["found"], said) == ({}, "")


@pytest.mark.parametrize(
    "variables",
    [
        {"LISTEN_PID": "x", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "OWN PID", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "OWN PID", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "OWN PID", "LISTEN_FDS": "9" * 5000},
    ],
    ids=str,
)
def test_variables_that_are_no_numbers_are_warned_of(listener: socket.socket, variables: dict[str, str]) -> None:
    found, said = _taken(listener, **variables)
    assert (found["found"], found["left"]) == ({}, [])
    assert said.startswith("WARNING LISTEN_PID=")
    assert "are not two numbers: ignoring the sockets of systemd" in said


@pytest.mark.parametrize("count", ["2", "9" * 20])
def test_descriptors_that_are_not_there_are_warned_of(listener: socket.socket, count: str) -> None:
    found, said = _taken(listener, LISTEN_PID="OWN PID", LISTEN_FDS=count)
    assert found["found"] == {"unknown": [3]}
    assert said == f"WARNING LISTEN_FDS={count}, but descriptor 4 is not open: using only those before it\n"


def test_names_that_are_not_as_many_as_the_sockets_are_warned_of(listener: socket.socket) -> None:
    """Which name is whose cannot be told."""
    found, said = _taken(listener, LISTEN_PID="OWN PID", LISTEN_FDS="1", LISTEN_FDNAMES="echo:local")
    assert found["found"] == {"unknown": [3]}
    assert "WARNING LISTEN_FDNAMES=echo:local does not name 1 sockets: naming all of them unknown" in said


def test_what_is_no_listening_stream_socket_is_closed_and_warned_of_by_name(listener: socket.socket) -> None:
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    with one, other, socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as idle:
        found, said = _taken(
            udp, reading, one, listener, idle,
            LISTEN_PID="OWN PID", LISTEN_FDS="5", LISTEN_FDNAMES="dns:fifo:accepted:echo:idle",
        )  # fmt: skip
    os.close(reading)
    os.close(writing)
    assert found["found"] == {"echo": [6]}
    assert found["open"] == [6]
    dns, fifo, accepted, idle_line = said.splitlines()
    assert dns.startswith("WARNING socket dns (descriptor 3) from systemd is ignored: a AF_INET SOCK_DGRAM socket")
    assert fifo.startswith("WARNING socket fifo (descriptor 4) from systemd is ignored: Socket operation on non-socket")
    assert accepted.startswith("WARNING socket accepted (descriptor 5) from systemd is ignored: ")
    assert accepted.endswith("; its unit needs ListenStream= and Accept=no")
    assert idle_line.startswith("WARNING socket idle (descriptor 7) from systemd is ignored: ")


@pytest.mark.parametrize(
    ("inherited", "said"),
    [
        (Inherited(), "systemd handed over no sockets: start gaiod by a .socket unit with FileDescriptorName=a"),
        (
            Inherited(left_out={"a": "a AF_INET SOCK_DGRAM socket: only TCP"}),
            "the socket a that systemd handed over cannot be served: a AF_INET SOCK_DGRAM socket: only TCP",
        ),
        (Inherited({"unknown": []}), "systemd handed over sockets without a name: give one the name a "),
        (
            Inherited({"c": []}, {"b": "no"}),
            "systemd handed over no socket called a, but b, c; set FileDescriptorName=a",
        ),
    ],
    ids=["none", "left out", "without a name", "others"],
)
def test_why_a_socket_is_not_there_is_said_as_it_is(inherited: Inherited, said: str) -> None:
    assert inherited.why_not("a").startswith(said)


def test_variables_are_taken_out_of_whatever_mapping_is_given() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "echo", "HOME": "/"}
    assert inherited_sockets(environment) == Inherited()
    assert environment == {"HOME": "/"}
