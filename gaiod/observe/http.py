"""The HTTP endpoint: a status page, /metrics, /livez and /readyz, on the supervisor's own watcher.

prometheus_client's start_http_server is not for us: it has a thread for every client that is slow,
and listens everywhere by default. Here a client has `REQUEST_TIMEOUT_S` for everything, and there are
`CLIENTS_MAX` of them at most.
"""

import gzip
import logging
import re
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from gaiod.core.connection import Conn
from gaiod.core.errors import ConnClosed, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.log.rate_limit import LimitedLog
from gaiod.observe import exposition
from gaiod.observe.collector import Collector
from gaiod.process.dispatch import Target
from gaiod.version import __version__

log = logging.getLogger("gaiod.metrics")

CLIENTS_MAX = 32
"""A Prometheus, its twin, a load balancer's probes and some people. One more ends the one that has taken
longest: who sends half a request and waits must not keep Prometheus out."""

REQUEST_TIMEOUT_S = 5.0
REQUEST_MAX_BYTES = 8192

HTTP = "http://"
TEXT = "text/plain; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_VERSION = "1.0.0"
"""What is written. Who asks for another one only gets the text format."""

WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
ESCAPED = ("escaping=dots", "escaping=values")
"""Ways to write names that change ours, too: nobody needs them, and the library knows them."""


class Endpoint(Target):
    """Answers one request per connection, and closes it.

    Args:
        watcher: what it runs on.
        collector: what /metrics collects from, and what counts requests.
        is_ready: returns what /readyz says.
        page: returns the status page, which is at /.
    """

    def __init__(
        self, watcher: Watcher, collector: Collector, is_ready: Callable[[], bool], page: Callable[[], "Answer"]
    ) -> None:
        super().__init__(None, None)  # its connections have targets of their own
        self._watcher = watcher
        self._collector = collector
        self._is_ready = is_ready
        self._page = page
        self._listeners: list[Conn] = []
        self._clients: dict[_Client, None] = {}  # the one that has taken longest first
        self._limited = LimitedLog(log)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def open(self, sock: socket.socket) -> None:
        """Serve a listening socket, which is taken over."""
        self._listeners.append(self._watcher.accept(sock, context=self))

    @property
    def has_clients(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._clients)

    def close(self) -> None:
        """Accept no more; who is connected gets an answer."""
        for listener in self._listeners:
            self._watcher.free(listener)
        self._listeners.clear()

    def on_completion(self, result: OpResult) -> None:
        """Take a new client, or the failure of accepting one."""
        if result.operation is not OpType.ACCEPT:
            return
        if result.error is not None:
            if not isinstance(result.error, (ConnClosed, WatcherClosed)):
                self._limited.tell(logging.WARNING, "accept", "accepting failed: %s; trying again", result.error)
            return
        if len(self._clients) >= CLIENTS_MAX:
            next(iter(self._clients)).evict()
        self._clients[_Client(result.conn, self._answer, self._gone, self._limited)] = None

    def _gone(self, client: "_Client") -> None:
        del self._clients[client]

    def _answer(self, method: str, target: str, headers: dict[str, str]) -> "Answer":
        """Return what a request gets, and count it."""
        answer = self._answer_to(method, _path_of(target), headers)
        self._collector.count_scrape(answer.status)
        return answer

    def _answer_to(self, method: str, path: str, headers: dict[str, str]) -> "Answer":
        if method not in ("GET", "HEAD"):
            return Answer(405, "only GET is possible here\n", {"allow": "GET, HEAD"})
        match path:
            case "/":
                return self._page()
            case "/metrics":
                return self._metrics(headers)
            case "/livez":
                return Answer(200, "alive\n")
            case "/readyz":
                return Answer(200, "ready\n") if self._is_ready() else Answer(503, "not ready\n")
            case _:
                return Answer(404, "there is a status page at /, /metrics, /livez and /readyz\n")

    def _metrics(self, headers: dict[str, str]) -> "Answer":
        encode, content_type = _encoder_for(headers.get("accept", ""))
        body = encode(self._registry)
        extra = {"content-type": content_type}
        if _accepts_gzip(headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            extra["content-encoding"] = "gzip"
        return Answer(200, body, extra)


def _path_of(target: str) -> str:
    """Return the path of a request's target, which may be absolute: http://HOST/PATH (RFC 9112, 3.2.2)."""
    if target[: len(HTTP)].lower() == HTTP:
        target = "/" + target[len(HTTP) :].partition("?")[0].partition("/")[2]
    return target.partition("?")[0]


def _wanted(accept: str) -> str:
    """Return of an Accept header what can be had, dearest first (RFC 9110, 12.5.1); the library looks at neither."""
    choices: list[tuple[float, str]] = []
    for choice in accept.split(","):
        name, *rest = [part.strip() for part in choice.split(";")]
        values = dict(part.partition("=")[::2] for part in rest)
        if name != OPENMETRICS or values.get("version", OPENMETRICS_VERSION) == OPENMETRICS_VERSION:
            choices.append((_weight(values.get("q", "1")), choice))
    choices.sort(key=lambda each: -each[0])
    return ",".join(choice for weight, choice in choices if weight > 0)


def _weight(text: str) -> float:
    """Return a weight of a header; one that makes no sense is the usual 1."""
    return float(text) if WEIGHT.fullmatch(text) else 1.0


def _encoder_for(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return how to write the metrics, and the type of that; the text format for a header that makes no sense."""
    try:
        encode, content_type = choose_encoder(_wanted(accept))
        content_type.encode("ascii")
    except (TypeError, ValueError):  # of a version such as 1.x, or one that is not ASCII
        encode, content_type = choose_encoder("")
    if content_type.endswith(ESCAPED):
        return encode, content_type
    is_openmetrics = content_type.startswith(OPENMETRICS)
    return exposition.openmetrics if is_openmetrics else exposition.text, content_type


def _accepts_gzip(accepted: str) -> bool:
    """Tell whether an Accept-Encoding takes gzip (RFC 9110, 12.5.3): a weight of 0 means no."""
    for choice in accepted.lower().split(","):
        name, _, weight = choice.replace(" ", "").partition(";q=")
        if name == "gzip":
            return _weight(weight) > 0
    return False


class Answer:
    """A response: its status, its body, and headers beside the usual ones."""

    def __init__(self, status: int, body: str | bytes, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.body = body.encode() if isinstance(body, str) else body
        self.headers = {
            "content-type": TEXT,
            "server": f"gaiod/{__version__}",
            "content-length": str(len(self.body)),
            "connection": "close",
            **(headers or {}),
        }


class _Client(Target):
    """One connection, from its request to its answer. `answer` makes the answer, `gone` is told of the end."""

    def __init__(
        self,
        conn: Conn,
        answer: Callable[[str, str, dict[str, str]], Answer],
        gone: Callable[["_Client"], None],
        limited: LimitedLog,
    ) -> None:
        super().__init__(self._read, self._written)
        self._answer = answer
        self._gone: Callable[[_Client], None] | None = gone
        self._limited = limited
        self._conn = conn
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_MAX_BYTES)
        self._deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
        self._is_answered = False
        conn.context = self
        conn.read(deadline=self._deadline_s)

    def on_completion(self, result: OpResult) -> None:
        """The client is gone, or too slow."""
        self._end()

    def failed(self, hook: str, conn: Conn | None) -> None:
        """Answering raised: a bug of the daemon's, which must not end it for one request."""
        self._limited.tell(logging.ERROR, "answering", "answering a request failed", traceback=True)
        self.evict()

    def evict(self) -> None:
        """Make room for another client."""
        self._conn.abort()
        self._end()

    def _read(self, conn: Conn, result: OpResult) -> None:
        """Take a part of the request; of what comes behind it, nothing."""
        if self._is_answered:
            conn.read(deadline=self._deadline_s)
            return
        try:
            self._http.receive_data(bytes(result.buffer))
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._send(Answer(error.error_status_hint, f"{error}\n"), with_body=True)
            return
        if isinstance(event, h11.Request) and self._has_long_head(conn):
            self._send(Answer(431, f"a request's head has {REQUEST_MAX_BYTES} bytes at most\n"), with_body=True)
        elif isinstance(event, h11.Request):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            method = event.method.decode("latin-1")
            self._send(self._answer(method, event.target.decode("latin-1"), headers), with_body=method != "HEAD")
        else:
            conn.read(deadline=self._deadline_s)

    def _written(self, conn: Conn, result: OpResult) -> None:
        """The answer is with the kernel. Closing with bytes unread sends a RST, which can overtake it."""
        conn.shutdown_write()
        conn.read(deadline=self._deadline_s)

    def _has_long_head(self, conn: Conn) -> bool:
        return conn.bytes_received - len(self._http.trailing_data[0]) > REQUEST_MAX_BYTES

    def _send(self, answer: Answer, *, with_body: bool) -> None:
        self._is_answered = True
        reason = HTTPStatus(answer.status).phrase
        response: Any = h11.Response(status_code=answer.status, reason=reason, headers=list(answer.headers.items()))
        data = self._http.send(response) or b""
        self._conn.write(data + answer.body if with_body else data, deadline=self._deadline_s)

    def _end(self) -> None:
        if self._gone is not None:
            self._gone(self)
            self._gone = None
            self._conn.close()
