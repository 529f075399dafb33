"""Opening everything, in the order that rights allow: inherited, opened, given away, and then rights are dropped."""

import logging
import os
import socket
from pathlib import Path
from typing import Any

from gaiod.addresses import SYSTEMD, UNIX
from gaiod.log.setup import configure_log
from gaiod.process.socket_files import MODE, UnixListener
from gaiod.settings import Settings
from gaiod.supervisor.host import privileges
from gaiod.supervisor.host.systemd import inherited_sockets
from gaiod.supervisor.operators.server import CONTROL_MODE, open_control_socket
from gaiod.supervisor.processes.bans import HandedOverBans
from gaiod.supervisor.processes.kept_closes import Inherited
from gaiod.supervisor.processes.seats import HandedOverSeats
from gaiod.supervisor.processes.shared_state import HandedOverValues
from gaiod.supervisor.processes.ticket_keys import HandedOverKeys
from gaiod.supervisor.sockets.bind import close_listener
from gaiod.supervisor.sockets.listeners import Listeners, Prepared
from gaiod.supervisor.upgrade import HandedOver, Predecessor, predecessor

log = logging.getLogger("gaiod.supervisor")


class Opening:
    """Everything that the daemon has opened.

    Attributes:
        listeners: the sockets of listeners and of sources, and the one of the metrics.
        control: the control socket; None if there is none.
        predecessor: the daemon that this one replaces, if it does.
        owns_files: no other daemon serves the files of the unix sockets: they go when this one does.
    """

    def __init__(self) -> None:
        self.listeners = Listeners()
        self.control: UnixListener | None = None
        self.predecessor: Predecessor | None = None
        self.owns_files = True

    def open(self, settings: Settings, path: Path) -> Prepared:
        """Open every socket, and then give up the rights that this took.

        Args:
            settings: what is configured.
            path: the file that says so.

        Raises:
            BindError, OSError, PrivilegeError, LogError: and nothing stays open that was not before.
        """
        self.predecessor = predecessor(os.environ)
        if self.predecessor is not None:
            self.owns_files = False
            for key, (fds, shared) in self.predecessor.sockets.items():
                self.listeners.adopt(
                    key,
                    [self._adopted(fd) if key.startswith(UNIX) else socket.socket(fileno=fd) for fd in fds],
                    shared=shared,
                )
        self.listeners.of_systemd = inherited_sockets(os.environ)
        for name, sockets in self.listeners.of_systemd.sockets.items():
            self.listeners.adopt(SYSTEMD + name, sockets, shared=True)
        privileges.rehearse(settings)
        prepared = self.listeners.prepare(settings)
        try:
            self.control = self._open_control(settings.control_listen)
            files = [key.removeprefix(UNIX) for key in prepared.by_key if key.startswith(UNIX)]
            if self.control is not None:
                files.append(self.control.path)
            for file in files:
                privileges.give(Path(file), settings)
            privileges.drop(settings)
            configure_log(settings.log, role="supervisor")  # only now: its file is to be the user's
        except BaseException:
            self.listeners.abandon(prepared)
            raise
        if not os.access(path, os.R_OK):
            log.warning("%s: user %d cannot read it, so reloads will fail; correct its mode", path, os.getuid())
        for text in privileges.unreadable(settings):
            log.warning("%s", text)
        return prepared

    def handed_over(
        self,
        control_listen: str | None,
        *,
        shared: HandedOverValues,
        feed: dict[str, Any] | None,
        instances: int,
        closes: Inherited,
        ticket_keys: HandedOverKeys,
        seats: HandedOverSeats | None,
        bans: HandedOverBans,
    ) -> HandedOver:
        """Return what a successor gets: the sockets, and what its workers and its feeder are to know."""
        control = {}
        if self.control is not None and control_listen is not None:
            control[control_listen] = self.control.fileno()
        inodes = {sock.path: sock.inode for sock in (self.control, *self.listeners.unix_sockets()) if sock is not None}
        sockets = self.listeners.handed_over()
        return HandedOver(sockets, control, inodes, shared, feed, instances, closes, ticket_keys, seats, bans)

    def renew_control(self) -> UnixListener | None:
        """Listen anew if the file of the control socket was removed; return the new socket."""
        before, after = self.control, None if self.control is None else self.control.renewed()
        if before is not None and after is not None:
            self.control = after
            before.close()
        return after

    def close(self) -> None:
        """Close everything."""
        self.listeners.close(keep_files=not self.owns_files)
        control, self.control = self.control, None
        if control is not None and self.owns_files:
            close_listener(control)
        elif control is not None:
            control.close()
        if self.predecessor is not None:
            self.predecessor.close()

    def _adopted(self, fd: int, mode: int = MODE) -> UnixListener:
        """Take over a unix socket of the daemon before this one, which knows whose file is at its address."""
        assert self.predecessor is not None
        sock = UnixListener(fd, mode=mode)
        sock.inode = self.predecessor.inodes.get(sock.path, sock.inode)
        return sock

    def _open_control(self, listen: str | None) -> UnixListener | None:
        inherited = {} if self.predecessor is None else self.predecessor.control
        if listen is None or inherited.get(listen) is None:
            for unused in inherited.values():
                os.close(unused)
        if listen is None:
            return None
        fd = inherited.get(listen)
        return open_control_socket(listen) if fd is None else self._adopted(fd, CONTROL_MODE)
