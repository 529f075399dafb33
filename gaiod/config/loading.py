"""From a file to Settings, or to everything that is wrong with it."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gaiod.config.crosschecks import check_inlets
from gaiod.config.errors import WHOLE_FILE, ConfigErrors, Place, Report
from gaiod.config.handlers import HandlerUse, LoadHandler, check_handlers
from gaiod.config.loops import check_loops
from gaiod.config.schema import check_schema
from gaiod.config.yaml import read_document
from gaiod.settings import ListenerSettings, Settings, default_user_timeout_s

FILE_MAX_BYTES = 1 << 20
"""1MiB holds some 10,000 listeners; a larger file is not a configuration but a mistake."""


def _nobody(what: str) -> None:
    """Tell nobody."""


def load(
    path: str | Path, *, load_handler: LoadHandler | None = None, entering: Callable[[str], None] = _nobody
) -> Settings:
    """Return what the configuration file at `path` says.

    Handlers are imported and made, to check that they are there and accept their options.

    Args:
        path: the file, YAML or JSON; messages repeat it as given.
        load_handler: finds a handler's class by its reference; None: `gaiod.plugins.load_handler`.
        entering: is told what is done next that runs a handler's own code, which may hang or end the process.

    Raises:
        ConfigErrors: anything is wrong with it; all problems at once.
    """
    report = Report(str(path))
    text = _read(Path(path), report)
    report.raise_if_any()
    return loads(
        text, path=str(path), folder=Path(path).absolute().parent, load_handler=load_handler, entering=entering
    )


def loads(
    text: str,
    *,
    path: str = "<string>",
    folder: str | Path | None = None,
    load_handler: LoadHandler | None = None,
    entering: Callable[[str], None] = _nobody,
) -> Settings:
    """Return what the text of a configuration says; like `load`.

    Args:
        text: YAML or JSON.
        path: what messages call it.
        folder: what a handler's `./file.py` is relative to; None: such a handler is refused.
        load_handler: as for `load`.
        entering: as for `load`.

    Raises:
        ConfigErrors: anything is wrong with it; all problems at once.
    """
    report = Report(path)
    document = read_document(text, report)
    given, handlers = None, {}
    if document:
        given = check_schema(document, report)
        where = None if folder is None else Path(folder)
        handlers = check_handlers(document, report, folder=where, load_handler=load_handler, entering=entering)
        check_loops(document, report, handlers)
        check_inlets(document, report, {name: use.inlets for name, use in handlers.items()})
    if given is None or report.errors:
        raise ConfigErrors(report.errors)
    return _settings(given, handlers)


def _read(path: Path, report: Report) -> str:
    """Return the text of a file; empty where it has none, which goes into `report`."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                report.add(WHOLE_FILE, (), "is a device, a FIFO or a socket; give the path of a file: it is read again")
                return ""
            data = file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        report.add(WHOLE_FILE, (), f"{reason}; give the path of a configuration file that can be read")
        return ""
    if len(data) > FILE_MAX_BYTES:
        report.add(WHOLE_FILE, (), "is larger than 1MiB; give a configuration file")
        return ""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = len(data[data.rfind(b"\n", 0, error.start) + 1 : error.start].decode()) + 1
        byte = f"0x{data[error.start]:02x}"
        report.add(Place(line, column), (), f"the byte {byte} is not UTF-8; save the file as UTF-8")
        return ""


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, and do not wait for somebody to write to it: it may be a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _settings(given: dict[str, Any], handlers: dict[str, HandlerUse]) -> Settings:
    listeners = tuple(_listener(name, said, handlers[name]) for name, said in given["listeners"].items())
    return Settings(**{**given, "listeners": listeners})


def _listener(name: str, given: dict[str, Any], handler: HandlerUse) -> ListenerSettings:
    used = {
        "handler": handler.reference,
        "options": handler.options,
        "servers": handler.servers,
        "sources": handler.sources,
        "inlets": handler.inlets,
        "takes_admin_state": handler.takes_admin_state,
        "has_state": handler.has_state,
        "buffer_limit_bytes": handler.buffer_limit_bytes,
    }
    wanted = {"notsent_lowat_bytes": handler.notsent_lowat_bytes}  # unless the file says it, be it nothing at all
    listener = ListenerSettings(name, **{**wanted, **given, **used})
    if "user_timeout_s" in given:
        return listener
    return replace(listener, user_timeout_s=default_user_timeout_s(listener.idle_timeout_s))
