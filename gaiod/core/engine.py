"""The system calls of the engine in use: one interface, written twice.

Interpreted: `syscalls.py`, `flows.py`, `outboxes.py`, `sessions.py` and `stopwatch.py`. Compiled: the same with an
underscore, `.pyx`.
"""

from typing import TYPE_CHECKING, Any

from gaiod.core import ENGINE
from gaiod.core.tls import ClientTls, ServerTls

if TYPE_CHECKING or ENGINE == "interpreted":
    from gaiod.core.flows import Flow, Plumbing
    from gaiod.core.outboxes import Fan, Outbox, Parcel, Spool
    from gaiod.core.stopwatch import Stopwatch
    from gaiod.core.syscalls import (
        Batch,
        Poller,
        accept,
        connect,
        open_stream,
        peer_name,
        set_option,
        shutdown_write,
        take_error,
    )
else:
    from gaiod.core._flows import Flow, Plumbing
    from gaiod.core._outboxes import Fan, Outbox, Parcel, Spool
    from gaiod.core._stopwatch import Stopwatch
    from gaiod.core._syscalls import (
        Batch,
        Poller,
        accept,
        connect,
        open_stream,
        peer_name,
        set_option,
        shutdown_write,
        take_error,
    )

__all__ = [
    "Batch",
    "Fan",
    "Flow",
    "Outbox",
    "Parcel",
    "Plumbing",
    "Poller",
    "Spool",
    "Stopwatch",
    "accept",
    "connect",
    "open_client",
    "open_stream",
    "open_tls",
    "peer_name",
    "prepare_tls",
    "set_option",
    "shares_tickets",
    "shutdown_write",
    "take_error",
    "tls_library",
]


def shares_tickets() -> bool:
    """Tell whether servers use the keys that they are given for tickets: the standard library's do not."""
    # Late, as below.
    if TYPE_CHECKING or ENGINE == "interpreted":
        from gaiod.core.sessions import shares_tickets as tell
    else:
        from gaiod.core._sessions import shares_tickets as tell
    return tell()


def tls_library() -> tuple[str, str]:
    """Return what makes sessions: the library, as it calls itself; and by way of what: `openssl` (itself), `python`."""
    # Late, as below.
    if TYPE_CHECKING or ENGINE == "interpreted":
        from gaiod.core.sessions import tls_library as tell
    else:
        from gaiod.core._sessions import tls_library as tell
    return tell()


def open_tls(options: ServerTls | ClientTls) -> Any:
    """Return what `Watcher.start_tls` takes: the sessions of a server, or of a client with one, are made from it.

    A client's keeps the newest ticket that its server has given out, so that the next session goes on with that one:
    it is for one server, and one watcher.

    Raises:
        ssl.SSLError, ValueError: a certificate or a key is none, or they are no pair.
    """
    # Late: `ssl` takes 2 MB, which only those who serve TLS should pay for.
    if TYPE_CHECKING or ENGINE == "interpreted":
        from gaiod.core.sessions import open_tls as make
    else:
        from gaiod.core._sessions import open_tls as make
    return make(options)


NO_PAIR = frozenset(
    {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "the key is not that of the certificate"}
)
"""What either engine says of a key that is not its certificate's: of the same kind, or of another (RSA, EC)."""


def open_client(tls: ClientTls) -> Any:
    """Return what `open_tls` does, of a client; say what is wrong with certificates and keys in an operator's words.

    Raises:
        ValueError: as `prepare_tls`.
    """
    import ssl  # late, as above

    own = tls.certificate
    for text in (tls.ca, None if own is None else own.chain):
        if text is not None and "-----BEGIN CERTIFICATE-----" not in text:
            raise ValueError("there is no certificate in it; write one in PEM")
    if own is not None and ("PRIVATE KEY-----" not in own.key or "ENCRYPTED" in own.key):
        raise ValueError("there is no key in it that needs no passphrase; write one: openssl pkey -in OLD -out NEW")
    try:
        return open_tls(tls)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or str(error)
        if why in NO_PAIR:
            raise ValueError("the key is not that of the chain's first certificate; write its own") from error
        raise ValueError(f"OpenSSL does not take it ({why}); write another") from error


def prepare_tls(tls: ClientTls) -> None:
    """Make what all connections with `tls` have in common, and keep that for as long as it lives.

    The first connection does it otherwise: it takes 1 ms, and 30 ms more to read whom this machine believes. So call it
    when a program starts; and to learn whether OpenSSL takes everything.

    Raises:
        ValueError: it does not: `WHAT IS WRONG; WHAT TO DO`.
    """
    tls.ready[:] = [open_client(tls)]
