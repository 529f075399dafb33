"""echo: as a script, on real sockets, and in a daemon of either engine."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.sockets import pattern, reset
from core.support.waiting import LIMIT_S
from e2e.support.clients import connect, exchange, is_ended
from e2e.support.daemons import Daemon
from e2e.support.starting import starter
from e2e.support.waiting import wait_until
from gaiod.handlers.echo import Echo  # installed from handlers/
from worker.support.serving import Serving

from gaiod.core import ENGINE
from gaiod.plugins import load_handler
from gaiod.testing import (
    Arrived,
    Arrives,
    Close,
    Closed,
    Leaves,
    Opened,
    PeerDone,
    Read,
    Sent,
    Write,
    assert_script,
)

ENGINES = ("compiled", "interpreted")


@pytest.fixture
def serving() -> Iterator[Serving]:
    """An echo in this process."""
    serving = Serving(Echo())
    yield serving
    serving.close()


@pytest.fixture(params=ENGINES)
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    """An echo in a daemon, of each engine."""
    if request.param == "compiled" and ENGINE != "compiled":
        pytest.skip("no compiled engine in this install, or not wanted")
    with starter(tmp_path) as start:
        yield start(environment={"GAIOD_ENGINE": request.param})


def test_echo_reads_again_only_after_the_write_completes() -> None:
    """A client that stops reading is not read from."""
    assert_script(
        Echo(),
        (Opened(), [Read()]),
        (Arrived(b"ping"), [Write(b"ping")]),
        (Sent(), [Read()]),
        (PeerDone(), [Close()]),
    )


def test_echo_answers_each_part_by_itself() -> None:
    assert_script(
        Echo(),
        (Opened(), [Read()]),
        (Arrived(b"one"), [Write(b"one")]),
        (Sent(), [Read()]),
        (Arrived(b"two"), [Write(b"two")]),
        (Sent(), [Read()]),
    )


def test_echo_lets_a_connection_go_when_it_has_closed() -> None:
    assert_script(Echo(), (Opened(), [Read()]), (Closed("peer_reset"), []))


def test_echo_goes_on_in_another_worker_with_a_read_or_with_what_is_not_sent_yet() -> None:
    assert_script(Echo(), (Opened(), [Read()]), (Arrived(b"ping"), [Write(b"ping")]), (Leaves(b""), []))
    assert_script(Echo(), (Arrives(b"", version=1), [Read()]), (Arrived(b"ping"), [Write(b"ping")]))
    assert_script(Echo(), (Arrives(b"", version=1, unsent=b"ng"), []), (Sent(), [Read()]))


def test_echo_is_installed_under_its_name() -> None:
    assert load_handler("echo") is Echo


def test_echo_sends_everything_back_when_the_client_half_closes(serving: Serving) -> None:
    data = pattern(100_000)
    sock = serving.connect()
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    assert serving.receive(sock, len(data) + 1) == data
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"peer_eof": 1}


def test_echo_answers_one_byte_at_a_time(serving: Serving) -> None:
    sock = serving.connect()
    assert b"".join(serving.exchange(sock, bytes([number])) for number in range(100)) == bytes(range(100))


def test_echo_goes_on_for_others_when_a_client_resets(serving: Serving) -> None:
    bad, good = serving.connect(), serving.connect()
    bad.sendall(pattern(1 << 16))
    serving.step()
    reset(bad)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"peer_reset": 1}
    assert serving.exchange(good, b"still here") == b"still here"


def test_echo_keeps_clients_apart_when_they_send_at_the_same_time(serving: Serving) -> None:
    clients = [serving.connect() for _ in range(20)]
    for number, sock in enumerate(clients):
        sock.sendall(pattern(20_000, number))
    assert all(serving.receive(sock, 20_000) == pattern(20_000, number) for number, sock in enumerate(clients))


def test_echo_does_not_read_on_while_a_client_does_not_read(serving: Serving) -> None:
    """It holds one buffer of that client, not more; and nothing is lost when the client goes on."""
    sock = serving.connect()
    (conn,) = serving.watcher.connections()
    chunk = pattern(1 << 20)
    sent, still = 0, 0
    sock.setblocking(False)
    while still < 20:
        before = sent, conn.bytes_received
        try:
            sent += sock.send(chunk[sent % len(chunk) :])
        except BlockingIOError:
            pass
        serving.step()
        still = still + 1 if before == (sent, conn.bytes_received) else 0
    held = conn.bytes_received - conn.bytes_sent
    assert 0 < held == conn.pending_write_bytes <= 65536
    received = serving.receive(sock, sent)
    expected = (chunk * (sent // len(chunk) + 1))[:sent]
    assert hashlib.sha256(received).digest() == hashlib.sha256(expected).digest()
    assert conn.pending_write_bytes == 0


def test_daemon_echoes_a_stream_unchanged_when_its_client_pauses(daemon: Daemon) -> None:
    """The same from the outside, on each engine: what was sent and not read stays bounded, and arrives."""
    chunk = pattern(1 << 16)
    sent = 0

    def traffic(what: str) -> float:
        return daemon.scrape().total(f"gaiod_{what}_bytes_total", side="downstream")

    with connect(daemon.address()) as sock:
        sock.setblocking(False)
        seen: list[tuple[int, float, float]] = []

        def is_full() -> bool:
            nonlocal sent
            try:
                while True:
                    sent += sock.send(chunk[sent % len(chunk) :])
            except BlockingIOError:
                seen.append((sent, traffic("received"), traffic("sent")))
            return len(seen) > 10 and len(set(seen[-10:])) == 1

        wait_until(is_full, "the pipes being full")
        assert 0 < traffic("received") - traffic("sent") <= 65536
        assert daemon.scrape().value("gaiod_operations_pending", worker=0, op="write") == 1
        sock.settimeout(LIMIT_S)
        received = hashlib.sha256()
        left = sent
        while left:
            part = sock.recv(min(left, 1 << 20))
            assert part, f"the stream ended {left} bytes too early"
            received.update(part)
            left -= len(part)
    assert received.digest() == hashlib.sha256((chunk * (sent // len(chunk) + 1))[:sent]).digest()


def test_daemon_echoes_for_others_when_clients_reset(daemon: Daemon) -> None:
    with connect(daemon.address()) as good:
        for _ in range(20):
            bad = connect(daemon.address())
            bad.sendall(b"x" * 1000)
            reset(bad)
        assert exchange(good, b"still here") == b"still here"
        good.shutdown(socket.SHUT_WR)
        assert is_ended(good)
