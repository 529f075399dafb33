"""New connections of a listener that speaks TLS, until their handshake is done: no hook has seen them.

Where the handler begins TLS (`tls: {start: handler}`), a connection has its hooks already, and stays with its listener;
what its sessions are made from, the deadline and the counts are the same.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gaiod.core.connection import Conn
from gaiod.core.engine import open_tls
from gaiod.core.errors import ConnClosed, DeadlineExceeded, TlsError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.sockets import peer_text
from gaiod.core.watcher import Watcher
from gaiod.handler.termination import Termination
from gaiod.process.dispatch import Target
from gaiod.settings import TlsSettings
from gaiod.tls_options import server_tls

REASON, PHASE = "tls", "handshake"

LATE = Termination(REASON, "client", "timeout", "tls.handshake_timeout", PHASE)
DRAINED = Termination(REASON, "gaiod", "drain", phase=PHASE)

SILENT = frozenset({"closed", "reset"})
"""Failures that are not logged: whoever looks whether a port is open connects to it, and goes."""


class TlsWait(Target):
    """The context of connections whose handshake is under way.

    Args:
        watcher: the worker's.
        settings: what is shown to them, and asked of them.
        ticket_keys: as of `ServerTls`; none: sessions are resumed by nobody else.
        admit: called with a connection whose handshake is done.
        reject: called for a connection that is about to be closed, with what is wrong, for the log, and what ends it.
            Empty: nothing to log.
        closed: called with a connection that has closed and was not admitted.
        count: called with the name of what came of a handshake: `full_1.3`, `failed_timeout`.
        took: called with how long one took that is done, in seconds.
    """

    def __init__(
        self,
        watcher: Watcher,
        settings: TlsSettings,
        *,
        ticket_keys: Sequence[bytes] = (),
        admit: Callable[[Conn], None],
        reject: Callable[[Conn, str, Termination], None],
        closed: Callable[[Conn], None],
        count: Callable[[str], None],
        took: Callable[[float], None],
    ) -> None:
        super().__init__(None, None)
        self._watcher = watcher
        self._settings = settings
        self._timeout_s = settings.handshake_timeout_s
        self._tls = open_tls(server_tls(settings, ticket_keys))
        self._admit = admit
        self._reject = reject
        self._closed = closed
        self._count = count
        self._took = took
        self._begun_s: dict[Conn, float] = {}

    def expect(self, conn: Conn) -> None:
        """Begin the handshake of a new connection."""
        conn.context = self
        self._begun_s[conn] = time.monotonic()
        conn.start_tls(self._tls, deadline=conn.opened_s + self._timeout_s)

    def begin(self, conn: Conn) -> None:
        """Begin the handshake of a connection that its handler has; its listener gets the completion.

        Raises:
            UsageError: as `Watcher.start_tls`.
        """
        begun_s = time.monotonic()
        conn.start_tls(self._tls, deadline=begun_s + self._timeout_s)
        self._begun_s[conn] = begun_s

    def set_ticket_keys(self, keys: Sequence[bytes]) -> None:
        """Use other keys for tickets."""
        self._tls.set_ticket_keys(keys)

    def renew(self, settings: TlsSettings, ticket_keys: Sequence[bytes]) -> None:
        """Show and ask what other settings say, from now on; what has begun goes on as it was.

        Args:
            settings: they differ from those before in what files have which they name.
            ticket_keys: as of `ServerTls`, of these settings.

        Raises:
            ssl.SSLError, ValueError: OpenSSL does not take them. Nothing has changed.
        """
        tls = server_tls(settings, ticket_keys)
        if replace(settings, certificates=self._settings.certificates) == self._settings:
            self._tls.renew(tls)  # only what is different is made: 1 ms each
        else:
            self._tls = open_tls(tls)
        self._settings = settings

    def close_all(self) -> None:
        """Close every connection whose handshake is under way."""
        for conn in self._watcher.connections(context=self):
            self._end(conn, "", DRAINED)

    def on_completion(self, result: OpResult) -> None:
        """Take the end of a handshake, or of a connection."""
        conn, error = result.conn, result.error
        if result.operation is OpType.CLOSE:
            self._closed(conn)
            return
        begun_s = self.ended(conn)
        if error is None:
            if not conn.closed:  # else its CLOSE comes, and is this one's
                self.succeeded(conn, begun_s)
                self._admit(conn)
        elif not isinstance(error, (ConnClosed, WatcherClosed)):
            self._end(conn, *self.failed_with(error))

    def ended(self, conn: Conn) -> float:
        """Take note that a handshake has ended, in whatever way; return when it began (`time.monotonic()`)."""
        return self._begun_s.pop(conn)

    def succeeded(self, conn: Conn, begun_s: float) -> None:
        """Count a handshake that is done."""
        self._took(time.monotonic() - begun_s)
        facts = conn.tls
        self._count(f"{'resumed' if facts.resumed else 'full'}_{facts.version}")

    def failed_with(self, error: Exception) -> tuple[str, Termination]:
        """Count a handshake that failed; return what is wrong, for the log (empty: nothing), and what ends it."""
        if isinstance(error, DeadlineExceeded):
            self._count("failed_timeout")
            return f"its handshake was not done within {self._timeout_s:g} s", LATE
        if not isinstance(error, TlsError):
            return "", DRAINED  # it was cancelled
        self._count(f"failed_{error.reason}")
        wrong = "" if error.reason in SILENT else f"its handshake failed: {error.strerror}"
        how = "reset" if error.reason == "reset" else "fin" if error.reason == "closed" else "error"
        return wrong, Termination(REASON, "client", how, error.reason, PHASE)

    def _end(self, conn: Conn, wrong: str, termination: Termination) -> None:
        text = wrong and f"a connection from {peer_text(conn.peer_address)} is rejected: {wrong}"
        self._reject(conn, text, termination)
        conn.close()
