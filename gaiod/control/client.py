"""The other end of the control socket: ask a running daemon, and wait for its answer."""

import json
import os
import select
import socket
from typing import Any

from gaiod.addresses import UNIX
from gaiod.control.path import FolderError, check_folder, control_path
from gaiod.control.protocol import QUICK_S, VERBS, ControlError, json_of


def ask(path: str | None, verb: str, **arguments: Any) -> dict[str, Any]:
    """Return the result of one request. It blocks, for as long as the verb may take (`verbs.VERBS`).

    Args:
        path: of the control socket, `unix:` before it or not; None: where `control_path` says.
        verb: what to do; the daemon knows whether it exists.
        arguments: of the verb.

    Raises:
        ControlError: no daemon is there, or it refused, or it did not answer.
    """
    with Conversation(path) as conversation:
        return conversation.ask(verb, **arguments)


class Conversation:
    """Requests to a running daemon, one after the other, over one connection.

    A daemon hangs up on a client that asks nothing for a minute, and when it is replaced by another: then the next
    request goes over a connection of its own.
    """

    def __init__(self, path: str | None) -> None:
        """Begin; nobody is connected to yet. `path` as for `ask`."""
        self._path = path
        self._sock: socket.socket | None = None

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Return the result of a request, as `ask`."""
        path = _default_path() if self._path is None else self._path.removeprefix(UNIX)
        if self._sock is not None and select.select([self._sock], [], [], 0)[0]:
            self.close()  # its end: there is nothing else to be told
        if self._sock is None:
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._sock.settimeout(QUICK_S)
            _connect(self._sock, path)
        self._sock.settimeout(VERBS[verb].timeout_s if verb in VERBS else QUICK_S)
        line = _exchange(self._sock, json_of({"verb": verb, **arguments}) + b"\n", path)
        if not line.endswith(b"\n"):
            raise ControlError(
                f"gaiod on {path} closed the connection without an answer: it ended meanwhile, or it is not gaiod; "
                "see its log",
                os.EX_UNAVAILABLE,
            )
        return _result_of(line, path)

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _default_path() -> str:
    path = control_path(os.environ, os.geteuid())
    try:
        check_folder(path, os.geteuid())
    except FolderError as error:
        raise ControlError(str(error), os.EX_NOPERM) from error
    return path


def _connect(sock: socket.socket, path: str) -> None:
    """Connect: at once or not at all, as the kernel does it for a unix socket with a timeout."""
    try:
        sock.connect(path)
    except BlockingIOError as error:
        raise ControlError(
            f"gaiod on {path} accepts no connections: it hangs, or is stopped; see its log", os.EX_TEMPFAIL
        ) from error
    except PermissionError as error:
        raise ControlError(
            f"not permitted to connect to {path}: only root and the user gaiod runs as may", os.EX_NOPERM
        ) from error
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise ControlError(
            f"no gaiod listens on {path}: is it running? --control names another socket", os.EX_UNAVAILABLE
        ) from error
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error  # the path is too long, say
        raise ControlError(f"cannot connect to {path}: {why}; --control names another socket", os.EX_USAGE) from error


def _exchange(sock: socket.socket, request: bytes, path: str) -> bytes:
    """Return the line that answers a request, or what there is of it."""
    received = bytearray()
    try:
        try:
            sock.sendall(request)
        except BrokenPipeError:
            pass  # turned away: the answer that says why is there already
        while not received.endswith(b"\n") and (part := sock.recv(65536)):
            received += part
    except TimeoutError as error:
        raise ControlError(
            f"gaiod on {path} did not answer within {sock.gettimeout():g} s: it is busy, or hangs; see its log",
            os.EX_TEMPFAIL,
        ) from error
    except ConnectionResetError:
        pass  # it closed with our request unread
    return bytes(received)


def _result_of(line: bytes, path: str) -> dict[str, Any]:
    """Return the result of an answer that is one."""
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return dict(answer["result"])
        error = ControlError(str(answer["error"]), int(answer["status"]))
    except (ValueError, KeyError, TypeError) as problem:
        raise ControlError(
            f"what answers on {path} is not gaiod; --control names another socket", os.EX_PROTOCOL
        ) from (problem)
    raise error
