"""Whom an operator has banned, for all workers, those to come included. Bans outlive them, reloads and upgrades."""

import time
from collections.abc import Sequence
from typing import Any

BANS_MAX = 10_000
"""More belong into a file of access rules, which is searched faster, and outlives the daemon."""

HandedOverBans = list[tuple[str, float | None]]
"""Networks, and until when they are banned (CLOCK_MONOTONIC); None: until somebody unbans them."""


class Bans:
    """Networks, one way to write each, and until when."""

    def __init__(self) -> None:
        self._until: dict[str, float | None] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, network: object) -> bool:
        return network in self._until

    @property
    def networks(self) -> list[str]:
        """All of them, the oldest first."""
        return list(self._until)

    def add(self, network: str, for_s: float | None) -> None:
        """Ban a network for so long, from now on; None: until it is unbanned. One that is banned gets another end.

        Raises:
            ValueError: there are too many.
        """
        if network not in self._until and len(self._until) >= BANS_MAX:
            raise ValueError(f"{BANS_MAX} networks are banned already; put them into a file of access rules")
        self._until[network] = None if for_s is None else time.monotonic() + for_s

    def remove(self, network: str) -> None:
        """Ban a network no more."""
        del self._until[network]

    def expired(self) -> list[str]:
        """Return the networks whose time is over, and ban them no more."""
        now_s = time.monotonic()
        over = [network for network, until_s in self._until.items() if until_s is not None and until_s <= now_s]
        for network in over:
            del self._until[network]
        return over

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each: the network, and how many seconds are left; None: it has no end."""
        now_s = time.monotonic()
        return [
            {"network": network, "left_s": None if until_s is None else round(max(0.0, until_s - now_s), 1)}
            for network, until_s in self._until.items()
        ]

    def handed_over(self) -> HandedOverBans:
        """Return everything, for the daemon that takes over."""
        return list(self._until.items())

    def adopt(self, handed_over: Sequence[tuple[str, float | None]]) -> None:
        """Take everything over from the daemon before this one."""
        self._until = dict(handed_over)
