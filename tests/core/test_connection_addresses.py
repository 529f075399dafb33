"""Connections: the addresses of their ends, those of the socket or those that a load balancer announces."""

import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest

from core.support.sockets import NewPair, has_ipv6, listen, unix_listener
from core.support.waiting import MOMENT_S, collect_one
from gaiod.core.sockets import peer_of_name
from gaiod.core.watcher import Watcher


def test_addresses_are_those_of_the_sockets(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    expected = near.getsockname(), near.getpeername()
    conn = watcher.delegate(near)
    assert (conn.local_address, conn.peer_address) == expected
    assert conn.peer_address == far.getsockname()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_client_of_a_socket_for_both_families_has_the_address_that_it_says_itself(watcher: Watcher, host: str) -> None:
    """IPv4 clients would be `::ffff:127.0.0.1` in logs, access lists and PROXY headers."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        watcher.accept(listener)
        with socket.create_connection((host, port)) as client:
            conn = collect_one(watcher).conn
            assert conn is not None
            assert (conn.peer_address, conn.local_address) == (client.getsockname(), client.getpeername())
            conn.abort()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback")
def test_close_of_such_a_client_is_told_with_the_same_address() -> None:
    with (
        Watcher(report_closes=True) as watcher,
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
    ):
        port = listener.getsockname()[1]
        watcher.accept(listener)
        with socket.create_connection(("127.0.0.1", port)) as client:
            conn = collect_one(watcher).conn
            assert conn is not None
            conn.abort()
            closed = collect_one(watcher)
            assert isinstance(closed.buffer, bytes)
            assert peer_of_name(closed.buffer) == client.getsockname()


def test_addresses_of_a_unix_connection_are_its_paths(watcher: Watcher) -> None:
    with unix_listener() as listener:
        path = listener.getsockname()
        conn = watcher.connect(path)
        assert collect_one(watcher).error is None
        assert (conn.local_address, conn.peer_address) == ("", path)


def test_addresses_of_a_closed_connection_are_none(watcher: Watcher, stream_pair: NewPair) -> None:
    conn = watcher.delegate(stream_pair()[0])
    conn.abort()
    assert (conn.local_address, conn.peer_address) == (None, None)


@dataclass
class Header:
    """What the core looks at in a `gaiod.ProxyHeader`."""

    source: Any = None
    destination: Any = None


def test_addresses_are_those_that_a_header_announces(watcher: Watcher, stream_pair: NewPair) -> None:
    near, _ = stream_pair()
    own = near.getsockname(), near.getpeername()
    conn = watcher.delegate(near)
    assert conn.proxy_header is None
    for header in (Header(("192.0.2.7", 1), ("192.0.2.1", 2)), Header(("192.0.2.7", 1)), Header("", ""), Header()):
        conn.announce(header)
        assert conn.proxy_header is header
        assert conn.peer_address == (own[1] if header.source is None else header.source)
        assert conn.local_address == (own[0] if header.destination is None else header.destination)
    conn.announce(Header(("192.0.2.7", 1), ("192.0.2.1", 2)))
    conn.abort()
    assert (conn.local_address, conn.peer_address) == (None, None)


def test_connection_counts_from_its_announcement(watcher: Watcher, stream_pair: NewPair) -> None:
    near, far = stream_pair()
    conn = watcher.delegate(near)
    time.sleep(MOMENT_S)
    far.sendall(b"header")
    watcher.read_full(conn, bytearray(6))
    collect_one(watcher)
    conn.announce(Header())
    assert conn.bytes_received == 0
    assert conn.opened_s == conn.active_s
    far.sendall(b"ping")
    watcher.read(conn)
    collect_one(watcher)
    assert conn.bytes_received == 4


def test_peer_address_of_a_listener_is_none(watcher: Watcher) -> None:
    sock = listen()
    address = sock.getsockname()
    listener = watcher.accept(sock)
    assert (listener.local_address, listener.peer_address) == (address, None)
