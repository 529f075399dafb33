"""proxy: connect every client to one of several servers, and carry the bytes both ways."""

import logging
import random
import time
from typing import Any

from gaiod import Conn, Handler, OpResult, ProxyHeader

from .health import Checks
from .names import Answer, Names
from .options import Options
from .pool import Pool
from .queue import Queue
from .servers import Endpoint, Server, hash_of
from .session import Session
from .sockets import socket_options

log = logging.getLogger("gaiod.handler.proxy")

AGE_SHARE_MIN = 0.8
"""Of `max_age` that the shortest-lived connection gets: those that began together must not all end together."""


class Proxy(Handler):
    """Sends each client to the server that `balance` says; a `Session` is what becomes of it.

    What happens to a connection is for its `data` to deal with: a session, or a health check.
    """

    Options = Options
    pool: Pool

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.announces = options.send_proxy != "none"
        self._socket_options = socket_options(options.tcp)
        self._dice = random.Random()
        self._queue: Queue[Session] = Queue(options.queue.length, options.queue.timeout)
        self._half_closed: dict[Session, float] = {}  # one direction ended, and when
        self._names: Names | None = None

    @classmethod
    def servers_of(cls, options: Options) -> tuple[str, ...]:
        return tuple(entry.address for entry in options.entries)

    @classmethod
    def buffer_limit_of(cls, options: Options) -> int:
        return options.buffer_limit

    # -- hooks -----------------------------------------------------------------------------------------

    def on_start(self) -> None:
        servers = [Server(entry, self.server(entry.address)) for entry in self.options.entries]
        self.pool = Pool(self.options, servers, self._dice)
        for server in servers:
            self._check(server.endpoints)
        names = [server.address.host for server in servers if server.address.is_name]
        if names:
            self._names = Names(names, self.options.resolve_interval, self.post)
            self._names.start()

    def on_open(self, conn: Conn) -> None:
        session = conn.data = Session(self, conn)
        self.find_server(session)

    def on_connect(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.connected(conn, result)

    def on_relay(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.relayed(conn, result)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.data.read(conn, bytes(result.buffer))

    def on_write(self, conn: Conn, result: OpResult) -> None:
        if conn.data is not None:
            conn.data.wrote(conn)

    def on_close(self, conn: Conn, reason: str) -> None:
        data, conn.data = conn.data, None
        if data is not None:
            data.closed(conn, reason)

    def on_tick(self) -> None:
        now_s = time.monotonic()
        for session, since_s in list(self._half_closed.items()):
            if not session.tick(now_s, since_s):
                self._half_closed.pop(session, None)
        self.pool.refresh_if_due(now_s)
        self._serve_queue()

    def on_timer(self, data: Any) -> None:
        data.ring()

    def on_post(self, data: Answer) -> None:
        self._resolved(data)
