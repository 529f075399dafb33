"""Point 3: reads without a buffer share the watcher's memory, and never show another's bytes."""

import operator
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from core.support.sockets import NewPair, fill, pattern, pump, receive
from core.support.waiting import collect, collect_one, collect_until, compiled_only, interpreted_only
from gaiod.core import counters
from gaiod.core.connection import Conn
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


def read_now(watcher: Watcher, conn: Conn) -> Any:
    """Return the swap view of what has arrived; writes may complete meanwhile."""
    conn.read()
    done = collect_until(watcher, lambda done: any(result.operation is OpType.READ for result in done))
    assert [result.error for result in done] == [None] * len(done)
    (result,) = (result for result in done if result.operation is OpType.READ)
    assert result.is_swap_buffer
    return result.buffer


@pytest.fixture
def arrived(watcher: Watcher, unix_pair: NewPair) -> Iterator[Callable[[bytes], Any]]:
    """Gives the view of bytes that a peer has sent."""

    def view_of(data: bytes) -> Any:
        near, far = unix_pair()
        far.sendall(data)
        return read_now(watcher, watcher.delegate(near))

    yield view_of


def test_view_shows_what_was_received_and_its_size(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    far.sendall(b"hello")
    watcher.delegate(near).read()
    result = collect_one(watcher)
    assert (bytes(result.buffer), len(result.buffer), result.size) == (b"hello", 5, 5)
    assert result.is_swap_buffer
    assert result.operation is OpType.READ


def test_view_acts_as_a_memoryview(arrived: Callable[[bytes], Any]) -> None:
    view = arrived(b"hello world")
    same = memoryview(b"hello world")
    assert len(view) == view.nbytes == 11
    assert view == b"hello world"
    assert operator.eq(b"hello world", view)
    assert view == same
    assert view != b"hello"
    assert view != "hello world"
    assert view.tobytes() == b"hello world"
    assert (view[0], view[-1]) == (same[0], same[-1])
    with pytest.raises(IndexError):
        view[11]
    assert list(view) == list(same)
    for key in (
        slice(None),
        slice(6, None),
        slice(-5, -2),
        slice(3, 3),
        slice(8, 2),
        slice(0, 99),
        slice(None, None, 2),
    ):
        assert bytes(view[key]) == bytes(same[key])
        assert len(view[key]) == len(same[key])
    assert bytes(view[2:9][1:3]) == b"lo"
    assert int.from_bytes(view[:4], "big") == int.from_bytes(b"hell", "big")
    assert bytearray(view) == b"hello world"
    assert b"-".join([view, view[:1]]) == b"hello world-h"


def test_view_is_read_only(arrived: Callable[[bytes], Any]) -> None:
    view = arrived(b"hello")
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    with pytest.raises(TypeError):
        memoryview(view)[0] = 1


def test_view_cannot_be_read_into(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    far.sendall(b"hello")
    view = read_now(watcher, conn)
    with pytest.raises(TypeError, match="read-only"):
        conn.read(view)


@pytest.mark.parametrize(
    "use",
    [
        bytes,
        len,
        memoryview,
        list,
        bytearray,
        lambda view: view[0],
        lambda view: view[1:3],
        lambda view: view.tobytes(),
    ],
    ids=["bytes", "len", "memoryview", "list", "bytearray", "index", "slice", "tobytes"],
)
def test_view_raises_when_used_after_the_next_wait_io(
    watcher: Watcher, arrived: Callable[[bytes], Any], use: Callable[[Any], object]
) -> None:
    view = arrived(b"hello")
    assert watcher.wait_io(0) == []
    with pytest.raises(ValueError, match="released"):
        use(view)
    assert "released" in repr(view)


def test_view_raises_when_submitted_after_the_next_wait_io(watcher: Watcher, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    far.sendall(b"hello")
    view = read_now(watcher, conn)
    watcher.wait_io(0)
    with pytest.raises(ValueError, match="released"):
        conn.write(view)


def test_view_is_not_compared_after_the_next_wait_io(watcher: Watcher, arrived: Callable[[bytes], Any]) -> None:
    view = arrived(b"hello")
    watcher.wait_io(0)
    with suppress(ValueError):
        assert view != b"hello"


@compiled_only
def test_slice_raises_when_used_after_the_next_wait_io(watcher: Watcher, arrived: Callable[[bytes], Any]) -> None:
    view = arrived(b"hello")
    part = view[1:][1:3]
    assert bytes(part) == b"ll"
    watcher.wait_io(0)
    with pytest.raises(ValueError, match="released"):
        bytes(part)


@interpreted_only
def test_slice_still_shows_its_own_bytes_after_the_next_wait_io(
    watcher: Watcher, arrived: Callable[[bytes], Any]
) -> None:
    """Python 3.11 has no way to take it back; it costs memory and shows nobody else's bytes."""
    part = arrived(b"hello")[2:4]
    watcher.wait_io(0)
    assert arrived(b"other bytes") == b"other bytes"
    assert bytes(part) == b"ll"


def test_view_is_released_by_close(watcher: Watcher, arrived: Callable[[bytes], Any]) -> None:
    view = arrived(b"hello")
    watcher.close()
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_export_kept_beyond_wait_io_never_shows_anothers_bytes(
    watcher: Watcher, arrived: Callable[[bytes], Any]
) -> None:
    kept = []
    for number in range(50):
        data = bytes([number]) * 1000
        kept.append((data, memoryview(arrived(data))))
    for data, export in kept:
        assert bytes(export) == data


@compiled_only
def test_export_kept_beyond_wait_io_costs_fresh_memory_which_is_counted(unix_pair: NewPair) -> None:
    cells = memoryview(bytearray(8 * counters.SIZE)).cast("q")
    exhausted = counters.index("swap_buffer_exhausted")
    with Watcher(counters=cells) as watcher:
        near, far = unix_pair()
        conn = watcher.delegate(near)
        for _ in range(3):
            far.sendall(b"hello")
            read_now(watcher, conn)
        watcher.wait_io(0)
        assert cells[exhausted] == 0
        kept = []
        for number in range(1, 4):
            far.sendall(b"hello")
            kept.append(memoryview(read_now(watcher, conn)))
            watcher.wait_io(0)
            assert cells[exhausted] == number
        assert kept == [b"hello"] * 3


def test_many_reads_in_one_pass_each_get_a_whole_buffer(unix_pair: NewPair) -> None:
    """40 x 16 KiB are more than one batch holds; none is cut short, and all are different."""
    with Watcher(buffer_size=16 * 1024) as watcher:
        expected = {}
        conns = []
        for number in range(40):
            near, far = unix_pair()
            data = pattern(16 * 1024, number)
            far.sendall(data)
            expected[number] = data
            conns.append(watcher.delegate(near, context=number))
        for conn in conns:
            conn.read()
        while expected:
            for result in watcher.wait_io(5):
                assert bytes(result.buffer) == expected.pop(int(str(result.context)))


@pytest.mark.parametrize("size", [1, 15, 16, 17, 4096, 65536, 1 << 20])
def test_read_returns_as_much_as_the_buffer_size_says(tcp_pair: NewPair, size: int) -> None:
    near, far = tcp_pair()
    with Watcher(buffer_size=size) as watcher:
        conn = watcher.delegate(near)
        data = pattern(min(3 * size, 200_000))
        far.sendall(data)
        received = b""
        while len(received) < len(data):
            conn.read()
            result = collect_one(watcher)
            assert 0 < result.size <= size
            received += bytes(result.buffer)
        assert received == data


@pytest.mark.parametrize("size", [0, -1, 16 * 1024 * 1024 + 1])
def test_buffer_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_size={size}"):
        Watcher(buffer_size=size)


# -- writing what was read ----------------------------------------------------------------------


def test_view_can_be_written_and_is_shown_by_the_completion(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    for number in range(100):
        message = pattern(1000, number)
        far.sendall(message)
        conn.write(read_now(watcher, conn))
        result = collect_one(watcher)
        assert (bytes(result.buffer), result.size) == (message, 1000)
        assert receive(far, 1000) == message


SHAPES: dict[str, Callable[[Any], Any]] = {
    "view": lambda view: view,
    "slice": lambda view: view[10:-10],
    "memoryview": memoryview,
    "slice of a memoryview": lambda view: memoryview(view)[10:-10],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_view_can_be_written_when_the_kernel_takes_only_part(stream_pair: NewPair, shape: str) -> None:
    """What it did not take is the watcher's own copy by the time others' bytes arrive."""
    source, feeder = stream_pair()
    near, far = stream_pair()
    data = pattern(900_000)
    with Watcher(buffer_size=1 << 20) as watcher:
        conn = watcher.delegate(source)
        sink = watcher.delegate(near)
        expected = b""
        feeder.setblocking(False)
        for start in range(0, len(data), 150_000):
            with suppress(BlockingIOError):
                feeder.send(data[start : start + 150_000])
            part = SHAPES[shape](read_now(watcher, conn))
            expected += bytes(part)
            sink.write(part)
            del part
        received, done = pump(watcher, far, len(expected))
        assert received == expected
        assert all(result.error is None for result in done)


@pytest.mark.parametrize("shape", SHAPES)
def test_view_can_be_written_when_the_kernel_takes_nothing(watcher: Watcher, stream_pair: NewPair, shape: str) -> None:
    source, feeder = stream_pair()
    near, far = stream_pair()
    filled = fill(near, far)
    conn, sink = watcher.delegate(source), watcher.delegate(near)
    feeder.sendall(pattern(1000, 1))
    part = SHAPES[shape](read_now(watcher, conn))
    expected = bytes(part)
    sink.write(part)
    del part
    for number in range(2, 10):  # others' bytes, in the same memory
        feeder.sendall(pattern(1000, number))
        read_now(watcher, conn)
    received, done = pump(watcher, far, filled + len(expected))
    assert received[filled:] == expected
    done += [] if done else [collect_one(watcher)]
    assert [bytes(result.buffer) for result in done] == [expected]


def test_view_queued_behind_another_write_is_sent_as_it_was(watcher: Watcher, stream_pair: NewPair) -> None:
    source, feeder = stream_pair()
    near, far = stream_pair()
    filled = fill(near, far)
    conn, sink = watcher.delegate(source), watcher.delegate(near)
    sink.write(b"first")
    expected = b"first"
    for number in range(10):
        feeder.sendall(pattern(100, number))
        view = read_now(watcher, conn)
        expected += bytes(view)
        sink.write(view)
    received, _ = pump(watcher, far, filled + len(expected))
    assert received[filled:] == expected


def read_and_write_in_one_pass(watcher: Watcher, new_pair: NewPair) -> tuple[list[Conn], list[OpResult]]:
    """Return connections, of which [2] has bytes to read, and the completions of a write and a read."""
    pairs = [new_pair() for _ in range(6)]
    conns = [watcher.delegate(near) for near, _ in pairs]
    for number, letter in enumerate((b"A", b"B", b"C")):
        pairs[number][1].sendall(letter * 10)
    first = read_now(watcher, conns[0])
    conns[1].read(context="B")
    conns[3].write(first, context="A")
    return conns, collect(watcher, 2)


def test_two_views_of_different_passes_written_together_show_their_own_bytes(
    watcher: Watcher, unix_pair: NewPair
) -> None:
    """A view that was written, and comes back with the completion, is written again beside a fresh one."""
    conns, done = read_and_write_in_one_pass(watcher, unix_pair)
    buffers = {result.context: result.buffer for result in done}
    assert {str(context): bytes(buffer) for context, buffer in buffers.items()} == {"A": b"A" * 10, "B": b"B" * 10}
    conns[2].read(context="C")
    conns[4].write(buffers["A"], context="A")
    conns[5].write(buffers["B"], context="B")
    seen = {str(result.context): bytes(result.buffer) for result in collect(watcher, 3)}
    assert seen == {letter: letter.encode() * 10 for letter in "ABC"}


ENDS: dict[str, Callable[[Watcher, Conn], object]] = {
    "abort": lambda watcher, conn: conn.abort(),
    "cancel": lambda watcher, conn: conn.cancel(),
    "close_of_the_watcher": lambda watcher, conn: watcher.close(),
}


@pytest.mark.parametrize("end", ENDS)
def test_view_whose_write_is_ended_before_it_began_is_shown_by_the_completion(
    watcher: Watcher, unix_pair: NewPair, end: str
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    far.sendall(b"hello")
    conn.write(read_now(watcher, conn))
    ENDS[end](watcher, conn)
    result = collect_one(watcher)
    assert isinstance(result.error, Exception)
    assert (bytes(result.buffer), result.size) == (b"hello", 0)
