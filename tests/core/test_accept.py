"""Accepting: many completions of one operation, to its end; no descriptors left; floods."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from core.support.descriptors import descriptors_limited_to
from core.support.sockets import Clients, NewPair, has_ipv6, listen, receive, unix_listener
from core.support.waiting import (
    LIMIT_S,
    TIME_UNIT,
    assert_quiet,
    collect,
    collect_one,
    collect_rest,
    collect_until,
    contexts,
)
from gaiod.core.errors import ConnClosed, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

REST_S = 0.1
"""How long a listener rests that lacked a descriptor (`ACCEPT_PAUSE_S`, a C constant in the compiled loop)."""

FEW_PASSES = 6 * 64
"""Connections that one listener accepts before the kernel is asked what else there is, generously."""


@pytest.fixture(params=["v4", "v6", "unix"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, Clients]]:
    """A listener of each family, and clients of it."""
    if request.param == "unix":
        with unix_listener() as sock:
            clients = Clients(sock.getsockname())
            yield sock, clients
            clients.close()
        return
    if request.param == "v6" and not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    family = socket.AF_INET if request.param == "v4" else socket.AF_INET6
    with listen(family) as sock:
        clients = Clients(sock.getsockname())
        yield sock, clients
        clients.close()


@pytest.fixture
def tcp_listening() -> Iterator[tuple[socket.socket, Clients]]:
    """A TCP listener, and clients of it."""
    with listen(backlog=1024) as sock:
        clients = Clients(sock.getsockname())
        yield sock, clients
        clients.close()


Listening = tuple[socket.socket, Clients]


def test_accept_completes_once_for_every_connection(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    listener = watcher.accept(sock, context="context")
    made = clients.connect(10)
    done = collect(watcher, 10)
    assert {(result.operation, result.error, result.context) for result in done} == {(OpType.ACCEPT, None, "context")}
    conns = [result.conn for result in done if result.conn is not None]
    assert len(set(conns)) == 10
    assert {conn.context for conn in conns} == {"context"}
    assert listener not in conns
    for conn in conns:
        conn.write(b"hello")
    collect(watcher, 10)
    assert [receive(client, 5) for client in made] == [b"hello"] * 10


def test_accept_takes_connections_that_waited_before(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    clients.connect(5)
    watcher.accept(sock)
    assert len(collect_until(watcher, lambda done: len(done) >= 5)) == 5


def test_accept_goes_on_after_each_completion(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    watcher.accept(sock)
    for _ in range(20):
        clients.connect()
        assert collect_one(watcher).error is None


def test_accepted_connection_is_close_on_exec_and_non_blocking(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    watcher.accept(sock)
    clients.connect()
    conn = collect_one(watcher).conn
    assert conn is not None
    assert not os.get_inheritable(conn.fileno())
    assert not os.get_blocking(conn.fileno())


def test_accepted_connection_that_nobody_keeps_is_forgotten(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    watcher.accept(sock)
    (client,) = clients.connect()
    collect_one(watcher)
    assert watcher.get_gc() == (1, 1)
    assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("end", "error"),
    [("cancel", OSError), ("abort", ConnClosed), ("close", ConnClosed)],
    ids=["cancel", "abort", "close"],
)
def test_accept_ends_with_one_last_completion_that_has_the_listener(
    watcher: Watcher, listening: Listening, end: str, error: type[Exception]
) -> None:
    sock, clients = listening
    listener = watcher.accept(sock, context="context")
    clients.connect()
    kept = collect_one(watcher)
    getattr(listener, end)()
    last = collect_one(watcher)
    assert (last.operation, last.conn, last.context) == (OpType.ACCEPT, listener, "context")
    assert isinstance(last.error, error)
    assert_quiet(watcher)
    assert listener.closed == (end != "cancel")
    assert kept.conn is not None
    assert not kept.conn.closed, "what was accepted is not the listener's"


def test_accept_ends_with_watcher_closed_when_the_watcher_closes(watcher: Watcher, listening: Listening) -> None:
    watcher.accept(listening[0])
    (last,) = collect_rest(watcher)
    assert isinstance(last.error, WatcherClosed)


def test_accept_can_be_resumed_after_a_cancel(watcher: Watcher, listening: Listening) -> None:
    sock, clients = listening
    listener = watcher.accept(sock)
    listener.cancel(OpType.ACCEPT)
    error = collect_one(watcher).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ECANCELED
    clients.connect(3)
    assert_quiet(watcher)
    assert watcher.accept(listener, context="again") is listener
    assert contexts(collect(watcher, 3)) == ["again"] * 3


def test_accept_survives_clients_that_are_gone_before_their_turn(watcher: Watcher, tcp_listening: Listening) -> None:
    sock, clients = tcp_listening
    clients.connect(50)
    clients.close()
    watcher.accept(sock)
    done = collect_until(watcher, lambda done: len(done) >= 50)
    assert all(result.error is None or result.conn is None for result in done)
    clients.connect()
    assert collect_one(watcher).error is None


# -- no descriptor is left -----------------------------------------------------------------------------


def accept_until_full(watcher: Watcher, listening: Listening, free: int) -> tuple[list[OpResult], int]:
    """Return the completions of a listener that ran out of descriptors, and how many clients wait."""
    sock, clients = listening
    watcher.accept(sock, context="context")
    clients.connect(free + 5)
    with descriptors_limited_to(free):
        done = collect_until(watcher, lambda done: any(result.error is not None for result in done))
    return done, 5


def test_accept_without_descriptors_tells_the_errno_and_goes_on_when_there_are_some(
    watcher: Watcher, tcp_listening: Listening
) -> None:
    done, waiting = accept_until_full(watcher, tcp_listening, 3)
    *accepted, failed = done
    assert [result.error for result in accepted] == [None] * 3
    assert isinstance(failed.error, OSError)
    assert failed.error.errno == errno.EMFILE
    assert (failed.conn, failed.context, failed.operation) == (None, "context", OpType.ACCEPT)
    assert [result.error for result in collect(watcher, waiting)] == [None] * waiting


@pytest.mark.parametrize("wakes", ["time", "a close"])
def test_accepting_that_was_paused_goes_on_after_a_rest_or_a_close(
    watcher: Watcher, tcp_listening: Listening, wakes: str
) -> None:
    """For what a client needs beside its own descriptor: the kernel's queue holds it meanwhile."""
    sock, clients = tcp_listening
    listener = watcher.accept(sock)
    clients.connect(1)
    before = collect_one(watcher).conn
    assert before is not None
    began_s = time.monotonic()
    watcher.pause(listener)
    watcher.pause(listener)  # a second time, nothing happens
    clients.connect(2)
    assert watcher.wait_io(0) == []
    if wakes == "a close":
        before.abort()
    assert [result.error for result in collect(watcher, 2)] == [None, None]
    paused_s = time.monotonic() - began_s
    assert listener.rested_s(time.monotonic()) <= paused_s
    if wakes == "time":
        assert paused_s >= REST_S
        assert listener.rested_s(time.monotonic()) >= REST_S * 0.9


def test_pause_holds_though_a_flood_is_not_accepted_to_its_end(watcher: Watcher, tcp_listening: Listening) -> None:
    sock, clients = tcp_listening
    listener = watcher.accept(sock)
    clients.connect(300)
    kept = collect_until(watcher, lambda done: len(done) >= 64)  # its share of a pass: it would go on at once
    watcher.pause(listener)
    assert watcher.wait_io(0) == []
    kept += collect(watcher, 300 - len(kept))


def test_pause_of_what_does_not_listen_or_accepts_no_more_does_nothing(
    watcher: Watcher, tcp_listening: Listening
) -> None:
    sock, clients = tcp_listening
    listener = watcher.accept(sock)
    clients.connect()
    conn = collect_one(watcher).conn
    assert conn is not None
    watcher.pause(conn)
    conn.write(b"hello")
    assert collect_one(watcher).error is None
    listener.abort()
    collect_one(watcher)
    watcher.pause(listener)
    assert listener.rested_s(time.monotonic()) == 0


def test_accept_without_descriptors_does_not_spin(watcher: Watcher, tcp_listening: Listening) -> None:
    """A few completions a second, and next to no CPU: a naive loop makes 350,000."""
    sock, clients = tcp_listening
    watcher.accept(sock)
    clients.connect(3)
    with descriptors_limited_to(0):
        collect_until(watcher, lambda done: len(done) > 0)
        cpu_s, until_s = time.process_time(), time.monotonic() + TIME_UNIT
        done = []
        while (left_s := until_s - time.monotonic()) > 0:
            done += watcher.wait_io(left_s)
        assert time.process_time() - cpu_s < 0.2 * TIME_UNIT
    assert len(done) <= 15 * max(1.0, TIME_UNIT)
    assert all(isinstance(result.error, OSError) for result in done)
    assert all(result.error is None for result in collect(watcher, 3))


def test_accept_without_descriptors_is_not_tried_for_each_client_that_comes(
    watcher: Watcher, tcp_listening: Listening
) -> None:
    """Each is an edge of the poller, and a flood of them must not wake a listener that rests."""
    sock, clients = tcp_listening
    watcher.accept(sock)
    clients.connect(1)
    clients.sockets += (late := [socket.socket() for _ in range(20)])
    with descriptors_limited_to(0):
        collect_until(watcher, lambda done: len(done) > 0)
        done, begin_s = [], time.monotonic()
        for client in late:
            client.connect(clients.address)
            done += watcher.wait_io(0)
        assert len(done) <= 1 + (time.monotonic() - begin_s) / REST_S
    assert [result.error for result in collect_until(watcher, lambda done: len(done) >= 21)[-21:]] == [None] * 21


@pytest.mark.quiet
def test_accept_without_descriptors_goes_on_as_soon_as_a_connection_closes(
    watcher: Watcher, tcp_listening: Listening, unix_pair: NewPair
) -> None:
    conn = watcher.delegate(unix_pair()[0])
    sock, clients = tcp_listening
    watcher.accept(sock)
    clients.connect(2)
    with descriptors_limited_to(0):
        collect_until(watcher, lambda done: len(done) > 0)
        conn.abort()
        begin_s = time.monotonic()
        done = collect_until(watcher, lambda done: any(result.error is None for result in done))
        assert time.monotonic() - begin_s < 0.05 * TIME_UNIT, "it need not wait for the pause to end"
    collect_until(watcher, lambda more: sum(result.error is None for result in done + more) == 2)


def test_accept_without_descriptors_leaves_established_connections_alone(
    watcher: Watcher, tcp_listening: Listening, unix_pair: NewPair
) -> None:
    near, far = unix_pair()
    conn = watcher.delegate(near)
    sock, clients = tcp_listening
    watcher.accept(sock)
    clients.connect(3)
    with descriptors_limited_to(0):
        for _ in range(100):
            far.sendall(b"ping")
            conn.read(context="read")
            collect_until(watcher, lambda done: "read" in contexts(done))
            conn.write(b"pong", context="write")
            collect_until(watcher, lambda done: "write" in contexts(done))
            assert receive(far, 4) == b"pong"


@pytest.mark.parametrize("end", ["cancel", "abort"])
def test_accept_can_be_ended_in_its_pause(watcher: Watcher, tcp_listening: Listening, end: str) -> None:
    sock, clients = tcp_listening
    listener = watcher.accept(sock)
    clients.connect()
    with descriptors_limited_to(0):
        collect_until(watcher, lambda done: len(done) > 0)
        getattr(listener, end)()
        assert collect_one(watcher).conn is listener
    assert_quiet(watcher, 0.15 * TIME_UNIT)


def test_flood_of_connects_does_not_starve_an_established_echo(
    watcher: Watcher, tcp_listening: Listening, unix_pair: NewPair
) -> None:
    sock, clients = tcp_listening
    near, far = unix_pair()
    watcher.accept(sock, context="accept")
    conn = watcher.delegate(near)
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            socket.create_connection(clients.address, timeout=LIMIT_S).close()

    flooders = [threading.Thread(target=flood) for _ in range(2)]
    for flooder in flooders:
        flooder.start()
    accepted = 0
    try:
        collect_until(watcher, lambda done: len(done) > 0)
        echoes = 0
        while echoes < 200 or accepted == 0:
            echoes += 1
            assert echoes < 100_000, "the flood never came"
            far.sendall(b"ping")
            conn.read(context="echo")
            done = collect_until(watcher, lambda done: "echo" in contexts(done))
            accepted += len(done) - 1
            assert len(done) <= FEW_PASSES, "it waited for more connections than a few passes may accept"
    finally:
        over.set()
        for flooder in flooders:
            flooder.join()
    watcher.wait_io(0)


def test_pass_with_a_thousand_connects_waiting_serves_others_first(
    watcher: Watcher, tcp_listening: Listening, unix_pair: NewPair
) -> None:
    sock, clients = tcp_listening
    near, far = unix_pair()
    conn = watcher.delegate(near)
    clients.connect(1000)
    watcher.accept(sock, context="accept")
    far.sendall(b"ping")
    conn.read(context="echo")
    done = collect_until(watcher, lambda done: "echo" in contexts(done))
    assert len(done) <= FEW_PASSES
    collect_until(watcher, lambda more: len(done) + len(more) == 1001)
