"""Proxies in this process, and servers; closed at the end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from runtime.support.proxying import Backend, Proxying

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
