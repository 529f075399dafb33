"""What a handler is told of a connection that arrives from another worker."""

from dataclasses import dataclass

from gaiod.core.connection import Conn
from gaiod.core.errors import GaiodError


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection that another worker has served until now: what `Handler.on_arrive` gets.

    Attributes:
        state: what `on_leave` returned there. It may be of another version of the handler: do not trust it.
        version: the `state_version` of the handler that returned it.
        partner: the connection that the other worker's handler had opened for it (`Handler.partner_of`), or to which it
            is relayed; None: there is none.
    """

    state: bytes
    version: int
    partner: Conn | None


class NotTaken(GaiodError):
    """Raised by `Handler.on_arrive`: this worker cannot go on with the connection. It stays where it is, and drains."""
