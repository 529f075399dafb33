"""The control socket: commands for a running daemon, on the supervisor's own watcher.

    client -> daemon    {"verb": "status"}
    daemon -> client    {"ok": true, "result": {...}}

Requests of one connection are answered in order and one at a time: the next is looked at when the
answer is with the kernel. Who may connect is the socket file's mode to say (0600). Should somebody
have opened it up, others than root and the daemon's user may still only look.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from gaiod.addresses import Address, parse_address
from gaiod.control.path import FolderError, control_path, make_folder
from gaiod.control.protocol import LINE_MAX_BYTES, VERBS, ControlError, parse_request, refused
from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, DeadlineExceeded, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.log.format import fields
from gaiod.log.rate_limit import LimitedLog
from gaiod.process.dispatch import Target
from gaiod.process.peer_credentials import peer_uid
from gaiod.process.socket_files import UnixListener
from gaiod.supervisor.sockets.bind import BindError, SocketOptions, open_listener

log = logging.getLogger("gaiod.control")

CLIENTS_MAX = 16
"""Some people, and some scripts that wait for a restart."""

REQUEST_TIMEOUT_S = 10.0
"""For the whole of a request from its first byte on, and for taking its answer."""

IDLE_TIMEOUT_S = 60.0
"""Between requests."""

LAST_REQUEST_S = 0.5
"""How long a daemon that was upgraded waits for the requests of clients that it has accepted."""

TOO_SLOW = f"half a request, and the rest did not come within {REQUEST_TIMEOUT_S:g} s"

Reply = Callable[[dict[str, Any]], None]
Answer = Callable[[dict[str, Any], Reply], None]


CONTROL_MODE = 0o600
"""Of the socket's file."""


def open_control_socket(listen: str) -> UnixListener:
    """Open the listening socket, its file with mode 0600 from the first moment on.

    Args:
        listen: `unix:/absolute/path`, or `auto`: where `control_path` says, the folder made if need be.

    Raises:
        BindError: it cannot be opened.
    """
    if listen == "auto":
        path = control_path(os.environ, os.geteuid())
        try:
            make_folder(path, os.geteuid())
        except FolderError as error:
            raise BindError(f"control: {error}") from error
        address = Address("unix", path=path)
    else:
        address = parse_address(listen, listen=True)
    sock = open_listener("control", address, SocketOptions(mode=CONTROL_MODE))
    assert isinstance(sock, UnixListener)
    return sock


class Control(Target):
    """Takes requests, and hands them to `answer` one by one.

    `answer(request, reply)` gets a request that is well-formed and permitted, its defaults filled in. It
    calls `reply` exactly once, at once or later, in the watcher's thread, with what `verbs.succeeded` or
    `verbs.refused` makes. Whether the client is still there is not its business. Instead of replying it may
    raise ControlError; any other exception is a bug, which is logged and answered as one.
    """

    def __init__(self, watcher: Watcher, answer: Answer) -> None:
        super().__init__(None, None)  # its connections have targets of their own
        self._watcher = watcher
        self._answer = answer
        self._socket: Conn | None = None
        self._clients: set[_Client] = set()
        self._limited = LimitedLog(log)

    def open(self, sock: socket.socket) -> None:
        """Serve a listening socket, which is taken over, instead of the one before. Clients that it has go on."""
        if self._socket is not None:
            self._watcher.free(self._socket)
        self._socket = self._watcher.accept(sock, context=self)

    @property
    def has_clients(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._clients)

    def close(self) -> None:
        """Take no more clients; those that are connected get an answer to one more request, if it comes soon."""
        if self._socket is not None:
            self._watcher.free(self._socket)
            self._socket = None
            self._watcher.timer(time.monotonic() + LAST_REQUEST_S, context=self._end_quiet)
        for client in self._clients:
            client.is_last = True

    def _end_quiet(self, result: OpResult) -> None:
        for client in tuple(self._clients):
            client.end_if_quiet()

    def on_completion(self, result: OpResult) -> None:
        """Take a new client, or the failure of accepting one."""
        if result.error is not None:
            if not isinstance(result.error, (ConnClosed, WatcherClosed)):
                self._limited.tell(logging.WARNING, "accept", "accepting failed: %s; trying again", result.error)
        elif len(self._clients) >= CLIENTS_MAX:
            _turn_away(result.conn, f"{CLIENTS_MAX} clients are connected already; try again when one is done")
        else:
            client = _Client(result.conn, self._answer, self._clients.discard, self._limited)
            client.is_last = self._socket is None  # it was accepted as the last
            self._clients.add(client)


class _TurnedAway(Target):
    """The context of a connection that is one too many: it is told so, and nothing comes of it."""

    def __init__(self) -> None:
        super().__init__(None, self._written)

    def on_completion(self, result: OpResult) -> None:
        """It did not wait to be told."""

    def _written(self, conn: Conn, result: OpResult) -> None:
        """It was told."""


_TURNED_AWAY = _TurnedAway()


def _turn_away(conn: Conn, why: str) -> None:
    conn.context = _TURNED_AWAY
    conn.write(_line_of(refused(why, os.EX_UNAVAILABLE)))
    conn.close()


class _Client(Target):
    """One connection: its requests, one after the other. `gone` is told of its end.

    Attributes:
        is_last: after the next answer it ends.
    """

    def __init__(self, conn: Conn, answer: Answer, gone: Callable[["_Client"], None], limited: LimitedLog) -> None:
        super().__init__(self._read, self._written)
        self._conn = conn
        self._answer = answer
        self._gone = gone
        self._limited = limited
        self._uid = peer_uid(conn.fileno())
        self._received = bytearray()
        self._request_until_s: float | None = None  # None: no byte of the next request is there
        self._is_answering = False
        self.is_last = False
        conn.context = self
        self._next()

    def end_if_quiet(self) -> None:
        """End, unless an answer is due."""
        if not self._is_answering:
            self._end()

    def on_completion(self, result: OpResult) -> None:
        """The client is gone, is done, or takes too long."""
        if isinstance(result.error, EOFError) and self._received:
            self._refuse_the_rest("the request has no end: write a newline behind it")
        elif isinstance(result.error, DeadlineExceeded) and result.operation is OpType.READ and self._received:
            self._refuse_the_rest(TOO_SLOW)
        else:
            self._end()

    def failed(self, hook: str, conn: Conn | None) -> None:
        """A bug of the daemon's, which must not end it for one request."""
        self._limited.tell(
            logging.ERROR, "serving", "serving a client failed; its connection is closed", traceback=True
        )
        self._end()

    def _read(self, conn: Conn, result: OpResult) -> None:
        self._received += result.buffer
        self._next()

    def _written(self, conn: Conn, result: OpResult) -> None:
        """The answer is with the kernel."""
        self._is_answering = False
        if self.is_last:
            self._end()
        else:
            self._next()

    def _next(self) -> None:
        """Serve the next request, or wait for the rest of it."""
        now_s = time.monotonic()
        end = self._received.find(b"\n")
        if (end if end >= 0 else len(self._received)) > LINE_MAX_BYTES:
            self._refuse_the_rest(f"a request has {LINE_MAX_BYTES} bytes at most")
        elif end >= 0:
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._request_until_s = None
            self._serve(line)
        elif not self._received:
            self._conn.read(deadline=now_s + IDLE_TIMEOUT_S)
        elif self._request_until_s is None:
            self._request_until_s = now_s + REQUEST_TIMEOUT_S
            self._conn.read(deadline=self._request_until_s)
        elif now_s < self._request_until_s:
            self._conn.read(deadline=self._request_until_s)
        else:  # a byte that is there wins against a deadline, and one now and then would win for hours
            self._refuse_the_rest(TOO_SLOW)

    def _serve(self, line: bytes) -> None:
        self._is_answering = True
        reply = _Once(self._send)
        try:
            request = parse_request(line, may_administer=self._uid in (0, os.geteuid()))
            verb = VERBS[request["verb"]]
            if verb.is_admin and verb.is_logged:
                arguments = {key: value for key, value in request.items() if key != "verb"}
                log.info("user %s asks: %s", self._uid, request["verb"], extra=fields(**arguments))
            self._answer(request, reply)
        except ControlError as error:
            reply(refused(str(error), error.status))
        except Exception:
            self._limited.tell(logging.ERROR, "answering", "answering %r failed", bytes(line[:200]), traceback=True)
            if not reply.is_used:
                reply(refused("answering failed: a bug; the daemon's log has the traceback", os.EX_SOFTWARE))

    def _refuse_the_rest(self, text: str) -> None:
        """Say why, and end: where the next request would begin nobody can tell."""
        self._received.clear()
        self.is_last = self._is_answering = True
        self._send(refused(text, os.EX_USAGE))

    def _send(self, answer: dict[str, Any]) -> None:
        """Send an answer; to a client that has left, nothing is sent."""
        try:
            line = _line_of(answer)
        except (TypeError, ValueError):
            self._limited.tell(logging.ERROR, "json", "an answer is not JSON", traceback=True)
            line = _line_of(refused("the answer is not JSON: a bug; the daemon's log has more", os.EX_SOFTWARE))
        if not self._conn.closed:
            self._conn.write(line, deadline=time.monotonic() + REQUEST_TIMEOUT_S)

    def _end(self) -> None:
        self._gone(self)
        self._conn.abort()


class _Once:
    """What `answer` calls with its answer."""

    def __init__(self, send: Reply) -> None:
        self._send = send
        self.is_used = False

    def __call__(self, answer: dict[str, Any]) -> None:
        if self.is_used:
            log.error("a request was answered twice; the second answer is dropped", stack_info=True)
            return
        self.is_used = True
        self._send(answer)


def _line_of(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, allow_nan=False).encode() + b"\n"
