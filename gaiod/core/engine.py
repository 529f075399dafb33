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
    "open_stream",
    "open_tls",
    "peer_name",
    "set_option",
    "shares_tickets",
    "shutdown_write",
    "take_error",
]


def shares_tickets() -> bool:
    """Tell whether servers use the keys that they are given for tickets: the standard library's do not."""
    # Late, as below.
    if TYPE_CHECKING or ENGINE == "interpreted":
        from gaiod.core.sessions import shares_tickets as tell
    else:
        from gaiod.core._sessions import shares_tickets as tell
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
