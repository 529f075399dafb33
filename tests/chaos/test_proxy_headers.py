"""PROXY headers that never end, end anywhere, or are none: each costs its own connection, and nobody's time."""

import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.descriptors import can_open
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect, is_ended, readable, request
from e2e.support.daemons import Daemon
from e2e.support.handlers import ECHOES, IMPORTS
from e2e.support.procfs import resident_bytes, threads_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import many, workers_of
from gaiod import ProxyHeader
from gaiod.proxy_protocol import SIGNATURE, HeaderReader, ProxyProtocolError

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

SEED = 20_240_607

HEADERS = (
    ProxyHeader(("192.0.2.7", 56324), ("198.51.100.1", 443), ((2, b"example.com"), (0xE0, bytes(40)))),
    ProxyHeader(("2001:db8::7", 56324, 0, 0), ("2001:db8::1", 443, 0, 0)),
    ProxyHeader("/run/client.sock", ""),
    ProxyHeader(None, None),
)
ENCODED = tuple(data for header in HEADERS for data in (header.encode_v1(), header.encode_v2()))
PAYLOAD = b"PROXY TCP4 "
"""What follows a header may look like another."""


def start(daemon: Start, folder: Path, timeout: str) -> Daemon:
    text = many(folder, workers=1, handler=IMPORTS + ECHOES)
    return daemon(text.replace("backlog", f"proxy_protocol: {{from: [127.0.0.0/8], timeout: {timeout}}}, backlog"))


@pytest.mark.parametrize(
    ("clients", "timeout_s"),
    [pytest.param(200, 1, id="short"), pytest.param(2000, 5, marks=pytest.mark.slow, id="long")],
)
def test_clients_that_never_complete_their_header_cost_their_deadline_and_nobody_else(
    daemon: Start, tmp_path: Path, clients: int, timeout_s: int
) -> None:
    """A byte now and then does not move the deadline. Others are served meanwhile, and the metrics within 100 ms."""
    assert can_open(clients + 200)
    timeout_s = int(timeout_s * TIME_UNIT)
    running = start(daemon, tmp_path, f"{timeout_s}s")
    (worker,) = workers_of(running)
    threads = threads_of(worker), threads_of(running.pid)
    halves = [data[: len(data) // 2] for data in ENCODED if len(data) > 40]
    scrapes_s = []
    with ExitStack() as stack:
        began_s = time.monotonic()
        slow = [stack.enter_context(connect(running.address("mine"))) for _ in range(clients)]
        for number, sock in enumerate(slow):
            sock.sendall(halves[number % len(halves)])
        connected_s = time.monotonic()
        while len(readable(slow)) < clients:
            assert time.monotonic() < connected_s + timeout_s + TIME_UNIT, "somebody is not closed at the deadline"
            with connect(running.address("mine")) as good:
                good.sendall(ENCODED[0] + b"ping")
                assert good.recv(4) == b"ping"
            before_s = time.monotonic()
            assert request(running.metrics, "/metrics").status == 200
            scrapes_s.append(time.monotonic() - before_s)
            for sock in set(slow[::10]) - set(readable(slow)):
                try:
                    sock.send(b"0")
                except OSError:
                    pass  # closed in this moment
        assert time.monotonic() - began_s >= timeout_s - 0.01
        assert all(is_ended(sock) for sock in slow)
    assert len(scrapes_s) > 10
    # One in ten may be the scheduler's: two cores run the daemon, this test, and its neighbours.
    assert sorted(scrapes_s)[int(0.9 * len(scrapes_s))] < 0.1 * TIME_UNIT
    assert (threads_of(worker), threads_of(running.pid)) == threads
    samples = running.scrape()
    assert samples.value("gaiod_connections_rejected_total", listener="mine", reason="proxy_protocol") == clients
    assert samples.total("gaiod_connections_accepted_total") == len(scrapes_s)
    wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "the gauge", limit_s=TIME_UNIT)
    assert running.log().count("is rejected") <= timeout_s + 10, "each of them is logged"


def cuts() -> Iterator[tuple[bytes, bytes]]:
    """Yield every header with what follows it, in every two parts."""
    for data in ENCODED:
        stream = data + PAYLOAD
        for cut in range(1, len(stream)):
            yield stream[:cut], stream[cut:]


def test_header_at_every_split_point_is_read_and_what_follows_is_echoed(daemon: Start, tmp_path: Path) -> None:
    running = start(daemon, tmp_path, "1m")
    workers = workers_of(running)
    for first, second in cuts():
        began_s = time.monotonic()
        with connect(running.address("mine")) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(first)
            sock.sendall(second)
            sock.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: sock.recv(4096), b"")) == PAYLOAD
        assert time.monotonic() - began_s < TIME_UNIT
    assert workers_of(running) == workers


def random_streams(number: int) -> Iterator[bytes]:
    """Yield headers with some bytes changed, beginnings of headers and random bytes behind, and only random bytes."""
    dice = random.Random(SEED)
    for _ in range(number):
        data = bytearray(dice.choice(ENCODED) + PAYLOAD)
        match dice.randrange(4):
            case 0:
                for _ in range(dice.randrange(4)):
                    data[dice.randrange(len(data))] = dice.randrange(256)
            case 1:
                data[dice.randrange(len(data)) :] = dice.randbytes(dice.randrange(200))
            case 2:
                block = dice.randbytes(dice.randrange(300))
                length = len(block) if dice.random() < 0.5 else dice.randrange(1 << 16)
                command, family = dice.choice((0x20, 0x21)), dice.choice((0x00, 0x11, 0x21))
                data[:] = SIGNATURE + bytes((command, family)) + length.to_bytes(2, "big") + block
            case _:
                data[:] = dice.randbytes(dice.randrange(1, 500))
        yield bytes(data)


def echoed(stream: bytes) -> bytes | None:
    """Return what an echo answers to a stream behind its header; None if that is none, or not complete."""
    reader, at = HeaderReader(), 0
    try:
        while reader.missing and at < len(stream):
            part = stream[at : at + reader.missing]
            at += len(part)
            if reader.take(part) is not None:
                return stream[at:]
    except ProxyProtocolError:
        pass
    return None


@pytest.mark.parametrize(
    "number", [pytest.param(400, id="short"), pytest.param(20_000, marks=pytest.mark.slow, id="long")]
)
def test_random_bytes_are_refused_or_fine_and_the_worker_lives(daemon: Start, tmp_path: Path, number: int) -> None:
    running = start(daemon, tmp_path, "1m")
    (worker,) = workers_of(running)
    memory = resident_bytes(worker)
    outcomes = set()
    for stream in random_streams(number):
        began_s = time.monotonic()
        with connect(running.address("mine")) as sock:
            answer: bytes | None = b""
            try:
                sock.sendall(stream)
                sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda sock=sock: sock.recv(4096), b""))  # type: ignore[misc]
            except OSError:
                answer = None  # reset in this moment: refused before all of it was sent
        expected = echoed(stream)
        assert answer == expected or (not answer and expected is None), stream
        outcomes.add(expected is None)
        assert time.monotonic() - began_s < TIME_UNIT
    assert outcomes == {True, False}
    assert workers_of(running) == [worker]
    assert resident_bytes(worker) - memory < 20 << 20
    assert "Traceback" not in running.log()
    assert "ERROR" not in running.log()
