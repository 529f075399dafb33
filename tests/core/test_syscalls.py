"""The system calls of the engine in use: results are the kernel's, `-errno` for a failure."""

import array
import errno
import os
import socket
from typing import Any

import pytest

from core.support.descriptors import descriptors_limited_to
from core.support.sockets import Clients, NewPair, fill, listen, reset
from core.support.waiting import compiled_only, interpreted_only
from gaiod.core.engine import Batch, accept, shutdown_write, take_error


@pytest.fixture
def batch() -> Any:
    """A batch with a small swap buffer."""
    batch = Batch(1000)
    yield batch
    batch.close()


def test_accept_returns_a_descriptor_that_is_close_on_exec_and_non_blocking() -> None:
    with listen() as listener:
        listener.setblocking(False)
        clients = Clients(listener.getsockname())
        clients.connect()
        fd = accept(listener.fileno())
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
        os.close(fd)
        clients.close()


def test_accept_returns_eagain_where_nobody_waits() -> None:
    with listen() as listener:
        listener.setblocking(False)
        assert accept(listener.fileno()) == -errno.EAGAIN


def test_accept_returns_emfile_when_no_descriptor_is_left() -> None:
    with listen() as listener:
        listener.setblocking(False)
        clients = Clients(listener.getsockname())
        clients.connect()
        with descriptors_limited_to(0):
            assert accept(listener.fileno()) == -errno.EMFILE
        clients.close()


def test_accept_returns_einval_for_what_does_not_listen(tcp_pair: NewPair) -> None:
    assert accept(tcp_pair()[0].fileno()) == -errno.EINVAL


def test_take_error_returns_and_clears_the_pending_error() -> None:
    with listen() as listener:
        address = listener.getsockname()
    with socket.socket() as sock:
        assert take_error(sock.fileno()) == 0
        sock.setblocking(False)
        sock.connect_ex(address)
        assert take_error(sock.fileno()) == errno.ECONNREFUSED
        assert take_error(sock.fileno()) == 0


def test_shutdown_write_sends_a_fin_and_does_not_mind_a_connection_that_is_gone(tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    shutdown_write(near.fileno())
    assert far.recv(1) == b""
    reset(far)
    shutdown_write(near.fileno())
    with socket.socket() as unconnected:
        shutdown_write(unconnected.fileno())


# -- pins ---------------------------------------------------------------------------------------------


def test_pin_of_bytes_is_the_bytes(batch: Batch) -> None:
    data = b"hello"
    assert batch.pin(data, False) is data


def test_pin_holds_the_memory_until_it_is_dropped(batch: Batch) -> None:
    data = bytearray(b"hello")
    pinned = batch.pin(data, True)
    with pytest.raises(BufferError):
        data.append(1)
    del pinned
    data.append(1)


@pytest.mark.parametrize("data", [b"hello", memoryview(b"hello")], ids=["bytes", "memoryview"])
def test_pin_to_be_written_to_refuses_what_is_read_only(batch: Batch, data: Any) -> None:
    with pytest.raises(TypeError, match="read-only"):
        batch.pin(data, True)


@pytest.mark.parametrize("data", ["text", 5, None, memoryview(b"hello")[::2]], ids=type)
@pytest.mark.parametrize("writable", [False, True])
def test_pin_refuses_what_is_no_contiguous_buffer(batch: Batch, data: Any, writable: bool) -> None:
    with pytest.raises(TypeError):
        batch.pin(data, writable)


@pytest.mark.parametrize("data", [array.array("d", [1.5, 2.5]), memoryview(bytearray(16)).cast("q")], ids=type)
def test_pin_counts_bytes_and_not_items(batch: Batch, data: Any) -> None:
    assert len(batch.pin(data, True)) == 16


# -- batches: the compiled one is only seen by compiled code --------------------------------------------


@interpreted_only
def test_batch_sends_and_receives_and_tells_each_result(batch: Batch, unix_pair: NewPair) -> None:
    pairs = [unix_pair() for _ in range(3)]
    for near, far in pairs:
        near.setblocking(False)
        far.setblocking(False)
    batch.reset()
    for number, (near, _) in enumerate(pairs[:2]):
        batch.add_send(near.fileno(), b"hello", number, None)
    batch.send()
    assert [(batch.result(i), batch.wanted(i)) for i in range(2)] == [(5, 5), (4, 4)]
    batch.reset()
    target = bytearray(10)
    batch.add_receive(pairs[0][1].fileno(), None, 0, None)
    batch.add_receive(pairs[1][1].fileno(), batch.pin(target, True), 3, None)
    batch.add_receive(pairs[2][1].fileno(), None, 0, None)
    assert batch.receive() == 3
    assert [batch.result(i) for i in range(3)] == [5, 4, -errno.EAGAIN]
    assert [batch.wanted(i) for i in range(3)] == [1000, 7, 1000]
    assert bytes(batch.view(0)) == b"hello"
    assert target == b"\0\0\0ello\0\0\0"


@interpreted_only
def test_batch_tells_end_and_errors(batch: Batch, tcp_pair: NewPair) -> None:
    ended, was_reset, full = tcp_pair(), tcp_pair(), tcp_pair()
    ended[1].close()
    reset(was_reset[1])
    fill(*full)
    batch.reset()
    batch.add_receive(ended[0].fileno(), None, 0, None)
    batch.add_receive(was_reset[0].fileno(), None, 0, None)
    batch.receive()
    assert [batch.result(i) for i in range(2)] == [0, -errno.ECONNRESET]
    batch.reset()
    batch.add_send(full[0].fileno(), b"a", 0, None)
    batch.add_send(was_reset[0].fileno(), b"a", 0, None)
    batch.send()
    assert [batch.result(i) for i in range(2)] == [-errno.EAGAIN, -errno.EPIPE]


@interpreted_only
def test_views_are_released_by_recycle(batch: Batch, unix_pair: NewPair) -> None:
    near, far = unix_pair()
    near.sendall(b"hello")
    batch.reset()
    batch.add_receive(far.fileno(), None, 0, None)
    batch.receive()
    view = batch.view(0)
    part = view[1:3]
    batch.recycle()
    with pytest.raises(ValueError, match="released"):
        bytes(view)
    assert bytes(part) == b"el"
    assert batch.own(part) is part


@compiled_only
def test_batch_without_memory_for_its_buffer_says_so() -> None:
    with pytest.raises(MemoryError, match="swap buffer"):
        Batch(1 << 46)
