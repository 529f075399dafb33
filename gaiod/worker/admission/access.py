"""Who may connect: the rules of a listener's `access`."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from gaiod.settings import AccessRule, NetworkTable
from gaiod.worker.admission.networks import NOWHERE, V4, Networks, number_of


class Access:
    """Rules of which the first that matches decides; whom none matches may connect.

    Neighbours that are of no file are one search for an address, and each file is another. What a file has comes ready
    to be searched, so it can be exchanged while the worker serves: 100,000 networks take 15 ms, nearly all of it JSON.
    """

    def __init__(self, rules: Sequence[AccessRule]) -> None:
        self._steps: list[tuple[Sequence[AccessRule], Networks | NetworkTable]] = []
        for is_file, group in groupby(rules, lambda rule: rule.table is not None):
            if is_file:
                self._steps += [([rule], rule.table) for rule in group if rule.table is not None]
            else:
                neighbours = list(group)
                self._steps.append((neighbours, Networks([[rule.of] for rule in neighbours])))

    def refusal_of(self, address: Any) -> AccessRule | None:
        """Return the rule that refuses an address, as `getpeername` has it; None: it may connect."""
        family, number = number_of(address)
        for rules, networks in self._steps:
            if isinstance(networks, Networks):
                found = networks.find_number(family, number)
            else:
                found = 0 if _has(networks, family, number) else NOWHERE
            if found != NOWHERE:
                return None if rules[found].allows else rules[found]
        return None


def _has(table: NetworkTable, family: int, number: int) -> bool:
    """Tell whether an address is in the networks of a file."""
    if not family:
        return table.unix
    return bool(bisect_right(table.v4 if family == V4 else table.v6, number) & 1)
