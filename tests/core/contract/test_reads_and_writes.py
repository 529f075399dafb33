"""Points 3 and 4: whose buffer is filled or sent, how far, and what `size` says then."""

import array
import errno
import mmap
import time
from collections.abc import Callable
from typing import Any

import pytest

from core.support.sockets import NewPair, fill, pattern, pump, receive, reset
from core.support.waiting import MOMENT_S, assert_quiet, collect, collect_one, collect_until, contexts, soon
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, EmptyBuffer
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


def test_read_fills_the_users_buffer_from_its_start(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    buffer = bytearray(b"." * 10)
    watcher.delegate(near).read(buffer)
    far.sendall(b"hello")
    result = collect_one(watcher)
    assert buffer == b"hello....."
    assert result.buffer is buffer
    assert (result.size, result.is_swap_buffer) == (5, False)


@pytest.mark.parametrize(
    "buffer", [bytearray(8), array.array("q", [0]), memoryview(bytearray(8)), mmap.mmap(-1, 8)], ids=type
)
def test_read_takes_any_writable_buffer(watcher: Watcher, stream_pair: NewPair, buffer: Any) -> None:
    near, far = stream_pair()
    watcher.delegate(near).read_full(buffer)
    far.sendall(b"12345678")
    assert collect_one(watcher).size == 8
    assert bytes(memoryview(buffer).cast("B")) == b"12345678"


@pytest.mark.parametrize("buffer", [b"123", "text", 5, memoryview(b"123")], ids=type)
def test_read_refuses_what_is_no_writable_buffer(watcher: Watcher, stream_pair: NewPair, buffer: Any) -> None:
    conn = watcher.delegate(stream_pair()[0])
    with pytest.raises(TypeError):
        conn.read(buffer)
    with pytest.raises(TypeError):
        conn.read_full(buffer)
    assert_quiet(watcher, 0)


@pytest.mark.parametrize("buffer", ["text", 5, None, [1, 2], memoryview(b"123456")[::2]], ids=type)
def test_write_refuses_what_is_no_contiguous_buffer(watcher: Watcher, stream_pair: NewPair, buffer: Any) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    with pytest.raises(TypeError):
        conn.write(buffer)
    conn.write(b"usable")
    assert collect_one(watcher).error is None
    assert receive(far, 6) == b"usable"


EMPTY: dict[str, Callable[[Conn], object]] = {
    "read": lambda conn: conn.read(bytearray()),
    "read_full": lambda conn: conn.read_full(bytearray()),
    "read_full_of_none": lambda conn: conn.read_full(None),
    "write": lambda conn: conn.write(b""),
    "write_bytearray": lambda conn: conn.write(bytearray()),
    "write_slice": lambda conn: conn.write(memoryview(b"123")[3:]),
}


@pytest.mark.parametrize("way", EMPTY)
def test_empty_buffer_is_refused_at_submit_and_nothing_is_submitted(
    watcher: Watcher, stream_pair: NewPair, way: str
) -> None:
    conn = watcher.delegate(stream_pair()[0])
    with pytest.raises(EmptyBuffer):
        EMPTY[way](conn)
    assert_quiet(watcher, 0)


def test_buffer_is_pinned_until_its_operation_completes(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    fill(near, far)
    conn = watcher.delegate(near)
    written, read = bytearray(b"hello"), bytearray(5)
    conn.write(written)
    conn.read(read)
    for buffer in (written, read):
        with pytest.raises(BufferError):
            buffer.append(1)
    conn.cancel()
    done = collect(watcher, 2)
    for buffer in (written, read):
        buffer.append(1)
    assert {type(result.error) for result in done} == {OSError}


def test_read_into_takes_what_there_is_and_leaves_the_rest_for_the_next(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"hello world")
    buffer = bytearray(6)
    conn.read(buffer)
    assert collect_one(watcher).size == 6
    conn.read()
    assert bytes(collect_one(watcher).buffer) == b"world"


# -- read_full --------------------------------------------------------------------------------------


def test_read_full_completes_only_when_the_buffer_is_full(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    buffer = bytearray(6)
    watcher.delegate(near).read_full(buffer)
    for byte in b"hello":
        far.sendall(bytes([byte]))
        assert_quiet(watcher, 0.001)
    far.sendall(b"!")
    assert collect_one(watcher).size == 6
    assert buffer == b"hello!"


def test_read_full_leaves_what_is_beyond_its_buffer(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    far.sendall(b"hello world")
    conn.read_full(bytearray(5))
    assert collect_one(watcher).buffer == b"hello"
    conn.read_full(bytearray(6))
    assert collect_one(watcher).buffer == b" world"


def test_read_full_of_megabytes_fills_all_of_them(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    data = pattern(3_000_000)
    buffer = bytearray(len(data))
    watcher.delegate(near).read_full(buffer)
    far.setblocking(False)
    sent = 0
    done: list[OpResult] = []
    while not done:
        try:
            sent += far.send(data[sent : sent + 100_000])
        except BlockingIOError:
            pass
        done = watcher.wait_io(0)
    assert done[0].size == len(data)
    assert buffer == data


PARTIAL = b"par"


def test_read_full_tells_its_size_at_the_end_of_the_stream(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    far.sendall(PARTIAL)
    far.close()
    buffer = bytearray(10)
    watcher.delegate(near).read_full(buffer)
    result = collect_one(watcher)
    assert isinstance(result.error, EOFError)
    assert (result.size, bytes(buffer[:3]), result.buffer) == (3, PARTIAL, buffer)


def test_read_full_tells_its_size_at_its_deadline(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    far.sendall(PARTIAL)
    buffer = bytearray(10)
    watcher.delegate(near).read_full(buffer, deadline=soon())
    result = collect_one(watcher)
    assert isinstance(result.error, DeadlineExceeded)
    assert (result.size, bytes(buffer[:3])) == (3, PARTIAL)


@pytest.mark.parametrize("end", ["abort", "cancel"])
def test_read_full_tells_its_size_when_it_is_ended(watcher: Watcher, stream_pair: NewPair, end: str) -> None:
    near, far = stream_pair()
    far.sendall(PARTIAL)
    buffer = bytearray(10)
    conn = watcher.delegate(near).read_full(buffer)
    assert_quiet(watcher)
    getattr(conn, end)()
    result = collect_one(watcher)
    assert isinstance(result.error, ConnClosed if end == "abort" else OSError)
    assert (result.size, bytes(buffer[:3])) == (3, PARTIAL)


def test_read_full_tells_its_size_when_the_peer_resets(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    far.sendall(PARTIAL)
    buffer = bytearray(10)
    watcher.delegate(near).read_full(buffer)
    assert_quiet(watcher)
    reset(far)
    result = collect_one(watcher)
    assert isinstance(result.error, ConnectionResetError)
    assert (result.size, bytes(buffer[:3])) == (3, PARTIAL)


def test_one_byte_reads_lose_nothing(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    data = pattern(2_000)
    far.sendall(data)
    received = bytearray()
    byte = bytearray(1)
    while len(received) < len(data):
        conn.read(byte)
        assert collect_one(watcher).size == 1
        received += byte
    assert received == data


# -- write ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 65_536, 262_144, 262_145, 5_000_000])
def test_write_completes_when_all_bytes_are_with_the_kernel(watcher: Watcher, stream_pair: NewPair, size: int) -> None:
    near, far = stream_pair()
    data = pattern(size)
    conn = watcher.delegate(near)
    conn.write(data)
    received, done = pump(watcher, far, size)
    assert received == data
    done = done or [collect_one(watcher)]
    assert [(result.size, result.error, result.buffer) for result in done] == [(size, None, data)]
    assert (conn.bytes_sent, conn.pending_write_bytes) == (size, 0)


@pytest.mark.parametrize(
    "buffer",
    [b"12345678", bytearray(b"12345678"), array.array("Q", [1]), memoryview(b"abcdef")[2:]],
    ids=["bytes", "bytearray", "array", "memoryview"],
)
def test_write_takes_any_contiguous_buffer(watcher: Watcher, stream_pair: NewPair, buffer: Any) -> None:
    near, far = stream_pair()
    watcher.delegate(near).write(buffer)
    result = collect_one(watcher)
    expected = bytes(memoryview(buffer).cast("B"))
    assert result.size == len(expected)
    assert bytes(memoryview(result.buffer).cast("B")) == expected
    assert receive(far, len(expected)) == expected


def partial_write(watcher: Watcher, new_pair: NewPair, **options: Any) -> tuple[Conn, Any]:
    """Return a connection with a write that is stuck midway, and the peer."""
    near, far = new_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(20_000_000), **options)
    assert watcher.wait_io(0) == []
    assert 0 < conn.bytes_sent < 20_000_000
    return conn, far


@pytest.mark.parametrize("end", ["deadline", "cancel", "abort"])
def test_write_tells_how_much_the_kernel_took_when_it_is_ended(
    watcher: Watcher, stream_pair: NewPair, end: str
) -> None:
    deadline = time.monotonic() + 10 * MOMENT_S if end == "deadline" else None  # time enough to fill the kernel
    conn, far = partial_write(watcher, stream_pair, deadline=deadline)
    if end != "deadline":
        getattr(conn, end)()
    result = collect_one(watcher)
    assert isinstance(result.error, {"deadline": DeadlineExceeded, "cancel": OSError, "abort": ConnClosed}[end])
    assert result.size == conn.bytes_sent
    assert 0 < result.size < 20_000_000
    assert conn.pending_write_bytes == 0
    if end == "abort":
        received = b""
        while part := far.recv(1 << 20):
            received += part
        assert len(received) == result.size


def test_write_tells_how_much_the_kernel_took_when_the_peer_resets(watcher: Watcher, tcp_pair: NewPair) -> None:
    conn, far = partial_write(watcher, tcp_pair)
    reset(far)
    result = collect_one(watcher)
    assert isinstance(result.error, OSError)
    assert result.error.errno in (errno.ECONNRESET, errno.EPIPE)
    assert result.size == conn.bytes_sent > 0


def test_writes_behind_one_that_expired_are_sent(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    filled = fill(near, far)
    conn = watcher.delegate(near)
    conn.write(b"too late", context="first", deadline=soon())
    conn.write(b"sent", context="second")
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)
    received, done = pump(watcher, far, filled + 4)
    assert received[filled:] == b"sent"
    assert contexts(done or [collect_one(watcher)]) == ["second"]


def test_completion_of_a_write_shows_the_users_buffer(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    for buffer in (b"bytes", bytearray(b"bytearray")):
        conn.write(buffer)
        result = collect_one(watcher)
        assert result.buffer is buffer
        assert result.operation is OpType.WRITE
        assert not result.is_swap_buffer


def test_memoryview_released_by_its_owner_while_pending_is_still_sent(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    view = memoryview(b"hello")
    conn.write(view)
    try:
        view.release()
    except BufferError:
        pass  # the engine's pin is an export of it: as good
    assert collect_until(watcher, lambda done: len(done) == 1)[0].error is None
    assert receive(far, 5) == b"hello"
