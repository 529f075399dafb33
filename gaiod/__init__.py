"""gaiod: a networking daemon, and the library that it is made of.

    from gaiod import Conn, Handler, OpResult          # to write a handler
    from gaiod import Watcher                          # to use the proactor without the daemon

`gaiod.testing` tests a handler without sockets. Importing gaiod is cheap, because every worker does it.
"""

from typing import TYPE_CHECKING, Any

from gaiod.addresses import Address, parse_address
from gaiod.core.connection import Conn
from gaiod.core.engine import prepare_tls
from gaiod.core.errors import (
    ConnClosed,
    DeadlineExceeded,
    EmptyBuffer,
    GaiodError,
    NoSuchCore,
    NotQuiet,
    RelaySinkError,
    TlsError,
    TlsTruncated,
    TooManyOperations,
    UnsupportedConn,
    UsageError,
    WatcherClosed,
)
from gaiod.core.group import Group
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import Certificate, ClientTls, TlsFacts
from gaiod.core.watcher import Watcher
from gaiod.handler.admin_state import AdminState
from gaiod.handler.arrival import Arrival, NotTaken
from gaiod.handler.handler import Handler, Outlet, Source
from gaiod.handler.option_types import Check, Duration, PemFile, Size, Unit
from gaiod.handler.server_stats import ServerStats
from gaiod.handler.termination import Termination
from gaiod.proxy_protocol import ProxyHeader
from gaiod.version import __version__
from gaiod.wording import shown

if TYPE_CHECKING:
    from gaiod.handler.coroutines.coroutine_handler import CoroutineHandler
    from gaiod.handler.coroutines.relay import Relayed
    from gaiod.handler.coroutines.stream import EndOfStream, LimitExceeded, Lines, Stream
    from gaiod.handler.coroutines.tasks import Task
    from gaiod.handler.coroutines.waits import ForgottenAwait

_LATE = {
    "CoroutineHandler": "coroutine_handler", "EndOfStream": "stream", "ForgottenAwait": "waits",
    "LimitExceeded": "stream", "Lines": "stream", "Relayed": "relay", "Stream": "stream", "Task": "tasks",
}  # fmt: skip
"""What only coroutine handlers need: a worker without one does not load it."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"gaiod.handler.coroutines.{_LATE[name]}"), name)
    globals()[name] = found
    return found


__all__ = [
    "Address",
    "AdminState",
    "Arrival",
    "Certificate",
    "Check",
    "ClientTls",
    "Conn",
    "ConnClosed",
    "CoroutineHandler",
    "DeadlineExceeded",
    "Duration",
    "EmptyBuffer",
    "EndOfStream",
    "ForgottenAwait",
    "GaiodError",
    "Group",
    "Handler",
    "LimitExceeded",
    "Lines",
    "NoSuchCore",
    "NotQuiet",
    "NotTaken",
    "OpResult",
    "OpType",
    "Outlet",
    "PemFile",
    "ProxyHeader",
    "RelaySinkError",
    "Relayed",
    "ServerStats",
    "Size",
    "Source",
    "Stream",
    "Task",
    "Termination",
    "TlsError",
    "TlsFacts",
    "TlsTruncated",
    "TooManyOperations",
    "Unit",
    "UnsupportedConn",
    "UsageError",
    "Watcher",
    "WatcherClosed",
    "__version__",
    "parse_address",
    "prepare_tls",
    "shown",
]
