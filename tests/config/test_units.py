"""Numbers with units: one way to write each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.config.errors import Refused
from gaiod.config.units import (
    DURATION_MAX_S,
    SIZE_MAX_BYTES,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    parse_whole,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("250ms", 0.25),
        ("2s", 2.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("365d", 31_536_000.0),
    ],
)
def test_duration_becomes_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (30, "30 has no unit; write 30s if you mean seconds"),
        (0, "0 has no unit; write 0s if you mean seconds"),
        (90_000_000_000, "90000000000 is not a duration; write a duration such as 250ms, 30s, 5m, 1h or 1d"),
        (-1, "-1 is not a duration; write a duration such as 250ms, 30s, 5m, 1h or 1d"),
        ("30", "30 is not a duration; write a whole number and a unit, such as 30s"),
        ("-5s", "-5s is not a duration; write a whole number and a unit, such as 30s"),
        ("1.5s", "1.5s is not a duration; write a whole number and a unit, such as 30s"),
        ("2 s", "2 s is not a duration; write a whole number and a unit, such as 30s"),
        ("2S", "2S is not a duration; write a whole number and a unit, such as 30s"),
        ("٣s", "٣s is not a duration; write a whole number and a unit, such as 30s"),
        ("366d", "366d is out of range; write 0s to 365d"),
        ("9" * 16 + "s", "9" * 16 + "s is not a duration; write a whole number and a unit, such as 30s"),
        ([], "is a list; write a duration such as 250ms, 30s, 5m, 1h or 1d"),
    ],
)
def test_duration_is_refused_with_what_to_write(value: object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_duration(value)
    assert str(refused.value) == message


def test_duration_includes_both_ends_of_its_range() -> None:
    assert parse_duration("10ms", 0.01, 60.0) == 0.01
    assert parse_duration("1m", 0.01, 60.0) == 60.0
    for text in ("9ms", "60001ms"):
        with pytest.raises(Refused, match="write 10ms to 1m"):
            parse_duration(text, 0.01, 60.0)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("64KiB", 65536),
        ("1MiB", 1048576),
        ("1GiB", 1 << 30),
        ("1024GiB", SIZE_MAX_BYTES),
    ],
)
def test_size_becomes_bytes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("64KB", "64KB is ambiguous; write 64KiB (1024-based)"),
        ("64k", "64k is ambiguous; write 64KiB (1024-based)"),
        ("1M", "1M is ambiguous; write 1MiB (1024-based)"),
        ("1 GiB", "1 GiB is ambiguous; write 1GiB (1024-based)"),
        ("64kib", "64kib is ambiguous; write 64KiB (1024-based)"),
        ("64B", "64B is not a size; bytes have no unit, write 64"),
        ("4096", "4096 is not a size; write a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"),
        ("big", "big is not a size; write a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"),
        (0.5, "is a number; write a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"),
        (True, "is a boolean; write a size such as 4096 (bytes), 64KiB, 1MiB or 1GiB"),
        (-1, "-1 is out of range; write 0 to 1024GiB"),
        ("1025GiB", "1025GiB is out of range; write 0 to 1024GiB"),
    ],
)
def test_size_is_refused_with_what_to_write(value: object, message: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_size(value)
    assert str(refused.value) == message


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_whole_number_is_refused_when_it_is_something_else(value: object) -> None:
    with pytest.raises(Refused, match=r"; write a whole number$"):
        parse_whole(value, 1, 9)


def test_whole_number_includes_both_ends_of_its_range() -> None:
    assert [parse_whole(number, 1, 9) for number in (1, 9)] == [1, 9]
    for number in (0, 10):
        with pytest.raises(Refused, match="write 1 to 9"):
            parse_whole(number, 1, 9)


@given(st.integers(0, int(DURATION_MAX_S) * 1000))
def test_formatted_duration_is_read_back_as_the_same(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(1, SIZE_MAX_BYTES))
def test_formatted_size_is_read_back_as_the_same(size: int) -> None:
    text = format_size(size)
    assert parse_size(int(text) if text.isdigit() else text) == size
