"""Connecting: what an address may be, how it ends, and what may be submitted before it does."""

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from core.support.descriptors import descriptors_limited_to, open_descriptors
from core.support.sockets import has_ipv6, listen, pattern, pump, receive, unix_listener
from core.support.waiting import (
    LIMIT_S,
    assert_quiet,
    collect,
    collect_one,
    contexts,
    later,
    soon,
    spin,
)
from gaiod.core.errors import ConnClosed, DeadlineExceeded
from gaiod.core.operations import OpType
from gaiod.core.watcher import Watcher


@pytest.fixture(params=["v4", "v6", "unix"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A listener of each family."""
    if request.param == "unix":
        with unix_listener() as sock:
            sock.settimeout(LIMIT_S)
            yield sock
        return
    if request.param == "v6" and not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    with listen(socket.AF_INET if request.param == "v4" else socket.AF_INET6) as sock:
        sock.settimeout(LIMIT_S)
        yield sock


@pytest.fixture
def refusing() -> Any:
    """An address where nobody listens."""
    with listen() as sock:
        return sock.getsockname()


@pytest.fixture
def silent() -> Iterator[Any]:
    """An address that answers no SYN: its accept queue is full."""
    with listen(backlog=0) as sock:
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
            fillers.append(filler)
        yield sock.getsockname()
        for filler in fillers:
            filler.close()


def test_connect_completes_with_a_connection_that_moves_bytes(watcher: Watcher, listener: socket.socket) -> None:
    conn = watcher.connect(listener.getsockname(), context="context")
    result = collect_one(watcher)
    assert (result.operation, result.error, result.conn) == (OpType.CONNECT, None, conn)
    assert result.context == conn.context == "context"
    far, _ = listener.accept()
    with far:
        conn.write(b"ping").read()
        assert collect_one(watcher).size == 4
        assert receive(far, 4) == b"ping"
        far.sendall(b"pong")
        assert bytes(collect_one(watcher).buffer) == b"pong"
        assert conn.peer_address == listener.getsockname()


def test_connect_takes_an_address_as_getsockname_gives_it_or_host_and_port(watcher: Watcher) -> None:
    with listen() as sock:
        watcher.connect(sock.getsockname()[:2])
        assert collect_one(watcher).error is None
    if has_ipv6():
        with listen(socket.AF_INET6) as sock:
            watcher.connect(("::1", sock.getsockname()[1]))
            assert collect_one(watcher).error is None


def test_connect_sets_close_on_exec(watcher: Watcher, listener: socket.socket) -> None:
    conn = watcher.connect(listener.getsockname())
    assert not os.get_inheritable(conn.fileno())
    assert not os.get_blocking(conn.fileno())


def test_connect_that_is_refused_completes_with_its_errno(watcher: Watcher, refusing: Any) -> None:
    conn = watcher.connect(refusing)
    error = collect_one(watcher).error
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == errno.ECONNREFUSED
    assert not conn.closed
    conn.abort()


def test_connect_to_a_path_that_is_not_there_completes_with_its_errno(watcher: Watcher, tmp_path: Any) -> None:
    watcher.connect(str(tmp_path / "nobody"))
    assert isinstance(collect_one(watcher).error, FileNotFoundError)


def test_operations_behind_a_connect_that_is_refused_fail_and_tell_no_false_end(
    watcher: Watcher, refusing: Any
) -> None:
    conn = watcher.connect(refusing, context="connect")
    conn.write(b"a", context="write")
    conn.read(context="read")
    done = {str(result.context): result.error for result in collect(watcher, 3)}
    assert isinstance(done["connect"], ConnectionRefusedError)
    assert isinstance(done["write"], OSError)
    assert isinstance(done["read"], OSError), "an EOFError would say that there was a stream, and that it ended"


def test_connect_expires_at_its_deadline(watcher: Watcher, silent: Any) -> None:
    conn = watcher.connect(silent, deadline=soon())
    result = collect_one(watcher)
    assert (result.operation, result.conn) == (OpType.CONNECT, conn)
    assert isinstance(result.error, DeadlineExceeded)
    conn.abort()
    assert_quiet(watcher)


def test_operations_behind_a_connect_that_expired_fail_and_are_not_sent_later(watcher: Watcher, silent: Any) -> None:
    """Whoever was told that it failed goes elsewhere: what it wrote here must not arrive after all."""
    conn = watcher.connect(silent, context="connect", deadline=soon())
    conn.write(b"not twice", context="write")
    conn.read(context="read")
    done = {str(result.context): result.error for result in collect(watcher, 3)}
    assert isinstance(done["connect"], DeadlineExceeded)
    assert all(isinstance(error, OSError) for error in done.values())
    conn.write(b"nor later", context="too late")
    assert isinstance(collect_one(watcher).error, OSError)


def test_operations_behind_a_connect_that_is_cancelled_fail(watcher: Watcher, silent: Any) -> None:
    conn = watcher.connect(silent, context="connect")
    conn.write(b"a", context="write")
    conn.read(context="read")
    assert_quiet(watcher, 0)
    conn.cancel(OpType.CONNECT)
    assert all(isinstance(result.error, OSError) for result in collect(watcher, 3))


@pytest.mark.parametrize("end", ["abort", "close"])
def test_connection_can_be_closed_after_its_connect_expired(watcher: Watcher, silent: Any, end: str) -> None:
    conn = watcher.connect(silent, deadline=soon())
    collect_one(watcher)
    getattr(conn, end)()
    spin(watcher, lambda: conn.closed)


@pytest.mark.parametrize("end", ["abort", "close"])
def test_connection_can_be_closed_after_its_connect_was_refused(watcher: Watcher, refusing: Any, end: str) -> None:
    conn = watcher.connect(refusing)
    collect_one(watcher)
    getattr(conn, end)()
    spin(watcher, lambda: conn.closed)


def test_connect_can_be_cancelled(watcher: Watcher, silent: Any) -> None:
    conn = watcher.connect(silent)
    assert_quiet(watcher, 0)
    conn.cancel(OpType.CONNECT)
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED


def test_connect_can_be_aborted(watcher: Watcher, silent: Any) -> None:
    conn = watcher.connect(silent).read(context="read")
    conn.abort()
    done = collect(watcher, 2)
    assert {type(result.error) for result in done} == {ConnClosed}
    assert_quiet(watcher)


def test_connect_that_nobody_references_is_not_forgotten_while_it_lasts(watcher: Watcher, silent: Any) -> None:
    watcher.connect(silent, deadline=soon())
    assert_quiet(watcher, 0)
    assert watcher.get_gc() == (0, 0)
    assert isinstance(collect_one(watcher).error, DeadlineExceeded)


def test_operations_submitted_before_it_is_established_wait_for_it(watcher: Watcher, listener: socket.socket) -> None:
    conn = watcher.connect(listener.getsockname(), context="connect")
    data = pattern(100_000)
    conn.write(data, context="write")
    conn.read(context="read", deadline=later())
    far, _ = listener.accept()
    with far:
        received, done = pump(watcher, far, len(data))
        assert received == data
        assert contexts(done)[0] == "connect"
        far.setblocking(True)
        far.sendall(b"answer")
        spin(watcher, lambda: conn.bytes_received > 0)


def test_close_before_it_is_established_sends_what_is_queued(watcher: Watcher, listener: socket.socket) -> None:
    conn = watcher.connect(listener.getsockname())
    conn.write(b"hello")
    conn.close()
    far, _ = listener.accept()
    with far:
        spin(watcher, lambda: conn.closed)
        assert receive(far, 10) == b"hello"


def test_a_hundred_connects_at_once_all_complete(watcher: Watcher, listener: socket.socket) -> None:
    conns = [watcher.connect(listener.getsockname(), context=number) for number in range(100)]
    done = collect(watcher, 100)
    assert sorted(int(str(result.context)) for result in done) == list(range(100))
    assert [result.error for result in done] == [None] * 100
    assert len({conn.serial for conn in conns}) == 100


# -- socket options ------------------------------------------------------------------------------------


def test_options_are_set_before_the_connection_is_begun(watcher: Watcher) -> None:
    """What a SYN says of the segments that may come back is what the option made of it."""
    with listen() as sock:
        sock.settimeout(LIMIT_S)
        smaller = [(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        conn = watcher.connect(sock.getsockname(), options=smaller)
        assert collect_one(watcher).error is None
        far, _ = sock.accept()
        with far:
            assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 600
        dup = socket.socket(fileno=os.dup(conn.fileno()))
        with dup:
            assert dup.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_option_may_have_bytes_for_a_value(watcher: Watcher, listener: socket.socket) -> None:
    conn = watcher.connect(
        listener.getsockname(), options=((socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 7)),)
    )
    assert collect_one(watcher).error is None
    with socket.socket(fileno=os.dup(conn.fileno())) as dup:
        assert struct.unpack("ii", dup.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 7)
    conn.abort()


BAD_OPTIONS: dict[str, Any] = {
    "unknown": ([(socket.SOL_SOCKET, 9999, 1)], OSError),
    "of_another_family": ([(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, 9999, 1)], OSError),
    "incomplete": ([(socket.SOL_SOCKET, socket.SO_KEEPALIVE)], ValueError),
    "of_no_type": ([(socket.SOL_SOCKET, socket.SO_KEEPALIVE, "on")], TypeError),
}


@pytest.mark.parametrize(("options", "error"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_option_that_the_kernel_refuses_is_an_error_at_the_call_and_leaves_nothing(
    watcher: Watcher, refusing: Any, options: Any, error: type[Exception]
) -> None:
    before = open_descriptors()
    with pytest.raises(error):
        watcher.connect(refusing, options=options)
    assert open_descriptors() == before
    assert_quiet(watcher, 0)
    assert watcher.get_gc() == (0, 0)


# -- what is refused -----------------------------------------------------------------------------------

BAD: dict[str, Any] = {
    "name": ("localhost", 80),
    "name_with_dots": ("example.org", 80),
    "empty_host": ("", 80),
    "no_port": ("127.0.0.1",),
    "host_alone": 5,
    "none": None,
    "port_too_high": ("127.0.0.1", 65_536),
    "port_negative": ("::1", -1),
    "port_as_text": ("127.0.0.1", "80"),
    "too_many_parts": ("127.0.0.1", 80, 0, 0),
    "flow_as_text": ("::1", 80, "0", 0),
    "unknown_zone": ("fe80::1%nowhere", 80),
    "zone_of_ipv4": ("127.0.0.1%lo", 80),
    "path_too_long": "/" + "x" * 200,
}


@pytest.mark.parametrize("address", BAD.values(), ids=BAD)
def test_address_that_is_none_is_refused_at_the_call_and_leaves_nothing(watcher: Watcher, address: Any) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError):
        watcher.connect(address)
    assert open_descriptors() == before
    assert_quiet(watcher, 0)
    assert watcher.get_gc() == (0, 0)


@pytest.mark.parametrize("kind", ["port_too_high", "unknown_zone", "path_too_long"])
def test_address_that_is_none_is_refused_in_the_thread_that_gave_it(watcher: Watcher, kind: str) -> None:
    """Were it noticed by the loop, `wait_io()` would raise for somebody else's mistake."""
    raised: list[BaseException] = []

    def connect() -> None:
        try:
            watcher.connect(BAD[kind])
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert watcher.wait_io(0) == []
    assert len(raised) == 1


def test_connect_raises_when_no_descriptor_is_left(watcher: Watcher, refusing: Any) -> None:
    with descriptors_limited_to(0), pytest.raises(OSError) as caught:
        watcher.connect(refusing)
    assert caught.value.errno == errno.EMFILE


def test_connects_from_another_thread_complete(watcher: Watcher, listener: socket.socket) -> None:
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(watcher.connect(listener.getsockname(), context="far")))
    thread.start()
    result = collect_one(watcher)
    thread.join()
    assert (result.context, result.error) == ("far", None)
    assert made == [result.conn]
