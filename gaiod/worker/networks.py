"""Networks: whether an address is in one of those that a configuration lists."""

import socket
from collections.abc import Iterable
from typing import Any

from gaiod.addresses import UNIX

MAPPED = 0xFFFF
"""What is above the 32 bits of an IPv4 address in ::ffff:0:0/96, where IPv6 sockets show IPv4 peers."""


class Networks:
    """A few networks, which every connection is compared with: a mask and a comparison each."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Take networks as `ListenerSettings` has them: valid, with no bit set beyond the prefix."""
        self._has_unix = False
        self._v4: list[tuple[int, int]] = []
        self._v6: list[tuple[int, int]] = []
        for text in texts:
            if text == UNIX:
                self._has_unix = True
                continue
            host, _, prefix = text.partition("/")
            kind, bits, known = (socket.AF_INET6, 128, self._v6) if ":" in host else (socket.AF_INET, 32, self._v4)
            mask = (1 << bits) - (1 << bits - int(prefix))
            known.append((mask, _number(kind, host)))

    def __contains__(self, address: Any) -> bool:
        """Tell whether an address, as `getpeername` has it, is in one of them."""
        if isinstance(address, str | bytes):
            return self._has_unix
        host = address[0]
        if ":" not in host:
            return _is_in(self._v4, _number(socket.AF_INET, host))
        number = _number(socket.AF_INET6, host.partition("%")[0])  # fe80::1%eth0
        if number >> 32 == MAPPED:
            return _is_in(self._v4, number & 0xFFFFFFFF)
        return _is_in(self._v6, number)


def _number(kind: socket.AddressFamily, host: str) -> int:
    return int.from_bytes(socket.inet_pton(kind, host), "big")


def _is_in(networks: list[tuple[int, int]], number: int) -> bool:
    return any(number & mask == network for mask, network in networks)
