"""Descriptors: whether a worker may have as many as its listeners let clients in."""

import resource

from gaiod.settings import Settings

PIPES = 128
"""Descriptors of a worker's 64 pipes for splicing: `gaiod/core/_flows.pyx`. Only relays have them."""

OWN = 32
"""A worker's own: its watcher, its channel, the log, shared memory, what Python and handlers have open."""


def needed(settings: Settings, sockets: int) -> int:
    """Return how many descriptors a worker may need.

    Args:
        settings: whose listeners it serves.
        sockets: how many they are bound with.
    """
    clients = sum(each.connections_max * (2 if each.servers else 1) for each in settings.listeners)
    return clients + (PIPES if any(each.servers for each in settings.listeners) else 0) + sockets + OWN


def warning(settings: Settings, sockets: int) -> str | None:
    """Return what to tell an operator of whose limit is too low for that; None: it is enough."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # the soft one, which was raised as far as it goes
    wanted = needed(settings, sockets)
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return None
    return (
        f"a worker may have {limit} descriptors, and needs {wanted} for connections_max of its listeners (a client of "
        f"a proxy takes 2): set LimitNOFILE={wanted} (systemd), ulimits (containers) or ulimit -n, or lower "
        "connections_max; clients that there is no descriptor for wait"
    )
