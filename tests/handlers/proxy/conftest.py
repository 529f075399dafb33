"""Proxies in this process, and servers; closed at the end."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from worker.support.proxying import Backend, Proxying, text_of

Start = Callable[..., Proxying]


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A server."""
    backend = Backend()
    yield backend
    backend.close()


@pytest.fixture
def backends() -> Iterator[Callable[[int], list[Backend]]]:
    """A maker of servers."""
    with ExitStack() as stack:

        def make(n: int) -> list[Backend]:
            made = [Backend() for _ in range(n)]
            for each in made:
                stack.callback(each.close)
            return made

        yield make


@pytest.fixture
def start() -> Iterator[Start]:
    """A starter of proxies: of a server or several, or their addresses; other options as plain values."""
    with ExitStack() as stack:

        def start(*servers: Any, **values: Any) -> Proxying:
            addresses = [each.address if isinstance(each, Backend) else each for each in servers]
            proxy = Proxying(addresses, **values)
            stack.callback(proxy.close)
            return proxy

        yield start


@pytest.fixture
def black_hole() -> Iterator[str]:
    """A listener whose queue is full: the kernel answers no further SYN."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=0)
    held = [socket.socket() for _ in range(4)]
    for each in held:
        each.setblocking(False)
        each.connect_ex(sock.getsockname())
    yield text_of(sock.getsockname())
    for each in (sock, *held):
        each.close()
