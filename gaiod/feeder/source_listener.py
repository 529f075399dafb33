"""Addresses at which a source listens, in the feeder. `Outlet.serve` says what may be bound."""

import socket
import time
from typing import Any

from gaiod.addresses import Address, parse_address
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.handler.handler import Handler
from gaiod.process.socket_files import LOOK_INTERVAL_S, UnixListener
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener

CONNECTIONS_MAX = 100
BACKLOG = 128

LAYOUT = Layout((0,))
"""What the feeder's watcher and all inlets count in together. Nobody reads it: sources count for themselves."""


class SourceListener:
    """One address with its connections."""

    def __init__(
        self, watcher: Watcher, cells: Any, name: str, bind: str, handler: Handler, *, idle_timeout_s: float
    ) -> None:
        """Listen.

        Args:
            watcher: the feeder's.
            cells: its counters, of `LAYOUT`.
            name: what the log calls it.
            bind: as for `Outlet.serve`.
            handler: what answers.
            idle_timeout_s: closed is who moves nothing for so long.

        Raises:
            ValueError: not such an address.
            OSError: it cannot be had.
            StartError: the handler cannot begin.
        """
        address = parse_address(bind, listen=True)
        if not address.is_local:
            raise ValueError(
                f"a source serves this machine alone, and not {address}; write 127.0.0.1:PORT, [::1]:PORT or "
                "unix:/absolute/path"
            )
        settings = ListenerSettings(
            name=name, bind=str(address), handler="", connections_max=CONNECTIONS_MAX, idle_timeout_s=idle_timeout_s
        )
        self._watcher = watcher
        self._file = UnixListener.at(address.path, backlog=BACKLOG) if address.kind == "unix" else None
        self._listener = Listener(settings, handler, watcher, cells, LAYOUT, number=0)
        sock = _tcp(address) if self._file is None else self._file.dup()
        try:
            self._listener.start()
        except BaseException:
            sock.close()
            self.close()
            raise
        self._listener.open([sock])
        self._look_later()

    def close(self) -> None:
        """Close it, and its connections at once. A socket file stays if it is another's by now."""
        file, self._file = self._file, None
        if file is not None:
            file.remove_file()
            file.close()
        self._listener.stop_accepting()
        self._listener.close_all(abort=True)

    def _look_later(self) -> None:
        if self._file is not None:
            self._watcher.timer(time.monotonic() + LOOK_INTERVAL_S, context=self._look)

    def _look(self, result: OpResult) -> None:
        """Listen anew if the file was removed."""
        after = None if self._file is None else self._file.renewed()
        if self._file is not None and after is not None:
            try:
                self._listener.serve_instead(after.dup())
            except OSError:
                after.remove_file()  # there is no descriptor left: the next look tries again, and says what it does
                after.close()
            else:
                self._file.close()
                self._file = after
        self._look_later()


def _tcp(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if address.kind == "ipv6" else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(address.target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
