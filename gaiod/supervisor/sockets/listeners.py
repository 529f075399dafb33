"""The listening sockets that the daemon has open, and what a new configuration makes of them.

A TCP listener has one socket per worker, which share its address (SO_REUSEPORT): the kernel spreads
clients evenly, and those who wait at the socket of a worker that dies are served by its successor,
because the supervisor holds the socket too. With one socket for all, a few workers get everything
(600 to 0, measured); with a socket that each worker opens itself, its queue dies with it.

A socket is never closed because there are fewer workers now: its queue would be lost, and the kernel
goes on choosing it until then. Worker N serves the sockets N, N + workers, N + 2 * workers, ...
"""

import logging
import socket
from dataclasses import dataclass, field

from gaiod.addresses import SYSTEMD, Address, parse_address
from gaiod.process.socket_files import UnixListener
from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.host.systemd import Inherited
from gaiod.supervisor.sockets.bind import (
    BindError,
    SocketOptions,
    bound_address,
    check_congestion,
    close_listener,
    open_listener,
    retune,
)

log = logging.getLogger("gaiod.supervisor")

INLET_OPTIONS = SocketOptions(backlog=4096)
"""Of where sources listen. Clients wait there while the feeder is replaced, which takes a second or two: a full queue
refuses those that do not wait (EAGAIN, of a unix socket). Linux limits it to net.core.somaxconn, which is 4096."""


@dataclass(slots=True)
class OpenListener:
    """The sockets of one address. `shared`: every worker serves all of them."""

    address: str
    sockets: list[socket.socket]
    shared: bool

    def sockets_of(self, worker: int, workers: int) -> list[socket.socket]:
        """Return those that one of so many workers serves."""
        return self.sockets if self.shared else self.sockets[worker::workers]


@dataclass(slots=True)
class Prepared:
    """What a configuration needs: kept or opened, and not in use yet.

    Attributes:
        settings: the configuration.
        listeners: in the order of its listeners.
        inlets: where sources listen, by address.
        metrics: where it is scraped.
        by_key: all of them, by what each is found by.
        options: what their sockets are to have, by the same key, with what messages call it.
        opened: what was not there before.
    """

    settings: Settings
    listeners: list[OpenListener] = field(default_factory=list)
    inlets: dict[str, OpenListener] = field(default_factory=dict)
    metrics: OpenListener = field(init=False)
    by_key: dict[str, OpenListener] = field(default_factory=dict)
    options: dict[str, tuple[str, SocketOptions]] = field(default_factory=dict)
    opened: dict[str, list[socket.socket]] = field(default_factory=dict)

    @property
    def sockets(self) -> int:
        """How many there are."""
        return sum(len(each.sockets) for each in self.by_key.values())


class Listeners:
    """What is open now, by where it is configured to be.

    Attributes:
        of_systemd: what systemd has handed over.
    """

    # A bind address is the key. Port 0 is another port each time, so there the name belongs to it.

    def __init__(self) -> None:
        self.of_systemd = Inherited()
        self._open: dict[str, OpenListener] = {}

    def adopt(self, key: str, sockets: list[socket.socket], *, shared: bool) -> None:
        """Take over sockets that somebody else has opened."""
        self._open[key] = OpenListener(str(bound_address(sockets[0])), sockets, shared)

    def prepare(self, settings: Settings) -> Prepared:
        """Open what a configuration needs and is not open yet; what is open stays as it is.

        Raises:
            BindError: an address cannot be had, or what its connections should have; nothing was opened.
        """
        prepared = Prepared(settings)
        try:
            for listener in settings.listeners:
                name = f"listener {listener.name}"
                if listener.congestion is not None:
                    check_congestion(name, listener.congestion)
                found = self._prepare(prepared, name, listener.bind, options_of(listener), settings.workers)
                prepared.listeners.append(found)
                for source, address in listener.inlets:
                    inlet = self._prepare(prepared, f"{name}: source {source}", address, INLET_OPTIONS, 1)
                    prepared.inlets[address] = inlet
            prepared.metrics = self._prepare(prepared, "metrics", settings.metrics_listen, SocketOptions(), 1)
        except BaseException:
            self.abandon(prepared)
            raise
        return prepared

    def commit(self, prepared: Prepared) -> None:
        """Make it what is open, and let all of it listen. What is not needed is closed, but never what is systemd's."""
        for key in self._open.keys() - prepared.by_key.keys():
            if not key.startswith(SYSTEMD):
                for sock in self._open.pop(key).sockets:
                    close_listener(sock)
        self._open.update(prepared.by_key)
        for key, (name, options) in prepared.options.items():
            for sock in prepared.by_key[key].sockets if not key.startswith(SYSTEMD) else ():
                try:
                    retune(sock, options)
                except OSError as error:
                    log.error("%s: some socket options could not be set: %s", name, error)

    def abandon(self, prepared: Prepared) -> None:
        """Close what was opened for it."""
        for sockets in prepared.opened.values():
            for sock in sockets:
                close_listener(sock)

    def unix_sockets(self) -> list[UnixListener]:
        """Return the unix sockets that have a file of the daemon's own."""
        return [sock for each in self._open.values() for sock in each.sockets if isinstance(sock, UnixListener)]

    def renew(self) -> list[OpenListener]:
        """Listen anew where the file of a unix socket was removed; return those that have another socket now."""
        renewed = []
        for listener in self._open.values():
            before = listener.sockets[0]
            after = before.renewed() if isinstance(before, UnixListener) else None
            if after is not None:
                listener.sockets[0] = after
                before.close()
                renewed.append(listener)
        return renewed

    def handed_over(self) -> dict[str, tuple[list[int], bool]]:
        """Return the descriptors by key, and whether they are shared: what `adopt` takes in another process."""
        return {key: ([sock.fileno() for sock in each.sockets], each.shared) for key, each in self._open.items()}

    def close(self, *, keep_files: bool = False) -> None:
        """Close everything; `keep_files`: somebody else serves the unix sockets now."""
        for key, listener in self._open.items():
            for sock in listener.sockets:
                if keep_files or key.startswith(SYSTEMD):
                    sock.close()
                else:
                    close_listener(sock)
        self._open.clear()

    def close_one(self, listener: OpenListener) -> None:
        """Close the sockets of one listener, if it is open, but never what systemd has handed over."""
        for key in [key for key, each in self._open.items() if each is listener and not key.startswith(SYSTEMD)]:
            del self._open[key]
            for sock in listener.sockets:
                close_listener(sock)
            listener.sockets.clear()

    def _prepare(self, prepared: Prepared, name: str, bind: str, options: SocketOptions, count: int) -> OpenListener:
        address = parse_address(bind, listen=True)
        key = f"{bind} {name}" if address.is_any_port else bind
        found = self._open.get(key)
        if address.kind == "systemd" and found is None:
            raise BindError(f"{name}: {self.of_systemd.why_not(address.path)}")
        sockets = [] if found is None else list(found.sockets)
        shared = address.kind == "unix" if found is None else found.shared
        opened = prepared.opened.setdefault(key, [])
        is_ours = bool(sockets) or any(
            _overlap(address, bound_address(each.sockets[0])) for each in self._open.values()
        )
        while len(sockets) < (1 if shared else count):
            sock = open_listener(name, bound_address(sockets[0]) if sockets else address, options, first=not is_ours)
            is_ours = True
            sockets.append(sock)
            opened.append(sock)
        prepared.options[key] = name, options
        prepared.by_key[key] = OpenListener(str(bound_address(sockets[0])), sockets, shared)
        return prepared.by_key[key]


def _overlap(one: Address, other: Address) -> bool:
    """Tell whether one of two TCP addresses takes the other in: the same port, and the same host or every host."""
    is_tcp = one.kind in ("ipv4", "ipv6") and one.kind == other.kind
    hosts = {one.host, other.host}
    return is_tcp and one.port == other.port and (len(hosts) == 1 or bool(hosts & {"0.0.0.0", "::"}))


def options_of(listener: ListenerSettings) -> SocketOptions:
    """Return what is set on a listener's sockets."""
    return SocketOptions(
        backlog=listener.backlog,
        mode=listener.socket_mode,
        nodelay=listener.nodelay,
        keepalive_s=listener.keepalive_s,
        user_timeout_s=listener.user_timeout_s,
        congestion=listener.congestion,
        notsent_lowat_bytes=listener.notsent_lowat_bytes,
    )
