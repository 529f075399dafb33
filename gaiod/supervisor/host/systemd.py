"""What systemd and a daemon tell each other: readiness and the watchdog, and sockets opened beforehand.

Small enough to need no library. Source: man 3 sd_notify, sd_watchdog_enabled, sd_listen_fds.
"""

import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import repeat

from gaiod.core.errors import UnsupportedConn
from gaiod.core.sockets import check_socket

log = logging.getLogger("gaiod.supervisor")

STATUS_CHARACTERS_MAX = 500
"""systemd ignores a message of more than 4096 bytes, and a character takes 4 of them at most."""

FIRST_FD = 3
UNNAMED = "unknown"
"""What systemd calls a socket whose unit says no FileDescriptorName."""


class Notifier:
    """Tells systemd how the daemon is; does nothing where systemd did not start it.

    No method blocks or raises. A message that cannot be sent is lost; the log says so once.

    Attributes:
        watchdog_interval_s: how often to call `watchdog`, half of what systemd allows; None: it does not wait for it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.watchdog_interval_s = _watchdog_interval_s(environment)
        self._address = _address_of(environment.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._has_warned = False

    def ready(self, status: str) -> None:
        """Say that it serves, after a start or a reload."""
        self._send("READY=1", _status(status))

    def reloading(self, status: str) -> None:
        """Say that it reloads; `ready` must follow."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}", _status(status))

    def stopping(self, status: str) -> None:
        """Say that it stops."""
        self._send("STOPPING=1", _status(status))

    def watchdog(self) -> None:
        """Say that it is alive."""
        self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> None:
        """Hand over to another process, which is the daemon from now on."""
        self._send(f"MAINPID={pid}")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so long, from now, to finish starting, reloading or stopping."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def close(self) -> None:
        """Say nothing more: the daemon has ended, or another process is it now."""
        self._address = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # close-on-exec, as Python's all are
                self._socket.setblocking(False)
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "cannot tell systemd %s through %s: %s; it may take gaiod for hung (see NotifyAccess and "
                    "WatchdogSec in its unit), and this is said only once",
                    assignments[0],
                    os.fsdecode(self._address).replace("\0", "@"),
                    error.strerror or error,
                )


@dataclass(slots=True)
class Inherited:
    """What systemd has handed over.

    Attributes:
        sockets: those that can be served, by their names.
        left_out: why others cannot be, by their names.
    """

    sockets: dict[str, list[socket.socket]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def why_not(self, name: str) -> str:
        """Say why there is no socket of a name, and what to do."""
        if name in self.left_out:
            return f"the socket {name} that systemd handed over cannot be served: {self.left_out[name]}"
        others = sorted({*self.sockets, *self.left_out})
        if not others:
            return (
                f"systemd handed over no sockets: start gaiod by a .socket unit with FileDescriptorName={name}, or "
                "bind to an address"
            )
        if others == [UNNAMED]:
            return (
                f"systemd handed over sockets without a name: give one the name {name} (FileDescriptorName= of its "
                f"unit, systemd-socket-activate --fdname={name}), or write bind: systemd:{UNNAMED}"
            )
        return (
            f"systemd handed over no socket called {name}, but {', '.join(others)}; set FileDescriptorName={name} in "
            "its .socket unit, write one of those names, or bind to an address"
        )


def inherited_sockets(environment: MutableMapping[str, str]) -> Inherited:
    """Take the listening sockets that systemd passed, by the names it gives them, close-on-exec.

    To be called once, before anything else opens descriptors. The variables are removed from `environment`, so
    that no child believes they are meant for it. What cannot be served is closed, and a warning names it.
    """
    inherited = Inherited()
    pid, count, names = (environment.pop(f"LISTEN_{each}", None) for each in ("PID", "FDS", "FDNAMES"))
    if pid is None or count is None:
        return inherited
    if _number(pid) is None or _number(count) is None:
        log.warning("LISTEN_PID=%s LISTEN_FDS=%s are not two numbers: ignoring the sockets of systemd", pid, count)
        return inherited
    if int(pid) != os.getpid():
        return inherited
    for fd, name in zip(range(FIRST_FD, FIRST_FD + int(count)), _names(names, int(count)), strict=False):
        try:
            os.set_inheritable(fd, False)
        except OSError:
            log.warning("LISTEN_FDS=%s, but descriptor %d is not open: using only those before it", count, fd)
            break
        try:
            inherited.sockets.setdefault(name, []).append(_listening(fd))
        except UnsupportedConn as error:
            log.warning("socket %s (descriptor %d) from systemd is ignored: %s", name, fd, error)
            inherited.left_out[name] = str(error)
    inherited.sockets = {name: sockets for name, sockets in inherited.sockets.items() if sockets}
    return inherited


def _listening(fd: int) -> socket.socket:
    """Return the socket that a descriptor is, or close it.

    Raises:
        UnsupportedConn: it cannot be served; the text says why, and what to do.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise UnsupportedConn(f"{error.strerror}; its unit needs ListenStream= and Accept=no") from error
    try:
        check_socket(sock, listening=True)
    except UnsupportedConn as error:
        sock.close()
        raise UnsupportedConn(f"{error}; its unit needs ListenStream= and Accept=no") from error
    return sock


def _names(text: str | None, count: int) -> Iterable[str]:
    if text is None:
        return repeat(UNNAMED)
    names = text.split(":")
    if len(names) != count:
        log.warning("LISTEN_FDNAMES=%s does not name %d sockets: naming all of them %s", text, count, UNNAMED)
        return repeat(UNNAMED)
    return names


def _address_of(path: str) -> bytes | None:
    if path.startswith("/"):
        return os.fsencode(path)
    if path.startswith("@"):
        return b"\0" + os.fsencode(path[1:])  # man 7 unix: an abstract address
    if path:
        log.warning("NOTIFY_SOCKET=%s is neither a path nor an abstract address: not notifying systemd", path)
    return None


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    allowed_us = _number(environment.get("WATCHDOG_USEC", ""))
    if not allowed_us or _number(environment.get("WATCHDOG_PID", str(os.getpid()))) != os.getpid():
        return None
    return allowed_us / 2e6


def _number(text: str) -> int | None:
    """Return what 64 bits can say in digits; int() would take signs, spaces and underscores as well."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else None


def _status(text: str) -> str:
    """Return an assignment, without what would end it or have systemd refuse it: a line end, a NUL, no UTF-8."""
    return "STATUS=" + "".join(each if each.isprintable() else " " for each in text[:STATUS_CHARACTERS_MAX])
