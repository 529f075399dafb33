"""What a handler does in a script."""

from dataclasses import dataclass
from typing import Any

from gaiod.core.operations import OpType
from gaiod.core.tls import ClientTls
from gaiod.handler.handler import SocketOptions


@dataclass(frozen=True)
class Read:
    """It asked for bytes; with `size` if it gave a buffer of its own."""

    size: int | None = None
    full: bool = False


@dataclass(frozen=True)
class Write:
    """It wrote."""

    data: bytes


@dataclass(frozen=True)
class Close:
    """It closed, once everything written is sent."""


@dataclass(frozen=True)
class Abort:
    """It closed at once."""


@dataclass(frozen=True)
class Reset:
    """It closed at once, and told the peer that it is an error."""


@dataclass(frozen=True)
class ShutdownWrite:
    """It sent its FIN."""


@dataclass(frozen=True)
class StartTls:
    """It began TLS, as the server, or with `tls` as the client of one.

    With `unread` the connection closes: `Closed("tls_error")` is next.
    """

    unread: bytes = b""
    tls: ClientTls | None = None


@dataclass(frozen=True)
class Cancel:
    """It cancelled pending operations."""

    op_type: OpType | None = None


@dataclass(frozen=True)
class Connect:
    """It opened a connection of its own."""

    address: Any
    options: SocketOptions = ()
    tls: ClientTls | None = None
    preface: bytes = b""


@dataclass(frozen=True)
class PauseAccepting:
    """It asked that nobody be accepted for a moment."""


@dataclass(frozen=True)
class DelayReady:
    """It let the worker not be ready yet."""


@dataclass(frozen=True)
class Ready:
    """It let the worker be ready."""


@dataclass(frozen=True)
class Timer:
    """It asked to be told after some seconds."""

    delay_s: float
    data: Any


@dataclass(frozen=True)
class Post:
    """It gave something to the worker's thread."""

    data: Any


@dataclass(frozen=True)
class Share:
    """It shared a value with the other workers; None: it took it back."""

    key: str
    value: Any


@dataclass(frozen=True)
class RelayTo:
    """It began to relay the connection to another."""

    sink: Any


@dataclass(frozen=True)
class MakeGroup:
    """It made its group, in which are to be its connections."""

    limit: int
    policy: str


@dataclass(frozen=True)
class Join:
    """It let the connection have a topic."""

    topic: str = ""


@dataclass(frozen=True)
class Leave:
    """It let the connection have a topic no more; None: any."""

    topic: str | None = None


@dataclass(frozen=True)
class Publish:
    """It published a message."""

    data: bytes
    topic: str = ""


Action = (
    Read | Write | Close | Abort | Reset | ShutdownWrite | StartTls | Cancel | Connect | RelayTo | PauseAccepting
    | Timer | Post | DelayReady | Ready | Share | MakeGroup | Join | Leave | Publish
)  # fmt: skip
