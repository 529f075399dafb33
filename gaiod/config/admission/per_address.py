"""What each address may have of a listener: `per_address`."""

from dataclasses import replace
from math import ceil
from typing import Any

from gaiod.config.errors import Refused
from gaiod.config.networks import EXAMPLE as NETWORKS_EXAMPLE
from gaiod.config.networks import check_networks
from gaiod.settings import PerAddressSettings

EXAMPLE = "{connections_max: 100, new: 20/s}"

RATE_MAX = 10_000
"""A second, for one address: more is no limit."""

BURST_MAX = 50_000
"""Workers count up to 65,535 (`gaiod.stats.tally_layout.LEVEL_MAX`)."""

BURST_S = 2
"""Of how many seconds what comes at once may be, where nothing is said."""


def check_exempt(value: object) -> object:
    """Return a list of networks, as `check_networks`.

    Raises:
        Refused: it is none, or empty, or too long.
    """
    if value == []:
        raise Refused(f"has no network; write one, such as {NETWORKS_EXAMPLE}, or remove it")
    return check_networks(value)


def per_address_of(**given: Any) -> PerAddressSettings:
    """Return the limits of an address.

    Raises:
        Refused: there is none, or a burst without a rate.
    """
    limits = PerAddressSettings(**given)
    if limits.connections_max is None and limits.new_per_s is None:
        raise Refused(f"limits nothing; write connections_max, new or both, such as {EXAMPLE}, or false")
    if "burst" in given and limits.new_per_s is None:
        raise Refused("has a burst without new, and so limits nothing; add new, such as 20/s, or remove burst")
    if "burst" in given or limits.new_per_s is None:
        return limits
    return replace(limits, burst=ceil(BURST_S * limits.new_per_s))
