"""Networks: whose word is taken."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.worker.networks import Networks

NETWORKS = ("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128", "fe80::/64")


@pytest.mark.parametrize(
    ("address", "is_in"),
    [
        (("10.0.0.0", 1), True),
        (("10.255.255.255", 1), True),
        (("9.255.255.255", 1), False),
        (("11.0.0.0", 1), False),
        (("192.0.2.7", 1), True),
        (("192.0.2.8", 1), False),
        (("127.0.0.1", 1), False),
        (("::1", 1, 0, 0), True),
        (("::2", 1, 0, 0), False),
        (("2001:db8:ffff::1", 1, 0, 0), True),
        (("2001:db9::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), True),
        (("::ffff:10.1.2.3", 1, 0, 0), True),
        (("::ffff:11.1.2.3", 1, 0, 0), False),
        (("::10.1.2.3", 1, 0, 0), False),
        ("", False),
        (b"\0abstract", False),
    ],
)
def test_address_is_in_a_network_or_not(address: Any, is_in: bool) -> None:
    assert (address in Networks(NETWORKS)) == is_in


@pytest.mark.parametrize("address", ["", "/run/x", b"\0abstract"])
def test_peer_of_a_unix_socket_is_in_unix(address: str | bytes) -> None:
    assert address in Networks(["unix:"])
    assert ("127.0.0.1", 1) not in Networks(["unix:"])


@pytest.mark.parametrize(("network", "other"), [("0.0.0.0/0", ("::1", 1, 0, 0)), ("::/0", ("127.0.0.1", 1))])
def test_everything_is_of_one_family_only(network: str, other: Any) -> None:
    assert other not in Networks([network])


def test_nobody_is_in_no_network() -> None:
    assert ("127.0.0.1", 1) not in Networks([])


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_it_is_as_the_standard_library_says(inside: Any, address: Any, prefix: int) -> None:
    network = ip_network((int(inside), min(prefix, inside.max_prefixlen)), strict=False)
    for each in (address, network[0], network[-1]):
        host = str(each)
        if isinstance(each, IPv6Address) and each.ipv4_mapped is not None:
            continue
        peer = (host, 1) if each.version == 4 else (host, 1, 0, 0)
        assert (peer in Networks([str(network)])) == (ip_address(each) in network)
