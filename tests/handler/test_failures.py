"""What is said of an exception of a handler's code: the line that its author can change."""

import json
from pathlib import Path

from gaiod import Conn, Handler
from gaiod.handler.failures import failed_start, folder_of, likeness_of, place_of, words_of

HERE = str(Path(__file__).parent)


def _raised(text: str) -> Exception:
    try:
        json.loads(text)  # the line
    except ValueError as error:
        return error
    raise AssertionError("it is JSON")


def _line() -> int:
    return next(
        number for number, line in enumerate(Path(__file__).read_text().splitlines(), 1) if "# the line" in line
    )


def test_place_is_the_deepest_in_the_authors_folder_and_not_in_the_library_that_was_called() -> None:
    error = _raised("{")
    assert place_of(error, HERE) == f"{__file__}:{_line()}"
    assert "json" in place_of(error, ""), "of nobody's folder it is the deepest there is"
    assert "json" in place_of(error, "/nowhere")


def test_place_is_unknown_when_nothing_was_raised() -> None:
    assert place_of(ValueError("made, not raised"), HERE) == ""


def test_folder_is_that_of_the_module() -> None:
    assert folder_of(Handler) == str(Path(folder_of(Conn)).parent / "handler")
    assert folder_of(int) == ""


def test_errors_are_alike_when_hook_type_and_line_are() -> None:
    class Mine(Handler):
        pass

    first, same = likeness_of("on_read", Mine, _raised("{")), likeness_of("on_read", Mine, _raised("["))
    assert first == same
    assert likeness_of("on_open", Mine, _raised("{")) != first
    assert likeness_of("on_read", Mine, UnicodeError()) != first


def test_failed_start_names_listener_handler_place_and_error() -> None:
    class Mine(Handler):
        pass

    text = str(failed_start("front", "/etc/mine.py", Mine, _raised("{")))
    assert text.startswith(
        f"listener front, handler /etc/mine.py: on_start at {__file__}:{_line()} raised json.decoder.JSONDecodeError: "
    )


def test_words_are_found_for_an_error_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

        __repr__ = __str__

    assert "Mute" in words_of(Mute())
    assert words_of(SystemExit("bye")) == "SystemExit: bye"
