"""Who may connect: the rules of a listener's `access`."""

from collections.abc import Sequence
from typing import Any

from gaiod.settings import AccessRule
from gaiod.worker.admission.networks import Networks


class Access:
    """Rules of which the first that matches decides; whom none matches may connect."""

    def __init__(self, rules: Sequence[AccessRule]) -> None:
        self._rules = rules
        self._networks = Networks([rule.networks for rule in rules])

    def refusal_of(self, address: Any) -> AccessRule | None:
        """Return the rule that refuses an address, as `getpeername` has it; None: it may connect."""
        number = self._networks.find(address)
        if number < 0 or self._rules[number].allows:
            return None
        return self._rules[number]
