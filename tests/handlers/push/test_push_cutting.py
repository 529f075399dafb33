"""Cutting a stream into lines, whatever pieces it comes in."""

import pytest
from gaiod.handlers.push.sources.cutting import Cutter
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.binary(max_size=12)), st.integers(1, 7))
def test_lines_are_the_same_whatever_pieces_they_come_in(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    cutter = Cutter(100)
    cut = [line for start in range(0, len(data), size) for line in cutter.feed(data[start : start + size])]
    assert cut == lines
    assert cutter.end() == []


@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(1, 7), st.integers(1, 5))
def test_line_that_is_too_long_is_cut_once_and_the_next_is_whole(lines: list[bytes], size: int, most: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    cutter = Cutter(most)
    cut = [line for start in range(0, len(data), size) for line in cutter.feed(data[start : start + size])]
    assert cut == [line[: most + 1] for line in lines]


def test_rest_is_a_line_at_the_end_of_the_stream_only() -> None:
    cutter = Cutter(10)
    assert cutter.feed(b"one\nre") == [b"one"]
    assert cutter.feed(b"st") == []
    assert cutter.end() == [b"rest"]
    assert cutter.end() == []


@pytest.mark.parametrize("part", [b"part", b"a part that is too long"])
def test_what_comes_after_a_cut_does_not_go_on_from_before(part: bytes) -> None:
    cutter = Cutter(10)
    cutter.feed(part)
    cutter.forget()
    assert cutter.feed(b"new\n") == [b"new"]


def test_nothing_is_kept_of_a_line_that_has_no_end() -> None:
    cutter = Cutter(10)
    assert cutter.feed(bytes(11)) == [bytes(11)]
    for _ in range(1000):
        assert cutter.feed(bytes(1000)) == []
    assert cutter.end() == []
