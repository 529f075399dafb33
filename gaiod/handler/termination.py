"""The termination state of a connection: why it ended, who ended it, how, and in which phase."""

import errno
import fcntl
import socket
import sys
import termios
from functools import lru_cache

from gaiod.core.connection import Conn
from gaiod.core.errors import TlsError, TlsTruncated

WHO = ("client", "server", "gaiod", "handler")
"""Who did it, or did not do in time what it had to. `gaiod`: a limit of its own, or its operator."""

HOW = ("fin", "reset", "timeout", "limit", "drain", "kill", "close", "error")
"""`close`: its handler had no more use for it."""


class Termination(str):
    """Why a connection ended: a word, and with it who ended it, how, and in which phase it was then.

    It is that word, so it stands where a reason does: a handler puts one into `Conn.close_reason` to say more than
    a word says, and `on_close` is given one.

        conn.close_reason = Termination("quota", who="client", how="limit", cause="requests_per_minute")
        conn.close()

    Attributes:
        who: one of `WHO`.
        how: one of `HOW`.
        cause: what exactly: the name of the timeout or limit, of the errno, or of the hook that raised; "": there is
            no more to say.
        phase: how far the connection was: `proxy_header`, `queue`, `connect`, `data`, `closing` (one direction had
            ended), or a handler's own word; "": what `Handler.phase_of` says when it closes.
        key: all of that: terminations are equal where their reasons are.
    """

    __slots__ = ("cause", "how", "key", "phase", "who")
    who: str
    how: str
    cause: str
    phase: str
    key: tuple[str, str, str, str, str]

    def __new__(
        cls, reason: str, who: str = "handler", how: str = "close", cause: str = "", phase: str = ""
    ) -> "Termination":
        """Make one.

        Raises:
            ValueError: no such `who` or `how`.
        """
        if who not in WHO:
            raise ValueError(f"who={who!r}: a connection is ended by one of {', '.join(WHO)}")
        if how not in HOW:
            raise ValueError(f"how={how!r}: a connection ends in one of these ways: {', '.join(HOW)}")
        made = super().__new__(cls, reason)
        made.who = who
        made.how = how
        made.cause = str(cause)
        made.phase = str(phase)
        made.key = (str(reason), who, how, made.cause, made.phase)
        return made

    @classmethod
    def of_error(cls, error: OSError, conn: Conn, who: str = "client") -> "Termination":
        """Return what an error of a read, a write or a relay makes of a connection.

        Args:
            error: it. `ETIMEDOUT` is `user_timeout` or `keepalive`: as long as `conn` is open, the kernel can tell.
            conn: the connection that failed.
            who: at its other end: `client` or `server`.
        """
        return of_error(error, conn.fileno(), is_client=who != "server")

    def in_phase(self, phase: str) -> "Termination":
        """Return the same, in a phase, if it says none itself."""
        return self if self.phase else _made(*self.key[:4], phase)


@lru_cache(maxsize=256)
def _made(reason: str, who: str, how: str, cause: str, phase: str) -> Termination:
    """Make a termination once: connections end in the same few ways again and again."""
    return Termination(reason, who, how, cause, phase)


KNOWN = {
    str(each): each
    for each in (
        Termination("peer_eof", "client", "fin"),
        Termination("peer_reset", "client", "reset"),
        Termination("user_timeout", "client", "timeout", "user_timeout"),
        Termination("keepalive", "client", "timeout", "keepalive"),
        Termination("unreachable", "client", "timeout"),
        Termination("server_eof", "server", "fin"),
        Termination("server_reset", "server", "reset"),
        Termination("server_down", "server", "error"),
        Termination("no_server", "server", "error"),
        Termination("tls_truncated", "client", "fin", "close_notify"),
        Termination("tls_error", "client", "error"),
        Termination("idle", "gaiod", "timeout", "idle_timeout"),
        Termination("half_closed_timeout", "gaiod", "timeout", "half_closed_timeout"),
        Termination("max_age", "gaiod", "timeout", "max_age"),
        Termination("deadline", "client", "timeout", "deadline"),
        Termination("slow_consumer", "client", "limit", "slow_consumer"),
        Termination("drain", "gaiod", "drain"),
        Termination("admin", "gaiod", "kill"),
        Termination("ban", "gaiod", "kill"),
        Termination("error", "gaiod", "error"),
        Termination("handler", "handler", "close"),
        Termination("handler_error", "handler", "error"),
        Termination("forgotten", "handler", "error", "forgotten"),
    )
}
"""What a word alone means."""

OF_SERVER = {"peer_eof": "server_eof", "peer_reset": "server_reset"}
"""What is said of a client's connection when that to its server ended so: the client is its peer, not the server."""

RESETS = frozenset({errno.ECONNRESET, errno.EPIPE})

UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})
"""Linux ends an established connection with one of these where it would with ETIMEDOUT, but a router had told why."""


def termination_of(reason: str | None, *, at_eof: bool = False, is_client: bool = True) -> Termination:
    """Return what a `Conn.close_reason` says; with None, what can be said without.

    Args:
        reason: it.
        at_eof: whether the end of its stream was read.
        is_client: whether the connection is a client's, or else one that its handler opened, to a server.
    """
    if reason is None:
        reason = "peer_eof" if at_eof else "handler"
    if isinstance(reason, Termination):
        return reason
    if not isinstance(reason, str):
        return KNOWN["handler"]  # it said something that is no word, which must not cost others anything
    known = KNOWN.get(reason) if is_client else KNOWN_OF_SERVER.get(reason)
    return Termination(reason) if known is None else known


def of_server(termination: Termination) -> Termination:
    """Return the same with the server for the client: of a connection to a server, whose peer that is."""
    if termination.who != "client":
        return termination
    return _made(termination.key[0], "server", *termination.key[2:])


KNOWN_OF_SERVER = {word: of_server(known) for word, known in KNOWN.items()}
"""What a word alone means of a connection to a server."""


def of_client(termination: Termination) -> Termination:
    """Return what is said of a client's connection, where the end may be that of the one to its server."""
    word = OF_SERVER.get(termination)
    if word is None or termination.who != "server":
        return termination
    return _made(word, "server", *termination.key[2:])


def of_error(error: OSError, fd: int, *, is_client: bool = True) -> Termination:
    """Return what the end of a connection is that failed with an error.

    Args:
        error: of a read, a write, a relay.
        fd: its descriptor, if it is still open: of a timeout the kernel is asked which it was; else -1.
        is_client: as in `termination_of`.
    """
    if isinstance(error, TlsError):
        found = _made("tls_error", "client", "error", error.reason, "")
        return found if is_client else of_server(found)
    if isinstance(error, TlsTruncated):
        return (KNOWN if is_client else KNOWN_OF_SERVER)["tls_truncated"]
    number = error.errno or 0
    name = errno.errorcode.get(number, str(number))
    if number in RESETS:
        found = Termination("peer_reset", "client", "reset", name)
    elif number == errno.ETIMEDOUT:
        cause = _timeout_of(fd)
        found = Termination("keepalive" if cause == "keepalive" else "user_timeout", "client", "timeout", cause)
    elif number in UNREACHABLE:
        found = Termination("unreachable", "client", "timeout", name)
    else:
        how = "kill" if number == errno.ECONNABORTED else "error"  # so the kernel tells of `ss --kill`
        found = Termination("error", "gaiod", how, name)
    return found if is_client else of_server(found)


def _timeout_of(fd: int) -> str:
    """Return which of its timeouts the kernel ended a connection for.

    Nothing that was sent waits: only its probes were not answered. Else it was not acknowledged or taken, for
    TCP_USER_TIMEOUT, or where there is none, as often as net.ipv4.tcp_retries2 says.
    """
    if fd < 0:
        return "user_timeout"
    try:
        if not int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder):
            return "keepalive"
        sock = socket.socket(fileno=fd)
        try:
            is_set = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18))
        finally:
            sock.detach()
    except OSError:
        return "user_timeout"
    return "user_timeout" if is_set else "tcp_retries2"
