"""A proxy in this process, and the servers behind it, which the test itself serves."""

import socket
from collections.abc import Sequence
from typing import Any

from core.support.sockets import listen
from core.support.waiting import LIMIT_S
from gaiod.handlers.proxy import Proxy

from gaiod import Conn
from gaiod.plugins import build_options
from gaiod.stats.cells import UNAVAILABLE_CAUSES
from worker.support.serving import Serving


class Counted:
    """Stands for a `ServerStats`: it remembers what it was told."""

    def __init__(self) -> None:
        self.up = True
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


def text_of(address: Any) -> str:
    """Write an address as the configuration does."""
    return f"unix:{address}" if isinstance(address, str) else f"{address[0]}:{address[1]}"


def closed_address() -> Any:
    """Return an address of this machine at which nobody listens."""
    with listen() as sock:
        return sock.getsockname()


class Backend:
    """A server that takes connections when the test says so."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self.sock = sock or listen()
        self.sock.setblocking(False)
        self.address = text_of(self.sock.getsockname())
        self._taken: list[socket.socket] = []

    def accept(self) -> socket.socket | None:
        """Return the next connection, if there is one."""
        try:
            conn, _ = self.sock.accept()
        except BlockingIOError:
            return None
        conn.settimeout(LIMIT_S)
        self._taken.append(conn)
        return conn

    def waiting(self) -> int:
        """Take every connection there is, and return how many that were."""
        count = 0
        while self.accept():
            count += 1
        return count

    def close(self) -> None:
        """Close the listener and every connection."""
        for sock in (self.sock, *self._taken):
            sock.close()


class Proxying(Serving):
    """A listener whose handler is the proxy."""

    def __init__(
        self,
        servers: Sequence[Any],
        *,
        idle_timeout_s: float = 300.0,
        sock: socket.socket | None = None,
        **values: Any,
    ) -> None:
        """Serve, at `sock` if it is given. `values` are the other options, plain: seconds, bytes, mappings."""
        options = build_options(Proxy, {"servers": list(servers), **values})
        self.handler = Proxy(options)
        servers = Proxy.servers_of(options)
        super().__init__(self.handler, sock=sock, servers=servers, idle_timeout_s=idle_timeout_s)

    def accepted_by(self, backend: Backend) -> socket.socket:
        """Return the next connection that the proxy makes to a server."""
        taken: list[socket.socket] = []

        def look() -> bool:
            conn = backend.accept()
            if conn is not None:
                taken.append(conn)
            return conn is not None

        self.step_until(look, f"a connection to {backend.address}")
        return taken[0]

    def pair(self, backend: Backend) -> tuple[socket.socket, socket.socket]:
        """Return a client, and the end of its connection to the server, relayed already."""
        before = self.count_of_all("connections")
        client = self.connect()
        self.step_until(lambda: self.count_of_all("connections") > before, "the relays")
        wanted = self.server_of(client).local_address
        far = self.accepted_by(backend)
        while far.getpeername() != wanted:  # that was a health check
            far = self.accepted_by(backend)
        return client, far

    def server_of(self, client: socket.socket) -> Conn:
        """Return the connection to the server that a client got."""
        address = client.getsockname()
        (conn,) = (conn for conn in self.listener.clients() if conn.peer_address == address)
        server: Conn = conn.data.server
        return server

    def count_of_all(self, cell: str) -> int:
        """Return the sum of one cell over all servers."""
        return sum(self.count_of_server(cell, number) for number in range(len(self.handler.options.entries)))

    def unavailable(self) -> dict[str, int]:
        """Return how many clients got no server, by the cause; what never happened is left out."""
        return {cause: n for cause in UNAVAILABLE_CAUSES if (n := self.count(f"upstream_unavailable_{cause}"))}

    def carry(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        """Send at one end and expect it at the other."""
        source.sendall(data)
        assert self.receive(sink, len(data)) == data

    def rests(self) -> bool:
        """Tell whether nothing is left: no connection, and nobody remembered."""
        servers = list(self.handler._servers())
        return (
            not self.watcher.connections()
            and not self.listener.active
            and not self.handler._half_closed
            and not any(server.active or any(each.active for each in server.endpoints) for server in servers)
        )

    def settle(self) -> None:
        """Wait until nothing is left."""
        self.step_until(self.rests, "the end of every connection")
        assert self.count_of_all("connections") == self.count_of_all("closed")
