"""Networks: one way to write each. What is said of wrong ones: see refused/proxy-protocol-from-*.yaml."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.errors import Refused
from gaiod.config.networks import parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7/32", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1/128", "::1/128"),
        ("::/0", "::/0"),
        ("2001:DB8:0:0::/32", "2001:db8::/32"),
        ("unix:", "unix:"),
    ],
)
def test_network_has_one_way_to_be_written(text: str, network: str) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text", ["", "/", "/8", "10/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8 ", "::/129", "unix", "\u0660.0.0.0/8"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="is not a network; write one such as"):
        parse_network(text)


@given(st.one_of(st.text(max_size=50), st.text("0123456789abf:./%", max_size=50)))
def test_any_text_is_a_network_or_refused(text: str) -> None:
    try:
        network = parse_network(text)
    except Refused as refusal:
        assert "; " in str(refusal)
    else:
        assert network == "unix:" or str(ip_network(network)) == network
