"""Handshakes: work that waits for its turn, ends once, and holds everything else back until it is done."""

import errno
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core.support.sockets import NewPair, connected_pair, receive, reset
from core.support.tls import (
    LAYERS,
    TlsPeer,
    certificate,
    server,
    shake_hands,
    use_layer,
)
from core.support.waiting import LIMIT_S, assert_quiet, collect, collect_one, collect_until, contexts, later, soon
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, NotQuiet, TlsError, UsageError
from gaiod.core.handshakes import STEPS_PER_PASS
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


@pytest.fixture(autouse=True, params=LAYERS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with all that can make sessions."""
    use_layer(request.param, monkeypatch)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_handshake_completes_and_says_what_was_agreed(watcher: Watcher, tcp_pair: NewPair, version: str) -> None:
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far, version)
    before = conn.tls
    assert before is None
    result = shake_hands(watcher, conn, peer, [])
    assert (result.operation, result.error, result.conn) == (OpType.HANDSHAKE, None, conn)
    assert (conn.tls.version, conn.tls.suite) == (version, (peer.object.cipher() or [""])[0])
    assert (conn.tls.server_name, conn.tls.resumed) == ("localhost", False)
    assert (conn.bytes_received, conn.bytes_sent, conn.pending_write_bytes) == (0, 0, 0)


def test_what_is_asked_before_the_handshake_is_done_waits_for_it(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    conn.start_tls(server(), context="handshake")
    conn.read(context="read")
    conn.write(b"from us", context="write")
    conn.shutdown_write()
    assert_quiet(watcher, 0)
    peer.sendall(b"from the peer")
    done: list[Any] = []
    while not peer.step() or len(done) < 3:
        done += watcher.wait_io(0.001)
        if len(done) == 3:
            break
    assert contexts(done)[0] == "handshake"
    assert sorted(map(str, contexts(done))) == ["handshake", "read", "write"]
    assert all(result.error is None for result in done)
    assert receive(peer, 7) == b"from us"  # type: ignore[arg-type]
    assert peer.recv(1) == b""


def test_early_data_of_the_peer_that_comes_with_its_last_flight_is_not_lost(
    watcher: Watcher, tcp_pair: NewPair
) -> None:
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near), TlsPeer(far)
    peer.sendall(b"at once")
    shake_hands(watcher, conn, peer, [])
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"at once"


FIRST_BYTES = {
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "http"),
    "http post": (b"POST / HTTP/1.1\r\n\r\n", "http"),
    "http proxy": (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", "http"),
    "lines": (b"SUBSCRIBE prices\r\n" * 4, "not_tls"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
    "postgresql": (struct.pack("!II", 8, 80877103), "not_tls"),
    "remote desktop": (bytes.fromhex("0300002b26e00000000000436f6f6b69653a"), "not_tls"),
    "proxy header": (b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "not_tls"),
    "zeros": (bytes(100), "not_tls"),
    "ones": (b"\xff" * 100, "not_tls"),
    "what may be a length": (b"x\3" + b"\xff" * 100, "not_tls"),
    "data": (b"\x17\3\3\0\5hello", "not_tls"),
    "hello of sslv2": (bytes.fromhex("802e0100020015000000100100800700c0030080") + bytes(30), "not_tls"),
    "wrong hello of sslv2": (b"\x80\x20\1\3\3" + bytes(range(60)), "not_tls"),
    "handshake of 64 KiB": (b"\x16\3\1\xff\xff" + bytes(100), "protocol"),
    "other than a hello": (b"\x16\3\1\0\4\2\0\0\0", "protocol"),
    "alert": (b"\x15\3\1\0\2\2\x28", "protocol"),
}
"""What comes instead of a handshake, and what that is called."""


@pytest.mark.parametrize("piece", [100, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("first", FIRST_BYTES)
def test_peer_that_does_not_speak_tls_fails_with_the_reason(
    watcher: Watcher, tcp_pair: NewPair, first: str, piece: int
) -> None:
    near, far = tcp_pair()
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data, reason = FIRST_BYTES[first]
    conn = watcher.delegate(near).start_tls(server())
    done: list[Any] = []
    for start in range(0, len(data), piece):
        far.sendall(data[start : start + piece])
        done = watcher.wait_io(0.01 if piece == 1 else LIMIT_S)
        if done:
            break
    (result,) = done or collect(watcher, 1)
    error = result.error
    assert isinstance(error, TlsError)
    assert (error.reason, error.errno) == (reason, errno.EPROTO)
    assert (reason == "not_tls") == (error.strerror == "TLS failed: it does not speak TLS")
    assert conn.stalled_s(time.monotonic()) < LIMIT_S  # and not since this machine was started
    assert conn.tls is None


def test_version_that_is_not_spoken_fails_with_the_reason(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    peer = TlsPeer(far, "1.2")
    conn.start_tls(server(versions=("1.3",)))
    peer.step()
    error = collect_one(watcher).error
    assert isinstance(error, TlsError)
    assert error.reason == "version"
    with pytest.raises(ssl.SSLError, match="protocol version"):
        peer.step()


def test_peer_that_does_not_believe_the_certificate_fails_with_an_alert(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    peer = TlsPeer(far)
    context = ssl.create_default_context(cadata=certificate("example.org").chain)
    peer.object = context.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    conn.start_tls(server())
    peer.step()
    assert_quiet(watcher)
    with pytest.raises(ssl.SSLCertVerificationError):
        peer.step()
    peer._flush()
    error = collect_one(watcher).error
    assert isinstance(error, TlsError)
    assert (error.reason, "unknown ca" in str(error)) == ("alert", True)


def test_peer_that_goes_amid_the_handshake_fails_it(watcher: Watcher, tcp_pair: NewPair) -> None:
    reasons = []
    for end in (socket.socket.close, reset):
        near, far = tcp_pair()
        conn = watcher.delegate(near).start_tls(server())
        assert_quiet(watcher, 0)
        end(far)
        error = collect_one(watcher).error
        assert isinstance(error, TlsError)
        reasons.append(error.reason)
        conn.abort()
    assert reasons == ["closed", "reset"]


@pytest.mark.parametrize("end", ["deadline", "cancel", "abort", "close"])
def test_handshake_that_is_ended_takes_with_it_what_waits(watcher: Watcher, tcp_pair: NewPair, end: str) -> None:
    near, _ = tcp_pair()
    conn = watcher.delegate(near).start_tls(
        server(), context="handshake", deadline=soon() if end == "deadline" else None
    )
    conn.read(context="read")
    conn.write(b"never", context="write")
    if end != "deadline":
        getattr(conn, end)()
    expected = {"deadline": DeadlineExceeded, "cancel": OSError}.get(end, ConnClosed)
    waiting = ["handshake", "read"] if end == "close" else ["handshake", "read", "write"]
    done = collect_until(watcher, lambda done: len(done) >= len(waiting))
    assert sorted(map(str, contexts(done)))[:2] == ["handshake", "read"]
    assert {type(result.error) for result in done if result.context != "write"} == {expected}
    if end in ("deadline", "cancel"):
        conn.read(context="after")
        assert isinstance(collect_one(watcher).error, expected)
        conn.close()
        assert_quiet(watcher, 0)
    assert conn.closed


def test_tls_begins_between_two_operations_only(watcher: Watcher, tcp_pair: NewPair) -> None:
    conns = [watcher.delegate(tcp_pair()[0]) for _ in range(4)]
    conns[0].read()
    conns[1].relay_to(conns[2])
    watcher.group().add(conns[3])
    for conn in conns:
        with pytest.raises(UsageError):
            conn.start_tls(server())
    conn = watcher.delegate(tcp_pair()[0]).start_tls(server())
    with pytest.raises(UsageError):
        conn.start_tls(server())


def test_connection_that_speaks_tls_cannot_be_detached(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    shake_hands(watcher, conn, TlsPeer(far), [])
    with pytest.raises(NotQuiet, match="TLS"):
        watcher.detach(conn)
    conn.read()
    assert_quiet(watcher, 0)


def test_handshake_goes_on_when_its_bytes_come_one_by_one(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn, peer = watcher.delegate(near).start_tls(server()), TlsPeer(far)
    done: list[Any] = []
    while not done:
        try:
            peer.object.do_handshake()
        except ssl.SSLWantReadError:
            pass
        for byte in peer.outgoing.read():
            far.send(bytes([byte]))
            done += watcher.wait_io(0)
        far.setblocking(False)
        try:
            peer.incoming.write(far.recv(65536))
        except BlockingIOError:
            done += watcher.wait_io(0.001)
    assert [result.error for result in done] == [None]
    assert conn.tls is not None


@contextmanager
def crowd_of(watcher: Watcher) -> Iterator[list[tuple[Conn, TlsPeer]]]:
    """Give connections in one pass more than may take a step in it, each with a peer that has sent its first flight."""
    pairs = [connected_pair(socket.AF_UNIX) for _ in range(2 * STEPS_PER_PASS + 1)]
    conns = [(watcher.delegate(near), TlsPeer(far)) for near, far in pairs]
    for conn, peer in conns:
        conn.start_tls(server(), context=conn.serial, deadline=later())
        peer.step()
    yield conns
    for _, far in pairs:
        far.close()


@pytest.fixture
def crowd(watcher: Watcher) -> Iterator[list[tuple[Conn, TlsPeer]]]:
    """A crowd of the watcher."""
    with crowd_of(watcher) as conns:
        yield conns


def test_a_pass_takes_no_more_steps_than_it_may_and_the_oldest_first(
    watcher: Watcher, crowd: list[tuple[Conn, TlsPeer]]
) -> None:
    counts = []
    for _ in range(3):
        assert watcher.wait_io(0) == []
        counts.append(sum(_has_answer(peer) for _, peer in crowd))
        assert [_has_answer(peer) for _, peer in crowd] == [i < counts[-1] for i in range(len(crowd))]
    assert counts[0] == STEPS_PER_PASS
    assert counts[-1] == len(crowd)


def test_steps_that_wait_for_the_next_pass_are_counted() -> None:
    cells = memoryview(bytearray(8 * counters.SIZE)).cast("q")
    with Watcher(counters=cells) as watcher, crowd_of(watcher):
        for _ in range(3):
            watcher.wait_io(0)
    assert cells[counters.index("handshake_steps_delayed")] == (STEPS_PER_PASS + 1) + 1


def test_everybody_of_a_crowd_is_served(watcher: Watcher, crowd: list[tuple[Conn, TlsPeer]]) -> None:
    done: list[Any] = []
    while len(done) < len(crowd):
        for _, peer in crowd:
            peer.step()
        done += watcher.wait_io(0.001)
    assert contexts(done) == [conn.serial for conn, _ in crowd]
    assert all(result.error is None for result in done)


def test_close_of_the_watcher_ends_handshakes(watcher: Watcher, crowd: list[tuple[Conn, TlsPeer]]) -> None:
    watcher.close()
    assert len(collect(watcher, len(crowd))) == len(crowd)


def _has_answer(peer: TlsPeer) -> bool:
    peer.sock.setblocking(False)
    try:
        return bool(peer.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


# -- what a server is -------------------------------------------------------------------------------------


def test_start_tls_as_a_server_is_for_connections_of_a_listener(watcher: Watcher, tcp_pair: NewPair) -> None:
    conn = watcher.delegate(tcp_pair()[0], context="nobody's")
    with pytest.raises(UsageError, match="is of no listener, which would have certificates"):
        conn.start_tls(server=True, unread=b"")
