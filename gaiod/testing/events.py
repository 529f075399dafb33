"""What happens to a handler in a script."""

from dataclasses import dataclass, field
from typing import Any

from gaiod.core.operations import OpType
from gaiod.core.tls import TlsFacts
from gaiod.handler.admin_state import AdminState
from gaiod.testing.conn import ScriptedConn

USUAL_FACTS = TlsFacts("1.3", "TLS_AES_256_GCM_SHA384", None, None, resumed=False)
"""What most clients agree on, that name no server."""


@dataclass(frozen=True)
class Started:
    """The listener begins to serve."""


@dataclass(frozen=True)
class Opened:
    """A client connected."""


@dataclass(frozen=True)
class Arrives:
    """A client's connection came from another worker, instead of `Opened`.

    Attributes:
        state: what `on_leave` returned there.
        version: the `state_version` of the handler there; one that this handler understands.
        partner: stands for the connection to its server, or to which it is relayed.
        unsent: of what was written there, what is still to be sent; empty: nothing is. `Sent` completes it.
    """

    state: bytes
    version: int
    partner: ScriptedConn | None = None
    unsent: bytes = b""


@dataclass(frozen=True)
class Leaves:
    """The connection is to go to another worker: `on_leave` returns this; None: it cannot leave now.

    One that is `busy` cannot leave either, and nothing is asked. `Closed("handed_over")` follows when it has gone.
    """

    expected: bytes | None


@dataclass(frozen=True)
class Arrived:
    """A read completed with these bytes."""

    data: bytes


@dataclass(frozen=True)
class Sent:
    """The oldest write completed."""


@dataclass(frozen=True)
class PeerDone:
    """A read found the end of the stream."""


@dataclass(frozen=True)
class Expired:
    """The deadline of a read passed, or of the oldest write. Of others: `Relayed(DeadlineExceeded())`, say."""

    operation: OpType = OpType.READ


@dataclass(frozen=True)
class Cancelled:
    """A read was cancelled, or the oldest write."""

    operation: OpType = OpType.READ


@dataclass(frozen=True)
class HungUp:
    """The peer is gone, while nothing is read of it; so many bytes that it had sent were not read."""

    unread: int = 0
    error: Exception = field(default_factory=ConnectionResetError)


@dataclass(frozen=True)
class Closed:
    """The connection closed; `reason` is a word, or a `gaiod.Termination`."""

    reason: str = "handler"


@dataclass(frozen=True)
class Ticked:
    """Time for `on_tick`."""


@dataclass(frozen=True)
class Timed:
    """The time of a `timer()` has come."""

    data: Any


@dataclass(frozen=True)
class Elapsed:
    """So many seconds have passed, for what a coroutine handler waits for by time: `sleep`, and timeouts of `run`."""

    seconds: float


@dataclass(frozen=True)
class Posted:
    """What another thread gave to `post()` has arrived."""

    data: Any


@dataclass(frozen=True)
class Connected:
    """The connection, opened by the handler itself, is established; or failed.

    Attributes:
        error: why it failed: a `gaiod.TlsError`, say.
        tls: what was agreed with a server that speaks TLS: its `conn.tls`.
    """

    error: Exception | None = None
    tls: TlsFacts | None = None


@dataclass(frozen=True)
class Secured:
    """The handshake that `start_tls` began is done; a failed one is `Closed("tls_error")`.

    Attributes:
        tls: what `conn.tls` is from now on.
    """

    tls: TlsFacts = USUAL_FACTS


@dataclass(frozen=True)
class Relayed:
    """A relay from the connection ended: its stream did, or it failed."""

    error: Exception | None = None


@dataclass(frozen=True)
class Message:
    """A source published this, as `encode_message` has made it."""

    topic: str
    data: bytes


@dataclass(frozen=True)
class Shared:
    """Another worker shared this. Before `Started`: the handler is not called, and finds it in `self.shared`."""

    key: str
    value: Any


@dataclass(frozen=True)
class Administered:
    """An operator has said what is wanted of a server; or had, where it follows `Started`."""

    server: str
    state: AdminState


@dataclass(frozen=True)
class Led:
    """The worker leads from now on, or does so no more."""

    is_leader: bool = True


Event = (
    Started | Opened | Arrives | Leaves | Arrived | Sent | PeerDone | HungUp | Expired | Cancelled | Closed | Ticked
    | Timed | Elapsed | Posted | Connected | Secured | Relayed | Message | Shared | Led | Administered
)  # fmt: skip
