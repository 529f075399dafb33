"""gaiod: a networking daemon, and the library that it is made of.

    from gaiod import Conn, Handler, OpResult          # to write a handler
    from gaiod import Watcher                          # to use the proactor without the daemon

`gaiod.testing` tests a handler without sockets. Importing gaiod is cheap, because every worker does it.
"""

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

__all__ = [
    "Address",
    "AdminState",
    "Arrival",
    "Certificate",
    "Check",
    "ClientTls",
    "Conn",
    "ConnClosed",
    "DeadlineExceeded",
    "Duration",
    "EmptyBuffer",
    "GaiodError",
    "Group",
    "Handler",
    "NoSuchCore",
    "NotQuiet",
    "NotTaken",
    "OpResult",
    "OpType",
    "Outlet",
    "PemFile",
    "ProxyHeader",
    "RelaySinkError",
    "ServerStats",
    "Size",
    "Source",
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
