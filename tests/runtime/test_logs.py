"""How log lines look: nobody can forge one, and each format can be read back."""

import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaiod.runtime import logs
from gaiod.runtime.logs import (
    FORMATS,
    LIMITED_INTERVAL_S,
    LimitedLog,
    LogError,
    RateLimit,
    configure,
    fields,
    lost_lines,
)
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
    handlers, level = root.handlers[:], root.level
    for handler in handlers:
        root.removeHandler(handler)
    yield root
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.handlers = handlers
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


def test_full_disk_neither_stops_a_change_of_the_log_nor_goes_uncounted(
    root_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(LogSettings(file="/dev/full"), role="a")
    logging.getLogger("gaiod.x").info("lost")
    assert lost_lines() == 1
    configure(LogSettings(), role="b")
    logging.getLogger("gaiod.x").info("found")
    assert "b: found" in capfd.readouterr().err


def test_fifo_that_nobody_reads_is_refused_at_once(root_log: logging.Logger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LogError, match="start its reader"):
        configure(LogSettings(file=str(tmp_path / "fifo")), role="a")


def test_log_costs_a_worker_no_heavy_modules() -> None:
    program = "import sys, gaiod.runtime.connlog; print(*{'logging.handlers', 'pickle', 'datetime'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == ""


def test_rate_limit_says_yes_once_an_interval_and_counts_what_it_refused() -> None:
    limit = RateLimit(1.0)
    assert [limit.allows(now_s) for now_s in (100.0, 100.5, 100.9, 101.0, 101.5)] == [True, False, False, True, False]
    assert limit.take_refused() == 3
    assert limit.take_refused() == 0


def test_what_others_can_cause_is_logged_once_an_interval_with_how_often_it_was(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    limited = LimitedLog(logging.getLogger("gaiod.test"), "listener 100%")
    for uid in range(1000):
        limited.tell(logging.WARNING, "stranger", "user %d connected", uid)
    limited.tell(logging.WARNING, "other", "of another kind")
    now_s += LIMITED_INTERVAL_S
    limited.tell(logging.WARNING, "stranger", "user %d connected", 7)
    assert caplog.messages == [
        "listener 100%: user 0 connected",
        "listener 100%: of another kind",
        "listener 100%: user 7 connected (999 more like this before)",
    ]
    assert LIMITED_INTERVAL_S == 1.0


def test_limited_log_is_bounded_whatever_the_kinds_are(caplog: pytest.LogCaptureFixture) -> None:
    """Code that is made while it runs has any number of lines."""
    log = LimitedLog(logging.getLogger("gaiod.x"), "listener a")
    for number in range(10 * logs.KINDS_MAX):
        log.tell(logging.WARNING, f"kind {number}", "it")
    assert len(caplog.messages) == logs.KINDS_MAX + 1
