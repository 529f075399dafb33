"""Unquoted text means the same to every reader of YAML, or is refused."""

import datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.errors import Refused
from gaiod.config.scalars import read_plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("0", 0),
        ("-17", -17),
        ("+17", 17),
        ("999999999999999999", 999999999999999999),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ("echo", "echo"),
        ("250ms", "250ms"),
        ("64KiB", "64KiB"),
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        ("unix:/run/echo.sock", "unix:/run/echo.sock"),
        ("1.2.3", "1.2.3"),
        ("y", "y"),
        ("-", "-"),
    ],
)
def test_plain_text_means_what_it_seems_to(text: str, value: object) -> None:
    read = read_plain(text)
    assert (read, type(read)) == (value, type(value))


DISAGREED = """
    yes Yes YES no No NO on On ON off Off OFF True TRUE False FALSE
    010 08 -07 0o17 0x1F 0b11 1_000 0.5_0 00.5 22:22 1:30:00 -1:30 1:30.5
    .inf -.INF +.Inf .nan .NaN 1e999 -1e999 1111111111111111111
    2024-01-31 2024-1-3 2024-01-31T10:00:00Z =
"""


@pytest.mark.parametrize("text", [*DISAGREED.split(), "2024-01-31 10:00:00", "9" * 5000])
def test_plain_text_is_refused_when_readers_disagree(text: str) -> None:
    with pytest.raises(Refused, match=r"; (write|put) "):
        read_plain(text)


@given(st.text("0123456789+-.:_eExXobBaAfFtTnN ~=<yYsSrRuUlLI", max_size=12))
def test_plain_text_never_means_something_else_to_pyyaml(text: str) -> None:
    """Equal to PyYAML's reading, or refused; only 1e3 is ours alone, because JSON has it."""
    try:
        ours = read_plain(text)
        theirs = yaml.safe_load(yaml.ScalarNode("", text).value) if text.strip() == text else text
    except (Refused, yaml.YAMLError, ValueError):
        return
    if isinstance(theirs, list | dict) or (isinstance(ours, float) and isinstance(theirs, str)):
        return
    assert not isinstance(theirs, datetime.date)
    assert (ours, type(ours)) == (theirs, type(theirs))
