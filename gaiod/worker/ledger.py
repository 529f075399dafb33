"""The ledger of a listener: what is counted, written down and remembered of each of its clients' connections."""

import time
from collections.abc import Iterable
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.sockets import peer_text
from gaiod.handler.handler import Handler
from gaiod.handler.termination import Termination
from gaiod.stats.cells import CELL, CLOSE_REASONS, DURATION_BOUNDS_S, bucket_of
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.inspect.recent_closes import RecentCloses
from gaiod.worker.names import Names

FIRST_DURATION = CELL[f"duration_le_{DURATION_BOUNDS_S[0]}"]
ACCEPTED, DURATION_NS = CELL["accepted"], CELL["duration_ns"]
CLOSED = {reason: CELL[f"closed_{reason}"] for reason in CLOSE_REASONS}


class Ledger:
    """Keeps the accounts of connections: when they open, every so often, and when they close."""

    def __init__(
        self,
        listener: str,
        cells: Any,
        row: int,
        connection_log: ConnectionLog | None,
        recent_closes: RecentCloses | None,
        *,
        names: Names,
    ) -> None:
        """Keep those of a listener.

        Args:
            listener: its name.
            cells: where to count: 64-bit integers.
            row: the first of the listener's.
            connection_log: where its connections are written down; None: nowhere.
            recent_closes: where it is remembered why they closed; None: nowhere.
            names: of the worker's connections.
        """
        self._listener = listener
        self._cells = cells
        self._row = row
        self._log = connection_log if connection_log is not None and connection_log.wants_any else None
        self._recent_closes = recent_closes
        self._names = names
        self._peers: dict[int, str] = {}  # by serial number, for the log: a closed socket has no peer

    @property
    def every_s(self) -> float | None:
        """How often `alive` is to be called; None: never."""
        return None if self._log is None else self._log.every_s

    def opened(self, conn: Conn) -> None:
        """Take note of a connection that its handler gets."""
        self._cells[self._row + ACCEPTED] += 1
        if self._log is not None:
            peer = peer_text(conn.peer_address)
            if self._log.wants_closed or self._log.every_s is not None:
                self._peers[conn.serial] = peer
            if self._log.wants_opened:
                self._log.opened(self._listener, conn, peer)

    def came(self, conn: Conn, paused_s: float) -> None:
        """Take note of a connection that another worker has served until now; nobody moved its bytes for so long."""
        if self._log is not None:
            peer = peer_text(conn.peer_address)
            if self._log.wants_closed or self._log.every_s is not None:
                self._peers[conn.serial] = peer
            if self._log.wants_moved:
                self._log.moved(self._listener, conn, peer, paused_s)

    def went(self, conn: Conn) -> None:
        """Forget a connection that another worker goes on with: it has not ended."""
        self._peers.pop(conn.serial, None)

    def alive(self, conns: Iterable[Conn]) -> None:
        """Write down how connections are doing."""
        assert self._log is not None
        for conn in conns:
            self._log.alive(self._listener, conn, self._peers.get(conn.serial, "-"))

    def rejected(self, conn: Conn, termination: Termination) -> None:
        """Write down that a connection is closed before its handler has seen it."""
        if self._log is not None and self._log.wants_closed:
            self._log.closed(self._listener, conn, peer_text(conn.peer_address), termination, None)

    def closed(self, conn: Conn, name: bytes | None, termination: Termination, server: str | None) -> None:
        """Take note of the end of one; `name` is its peer's address as the kernel has it."""
        now_s = time.monotonic()
        age_s = now_s - conn.opened_s
        row = self._row
        place = CLOSED.get(termination, CLOSED["handler"])
        self._cells[row + place] += 1
        self._cells[row + DURATION_NS] += int(age_s * 1e9)
        place = bucket_of(age_s, DURATION_BOUNDS_S)
        self._cells[row + FIRST_DURATION + place] += 1
        if self._log is not None:
            peer = self._peers.pop(conn.serial, "-")
            if self._log.wants_closed:
                self._log.closed(self._listener, conn, peer, termination, server)
        if self._recent_closes is not None:
            self._recent_closes.add(
                self._names.parts_of(conn), self._listener, conn, name, termination, server=server, now_s=now_s
            )


def phase_of(handler: Handler, conn: Conn) -> str:
    """Return in which phase a connection is, as its handler has it; a question about one must not cost it."""
    try:
        return str(handler.phase_of(conn))
    except BaseException:
        return "data"


def phase_at_end(handler: Handler, conn: Conn, termination: Termination) -> str:
    """Return in which phase a connection ended. A FIN begins the phase `closing`: what it ended was `data`."""
    phase = phase_of(handler, conn)
    return "data" if phase == "closing" and termination.how == "fin" else phase


def server_of(handler: Handler, conn: Conn) -> str | None:
    """Return the server that a client's connection is with; None: none, or its handler cannot say."""
    try:
        server = handler.server_of(conn)
    except BaseException:
        return None
    return None if server is None else str(server)
