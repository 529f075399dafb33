"""What the code of a handler's author raised: where it came from, and in words."""

import sys
import traceback
from pathlib import Path

from gaiod.core.errors import GaiodError


class StartError(GaiodError):
    """The `on_start` of a listener's handler raised, or a hook before it was ready: the listener cannot be served.

    The text says where, and what.
    """


def failed_start(
    listener: str, handler: str, kind: type, error: BaseException, *, hook: str = "on_start"
) -> StartError:
    """Return how to say that a hook of a listener's handler, an instance of `kind`, raised before it was ready."""
    what = f"{hook} at {place_of(error, folder_of(kind))} raised {words_of(error)}"
    return StartError(f"listener {listener}, handler {handler}: {what}; see to what it needs, or correct it")


def likeness_of(hook: str, kind: type, error: BaseException) -> str:
    """Return what exceptions have in common that the log needs one of: the hook, their type, and the line of code."""
    return f"{hook} {type(error).__name__} {place_of(error, folder_of(kind))}"


def words_of(error: BaseException) -> str:
    """Return the type of an exception and what it says, were its own methods to raise."""
    return "".join(traceback.format_exception_only(error)).strip()


def folder_of(kind: type) -> str:
    """Return the folder that a class's module is in; empty: it is in no file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return "" if file is None else str(Path(file).parent)


def place_of(error: BaseException, folder: str) -> str:
    """Return where an exception came from, as `file:line`; empty: nobody knows.

    Args:
        error: the exception.
        folder: the author's files are in it: the deepest place there counts, not the library's that was called.
    """
    places = []
    frame = error.__traceback__
    while frame is not None:
        places.append((frame.tb_frame.f_code.co_filename, frame.tb_lineno))
        frame = frame.tb_next
    own = [place for place in places if folder and place[0].startswith(f"{folder}/")] or places
    return f"{own[-1][0]}:{own[-1][1]}" if own else ""
