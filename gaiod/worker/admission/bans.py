"""Whom an operator has banned: the networks, as a worker looks addresses up in them."""

from collections.abc import Iterable
from typing import Any

from gaiod.worker.admission.networks import V4, V6, number_of

BITS = {V4: 32, V6: 128}


class Bans:
    """Networks by their prefix length: an address costs one look for each length that there is.

    Attributes:
        are_any: somebody is banned.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._of: dict[int, dict[int, set[int]]] = {V4: {}, V6: {}}  # family; bits beyond the prefix; prefixes
        self.are_any = False
        self.change(networks, ())

    def change(self, added: Iterable[str], removed: Iterable[str]) -> None:
        """Ban some networks, and others no more."""
        for network in added:
            family, beyond, prefix = _parts_of(network)
            self._of[family].setdefault(beyond, set()).add(prefix)
        for network in removed:
            family, beyond, prefix = _parts_of(network)
            prefixes = self._of[family].get(beyond, set())
            prefixes.discard(prefix)
            if not prefixes:
                self._of[family].pop(beyond, None)
        self.are_any = any(self._of.values())

    def has(self, address: Any) -> bool:
        """Tell whether an address, as `getpeername` has it, is banned. A unix socket's peers never are."""
        family, number = number_of(address)
        return any(number >> beyond in prefixes for beyond, prefixes in self._of.get(family, {}).items())


def _parts_of(network: str) -> tuple[int, int, int]:
    host, _, length = network.partition("/")
    family, number = number_of((host,))
    beyond = BITS[family] - int(length)
    return family, beyond, number >> beyond
