"""Networks: whose word is taken."""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.worker.admission.networks import Networks

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
    assert (Networks([NETWORKS]).find(address) == 0) == is_in


@pytest.mark.parametrize("address", ["", "/run/x", b"\0abstract"])
def test_peer_of_a_unix_socket_is_in_unix(address: str | bytes) -> None:
    assert Networks([["unix:"]]).find(address) == 0
    assert Networks([["unix:"]]).find(("127.0.0.1", 1)) == -1


@pytest.mark.parametrize(("network", "other"), [("0.0.0.0/0", ("::1", 1, 0, 0)), ("::/0", ("127.0.0.1", 1))])
def test_everything_is_of_one_family_only(network: str, other: Any) -> None:
    assert Networks([[network]]).find(other) == -1


def test_nobody_is_in_no_network() -> None:
    assert Networks([]).find(("127.0.0.1", 1)) == -1
    assert Networks([[]]).find(("::1", 1, 0, 0)) == -1
    assert Networks([]).find("") == -1


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_it_is_as_the_standard_library_says(inside: Any, address: Any, prefix: int) -> None:
    network = ip_network((int(inside), min(prefix, inside.max_prefixlen)), strict=False)
    for each in (address, network[0], network[-1]):
        host = str(each)
        if isinstance(each, IPv6Address) and each.ipv4_mapped is not None:
            continue
        peer = (host, 1) if each.version == 4 else (host, 1, 0, 0)
        assert (Networks([[str(network)]]).find(peer) == 0) == (ip_address(each) in network)


@pytest.mark.parametrize(
    ("address", "number"),
    [
        (("10.1.2.3", 1), 0),
        (("10.1.3.3", 1), 1),
        (("10.9.9.9", 1), 2),
        (("192.0.2.1", 1), 3),
        (("0.0.0.0", 1), 3),
        (("255.255.255.255", 1), 3),
        (("::ffff:10.1.3.3", 1, 0, 0), 1),
        (("2001:db8::1", 1, 0, 0), 2),
        (("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1, 0, 0), 3),
        ("", 3),
    ],
)
def test_first_list_that_has_it_counts(address: Any, number: int) -> None:
    lists = [["10.1.2.0/24"], ["10.1.0.0/16"], ["10.0.0.0/8", "2001:db8::/32"], ["all"], ["10.1.2.3/32"]]
    assert Networks(lists).find(address) == number


@given(st.lists(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=6), max_size=6))
def test_first_list_counts_wherever_networks_lie_in_each_other(lists: list[list[tuple[int, int]]]) -> None:
    texts = [[str(ip_network((0x0A000000 + low, prefix), strict=False)) for low, prefix in each] for each in lists]
    networks = Networks(texts)
    for low in range(256):
        address = ip_address(0x0A000000 + low)
        wanted = [n for n, each in enumerate(texts) if any(address in ip_network(text) for text in each)]
        assert networks.find((str(address), 1)) == (wanted[0] if wanted else -1)
    assert networks.find(("9.255.255.255", 1)) == networks.find(("10.0.1.0", 1)) == -1
