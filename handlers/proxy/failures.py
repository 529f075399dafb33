"""Why a server could not be connected to: what metrics call it, what the log says, and whose fault it is."""

import errno
import os

from gaiod import DeadlineExceeded, TlsError

from .servers import Target

REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "refused",  # of a unix socket: nobody listens there
    errno.EAGAIN: "refused",  # of a unix socket: its backlog is full
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
}
"""What metrics call it."""

OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN})
"""This machine lacks something (descriptors, memory, ports): the server is not to blame."""

NO_ANSWER = "no answer in time"
NO_HANDSHAKE = "its TLS handshake was not done in time"


def reason_of(error: Exception) -> str:
    """Return what metrics call it."""
    if isinstance(error, DeadlineExceeded):
        return "timeout"
    if isinstance(error, TlsError):
        return "tls"
    return REASONS.get(getattr(error, "errno", None) or 0, "other")


def is_full(error: Exception, target: Target) -> bool:
    """Tell whether a server exists and has no place in its backlog.

    Of TCP the kernel would try again by itself until the deadline; of a unix socket it says EAGAIN at once.
    """
    return isinstance(target, str) and getattr(error, "errno", None) == errno.EAGAIN


def is_ours(error: Exception, target: Target) -> bool:
    """Tell whether it says nothing about the server."""
    return getattr(error, "errno", None) in OURS and not is_full(error, target)


def words_for(error: Exception, target: Target, *, is_there: bool = False) -> str:
    """Say it, for the log; `is_there`: the server had taken the connection."""
    if isinstance(error, DeadlineExceeded):
        return NO_HANDSHAKE if is_there else NO_ANSWER
    if isinstance(error, TlsError):
        return str(error.strerror)
    if is_full(error, target):
        return "its backlog is full"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
