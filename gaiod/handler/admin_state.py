"""What an operator wants of one server of a listener: `gaiod server`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaiod.handler.shared_values import RESERVED

MODES = ("drain", "maint", "ready")
"""No new clients; that, and no checks; none of it. HAProxy calls them the same."""

WEIGHT_MAX = 256


@dataclass(frozen=True, slots=True)
class AdminState:
    """What an operator wants of a server.

    Attributes:
        mode: `drain`: it gets no new clients, and those that it has stay; `maint`: that, and it is not checked;
            `ready`: nothing of it.
        weight: instead of the configured one, 0 to 256; None: the configured one.
        since_s: when the mode was set, in `time.monotonic()`; 0: it never was.
    """

    mode: str = "ready"
    weight: int | None = None
    since_s: float = 0.0


def admin_key(server: str) -> str:
    """Return the key of a server's state among the values that workers share."""
    return f"{RESERVED}admin {server}"


def server_of_key(key: str) -> str | None:
    """Return the server whose state has this key; None: it is the key of something else."""
    prefix = admin_key("")
    return key.removeprefix(prefix) if key.startswith(prefix) else None


def admin_states(shared: Mapping[str, Any]) -> dict[str, AdminState]:
    """Return the states among shared values, by server."""
    servers = {server_of_key(key): value for key, value in shared.items()}
    return {server: AdminState(**value) for server, value in servers.items() if server is not None}
