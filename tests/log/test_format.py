"""How log lines look: nobody can forge one, and each format can be read back."""

import json
import logging
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.log.format import FORMATS, fields


def line(format_name: str, message: str, /, *arguments: object, **values: object) -> str:
    """Return a record as a format writes it."""
    record = logging.LogRecord("gaiod.x", logging.WARNING, __file__, 1, message, arguments, None)
    vars(record).update(fields(**values))
    return FORMATS[format_name]("worker 1").format(record)


def test_text_has_the_time_the_level_the_process_and_the_fields() -> None:
    text = line("text", "closed %s", "it", reason="idle", bytes=12)
    when, _, rest = text.partition(" WARNING ")
    assert len(when) == len("2026-11-23 22:41:07.123")
    assert rest == "worker 1: closed it reason=idle bytes=12"


@pytest.mark.parametrize(
    ("value", "written"),
    [("plain", "plain"), ("", '""'), ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("a=b", '"a=b"'), ("a\nb", '"a\\nb"'),
     ("\x1b[31m", '"\\x1b[31m"'), ("a\\b", '"a\\\\b"'), (None, "None"), (1.5, "1.5")],
)  # fmt: skip
def test_field_is_quoted_where_it_could_be_misread(value: object, written: str) -> None:
    assert line("text", "m", f=value).endswith(f" m f={written}")


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_text_of_anything_has_no_control_character_and_only_indented_further_lines(
    message: str, values: dict[str, str]
) -> None:
    first, *others = line("text", "%s", message, **values).split("\n")
    assert len(others) == message.count("\n")
    assert " worker 1: " in first
    assert all(other.startswith("    ") for other in others)
    for char in "".join([first, *others]):
        assert char == "\t" or not (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029\u202e"), repr(
            char
        )


@pytest.mark.parametrize("format_name", FORMATS)
def test_message_whose_arguments_do_not_fit_is_still_read(format_name: str) -> None:
    text = line(format_name, "%d is odd", "x7")
    assert "%d is odd" in text
    assert "x7" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, [math.nan], {"a": object()}, b"x"])
def test_json_of_a_value_that_json_has_no_word_for_is_text(value: object) -> None:
    back = json.loads(line("json", "m", f=value), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert back["f"] == str(value)


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_json_of_anything_is_one_line_that_can_be_read_back(message: str, values: dict[str, object]) -> None:
    text = line("json", "%s", message, **values)
    assert "\n" not in text
    back = json.loads(text)
    assert back["message"] == message
    assert (back["level"], back["process"], back["logger"]) == ("WARNING", "worker 1", "gaiod.x")
    for key, value in values.items():
        assert value in (back.get(key), back.get(f"field_{key}"))


def test_json_field_does_not_hide_what_the_line_itself_says() -> None:
    back = json.loads(line("json", "m", message="other", level="NONE"))
    assert (back["message"], back["level"]) == ("m", "WARNING")
    assert (back["field_message"], back["field_level"]) == ("other", "NONE")


def test_journald_gets_a_priority_before_every_line() -> None:
    assert line("journald", "a\nb\nc") == "<4>worker 1: a\n<4>    b\n<4>    c"


@pytest.mark.parametrize("format_name", FORMATS)
def test_traceback_follows_the_message(format_name: str) -> None:
    try:
        raise RuntimeError("told to")
    except RuntimeError:
        record = logging.LogRecord("gaiod.x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    text = FORMATS[format_name]("worker 1").format(record)
    assert "failed" in text
    assert "RuntimeError: told to" in text


@pytest.mark.parametrize("format_name", FORMATS)
def test_stack_follows_the_message_when_it_is_asked_for(format_name: str) -> None:
    record = logging.LogRecord("gaiod.x", logging.INFO, __file__, 1, "here", (), None, sinfo="Stack:\n  of calls")
    text = FORMATS[format_name]("worker 1").format(record)
    assert "of calls" in text
    assert (text.count("\n") == 0) == (format_name == "json")
