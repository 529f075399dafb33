"""How many connections the daemon may have, over all workers and listeners: `connections_max` at the top."""

import time
from typing import Any

from gaiod.handler.termination import Termination
from gaiod.worker.admission.per_address import PerAddress
from gaiod.worker.admission.tallies import Tallies, tag_of

FULL = Termination("daemon_limit", "gaiod", "limit", "connections_max", "accept")

NOBODY = ""
"""The name that the total is counted under: no listener has it."""


class Total:
    """The limit of the daemon, and that of each address, if there is one: counted from admission to end.

    A connection that the address's limit refuses has no place of the total.

    Args:
        most: connections.
        tallies: where it counts.
        per_address: the other limit.
    """

    def __init__(self, most: int, tallies: Tallies, per_address: PerAddress | None) -> None:
        self._most = most
        self._tallies = tallies
        self._per_address = per_address
        self._tag = tag_of(0, *tallies.tagger(NOBODY))
        self._counted: set[int] = set()  # serial numbers

    def admit(self, serial: int, address: Any) -> Termination | None:
        """Count a connection, or return why there may be none: as `PerAddress.admit`."""
        connections, _ = self._tallies.of(self._tag, 0, 0.0)
        if connections >= self._most:
            return FULL
        refusal = None if self._per_address is None else self._per_address.admit(serial, address)
        if refusal is None:
            self._count(serial)
        return refusal

    def came(self, serial: int, address: Any) -> None:
        """Count a connection that another worker has counted until now."""
        if self._per_address is not None:
            self._per_address.came(serial, address)
        self._count(serial)

    def gone(self, serial: int) -> None:
        """Count a connection no more, if it was."""
        if self._per_address is not None:
            self._per_address.gone(serial)
        if serial in self._counted:
            self._counted.remove(serial)
            self._tallies.take_away(self._tag)

    def _count(self, serial: int) -> None:
        self._counted.add(serial)
        self._tallies.add(self._tag, 0, int(time.monotonic() * 1000), 0.0)


def limits_of(per_address: PerAddress | None, most: int | None, tallies: Tallies | None) -> Total | PerAddress | None:
    """Return what counts connections for the limits that there are; None: there are none."""
    return per_address if most is None or tallies is None else Total(most, tallies, per_address)
