"""Volume: thousands of connections at once, 100 MiB through one, and what they leave behind."""

import gc
import hashlib
import os
import resource
import socket
import threading

import pytest

from core.support.descriptors import can_open, open_descriptors
from core.support.echo import Crowd, EchoServer
from core.support.processes import resident_bytes
from core.support.sockets import NewPair, pattern, reset
from core.support.waiting import LIMIT_S, collect_until
from gaiod.core.watcher import Watcher

CONNECTIONS = 6_000
MEBIBYTE = 1 << 20


def test_six_thousand_connections_echo_a_kibibyte_each_intact(watcher: Watcher) -> None:
    if not can_open(2 * CONNECTIONS + 200):
        pytest.skip(f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]} descriptors at most: this needs 12,200")
    before = len(open_descriptors())
    server = EchoServer(watcher)
    crowd = Crowd(server, [pattern(1024, number) + number.to_bytes(4, "big") for number in range(CONNECTIONS)])
    crowd.connect()
    assert len(watcher.connections()) == CONNECTIONS
    for _ in range(2):
        for received in crowd.received:
            received.clear()
        crowd.exchange()
        assert crowd.received == crowd.messages
    crowd.close()
    watcher.wait_io(0)
    assert server.errors == []
    assert watcher.connections() == []
    assert len(open_descriptors()) == before + 1, "the listener is left"
    assert watcher.get_gc() == (0, 0)


def received_digest(sock: socket.socket, n: int, digests: list[str]) -> None:
    digest = hashlib.sha256()
    while n > 0 and (part := sock.recv(min(n, MEBIBYTE))):
        digest.update(part)
        n -= len(part)
    digests.append(f"{digest.hexdigest()} {n} missing")


def random_chunks(n: int, size: int) -> list[bytes]:
    block = os.urandom(size)
    return [block[number % size :] + block[: number % size] for number in range(n // size)]


def send_all(sock: socket.socket, chunks: list[bytes]) -> None:
    for chunk in chunks:
        sock.sendall(chunk)


def test_a_hundred_mebibytes_written_through_one_connection_arrive_intact(
    watcher: Watcher, stream_pair: NewPair
) -> None:
    near, far = stream_pair()
    chunks = random_chunks(100 * MEBIBYTE, MEBIBYTE)
    digests: list[str] = []
    reader = threading.Thread(target=received_digest, args=(far, 100 * MEBIBYTE, digests))
    reader.start()
    conn = watcher.delegate(near)
    for chunk in chunks:
        conn.write(chunk)
    done = collect_until(watcher, lambda done: len(done) == len(chunks), 10 * LIMIT_S)
    reader.join(LIMIT_S)
    assert [result.error for result in done] == [None] * len(chunks)
    assert digests == [f"{hashlib.sha256(b''.join(chunks)).hexdigest()} 0 missing"]
    assert conn.bytes_sent == 100 * MEBIBYTE


@pytest.mark.parametrize("way", ["swap", "into", "full"])
def test_a_hundred_mebibytes_read_through_one_connection_arrive_intact(
    watcher: Watcher, tcp_pair: NewPair, way: str
) -> None:
    near, far = tcp_pair()
    chunks = random_chunks(100 * MEBIBYTE, MEBIBYTE)
    writer = threading.Thread(target=send_all, args=(far, chunks))
    writer.start()
    conn = watcher.delegate(near)
    digest = hashlib.sha256()
    buffer = bytearray(MEBIBYTE)
    while conn.bytes_received < 100 * MEBIBYTE:
        if way == "swap":
            conn.read()
        elif way == "into":
            conn.read(buffer)
        else:
            conn.read_full(buffer)
        (result,) = watcher.wait_io(LIMIT_S)
        assert result.error is None
        digest.update(result.buffer if way == "swap" else memoryview(buffer)[: result.size])
    writer.join(LIMIT_S)
    assert digest.hexdigest() == hashlib.sha256(b"".join(chunks)).hexdigest()


def test_a_hundred_mebibytes_echoed_come_back_intact(watcher: Watcher) -> None:
    server = EchoServer(watcher)
    chunks = random_chunks(100 * MEBIBYTE, MEBIBYTE)
    digests: list[str] = []

    def exchange() -> None:
        with socket.create_connection(server.address, timeout=LIMIT_S) as client:
            writer = threading.Thread(target=send_all, args=(client, chunks))
            writer.start()
            received_digest(client, 100 * MEBIBYTE, digests)
            writer.join(LIMIT_S)

    thread = threading.Thread(target=exchange)
    thread.start()
    while server.ended == 0:
        assert server.serve(LIMIT_S), "it stalled"
    thread.join(LIMIT_S)
    assert server.errors == []
    assert digests == [f"{hashlib.sha256(b''.join(chunks)).hexdigest()} 0 missing"]


# -- what is left after many short connections -----------------------------------------------------------


def run_short_connections(watcher: Watcher, n: int, *, drops: bool) -> tuple[EchoServer, list[int], list[int]]:
    """Connect, send, receive and close, `n` times; return descriptors and memory at ten points of it."""
    server = EchoServer(watcher, keeps=False, drops=drops)
    descriptors: list[int] = []
    memory: list[int] = []
    for number in range(n):
        with socket.create_connection(server.address, timeout=LIMIT_S) as client:
            client.sendall(b"hello")
            client.setblocking(False)
            echoed = b""
            while len(echoed) < 5:
                server.serve()
                try:
                    echoed += client.recv(5)
                except BlockingIOError:
                    continue
            assert echoed == b"hello"
        while server.ended <= number:
            server.serve()
        server.serve()
        if (number + 1) % (n // 10) == 0:
            gc.collect()
            descriptors.append(len(open_descriptors()))
            memory.append(resident_bytes())
    return server, descriptors, memory


@pytest.mark.parametrize("drops", [False, True], ids=["closed", "dropped"])
def test_two_thousand_short_connections_leave_nothing(watcher: Watcher, drops: bool) -> None:
    server, descriptors, _ = run_short_connections(watcher, 2_000, drops=drops)
    assert server.errors == []
    assert len(set(descriptors)) == 1
    assert watcher.connections() == []
    assert watcher.get_gc() == ((2_000, 2_000) if drops else (0, 0))


@pytest.mark.slow
@pytest.mark.parametrize("drops", [False, True], ids=["closed", "dropped"])
def test_a_hundred_thousand_short_connections_leave_nothing(watcher: Watcher, drops: bool) -> None:
    server, descriptors, memory = run_short_connections(watcher, 100_000, drops=drops)
    assert server.errors == []
    assert len(set(descriptors)) == 1
    assert memory[-1] - memory[4] < 2 * MEBIBYTE, f"memory grows: {memory}"
    assert watcher.connections() == []
    found, closed = watcher.get_gc()
    assert found == closed == (100_000 if drops else 0)


def test_reset_amid_an_echo_closes_that_connection_only(watcher: Watcher) -> None:
    server = EchoServer(watcher)
    crowd = Crowd(server, [pattern(1024, number) for number in range(100)])
    crowd.connect()
    for victim in list(crowd.clients.values())[::2]:
        fd = victim.fileno()
        victim.send(b"half a mess")
        reset(victim)
        del crowd.clients[fd]
        crowd.messages[crowd.numbers[fd]] = b""
    while server.ended < 50:
        assert server.serve(LIMIT_S)
    crowd.exchange()
    assert crowd.received == crowd.messages
    crowd.close()
    assert all(isinstance(error, OSError) for error in server.errors)
