"""Read the configuration in a process of its own.

Validating means importing pydantic, YAML and the handlers' modules. None of that belongs into a
process that supervises for months: handlers could leave threads, patched modules and memory behind,
and code that changed on disk could not be imported a second time.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.operations import OpResult
from gaiod.core.watcher import Watcher
from gaiod.runtime.dispatch import Target
from gaiod.runtime.handler import Handler
from gaiod.runtime.inheritance import ignore_what_is_for_the_supervisor
from gaiod.runtime.plugins import HandlerLoadError, is_file, load_handler
from gaiod.runtime.settings import Settings, settings_from
from gaiod.supervisor.privileges import PrivilegeError, check_is_roots_alone
from gaiod.supervisor.process import die_with_parent

CONFIG_ERROR = 78
NO_PERMISSION = 77
SOFTWARE_ERROR = 70

TIMEOUT_S = 60.0
"""What reading may take while the daemon serves: importing handlers, mostly."""


class PreflightFailed(Exception):
    """The configuration cannot be used; the text says why, a problem a line.

    Attributes:
        status: the exit status that says so.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def read_settings(path: Path) -> Settings:
    """Return what a configuration file says, having read it in a child process, and wait for it.

    Raises:
        PreflightFailed: it cannot be used.
    """
    child, ours = _fork(path)
    with ours, ours.makefile("rb") as stream:
        answer = stream.read()
    return _settings(path, answer, child)


class Preflight(Target):
    """Reads a configuration file in a child process, without waiting; `done` is called once."""

    def __init__(self, watcher: Watcher, path: Path, done: Callable[[Settings | PreflightFailed], None]) -> None:
        super().__init__(self._read, None)
        self._path = path
        self._done = done
        self._answer = bytearray()
        self._child, ours = _fork(path)
        self._deadline_s = time.monotonic() + TIMEOUT_S
        self._is_over = False
        self._conn = watcher.delegate(ours, context=self)
        self._conn.read(deadline=self._deadline_s)

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._answer += bytes(result.buffer)
        conn.read(deadline=self._deadline_s)

    def cancel(self) -> None:
        """End the child; `done` is not called."""
        self._is_over = True
        self._conn.abort()
        os.kill(self._child, signal.SIGKILL)
        _wait(self._child)

    def take(self, result: OpResult) -> None:
        """It has said everything, or takes too long."""
        if self._is_over:
            return
        self._is_over = True
        self._conn.abort()
        if not isinstance(result.error, EOFError):
            os.kill(self._child, signal.SIGKILL)
            _wait(self._child)
            text = f"{self._path}: reading it took longer than {TIMEOUT_S:g} s; a handler must not wait when imported"
            self._done(PreflightFailed(text, SOFTWARE_ERROR))
            return
        try:
            settings = _settings(self._path, bytes(self._answer), self._child)
        except PreflightFailed as failure:
            self._done(failure)
        else:
            self._done(settings)


def _fork(path: Path) -> tuple[int, socket.socket]:
    """Start the child, and return its process and our end of the pair that it answers on."""
    ours, theirs = socket.socketpair()
    obey = die_with_parent()
    child = os.fork()
    if child == 0:
        try:
            if obey is not None:
                obey()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            ignore_what_is_for_the_supervisor()
            # A child that hangs, or leaves processes behind, must not keep listeners open.
            os.closerange(3, theirs.fileno())
            os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
            _answer(path, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)  # whatever happens, this process must not go on as the daemon
    theirs.close()
    return child, ours


def _answer(path: Path, channel: socket.socket) -> None:
    """Read the file, and say what is in it, or what is wrong with it."""
    from gaiod.config import ConfigErrors, load

    answer: dict[str, Any]
    try:
        if os.geteuid() == 0:
            check_is_roots_alone(path)
        answer = {"settings": asdict(load(path, load_handler=_load_handler))}
    except PrivilegeError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        answer = {"errors": str(error), "status": CONFIG_ERROR if is_missing else NO_PERMISSION}
    except ConfigErrors as errors:
        answer = {"errors": str(errors), "status": CONFIG_ERROR}
    except BaseException:
        answer = {"errors": traceback.format_exc(), "status": SOFTWARE_ERROR}
    sys.stdout.flush()
    sys.stderr.flush()
    channel.sendall(json.dumps(answer).encode())


def _load_handler(reference: str) -> type[Handler]:
    """Load a handler, but as root none that others could have written."""
    if os.geteuid() == 0 and is_file(reference):
        try:
            check_is_roots_alone(Path(reference.partition(":")[0]))
        except PrivilegeError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise HandlerLoadError(str(error)) from error  # with its place in the configuration
            raise
    return load_handler(reference)


def _wait(child: int) -> int:
    """Return how a child ended: its exit status, or minus the signal."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:
        return 0  # whoever started us has SIGCHLD ignored: the kernel has forgotten it


def _settings(path: Path, answer: bytes, child: int) -> Settings:
    """Take the child's answer, and its end."""
    status = _wait(child)
    try:
        plain = json.loads(answer)
    except ValueError:
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        text = f"{path}: importing its handlers ended the process {how}; correct them"
        raise PreflightFailed(text, SOFTWARE_ERROR) from None
    if "errors" in plain:
        raise PreflightFailed(plain["errors"], plain["status"])
    return settings_from(plain["settings"])
