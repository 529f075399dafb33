"""Which servers a client is for, by what it asks for when it begins TLS."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from gaiod import Check, Unit, shown

from .client_hello import Hello

ENTRIES_MAX = 10_000
NAME_MAX_CHARACTERS = 253
DEFAULT = ""
"""The pool of the servers that name none."""


def _names(values: dict[str, str]) -> None:
    _few(values)
    for name in values:
        host = name.removeprefix("*.")
        is_name = host.isascii() and host.isprintable() and 0 < len(host) <= NAME_MAX_CHARACTERS
        if not is_name or "*" in host or " " in host or host != host.lower() or host.endswith("."):
            raise ValueError(
                f"has {shown(name)}; write a name in small letters, as DNS has it, such as app.example.org, or "
                "*.example.org for one more label"
            )


def _protocols(values: dict[str, str]) -> None:
    _few(values)
    for name in values:
        if not (name.isascii() and name.isprintable() and 0 < len(name) <= 255):
            raise ValueError(f"has {shown(name)}, which names no protocol; write one such as h2 or postgresql")


def _few(values: dict[str, str]) -> None:
    if len(values) > ENTRIES_MAX:
        raise ValueError(f"has {len(values)} entries; write at most {ENTRIES_MAX}")


@dataclass(frozen=True)
class RouteOptions:
    """`route:`, pools by what a client asks for."""

    sni: Annotated[dict[str, str], Check(_names)] = field(default_factory=dict)
    alpn: Annotated[dict[str, str], Check(_protocols)] = field(default_factory=dict)
    timeout: Annotated[float, Unit("duration", 0.01, 3600.0)] = 5.0

    def __post_init__(self) -> None:
        if not self.sni and not self.alpn:
            raise ValueError("route has neither sni nor alpn; write one, such as sni: {app.example.org: POOL}")

    @property
    def pools(self) -> set[str]:
        """The pools that it names."""
        return {*self.sni.values(), *self.alpn.values()}

    def pool_for(self, hello: Hello) -> tuple[str | None, str]:
        """Return the pool of a client, and what has decided: `sni`, `alpn`; or that nothing did, and None.

        The name of the server counts first, and then the first protocol of the client's that has an entry.
        """
        name = hello.server_name
        if name is not None:
            for known in (name, f"*.{name.partition('.')[2]}"):
                if known in self.sni:
                    return self.sni[known], "sni"
        for protocol in hello.alpn:
            if protocol in self.alpn:
                return self.alpn[protocol], "alpn"
        return None, "no_name" if name is None else "unknown_name"


def check_pools(route: RouteOptions | None, pools: Iterable[str]) -> None:
    """Refuse a pool that has no servers, and servers that get no clients; `pools`: of the servers.

    Raises:
        ValueError: there is one.
    """
    there = set(pools)
    wanted = set() if route is None else route.pools
    for name in sorted(wanted - there):
        raise ValueError(f"route names pool {shown(name)}, which no server has; write pool: {name} at one of servers")
    for name in sorted(there - wanted - {DEFAULT}):
        raise ValueError(f"servers of pool {shown(name)} get no clients; name it in route, or remove it there")
