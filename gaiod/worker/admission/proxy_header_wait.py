"""New connections of a listener behind a load balancer, until their PROXY header has come.

The decision never depends on what the bytes look like: a listener either demands a header of every connection or
knows of none. Otherwise a client could send the header itself, and be whoever it likes.
"""

from collections.abc import Callable

from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.sockets import peer_text
from gaiod.core.watcher import Watcher
from gaiod.handler.termination import Termination, of_error
from gaiod.process.dispatch import Target
from gaiod.proxy_protocol import HeaderReader, ProxyProtocolError
from gaiod.settings import ProxyProtocolSettings
from gaiod.worker.admission.networks import Networks

REASON, PHASE = "proxy_protocol", "proxy_header"

STRANGER = Termination(REASON, "gaiod", "limit", "proxy_protocol.from", PHASE)
LATE = Termination(REASON, "client", "timeout", "proxy_protocol.timeout", PHASE)
WRONG = Termination(REASON, "client", "error", "header", PHASE)
QUIET = Termination(REASON, "client", "close", phase=PHASE)


class ProxyHeaderWait(Target):
    """The context of connections whose header is still to come.

    What is read then counts for nobody: not as traffic of the listener, nor as the connection's own.

    Args:
        watcher: the worker's.
        settings: who is believed, and for how long it is waited for.
        admit: called with a connection whose header was read, which has become its.
        reject: called for a connection that is about to be closed, with what is wrong, for the log, and what ends it.
            Empty: nothing to log.
        closed: called with a connection that has closed and was not admitted.
    """

    def __init__(
        self,
        watcher: Watcher,
        settings: ProxyProtocolSettings,
        *,
        admit: Callable[[Conn], None],
        reject: Callable[[Conn, str, Termination], None],
        closed: Callable[[Conn], None],
    ) -> None:
        super().__init__(self._arrived, None)
        self._watcher = watcher
        self._networks = Networks([settings.networks])
        self._timeout_s = settings.timeout_s
        self._admit = admit
        self._reject = reject
        self._closed = closed

    def expect(self, conn: Conn) -> None:
        """Read the header of a new connection, or close it if nobody listed is at its other end."""
        conn.context = self
        peer = conn.peer_address
        if peer is None:
            self._end(conn, "", QUIET)  # it was reset before it was accepted
        elif self._networks.find(peer) < 0:
            self._end(conn, "proxy_protocol.from does not have it, so what it says is not believed", STRANGER)
        else:
            conn.data = HeaderReader()
            self._read(conn, conn.data)

    def close_all(self) -> None:
        """Close every connection whose header has not come."""
        for conn in self._watcher.connections(context=self):
            self._end(conn, "", QUIET)

    def on_completion(self, result: OpResult) -> None:
        """Take the end of a connection, or of the wait for its header."""
        conn, error = result.conn, result.error
        if result.operation is OpType.CLOSE:
            self._closed(conn)
        elif isinstance(error, DeadlineExceeded):
            self._end(conn, f"no complete PROXY header came within {self._timeout_s:g} s", LATE)
        elif not isinstance(error, (ConnClosed, WatcherClosed)):
            # Load balancers look whether a port is open by connecting to it: one that said nothing is no mistake.
            wrong = "it ended before its PROXY header was complete" if conn.bytes_received else ""
            how = of_error(error, conn.fileno()).how if isinstance(error, OSError) else "fin"
            self._end(conn, wrong, Termination(REASON, "client", how, phase=PHASE))

    def _read(self, conn: Conn, reader: HeaderReader) -> None:
        conn.read_full(bytearray(reader.missing), deadline=conn.opened_s + self._timeout_s)

    def _arrived(self, conn: Conn, result: OpResult) -> None:
        reader: HeaderReader = conn.data
        try:
            header = reader.take(result.buffer)
        except ProxyProtocolError as error:
            self._end(conn, f"its PROXY header is wrong: {error}", WRONG)
            return
        if header is None:
            self._read(conn, reader)
        else:
            conn.data = None
            conn.announce(header)
            self._admit(conn)

    def _end(self, conn: Conn, wrong: str, termination: Termination) -> None:
        text = wrong and f"a connection from {peer_text(conn.peer_address)} is rejected: {wrong}"
        self._reject(conn, text, termination)
        conn.abort()
