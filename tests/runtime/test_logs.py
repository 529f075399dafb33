"""How log lines look: nobody can forge one, and each format can be read back."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.runtime.logs import FORMATS, LogError, RateLimit, configure, fields
from gaiod.runtime.settings import LogSettings


def line(format_name: str, message: str, /, *arguments: object, **values: object) -> str:
    """Return a record as a format writes it."""
    record = logging.LogRecord("gaiod.x", logging.WARNING, __file__, 1, message, arguments, None)
    vars(record).update(fields(**values))
    return FORMATS[format_name]("worker 1").format(record)


@pytest.fixture
def root_log() -> Iterator[logging.Logger]:
    """The root logger, which is as it was afterwards."""
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    for handler in handlers:
        root.removeHandler(handler)
    yield root
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers, logging.raiseExceptions = handlers, raises
    root.setLevel(level)


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


@given(st.text(), st.text())
def test_text_of_any_message_has_no_control_character_and_only_indented_further_lines(message: str, value: str) -> None:
    first, *others = line("text", "%s", message, f=value).split("\n")
    assert " worker 1: " in first
    assert all(other.startswith("    ") for other in others)
    for char in "".join([first, *others]):
        assert char == "\t" or not (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029"), repr(char)


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


def test_configure_replaces_what_was_configured_before(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(LogSettings(), role="a")
    configure(LogSettings(format="json"), role="b")
    assert len(root_log.handlers) == 1
    logging.getLogger("gaiod.x").info("once")
    (text,) = capfd.readouterr().err.splitlines()
    assert json.loads(text)["process"] == "b"


def test_log_goes_on_as_before_when_a_file_cannot_be_opened(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(LogSettings(), role="a")
    with pytest.raises(LogError, match=r"log\.file: cannot write /no/such/folder/log: No such file or directory"):
        configure(LogSettings(file="/no/such/folder/log"), role="a")
    logging.getLogger("gaiod.x").info("still there")
    assert "still there" in capfd.readouterr().err


def test_rate_limit_says_yes_once_an_interval_and_counts_what_it_refused() -> None:
    limit = RateLimit(1.0)
    assert [limit.allows(now_s) for now_s in (100.0, 100.5, 100.9, 101.0, 101.5)] == [True, False, False, True, False]
    assert limit.take_refused() == 3
    assert limit.take_refused() == 0
