"""Networks: `10.0.0.0/8`, `2001:db8::/32`, and `unix:` for whoever connects to a unix socket."""

import re
from ipaddress import ip_address, ip_network

from gaiod.addresses import UNIX
from gaiod.config.errors import Refused
from gaiod.config.words import NAMES, mismatch
from gaiod.wording import shown

NETWORKS_MAX = 64
"""Every new connection is compared with each: 64 take some 10 us (CPython 3.11)."""

EXAMPLES = "such as 10.0.0.0/8, 2001:db8::/32 or unix:"
EXAMPLE = "[10.0.0.0/8]"

MAPPED = 0xFFFF
MAPPED_PREFIX = 96
"""::ffff:0:0/96, where IPv6 sockets show IPv4 peers. Those are compared with IPv4 networks."""

NETWORK = re.compile(r"([0-9A-Fa-f:.]{2,45})/(0|[1-9][0-9]{0,2})")


def parse_network(value: object) -> str:
    """Return the one way to write the network that `value` names.

    Raises:
        Refused: it is none, or has bits set beyond its prefix: was the address meant, or its network?
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, f"a network {EXAMPLES}"))
    if value == UNIX:
        return UNIX
    match = NETWORK.fullmatch(value)
    if match is None:
        raise Refused(_not_a_network(value))
    try:
        address = ip_address(match[1])
        network = ip_network(value, strict=False)
    except ValueError:
        raise Refused(_not_a_network(value)) from None
    if network.network_address != address:
        raise Refused(f"{value} has bits beyond its prefix; write {network}, or {address}/{address.max_prefixlen}")
    if network.version == 6 and int(address) >> 32 == MAPPED and network.prefixlen >= MAPPED_PREFIX:
        v4 = ip_network((int(address) & 0xFFFFFFFF, network.prefixlen - MAPPED_PREFIX))
        raise Refused(f"{value} is IPv4 written as IPv6; write {v4}")
    return str(network)


def check_networks(value: object) -> object:
    """Return a list of networks, which are still to be parsed.

    Raises:
        Refused: it is no list, or empty, or too long.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, f"{NAMES[list]}, such as {EXAMPLE}"))
    if not value:
        raise Refused(f"has no network, so everybody would be refused; write one, such as {EXAMPLE}")
    if len(value) > NETWORKS_MAX:
        raise Refused(f"has {len(value)} networks; write at most {NETWORKS_MAX}")
    return value


def _not_a_network(value: str) -> str:
    text = shown(value)
    try:
        address = ip_address(value)
    except ValueError:
        return f"{text} is not a network; write one {EXAMPLES}"
    if "%" in value:
        return f"{text} names an interface; write a network such as fe80::/64"
    return f"{text} has no prefix length; write {address}/{address.max_prefixlen} for it alone"
