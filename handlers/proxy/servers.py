"""Servers, and their endpoints: what is known about each address that clients can be connected to."""

from hashlib import blake2b
from math import inf
from typing import Any

from gaiod import Address, ServerStats, parse_address

from .options import ServerOptions

Target = tuple[str, int] | str
"""What `connect()` takes."""


class Server:
    """One of `servers:`. A name has as many endpoints as it has addresses, any other server one.

    Attributes:
        label: the address as the configuration has it: what metrics and logs call it.
        active: connections to it, pending ones included.
        weight: its share of the clients: an operator's, or the configured one.
        tls: what a connection to it asks, and shows; None: it is not encrypted.
        pool: whose it is.
        mode: what an operator wants: `ready`, `drain` (no new clients), or `maint` (and no checks).
        is_up: whether a client could be sent to one of its endpoints, apart from its being full or drained.
        lookup_failed: the last time its name was looked up.
    """

    __slots__ = (
        "active",
        "address",
        "backup",
        "connections_max",
        "endpoints",
        "is_up",
        "label",
        "lookup_failed",
        "mode",
        "pool",
        "stats",
        "tls",
        "weight",
        "weight_configured",
    )

    def __init__(self, options: ServerOptions, stats: ServerStats) -> None:
        self.label = options.address
        self.address: Address = parse_address(options.address)
        self.weight = self.weight_configured = options.weight
        self.mode = "ready"
        self.backup = options.backup
        self.connections_max: float = inf if options.connections_max is False else options.connections_max
        self.stats = stats
        self.pool: Any = None
        self.tls = options.asks
        self.active = 0
        self.is_up = True
        self.lookup_failed = False
        self.endpoints: list[Endpoint] = []
        if self.address.kind != "name":
            self.endpoints.append(Endpoint(self, self.address.target))

    @property
    def is_drained(self) -> bool:
        """Whether an operator wants no new clients to be sent there."""
        return self.mode != "ready" or not self.weight


class Endpoint:
    """One address of a server, and its state.

    Attributes:
        active: connections to it, pending ones included.
        failures: failed connects in a row.
        ejections: how often in a row it was ejected.
        ejected_s: when it was ejected last.
        ejected_until_s: no client is sent to it before; 0: it is not ejected.
        is_on_trial: a check has ended its last ejection, and nothing has shown yet that the check was right.
        returned_s: when it came back, as long as it gets fewer clients for that; None: it gets its full share.
        is_down: active checks say so.
        is_known: an active check has said something.
        is_gone: its name does not lead to it any more; what is connected stays.
        trouble: why it was ejected or down last, for who asks.
        tls_trouble: why TLS with it failed last; empty: it never did.
        tls_told_s: when the log had that.
        weight: its share of the clients, just now.
        current: what round robin has it owed.
        seed: what its address contributes to the hash of a client.
        sessions: those connected to it, where they are to be closed when it goes down.
    """

    __slots__ = (
        "active", "current", "ejected_s", "ejected_until_s", "ejections", "failures", "is_down", "is_gone",
        "is_known", "is_on_trial", "returned_s", "seed", "server", "sessions", "target", "tls_told_s", "tls_trouble",
        "trouble",
        "weight",
    )  # fmt: skip

    def __init__(self, server: Server, target: Target) -> None:
        self.server = server
        self.target = target
        self.active = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_s = 0.0
        self.ejected_until_s = 0.0
        self.is_on_trial = False
        self.returned_s: float | None = None
        self.is_down = False
        self.is_known = False
        self.is_gone = False
        self.trouble = ""
        self.tls_trouble = ""
        self.tls_told_s = 0.0
        self.weight: float = server.weight
        self.current = 0.0
        self.seed = hash_of(repr(target))
        self.sessions: set[Any] = set()

    def __str__(self) -> str:
        """Name it for a person: the server, and which of its addresses."""
        label = self.server.label
        return f"{label} ({self.target[0]})" if self.server.address.kind == "name" else label


def hash_of(text: str) -> int:
    """Return 64 bits that are the same in every process, on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
