"""Inlets: addresses at which a source listens, in the feeder. `Outlet.serve` says what may be bound."""

import errno
import os
import socket
import stat
from typing import Any

from gaiod.core.sockets import UNIX_PATH_MAX_BYTES
from gaiod.core.watcher import Watcher
from gaiod.runtime.handler import Handler
from gaiod.runtime.listener import Listener
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.stats import Layout

UNIX = "unix:"

CONNECTIONS_MAX = 100
BACKLOG = 128

PATH_MAX_BYTES = UNIX_PATH_MAX_BYTES - 8
"""Less a dot and the number of a process (up to 4,194,304 on Linux): what the file is called at first."""

LAYOUT = Layout((0,))
"""What the feeder's watcher and all inlets count in together. Nobody reads it: sources count for themselves."""


class Inlet:
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
        sock = _unix(bind.removeprefix(UNIX)) if bind.startswith(UNIX) else _tcp(bind)
        self._path = bind.removeprefix(UNIX) if bind.startswith(UNIX) else None
        self._inode = None if self._path is None else _inode_of(self._path)
        settings = ListenerSettings(
            name=name, bind=bind, handler="", connections_max=CONNECTIONS_MAX, idle_timeout_s=idle_timeout_s
        )
        self._listener = Listener(settings, handler, watcher, cells, LAYOUT, number=0)
        try:
            self._listener.start()
        except BaseException:
            sock.close()
            self.close()
            raise
        self._listener.open([sock])

    def close(self) -> None:
        """Close it, and its connections at once. A socket file stays if it is another's by now."""
        self._listener.stop_accepting()
        self._listener.close_all(abort=True)
        if self._path is not None and self._inode == _inode_of(self._path):
            os.unlink(self._path)


def _tcp(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    if host not in ("127.0.0.1", "[::1]") or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{bind!r}: give 127.0.0.1:PORT, [::1]:PORT or unix:/absolute/path")
    sock = socket.socket(socket.AF_INET6 if host == "[::1]" else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the daemon that is upgraded may have it yet
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host.strip("[]"), int(port)))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str) -> socket.socket:
    """Listen at a path that somebody may listen at: it is taken over in one step, with no moment without it."""
    beside = f"{path}.{os.getpid()}"
    if not os.path.isabs(path) or len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise ValueError(f"{UNIX}{path}: give an absolute path of at most {PATH_MAX_BYTES} bytes")
    _check_is_socket(path)
    if _check_is_socket(beside):
        os.unlink(beside)  # left behind by a process that had our number
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(beside)
        try:
            sock.listen(BACKLOG)
            os.rename(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _check_is_socket(path: str) -> bool:
    """Tell whether there is something; it has to be a socket, for nothing else may be replaced."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file, and it is no socket", path)
    return True


def _inode_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
