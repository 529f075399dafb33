"""Errors, arranged by who has to act.

    Exception
      GaiodError
        UsageError           the calling code has a bug; raised at the call, nothing was submitted
          WatcherClosed      (also the error of operations that were pending when the watcher closed)
          ConnClosed         (also the error of operations that were pending when the connection closed)
          EmptyBuffer
          UnsupportedConn
          NoSuchCore
          TooManyOperations
        NotQuiet             a connection cannot be detached now; nothing was changed
        DeadlineExceeded     an operation's deadline passed; always in `OpResult.error` (also a TimeoutError)
        RelaySinkError       the side that a relay sends to failed; always in `OpResult.error` (also an OSError)
        TlsError             TLS with the peer failed; always in `OpResult.error` (also an OSError)
        TlsTruncated         a TLS peer's stream ended too early; in `OpResult.error` (also a ConnectionResetError)

What the network does is data, not an exception: an `OSError` with its errno, or an `EOFError`, in
`OpResult.error`.
"""


class GaiodError(Exception):
    """The root of everything gaiod itself raises."""


class UsageError(GaiodError):
    """The calling code asked for something that cannot be."""


class WatcherClosed(UsageError):
    """The watcher is closed: it takes no more operations."""


class ConnClosed(UsageError):
    """The connection is closed, or was closed while the operation was pending."""


class EmptyBuffer(UsageError, ValueError):
    """A buffer of no bytes: a read of 0 bytes could not be told from the end of the stream."""


class UnsupportedConn(UsageError, TypeError):
    """Not a connection this watcher can move bytes on; the message says why."""


class NoSuchCore(UsageError, ValueError):
    """The CPU is not among those this process may run on."""


class TooManyOperations(UsageError):
    """More operations are pending than any program needs: completions are not awaited somewhere."""


class NotQuiet(GaiodError):
    """A connection is amid something that another watcher could not go on with; the message says of what."""


class DeadlineExceeded(GaiodError, TimeoutError):
    """The operation's deadline passed first; the connection stays usable."""


class RelaySinkError(GaiodError, OSError):
    """Sending to the sink of a relay failed, with this errno. Its source is as it was."""


class TlsError(GaiodError, OSError):
    """TLS with the peer failed: a handshake, or a record that cannot be. The connection moves no more bytes.

    Its errno is EPROTO, or that of the network.

    Attributes:
        reason: one of `gaiod.core.tls.FAILURES`.
    """

    reason = "protocol"


class TlsTruncated(GaiodError, ConnectionResetError):
    """The peer's stream ended without a close_notify: what was received may not be all (RFC 8446, 6.1)."""
