"""What is written to ban somebody."""

import pytest

from gaiod.control.bans import parse_network, parse_time
from gaiod.control.protocol import ControlError


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("2001::/16", "2001::/16"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
    ],
)
def test_network_has_one_way_to_be_written(text: str, network: str) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("example.org", "'example.org' is not an address or a network, such as 192.0.2.7 or 2001:db8::/32"),
        ("", "'' is not an address or a network, such as 192.0.2.7 or 2001:db8::/32"),
        ("fe80::1%eth0", "'fe80::1%eth0' is not an address or a network, such as 192.0.2.7 or 2001:db8::/32"),
        ("192.0.2.7/24", "192.0.2.7/24 has bits beyond its prefix; write 192.0.2.0/24, or the address alone"),
        ("0.0.0.0/0", "0.0.0.0/0 is too wide; write /8 or longer, or access rules that refuse so many"),
        ("12.0.0.0/7", "12.0.0.0/7 is too wide; write /8 or longer, or access rules that refuse so many"),
        ("2000::/3", "2000::/3 is too wide; write /16 or longer, or access rules that refuse so many"),
        ("::ffff:0:0/96", "0.0.0.0/0 is too wide; write /8 or longer, or access rules that refuse so many"),
    ],
)
def test_what_is_no_network_or_too_wide_is_refused(text: str, why: str) -> None:
    with pytest.raises(ControlError) as error:
        parse_network(text)
    assert str(error.value) == why


def test_time_has_a_unit() -> None:
    assert [parse_time(text) for text in ("7s", "10m", "2h", "1d")] == [7, 600, 7200, 86400]
