"""Units of options: a number to whoever uses it, a unit to whoever reads the configuration."""

from dataclasses import dataclass
from typing import Annotated, get_args, get_type_hints

import pytest

from gaiod import Duration, Size, Unit


@dataclass
class Options:
    """As a handler's author writes it."""

    poll_every: Duration = 2.0
    answer_max: Size = 65536
    grace: Annotated[float, Unit("duration", maximum=60.0)] = 5.0


def test_options_with_units_are_plain_numbers_when_they_are_made() -> None:
    assert Options() == Options(2.0, 65536, 5.0)
    assert get_type_hints(Options) == {"poll_every": float, "answer_max": int, "grace": float}


def test_units_are_found_by_who_asks_for_them() -> None:
    hints = get_type_hints(Options, include_extras=True)
    assert [get_args(hint)[1] for hint in hints.values()] == [
        Unit("duration"),
        Unit("size"),
        Unit("duration", minimum=0, maximum=60.0),
    ]


def test_unit_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Unit("size").maximum = 3  # type: ignore[misc]
