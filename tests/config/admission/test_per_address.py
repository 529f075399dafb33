"""Limits of each address. What is refused: see refused/per-address-*.yaml."""

from typing import Any

import pytest

from gaiod.config.admission.per_address import per_address_of
from gaiod.config.units import parse_rate
from gaiod.settings import PerAddressSettings
from gaiod.stats.tally_layout import LEVEL_MAX


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"connections_max": 5}, PerAddressSettings(connections_max=5)),
        ({"new_per_s": 20.0}, PerAddressSettings(new_per_s=20.0, burst=40)),
        ({"new_per_s": 1 / 60}, PerAddressSettings(new_per_s=1 / 60, burst=1)),
        ({"new_per_s": 20.0, "burst": 3}, PerAddressSettings(new_per_s=20.0, burst=3)),
    ],
)
def test_burst_is_that_of_two_seconds_where_nothing_is_said(given: dict[str, Any], settings: Any) -> None:
    assert per_address_of(**given) == settings


def test_largest_burst_can_be_counted() -> None:
    assert parse_rate("10000/s", 10_000) * 2 < 50_000 < LEVEL_MAX


@pytest.mark.parametrize(("text", "per_s"), [("20/s", 20.0), ("90/m", 1.5), ("3600/h", 1.0)])
def test_rate_is_of_a_second(text: str, per_s: float) -> None:
    assert parse_rate(text, 100) == per_s
