"""TLS sessions: what is different from plain connections. What is not, `contract/` has for both."""

import random
import socket
import ssl
import subprocess
from typing import Any

import pytest

from core.support.sockets import NewPair, connected_pair, fill, listen, pattern, pump, receive, reset
from core.support.tls import LAYERS, TlsPeer, TlsWatcher, server, shake_hands, tls_socket, use_layer
from core.support.waiting import LIMIT_S, assert_quiet, collect, collect_one, collect_until, soon, spin
from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded, TlsError, TlsTruncated
from gaiod.core.operations import OpType
from gaiod.core.tls import AHEAD_BYTES
from gaiod.core.watcher import Watcher

Open = tuple[Conn, TlsPeer]


@pytest.fixture(autouse=True, params=LAYERS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with all that can make sessions."""
    use_layer(request.param, monkeypatch)


@pytest.fixture
def watcher() -> Any:
    """One that has finished the handshake of what it delegates."""
    with TlsWatcher() as watcher:
        yield watcher


def opened(watcher: Any, new_pair: NewPair) -> Open:
    near, far = tls_socket(*new_pair())
    near.watcher = watcher
    return watcher.delegate(near), far


# -- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["read", "read_full", "relay"])
def test_stream_that_ends_without_close_notify_was_truncated(watcher: Any, tcp_pair: NewPair, way: str) -> None:
    conn, peer = opened(watcher, tcp_pair)
    sink = watcher.delegate(tcp_pair()[0])
    if way == "relay":
        conn.relay_to(sink)
    else:
        getattr(conn, way)(bytearray(100))
    assert_quiet(watcher, 0)
    peer.truncate()
    error = collect_one(watcher).error
    assert isinstance(error, TlsTruncated)
    assert isinstance(error, ConnectionResetError)
    assert not conn.at_eof


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_close_notify_that_is_cut_off_at_any_byte_is_no_end(watcher: Any, tcp_pair: NewPair, version: str) -> None:
    size = 1
    cut = 0
    while cut <= size:
        near, far = tcp_pair()
        peer = TlsPeer(far, version)
        conn = Watcher.delegate(watcher, near)
        shake_hands(watcher, conn, peer, [])
        peer.sendall(b"all")
        try:
            peer.object.unwrap()
        except ssl.SSLWantReadError:
            pass
        goodbye = peer.outgoing.read()
        size = len(goodbye)
        far.sendall(goodbye[:cut])
        far.shutdown(socket.SHUT_WR)
        conn.read()
        assert collect_one(watcher).buffer == b"all"
        conn.read()
        error = collect_one(watcher).error
        assert isinstance(error, EOFError if cut == size else TlsTruncated), (cut, error)
        conn.abort()
        cut += 1
    assert size > 20


def test_truncation_is_an_end_where_it_is_accepted(watcher: Any, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn, peer = Watcher.delegate(watcher, near), TlsPeer(far)
    shake_hands(watcher, conn, peer, [], server(accepts_truncation=True))
    conn.read()
    peer.truncate()
    assert isinstance(collect_one(watcher).error, EOFError)


@pytest.mark.parametrize("end", ["shutdown_write", "close"])
def test_end_is_a_close_notify_and_then_a_fin(watcher: Any, tcp_pair: NewPair, end: str) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.write(b"last words")
    getattr(conn, end)()
    collect_one(watcher)
    watcher.wait_io(0)
    assert receive(peer, 10) == b"last words"  # type: ignore[arg-type]
    assert peer.object.read(1) == b"", "the close_notify is not in order"
    assert peer.sock.recv(1) == b""
    assert conn.closed == (end == "close")


def test_abort_says_no_goodbye_and_reset_neither(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.abort()
    with pytest.raises(ssl.SSLWantReadError):
        peer.object.read(1)
    assert receive(peer, 1) == b""  # type: ignore[arg-type]
    conn, peer = opened(watcher, tcp_pair)
    conn.reset()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_peer_can_go_on_after_our_end_and_we_after_its(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    peer.sendall(b"before")
    conn.shutdown_write()
    assert_quiet(watcher)
    assert peer.recv(1) == b""
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"before"
    peer.sendall(pattern(100_000))
    received = b""
    while len(received) < 100_000:
        conn.read()
        received += bytes(collect_one(watcher).buffer)
    assert received == pattern(100_000)
    conn.write(b"too late")
    assert isinstance(collect_one(watcher).error, BrokenPipeError)
    conn, peer = opened(watcher, tcp_pair)
    peer.shutdown(socket.SHUT_WR)
    conn.read()
    assert isinstance(collect_one(watcher).error, EOFError)
    conn.write(pattern(100_000))
    assert collect_one(watcher).error is None
    assert receive(peer, 100_000) == pattern(100_000)  # type: ignore[arg-type]


def test_what_is_no_record_ends_the_stream_with_the_reason(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    peer.sendall(b"good")
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"good"
    peer.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    conn.read()
    for _ in range(2):
        error = collect_one(watcher).error
        assert isinstance(error, TlsError)
        assert error.reason == "protocol"
        conn.read()
    collect_one(watcher)
    conn.write(b"never")
    assert isinstance(collect_one(watcher).error, OSError)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        peer.recv(1)
    conn.close()
    watcher.wait_io(0)
    assert conn.closed


# -- records -----------------------------------------------------------------------------------------------


def test_record_that_comes_byte_by_byte_is_read_when_it_is_whole(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.read()
    peer.object.write(b"hello")
    *bytes_, last = peer.outgoing.read()
    for byte in bytes_:
        peer.sock.sendall(bytes([byte]))
        assert_quiet(watcher, 0.001)
    peer.sock.sendall(bytes([last]))
    assert bytes(collect_one(watcher).buffer) == b"hello"


def test_rest_of_a_record_is_read_without_another_byte_of_the_peers(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    peer.sendall(pattern(16_384) + b"more")
    received = bytearray()
    for size in (1, 5, 3, 16_375, 4):
        buffer = bytearray(size)
        conn.read_full(buffer)
        assert collect_one(watcher).error is None
        received += buffer
    assert received == pattern(16_384) + b"more"


def test_write_that_is_cancelled_leaves_whole_records_and_the_next_goes_behind_them(
    watcher: Any, tcp_pair: NewPair
) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.write(pattern(20_000_000))
    watcher.wait_io(0)
    conn.cancel()
    result = collect_one(watcher)
    taken = result.size
    assert isinstance(result.error, OSError)
    assert 0 < taken == conn.bytes_sent < 20_000_000
    conn.write(b"next")
    received, done = pump(watcher, peer, taken + 4)  # type: ignore[arg-type]
    assert received == pattern(20_000_000)[:taken] + b"next"
    assert [result.error for result in done or [collect_one(watcher)]] == [None]
    assert conn.pending_write_bytes == 0


def test_write_that_expires_is_ahead_of_the_kernel_by_some_records_at_most(watcher: Any, tcp_pair: NewPair) -> None:
    near, far = tls_socket(*tcp_pair())
    near.watcher = watcher
    filled = fill(near, far)  # type: ignore[arg-type]
    conn = watcher.delegate(near)
    conn.write(bytes(1_000_000), deadline=soon())
    result = collect_one(watcher)
    assert isinstance(result.error, DeadlineExceeded)
    assert result.size <= AHEAD_BYTES
    conn.write(b"next")
    received, _ = pump(watcher, far, filled + result.size + 4)  # type: ignore[arg-type]
    assert received[-4:] == b"next"


def test_close_sends_what_is_held_first_whoever_waits_for_it(watcher: Any, tcp_pair: NewPair) -> None:
    near, far = tls_socket(*tcp_pair())
    near.watcher = watcher
    filled = fill(near, far)  # type: ignore[arg-type]
    conn = watcher.delegate(near)
    conn.close()
    assert_quiet(watcher)
    assert not conn.closed
    received, _ = pump(watcher, far, filled)  # type: ignore[arg-type]
    assert len(received) == filled
    spin(watcher, lambda: conn.closed)
    far.settimeout(LIMIT_S)
    assert far.recv(1) == b""


def test_counters_count_what_its_owner_reads_and_writes(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.write(b"12345")
    conn.read()
    peer.sendall(b"123")
    collect(watcher, 2)
    assert (conn.bytes_sent, conn.bytes_received) == (5, 3)


def test_small_reads_and_writes_in_any_order_lose_nothing(watcher: Any, tcp_pair: NewPair) -> None:
    draw = random.Random(1)
    conn, peer = opened(watcher, tcp_pair)
    to_peer, to_us = pattern(600_000, 1), pattern(600_000, 2)
    written = sent = 0
    received, got = bytearray(), bytearray()
    peer.setblocking(False)
    reading = False
    while len(received) < len(to_us) or len(got) < len(to_peer):
        if written < len(to_peer) and conn.pending_write_bytes < 50_000:
            size = draw.choice((1, 100, 16_384, 16_385, 40_000))
            conn.write(to_peer[written : written + size])
            written += len(to_peer[written : written + size])
        if not reading:
            conn.read(*draw.choice(((), (bytearray(draw.choice((1, 50, 20_000))),))))
            reading = True
        if sent < len(to_us):
            try:
                sent += peer.send(to_us[sent : sent + draw.choice((1, 1000, 20_000))])
            except BlockingIOError:
                pass
        for result in watcher.wait_io(0):
            assert result.error is None
            if result.operation is OpType.READ:
                received += bytes(result.buffer)[: result.size]
                reading = False
        try:
            peer._flush()
            got += peer.recv(draw.choice((1, 5000, 100_000)))
        except BlockingIOError:
            pass
    assert received == to_us
    assert got == to_peer


# -- relays and groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["tls to plain", "plain to tls", "tls to tls"])
def test_relay_moves_what_one_side_decrypts_and_the_other_encrypts(watcher: Any, tcp_pair: NewPair, kinds: str) -> None:
    ends: list[tuple[Conn, Any]] = []
    for kind in kinds.split(" to "):
        if kind == "tls":
            ends.append(opened(watcher, tcp_pair))
        else:
            near, far = tcp_pair()
            ends.append((watcher.delegate(near), far))
    (source, sender), (sink, receiver) = ends
    source.relay_to(sink, context="relay")
    data = pattern(3_000_000)
    sender.setblocking(False)
    receiver.setblocking(False)
    sent, received, done = 0, bytearray(), []
    while len(received) < len(data):
        try:
            sent += sender.send(data[sent : sent + 50_000])
        except BlockingIOError:
            pass
        done += watcher.wait_io(0)
        try:
            received += receiver.recv(1 << 20)
        except BlockingIOError:
            pass
    assert received == data
    assert done == []
    sender.settimeout(LIMIT_S)
    sender.shutdown(socket.SHUT_WR)
    result = collect_one(watcher)
    assert (result.operation, result.error, result.size) == (OpType.RELAY, None, len(data))
    watcher.wait_io(0)
    receiver.settimeout(LIMIT_S)
    assert receiver.recv(1) == b""
    assert (source.bytes_received, sink.bytes_sent) == (len(data), len(data))


def test_relay_to_a_peer_that_takes_nothing_pauses_its_source(watcher: Any, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    source = watcher.delegate(near)
    sink, peer = opened(watcher, tcp_pair)
    source.relay_to(sink)
    far.setblocking(False)
    data, sent, quiet = pattern(30_000_000), 0, 0
    while quiet < 20:
        try:
            sent += far.send(data[sent : sent + 100_000])
            quiet = 0
        except BlockingIOError:
            quiet += 1
        assert watcher.wait_io(0.005) == []
    assert sent < len(data)
    assert sink.pending_write_bytes <= 262_144
    received, _ = pump(watcher, peer, sent)  # type: ignore[arg-type]
    assert received == data[:sent]
    assert sink.pending_write_bytes == 0


def test_group_sends_to_members_that_speak_tls_whole_messages_in_order(watcher: Any, tcp_pair: NewPair) -> None:
    group = watcher.group(limit=10_000_000)
    conn, peer = opened(watcher, tcp_pair)
    near, far = tcp_pair()
    plain = watcher.delegate(near)
    for member in (conn, plain):
        group.add(member)
    messages = [pattern(size, number) for number, size in enumerate((10, 70_000, 1, 300_000, 16_384) * 8)]
    for message in messages:
        assert group.publish(message) == 2
    conn.write(b"own words")
    sent = b"".join(messages)
    received, _ = pump(watcher, peer, len(sent) + 9)  # type: ignore[arg-type]
    assert received.replace(b"own words", b"", 1) == sent
    assert pump(watcher, far, len(sent))[0] == sent
    spin(watcher, lambda: conn.pending_write_bytes == plain.pending_write_bytes == 0)
    conn.close()
    plain.close()
    spin(watcher, lambda: conn.closed)


def test_member_of_a_group_that_takes_nothing_is_behind_and_gets_everything_later(
    watcher: Any, tcp_pair: NewPair
) -> None:
    group = watcher.group(limit=10_000_000)
    near, far = tls_socket(*tcp_pair())
    near.watcher = watcher
    filled = fill(near, far)  # type: ignore[arg-type]
    conn = watcher.delegate(near)
    group.add(conn)
    for number in range(20):
        group.publish(pattern(1000, number))
        watcher.wait_io(0)
    assert conn.pending_write_bytes == 20_000
    received, _ = pump(watcher, far, filled + 20_000)  # type: ignore[arg-type]
    assert received[filled:] == b"".join(pattern(1000, number) for number in range(20))
    assert conn.pending_write_bytes == 0


# -- peers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_answered(watcher: Any, version: str) -> None:
    listener = listen()
    host, port = listener.getsockname()
    watcher.accept(listener)
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", version, "-quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        conn = collect_one(watcher).conn
        conn.start_tls(server())
        assert collect_one(watcher).error is None
        for text in (b"hello\n", b"again\n"):
            process.stdin.write(text)
            process.stdin.flush()
            conn.read()
            assert bytes(collect_one(watcher).buffer) == text
            conn.write(text.upper())
            collect_one(watcher)
            assert process.stdout.readline() == text.upper()
        process.stdin.close()
        process.terminate()
    conn.abort()
    watcher.close()


def test_key_update_of_a_peer_is_followed_and_answered(watcher: Any) -> None:
    """`k` and `K` are commands of `openssl s_client`: new keys of its own, and of both."""
    listener = listen()
    host, port = listener.getsockname()
    watcher.accept(listener)
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        conn = collect_one(watcher).conn
        conn.start_tls(server())
        assert collect_one(watcher).error is None
        for command in (b"k\n", b"K\n", b"K\n"):
            process.stdin.write(command)
            process.stdin.flush()
            assert_quiet(watcher)
            for text in (b"hello\n", b"again\n"):
                process.stdin.write(text)
                process.stdin.flush()
                conn.read()
                assert bytes(collect_one(watcher).buffer) == text
                conn.write(text.upper())
                collect_one(watcher)
                while process.stdout.readline() != text.upper():
                    pass
        process.stdin.close()
        process.terminate()
    conn.abort()


def test_reset_of_a_peer_is_what_it_is_without_tls(watcher: Any, tcp_pair: NewPair) -> None:
    conn, peer = opened(watcher, tcp_pair)
    conn.read()
    assert_quiet(watcher, 0)
    reset(peer)  # type: ignore[arg-type]
    error = collect_until(watcher, lambda done: len(done) == 1)[0].error
    assert isinstance(error, ConnectionResetError)
    assert not isinstance(error, TlsTruncated)


def test_pairs_of_unix_sockets_speak_tls_as_well(watcher: Any) -> None:
    near, far = tls_socket(*connected_pair(socket.AF_UNIX))
    conn = watcher.delegate(near)
    conn.write(b"hello")
    collect_one(watcher)
    assert receive(far, 5) == b"hello"  # type: ignore[arg-type]
    far.close()
