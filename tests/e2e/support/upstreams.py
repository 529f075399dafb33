"""Servers behind a daemon's proxy: listeners that the test itself serves, and the configuration that leads there."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.support.sockets import listen
from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, connect
from e2e.support.daemons import Daemon
from e2e.support.waiting import wait_until


def config(with_: str, *, more: str = "") -> str:
    """Return a configuration with one proxy, `db`; `with_` is its `with:` without the braces."""
    return (
        'metrics: {listen: "127.0.0.1:0"}\ndrain_timeout: 1s\n'
        f'listeners: {{db: {{bind: "127.0.0.1:0", handler: proxy, {more} with: {{{with_}}}}}}}\n'
    )


def address_of(sock: socket.socket) -> str:
    """Write where a listener listens as the configuration does."""
    name: Any = sock.getsockname()
    return f"'unix:{name}'" if isinstance(name, str) else f"'{name[0]}:{name[1]}'"


@contextmanager
def upstreams(n: int) -> Iterator[list[socket.socket]]:
    """Give listeners on the loopback."""
    made = [listen() for _ in range(n)]
    for each in made:
        each.settimeout(LIMIT_S)
    try:
        yield made
    finally:
        for each in made:
            each.close()


def accept(upstream: socket.socket) -> socket.socket:
    """Return the next connection to a server."""
    far, _ = upstream.accept()
    far.settimeout(LIMIT_S)
    return far


def pair(running: Daemon, upstream: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Return a client, and the server's end."""
    client = connect(running.address("db"))
    return client, accept(upstream)


def until(running: Daemon, value: float, name: str, **labels: object) -> Samples:
    """Wait until a metric has a value; return the scrape in which it has."""

    def look() -> Samples | None:
        scrape = running.scrape()
        return scrape if scrape.total(f"gaiod_{name}", **labels) == value else None

    found = wait_until(look, f"{name}{labels} being {value}")
    assert found is not None
    return found
