"""Where one connection stands: what a worker knows, as plain values. Sentences are for others."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.inspect import relay_sink, state_of
from gaiod.core.sockets import peer_text
from gaiod.core.tls import TlsFacts
from gaiod.handler.failures import words_of
from gaiod.worker.inspect.tcp_info import kernel_of
from gaiod.worker.ledger import phase_of, server_of
from gaiod.worker.listener import Listener
from gaiod.worker.names import Names

log = logging.getLogger("gaiod.worker")

UNKNOWN = {"state": "unknown"}
"""What is said of a connection that is not here, or has closed."""


class ConnectionFacts:
    """Explains the connections of a worker, by their names."""

    def __init__(self, listeners: Sequence[Listener], names: Names) -> None:
        self._listeners = listeners
        self._names = names

    def explain(self, name: str) -> dict[str, Any]:
        """Return what is known of a connection. A client's and that which its handler opened for it go together."""
        now_s = time.monotonic()
        serial = self._names.serial_of(name)
        for listener in self._listeners:
            conn = None if serial is None else listener.find(serial)
            if conn is not None:
                return {"state": "open", **self._open(listener, conn, now_s)}
        return UNKNOWN

    def _open(self, listener: Listener, conn: Conn, now_s: float) -> dict[str, Any]:
        partner = _partner_of(listener, conn) or relay_sink(conn)
        both = [each for each in (conn, partner) if each is not None and not each.closed]
        both.sort(key=listener.is_client, reverse=True)
        first = both[0]
        origin = self._names.origin_of(first)
        return {
            "listener": listener.settings.name,
            "handler": listener.settings.handler,
            "peer": peer_text(first.peer_address),
            "moved": None if origin is None else origin.facts(now_s),
            "phase": phase_of(listener.handler, first),
            "server": server_of(listener.handler, first),
            "idle_timeout_s": listener.settings.idle_timeout_s,
            "busy": first.busy or first.unanswered,
            "is_never_idle": first.busy,
            "notes": _notes_on(listener, first),
            "sides": [self._side(listener, each, now_s) for each in both],
        }

    def _side(self, listener: Listener, conn: Conn, now_s: float) -> dict[str, Any]:
        stands = state_of(conn, now_s)
        sink = relay_sink(conn)
        if sink is not None:
            stands["reading"]["to"] = self._names.of(sink)
        return {
            "side": "downstream" if listener.is_client(conn) else "upstream",
            **facts_of(conn, self._names, now_s),
            "close_reason": conn.close_reason,
            "tls": None if conn.tls is None else _agreed(conn.tls),
            **stands,
            "kernel": kernel_of(conn.fileno()),
        }


def _agreed(tls: TlsFacts) -> dict[str, Any]:
    """Return what was agreed with a peer, and whose its certificate is, without the certificate."""
    agreed = asdict(tls)
    del agreed["peer_certificate"]
    return {**agreed, "subject": tls.subject}


def facts_of(conn: Conn, names: Names, now_s: float) -> dict[str, Any]:
    """Return what is said of a connection wherever one is told of."""
    return {
        "id": names.of(conn),
        "peer": peer_text(conn.peer_address),
        "age_s": round(now_s - conn.opened_s, 3),
        "idle_s": round(max(0.0, now_s - conn.active_s), 3),
        "received_bytes": conn.bytes_received,
        "sent_bytes": conn.bytes_sent,
        "pending_bytes": conn.pending_write_bytes,
        "stalled_s": round(conn.stalled_s(now_s), 3),
    }


def _partner_of(listener: Listener, conn: Conn) -> Conn | None:
    """Return the connection that goes with one; None: there is none, or its handler cannot say."""
    try:
        return listener.handler.partner_of(conn)
    except BaseException:
        return None  # a question about a connection must not cost it


def _notes_on(listener: Listener, conn: Conn) -> list[str]:
    """Return what the handler says of a client's connection."""
    try:
        return [str(note) for note in listener.handler.notes_on(conn)]
    except BaseException as error:
        return [f"Its handler does not say more: notes_on raised {words_of(error)}."]
