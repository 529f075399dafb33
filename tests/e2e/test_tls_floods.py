"""Clients that begin a handshake and do not go on: what they cost, and that others are served meanwhile."""

import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import receive
from core.support.tls import certificate, client
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.procfs import private_kib
from e2e.support.starting import Start
from e2e.support.tls_peers import written
from e2e.support.waiting import wait_until

SPARE = 1000
"""Descriptors that a worker and this process need beside."""

SILENT_BYTES, ANSWERED_BYTES = 8192, 64 * 1024
"""Most that a client costs which has said nothing or a part of its hello (1 KB was seen, and 46 KB before a part was
kept apart), and one that has an answer (44 KB with OpenSSL 3.0, whose messages have a buffer of 16 KB). With room for
what memory is in pieces of, as 500 of them are few."""


@pytest.fixture
def descriptors() -> Iterator[int]:
    """As many as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def config(folder: Path) -> str:
    own = written(folder, "own", certificate())
    return f"""\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo:
    bind: 127.0.0.1:0
    handler: echo
    connections_max: 100000
    tls: {{handshake_timeout: 1m, certificates: [{{chain: {own.chain}, key: {own.key}}}]}}
"""


def hello() -> bytes:
    """Return what a client says first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def is_served(running: Daemon) -> bool:
    with client().wrap_socket(connect(running.address("echo")), server_hostname="localhost") as sock:
        sock.sendall(b"still")
        return receive(sock, 5) == b"still"


def failed(running: Daemon) -> float:
    return running.scrape().value("gaiod_connections_rejected_total", listener="echo", reason="tls") or 0


@pytest.mark.engine("compiled")
@pytest.mark.parametrize(
    "count", [pytest.param(500, id="short"), pytest.param(20_000, marks=pytest.mark.slow, id="long")]
)
def test_half_handshakes_cost_little_and_others_are_served(
    daemon: Start, tmp_path: Path, descriptors: int, count: int
) -> None:
    running = daemon(config(tmp_path))
    count = min(count, descriptors - SPARE)
    said = hello()
    (worker,) = running.ask("status")["workers"]
    assert is_served(running)
    gone = 0
    for first, most_bytes in ((b"", SILENT_BYTES), (said[:-1], SILENT_BYTES), (said, ANSWERED_BYTES)):
        before_kib = private_kib(worker["pid"])
        with ExitStack() as stack:
            crowd = [stack.enter_context(connect(running.address("echo"))) for _ in range(count)]
            for sock in crowd:
                sock.sendall(first)
            if first == said:
                for sock in crowd:
                    sock.settimeout(6 * LIMIT_S)
                    assert sock.recv(1, socket.MSG_PEEK)
            assert is_served(running), "and so was every byte of theirs, which came before"
            assert (private_kib(worker["pid"]) - before_kib) * 1024 / count < most_bytes
        gone += count
        wait_until(lambda gone=gone: failed(running) >= gone, "their end", 6 * LIMIT_S)  # type: ignore[misc]
