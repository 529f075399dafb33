"""Read the configuration in a process of its own.

Validating means importing pydantic, YAML and the handlers' modules. None of that belongs into a
process that supervises for months: handlers could leave threads, patched modules and memory behind,
and code that changed on disk could not be imported a second time.
"""

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from gaiod.runtime.settings import ListenerSettings, Settings

CONFIG_ERROR = 78
SOFTWARE_ERROR = 70


class PreflightFailed(Exception):
    """The configuration cannot be used; what is wrong with it is on stderr already.

    Attributes:
        status: the exit status that says so.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def read_settings(path: Path) -> Settings:
    """Return what a configuration file says, having read it in a child process.

    Raises:
        PreflightFailed: it cannot be used.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_read_in_child(path, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    _, wait_status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(wait_status)
    if status not in (0, CONFIG_ERROR, SOFTWARE_ERROR) or (status == 0 and not text):
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        print(f"{path}: importing its handlers ended the process {how}; correct them", file=sys.stderr)
        status = SOFTWARE_ERROR
    if status != 0:
        raise PreflightFailed(status)
    plain = json.loads(text)
    listeners = tuple(ListenerSettings(**listener) for listener in plain.pop("listeners"))
    return Settings(listeners=listeners, **plain)


def _read_in_child(path: Path, writing: int) -> int:
    """Do it, and return the exit status; whatever happens, this process must not go on as the daemon."""
    try:
        from gaiod.config import ConfigErrors, load

        try:
            settings = load(path)
        except ConfigErrors as errors:
            print(errors, file=sys.stderr)
            return CONFIG_ERROR
        with os.fdopen(writing, "w") as pipe:
            json.dump(asdict(settings), pipe)
        return 0
    except BaseException:
        traceback.print_exc()
        return SOFTWARE_ERROR
    finally:
        sys.stderr.flush()
