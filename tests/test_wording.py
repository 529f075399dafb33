"""Somebody's text in a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.wording import SHOWN_MAX, printable, quoted, shown


def test_shown_text_is_short_and_on_one_line() -> None:
    assert shown("plain text, ü and 漢") == "plain text, ü and 漢"
    assert shown("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert shown("x" * SHOWN_MAX) == "x" * SHOWN_MAX
    assert shown("x" * (SHOWN_MAX + 1)) == "x" * SHOWN_MAX + "..."


def test_empty_text_is_seen() -> None:
    assert shown("") == '""'


@pytest.mark.parametrize(("text", "words"), [("", '""'), (" a", '" a"'), ("a\n", '"a\\n"')])
def test_quoted_text_shows_its_spaces(text: str, words: str) -> None:
    assert quoted(text) == words


def test_printable_text_keeps_its_length() -> None:
    assert printable("x" * 1000) == "x" * 1000


@given(st.text())
def test_any_text_is_on_one_line_and_bounded(text: str) -> None:
    for words in (shown(text), quoted(text)):
        assert words.isprintable()
        assert len(words) <= SHOWN_MAX + len('"..."')
    assert printable(text).isprintable()
