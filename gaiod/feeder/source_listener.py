"""Addresses at which a source listens, in the feeder. The supervisor has their sockets open (`Outlet.serve`)."""

import errno
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from gaiod.core.watcher import Watcher
from gaiod.handler.handler import Handler
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener

CONNECTIONS_MAX = 8192
"""Twice the backlog of its socket, so a crowd that has waited for a feeder is not turned away (with 100 it was)."""

LAYOUT = Layout((0,))
"""What the feeder's watcher and all inlets count in together. Nobody reads it: sources count for themselves."""


class SourceListener:
    """One address with its connections.

    Attributes:
        address: where it listens.
    """

    def __init__(self, watcher: Watcher, cells: Any, settings: ListenerSettings, handler: Handler) -> None:
        """Let its handler begin; `serve` lets it listen.

        Args:
            watcher: the feeder's.
            cells: its counters, of `LAYOUT`.
            settings: its name in the log, its address and its limits.
            handler: what answers.

        Raises:
            StartError: the handler cannot begin.
        """
        self.address = settings.bind
        self._listener = Listener(settings, handler, watcher, cells, LAYOUT, number=0)
        self._inodes: set[int] = set()
        self._listener.start()

    def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept from listening sockets, of which it takes copies, instead of those before, unless they are the same.

        Raises:
            OSError: no descriptor is left for them.
        """
        if not sockets:
            raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: the socket of {self.address} is not here")
        inodes = {os.fstat(sock.fileno()).st_ino for sock in sockets}  # copies of a socket have the same
        if inodes != self._inodes:
            copies = [sock.dup() for sock in sockets]
            self._listener.serve_instead(copies)
            self._inodes = inodes

    def stop_accepting(self) -> None:
        """Accept no more; the connections go on."""
        self._listener.stop_accepting()

    def close_quiet(self, quiet_s: float) -> bool:
        """Close connections that have moved nothing for so long; return whether others are left."""
        for conn in self._listener.clients(idle_since_s=time.monotonic() - quiet_s):
            self._listener.end(conn, "drain")
        return self._listener.active > 0

    def close(self) -> None:
        """Accept no more, and close its connections at once."""
        self._listener.stop_accepting()
        self._listener.close_all(abort=True)
