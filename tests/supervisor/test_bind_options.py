"""What a listener's connections inherit from its sockets: set once, and there from the first packet on."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import has_ipv6

from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.sockets.bind import BindError, check_congestion
from gaiod.supervisor.sockets.listeners import Listeners
from supervisor.support.users import as_nobody

SYSCTL = Path("/proc/sys/net/ipv4")
HOSTS = ["127.0.0.1", "[::1]"]

DEFAULTS = ListenerSettings("", "", "")


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    """None open yet; they are closed with the test."""
    listeners = Listeners()
    yield listeners
    listeners.close()


def serve(listeners: Listeners, host: str = "127.0.0.1", **options: Any) -> socket.socket:
    """Return the socket that the listener has now, with these options."""
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    settings = Settings((ListenerSettings("l", f"{host}:0", "echo", **options),), metrics_listen="127.0.0.1:0")
    prepared = listeners.prepare(settings)
    listeners.commit(prepared)
    return prepared.listeners[0].sockets[0]


@contextmanager
def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(listener.getsockname()[:2]):
        connection, _ = listener.accept()
        with connection:
            yield connection


def option(sock: socket.socket, name: int) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, name)


def congestion(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).partition(b"\0")[0].decode()


def the_systems() -> str:
    return (SYSCTL / "tcp_congestion_control").read_text().strip()


def another() -> str:
    """Return an algorithm that is not the system's."""
    others = set((SYSCTL / "tcp_allowed_congestion_control").read_text().split()) - {the_systems()}
    if not others:
        pytest.skip("the kernel has one algorithm only")
    return others.pop()


@pytest.mark.parametrize("host", HOSTS)
def test_connections_have_what_the_configuration_says(listeners: Listeners, host: str) -> None:
    listener = serve(listeners, host, user_timeout_s=7.5, congestion=another(), notsent_lowat_bytes=16384)
    with accepted(listener) as connection:
        assert option(connection, socket.TCP_USER_TIMEOUT) == 7500
        assert option(connection, socket.TCP_NOTSENT_LOWAT) == 16384
        assert congestion(connection) == another()


@pytest.mark.parametrize("host", HOSTS)
def test_connections_have_a_user_timeout_and_otherwise_the_systems_values_when_nothing_is_said(
    listeners: Listeners, host: str
) -> None:
    assert DEFAULTS.user_timeout_s
    with accepted(serve(listeners, host)) as connection:
        assert option(connection, socket.TCP_USER_TIMEOUT) == 1000 * DEFAULTS.user_timeout_s
        assert option(connection, socket.TCP_NOTSENT_LOWAT) == 0
        assert congestion(connection) == the_systems()


def test_connections_after_a_reload_have_what_it_says_and_those_before_keep_theirs(listeners: Listeners) -> None:
    listener = serve(listeners)
    with accepted(listener) as before:
        given = serve(listeners, user_timeout_s=1.0, congestion=another(), notsent_lowat_bytes=8192)
        assert given.fileno() == listener.fileno()
        with accepted(given) as after:
            assert (option(after, socket.TCP_USER_TIMEOUT), congestion(after)) == (1000, another())
            assert option(after, socket.TCP_NOTSENT_LOWAT) == 8192
        serve(listeners, user_timeout_s=None)
        with accepted(given) as last:
            assert (option(last, socket.TCP_USER_TIMEOUT), congestion(last)) == (0, the_systems())
            assert option(last, socket.TCP_NOTSENT_LOWAT) == 0
        assert (option(before, socket.TCP_USER_TIMEOUT), congestion(before)) == (300_000, the_systems())


def test_algorithm_that_the_kernel_does_not_have_is_refused_and_nothing_is_opened(listeners: Listeners) -> None:
    with pytest.raises(BindError) as refused:
        serve(listeners, congestion="nonsense")
    assert str(refused.value) == (
        "listener l: congestion: nonsense is no algorithm of this kernel (No such file or directory); load its module "
        "(modprobe tcp_nonsense), or choose one that is there (cat /proc/sys/net/ipv4/tcp_allowed_congestion_control)"
    )
    assert not listeners.handed_over()


def test_algorithm_that_is_not_for_everybody_is_refused_with_advice() -> None:
    there, allowed = (
        set((SYSCTL / f"tcp_{which}_congestion_control").read_text().split()) for which in ("available", "allowed")
    )
    if not there - allowed:
        pytest.skip("every algorithm is for everybody")
    name = (there - allowed).pop()
    with as_nobody(), pytest.raises(BindError) as refused:
        check_congestion("listener l", name)
    assert f"congestion: {name} is not for everybody (Operation not permitted); add it to /proc/sys/net" in str(
        refused.value
    )
