"""Read the configuration in a process of its own.

Validating means importing YAML and the handlers' modules. Neither belongs into a process that
supervises for months: handlers could leave threads, patched modules and memory behind, and code that
changed on disk could not be imported a second time. What the child has imported it leaves in an anonymous file, from
which the processes of the generation load it: they run what was checked.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gaiod.addresses import parse_address
from gaiod.core.connection import Conn
from gaiod.core.engine import shares_tickets
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.handler.handler import Handler
from gaiod.kept_code import Recorder
from gaiod.plugins import HandlerLoadError, is_file, load_handler, module_of, pinned
from gaiod.process.dispatch import Target
from gaiod.settings import Settings, settings_from
from gaiod.supervisor.host.privileges import PrivilegeError, check_is_roots_alone
from gaiod.supervisor.processes.fork import end, fork, wait
from gaiod.supervisor.processes.generation import Code

CONFIG_ERROR = 78
NO_PERMISSION = 77
SOFTWARE_ERROR = 70
OS_ERROR = 71

TIMEOUT_S = 60.0
"""What reading may take: importing handlers, mostly."""

PART_BYTES = 65536


def cannot_start(path: Path, error: OSError) -> str:
    """Say that no process can be started to read the configuration."""
    why = f"no process can be started to read it: {error.strerror}"
    return f"{path}: {why}; see the limits on processes and memory (ulimit -u, TasksMax=, pids.max)"


class PreflightFailed(Exception):
    """The configuration cannot be used; the text says why, a problem a line.

    Attributes:
        status: the exit status that says so.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration that can be served: what it says, and the code of its handlers."""

    settings: Settings
    code: Code


def read_configuration(path: Path, *, check_rights: bool = True) -> Checked:
    """Return what a configuration file says, having read it in a child process, and wait for it.

    Args:
        path: the file.
        check_rights: as root, refuse files that others may write.

    Raises:
        PreflightFailed: it cannot be used, or no process can be started to read it.
    """
    try:
        child = _Child(path, check_rights)
    except OSError as error:
        raise PreflightFailed(cannot_start(path, error), OS_ERROR) from error
    deadline_s = time.monotonic() + TIMEOUT_S
    with child.channel as channel:
        try:
            while not child.is_done:
                channel.settimeout(max(0.001, deadline_s - time.monotonic()))
                part = channel.recv(PART_BYTES)
                if not part:
                    break
                child.take(part)
        except TimeoutError:
            raise child.overdue() from None
        except BaseException:  # Ctrl-C
            child.end()
            raise
    return child.checked()


class Preflight(Target):
    """Reads a configuration file in a child process, without waiting; `done` is called once."""

    def __init__(self, watcher: Watcher, path: Path, done: Callable[[Checked | PreflightFailed], None]) -> None:
        super().__init__(self._read, None)
        self._done = done
        self._child = _Child(path, True)
        self._deadline_s = time.monotonic() + TIMEOUT_S
        self._is_over = False
        self._conn = watcher.delegate(self._child.channel, context=self)
        self._conn.read(deadline=self._deadline_s)

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._child.take(bytes(result.buffer))
        if self._child.is_done:
            self._finish()
        else:
            conn.read(deadline=self._deadline_s)

    def cancel(self) -> None:
        """End the child; `done` is not called."""
        self._is_over = True
        self._conn.abort()
        self._child.end()

    def on_completion(self, result: OpResult) -> None:
        """It says no more, or takes too long."""
        if self._is_over:
            return
        if isinstance(result.error, EOFError):
            self._finish()
        else:
            self._is_over = True
            self._conn.abort()
            self._done(self._child.overdue())

    def _finish(self) -> None:
        self._is_over = True
        self._conn.abort()
        try:
            checked = self._child.checked()
        except PreflightFailed as failure:
            self._done(failure)
        else:
            self._done(checked)


class _Child:
    """The process that reads a file. It says, a JSON object a line, what it does next, and at last what it has read.

    Attributes:
        channel: our end of the pair that it answers on.
        is_done: it has said everything.
    """

    def __init__(self, path: Path, check_rights: bool) -> None:
        self.is_done = False
        self._path = path
        self._received = b""
        self._answer: dict[str, Any] = {}
        self._phase = "reading it"
        self._code = Code()
        try:
            self._pid, self.channel = fork(
                lambda channel: _answer(path, channel, check_rights, self._code.fd), [self._code.fd]
            )
        except OSError:
            self._code.close()
            raise

    def take(self, part: bytes) -> None:
        """Take what it has said."""
        *lines, self._received = (self._received + part).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "entering" in said:
                self._phase = said["entering"]
            else:
                self._answer, self.is_done = said, True

    def overdue(self) -> PreflightFailed:
        """End it, because it takes too long; return how to say so."""
        self.end()
        text = f"{self._path}: {self._phase} took longer than {TIMEOUT_S:g} s; a handler must not wait there"
        return PreflightFailed(text, SOFTWARE_ERROR)

    def end(self) -> None:
        """End it."""
        end(self._pid)
        self._code.close()

    def checked(self) -> Checked:
        """Wait for its end, and return what it has read.

        Raises:
            PreflightFailed: nothing that can be used.
        """
        failure = self._failure(wait(self._pid))
        if failure is not None:
            self._code.close()
            raise failure
        self._code.take(self._answer["files"])
        return Checked(settings_from(self._answer["settings"]), self._code)

    def _failure(self, status: int) -> PreflightFailed | None:
        """Return why what it has said cannot be used, now that it has ended; None: it can."""
        if not self.is_done:
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
            text = f"{self._path}: {self._phase} ended the process {how}; correct the handler"
            return PreflightFailed(text, SOFTWARE_ERROR)
        if "errors" in self._answer:
            return PreflightFailed(self._answer["errors"], self._answer["status"])
        return None


def _answer(path: Path, channel: socket.socket, check_rights: bool, code: int) -> None:
    """Read the file, and say what is in it, or what is wrong with it; and write down what was imported."""
    from gaiod.config import ConfigErrors, load

    def say(**values: Any) -> None:
        channel.sendall(json.dumps(values).encode() + b"\n")

    answer: dict[str, Any]
    try:
        if check_rights and os.geteuid() == 0:
            check_is_roots_alone(path)
        recorder = Recorder()
        settings = load(
            path,
            load_handler=_load_handler if check_rights else load_handler,
            entering=lambda what: say(entering=what),
        )
        handlers = {listener.handler for listener in settings.listeners}
        files = {handler: recorder.files_of(module_of(pinned(handler))) for handler in handlers}
        recorder.write(code)
        answer = {"settings": asdict(settings), "files": files}
    except PrivilegeError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        answer = {"errors": str(error), "status": CONFIG_ERROR if is_missing else NO_PERMISSION}
    except ConfigErrors as errors:
        answer = {"errors": str(errors), "status": CONFIG_ERROR}
    except BaseException:
        answer = {"errors": traceback.format_exc(), "status": SOFTWARE_ERROR}
    sys.stdout.flush()
    sys.stderr.flush()
    say(**answer)


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


def tickets_of_one(settings: Settings) -> list[str]:
    """Return what to say of listeners whose TLS tickets are good for one worker only."""
    names = [each.name for each in settings.listeners if each.tls is not None and each.tls.tickets is not None]
    if not names or shares_tickets():
        return []
    return [
        f"TLS clients of {', '.join(names)} can resume their sessions with one worker only, and not after a reload: "
        "this needs the compiled engine, and OpenSSL 1.1.1 or later as a shared library"
    ]


def open_to_all(settings: Settings) -> list[str]:
    """Return what to say of each listener that serves whoever reaches it, at an address that the internet may reach."""
    said = []
    for listener in settings.listeners:
        guarded = listener.tls is not None or listener.access is not None or listener.proxy_protocol is not None
        address = parse_address(listener.bind, listen=True)
        if guarded or address.kind not in ("ipv4", "ipv6"):
            continue
        host = ip_address(address.host)
        if host.is_unspecified or host.is_global:
            said.append(
                f"listener {listener.name} is on {listener.bind} with neither tls nor access, so whoever reaches it is "
                "served unencrypted; add one, or bind an address of your own network"
            )
    return said
