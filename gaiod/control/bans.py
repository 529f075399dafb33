"""What an operator writes to ban somebody: an address or a network, and for how long."""

from ipaddress import ip_address, ip_network

from gaiod.control.protocol import ControlError

WIDEST = {4: 8, 6: 16}
"""The shortest prefixes: a slip of the keyboard must not ban everybody."""

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

MAPPED_BITS = 96
"""::ffff:0:0/96, where IPv6 sockets show IPv4 peers: these are IPv4."""


def parse_network(text: str) -> str:
    """Return the one way to write the network that is meant; an address is the network that has only it.

    Raises:
        ControlError: it is none, has bits beyond its prefix, or is too wide.
    """
    try:
        if "%" in text:
            raise ValueError("an interface is of this machine alone")
        network = ip_network(text, strict=False)
    except ValueError:
        raise ControlError(f"{text!a} is not an address or a network, such as 192.0.2.7 or 2001:db8::/32") from None
    if ip_address(text.partition("/")[0]) != network.network_address:
        raise ControlError(f"{text} has bits beyond its prefix; write {network}, or the address alone")
    if network.version == 6 and int(network.network_address) >> 32 == 0xFFFF and network.prefixlen >= MAPPED_BITS:
        network = ip_network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - MAPPED_BITS))
    if network.prefixlen < WIDEST[network.version]:
        least = WIDEST[network.version]
        raise ControlError(f"{network} is too wide; write /{least} or longer, or access rules that refuse so many")
    return str(network)


def parse_time(text: str) -> float:
    """Return the seconds of a time such as 10m, whose form the protocol has checked."""
    return int(text[:-1]) * SECONDS[text[-1]]
