"""Questions to what a watcher is given: addresses, sockets, deadlines."""

import math
import socket
from typing import Any

import pytest

from core.support.sockets import NewPair, has_ipv6, listen, unix_listener
from gaiod.core.errors import UnsupportedConn
from gaiod.core.sockets import (
    address_of,
    check_deadline,
    check_socket,
    name_of_peer,
    peer_of_name,
    resolve_numeric,
)


def test_address_of_either_end_is_as_the_socket_has_it(stream_pair: NewPair) -> None:
    near, far = stream_pair()
    assert address_of(near.fileno(), peer=False) == near.getsockname()
    assert address_of(near.fileno(), peer=True) == far.getsockname()
    assert near.fileno() >= 0, "looking does not close"


def test_address_of_an_end_that_is_not_connected_is_none() -> None:
    with listen() as listener:
        assert address_of(listener.fileno(), peer=True) is None
        assert address_of(listener.fileno(), peer=False) == listener.getsockname()


def test_address_of_a_unix_listener_is_its_path() -> None:
    with unix_listener() as listener:
        assert address_of(listener.fileno(), peer=False) == listener.getsockname()


@pytest.mark.parametrize(
    ("address", "family", "resolved"),
    [
        (("127.0.0.1", 80), socket.AF_INET, ("127.0.0.1", 80)),
        (("::1", 80), socket.AF_INET6, ("::1", 80, 0, 0)),
        (("::1", 80, 5, 0), socket.AF_INET6, ("::1", 80, 5, 0)),
        (("0:0:0:0:0:0:0:1", 80), socket.AF_INET6, ("::1", 80, 0, 0)),
        ("/run/some.sock", socket.AF_UNIX, "/run/some.sock"),
        (b"/run/some.sock", socket.AF_UNIX, b"/run/some.sock"),
        ("\0abstract", socket.AF_UNIX, "\0abstract"),
        ("/" + "x" * 106, socket.AF_UNIX, "/" + "x" * 106),
    ],
    ids=repr,
)
def test_numeric_address_is_resolved_without_asking_anybody(address: Any, family: int, resolved: Any) -> None:
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    assert resolve_numeric(address) == (family, resolved)


def test_zone_of_an_ipv6_address_becomes_its_scope() -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    assert resolve_numeric(("fe80::1%lo", 80)) == (socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo")))


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (("localhost", 80), "resolve names first"),
        (("127.1.1.1.1", 80), "resolve names first"),
        (("127.0.0.1", 65536), "a port is a number from 0 to 65535"),
        (("127.0.0.1", "http"), "a port is a number"),
        (("127.0.0.1", 80, 1), "only an IPv6 address has"),
        (("::1", 80, 0, 0, 0), "only an IPv6 address has"),
        (("", 80), "not a"),
        ((5, 80), "not a"),
        ([], "not a"),
        ("", "1 to 107 bytes"),
        ("\u00e9" * 54, "1 to 107 bytes"),
    ],
    ids=repr,
)
def test_address_that_is_none_is_refused_saying_why(address: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        resolve_numeric(address)


def test_check_socket_tells_connections_from_listeners(tcp_pair: NewPair) -> None:
    near, _ = tcp_pair()
    check_socket(near, False)
    with pytest.raises(UnsupportedConn, match="not listening"):
        check_socket(near, True)
    with listen() as listener:
        check_socket(listener, True)
        with pytest.raises(UnsupportedConn, match="is listening"):
            check_socket(listener, False)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_check_socket_refuses_unix_sockets_that_are_no_streams(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock, pytest.raises(UnsupportedConn, match="only TCP and unix"):
        check_socket(sock, False)


def test_check_deadline_takes_numbers_and_gives_a_float() -> None:
    assert [check_deadline(value) for value in (5, 5.5, True, -1)] == [5.0, 5.5, 1.0, -1.0]
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            check_deadline(value)
    for wrong in ("5", None, [5]):
        with pytest.raises(TypeError):
            check_deadline(wrong)


@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("203.0.113.9", 65535), ("::1", 443), ("2001:db8::7", 1)])
def test_kernels_name_of_an_address_is_read_and_written(address: tuple[str, int]) -> None:
    assert peer_of_name(name_of_peer(address)) == address
    assert peer_of_name(name_of_peer(address).ljust(28, b"\0")) == address


def test_kernels_name_of_a_unix_socket_or_of_nobody_is_no_address() -> None:
    assert peer_of_name(name_of_peer("/run/some.sock")) == ""
    assert peer_of_name(name_of_peer(None)) is None
    assert peer_of_name(bytes(28)) is None
