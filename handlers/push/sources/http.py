"""Messages by HTTP: `POST /TOPIC`, and the body is one message."""

import time
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import h11

from gaiod import Conn, Handler, OpResult, Outlet

from ..options import HttpOptions, OfferedTopics
from .alike import AlikeSource

HEAD_MAX_BYTES = 8192
LINGER_S = 5.0
"""How long a client that was refused may go on sending before it is closed at once."""

TEXT = "text/plain; charset=utf-8"


class HttpSource(AlikeSource):
    """Listens on the loopback or a unix socket, and publishes what is posted there."""

    def __init__(self, options: HttpOptions, topic: str | None, body_max_bytes: int, offered: OfferedTopics) -> None:
        """Make a source.

        Args:
            options: where it listens.
            topic: what the path `/` means; None: nothing.
            body_max_bytes: the longest message.
            offered: what topics there are.
        """
        super().__init__(options, topic, body_max_bytes, offered)
        self.name = options.label
        self.topic = topic
        self.body_max_bytes = body_max_bytes
        self.offered = offered
        self.listens_on = (options.http,)

    def start(self, outlet: Outlet) -> None:
        outlet.serve(self.listens_on[0], HttpHandler(self, outlet))


class Refused(Exception):
    """A request is not carried out."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HttpHandler(Handler):
    """Answers requests. An `Exchange` is the data of each connection."""

    def __init__(self, source: HttpSource, outlet: Outlet) -> None:
        super().__init__()
        self._source = source
        self._outlet = outlet

    def on_open(self, conn: Conn) -> None:
        conn.data = Exchange(self._source, self._outlet)
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        exchange = conn.data
        if exchange.linger_until_s is not None:
            conn.read(deadline=exchange.linger_until_s)
            return
        answers = exchange.feed(bytes(result.buffer))
        if answers:
            conn.write(answers)  # reading goes on once the client has taken them
        else:
            conn.read()

    def on_write(self, conn: Conn, result: OpResult) -> None:
        exchange = conn.data
        if exchange.is_over:
            # Closing with bytes unread sends a RST, which can overtake the answer.
            exchange.linger_until_s = time.monotonic() + LINGER_S
            conn.shutdown_write()
        conn.read(deadline=exchange.linger_until_s)

    def on_eof(self, conn: Conn) -> None:
        conn.close()


class Exchange:
    """The requests of one connection, and the answers to them.

    Attributes:
        is_over: no further request is answered.
        linger_until_s: what comes until then is not looked at; None: it is.
    """

    def __init__(self, source: HttpSource, outlet: Outlet) -> None:
        self.is_over = False
        self.linger_until_s: float | None = None
        self._source = source
        self._outlet = outlet
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX_BYTES)
        self._is_head = False
        self._topic = ""
        self._body: list[bytes] = []
        self._body_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take what has come; return the answers to the requests that are whole."""
        answers = b""
        self._http.receive_data(data)
        while not self.is_over:
            try:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    if self._http.they_are_waiting_for_100_continue:
                        answers += self._send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue"))
                    break
                if event is h11.PAUSED:
                    self._go_on()
                else:
                    answers += self._take(event)
            except h11.RemoteProtocolError as error:
                answers += self._answer(Refused(error.error_status_hint, str(error)))
            except Refused as refused:
                answers += self._answer(refused)
        return answers

    def _go_on(self) -> None:
        """Begin with the next request, if there may be one."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.is_over = True

    def _take(self, event: Any) -> bytes:
        """Take a part of a request; return the answer, if that was all of it.

        Raises:
            Refused: it is no message for anybody.
        """
        match event:
            case h11.Request():
                self._begin(event)
            case h11.Data():
                self._add(bytes(event.data))
            case h11.EndOfMessage():
                return self._publish()
            case h11.ConnectionClosed():
                self.is_over = True
        return b""

    def _begin(self, request: h11.Request) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        self._is_head = request.method == b"HEAD"
        if request.method != b"POST":
            raise Refused(405, "only POST is possible here: POST /TOPIC, and the body is the message", allow="POST")
        if "origin" in headers:
            raise Refused(403, "this is a browser's request: pages of the web must not publish on somebody's machine")
        self._topic = self._topic_of(request.target.decode("latin-1"))
        if "content-length" not in headers and "transfer-encoding" not in headers:
            raise Refused(411, "the request has no Content-Length; send the message as its body")
        if int(headers.get("content-length", "0")) > self._source.body_max_bytes:
            raise self._too_long()
        if self._outlet.is_behind:
            raise Refused(503, "the workers are behind; try again in a second", retry_after="1")
        self._body, self._body_bytes = [], 0

    def _topic_of(self, target: str) -> str:
        if not target.startswith("/") or "?" in target:
            raise Refused(400, "the target is not /TOPIC; write a ? in the name of a topic as %3F")
        try:
            topic = unquote_to_bytes(target[1:]).decode()
        except UnicodeDecodeError:
            raise Refused(400, "the topic is not UTF-8") from None
        if not topic and self._source.topic is None:
            raise Refused(404, "the path names no topic; POST /TOPIC")
        topic = topic or self._source.topic or ""
        try:
            self._source.offered.check(topic)
        except ValueError as error:
            raise Refused(404, str(error)) from None
        return topic

    def _add(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._source.body_max_bytes:
            raise self._too_long()
        self._body.append(data)

    def _too_long(self) -> Refused:
        return Refused(413, f"a message has at most {self._source.body_max_bytes} bytes")

    def _publish(self) -> bytes:
        try:
            self._outlet.publish(b"".join(self._body), self._topic)
        except ValueError as error:
            raise Refused(400, f"the message {error}") from None
        return self._answer(None)

    def _answer(self, refused: Refused | None) -> bytes:
        """Return an answer; a refused request is the connection's last unless all of it has come."""
        status, text, headers = 204, b"", {}
        if refused is not None:
            status, text, headers = refused.status, f"{refused}\n".encode(), refused.headers
            headers = {"content-type": TEXT, "content-length": str(len(text)), **headers}
            if self._http.their_state is not h11.DONE:
                headers["connection"] = "close"
                self.is_over = True
        response: Any = h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase, headers=list(headers.items())
        )
        answer = self._send(response)
        if text and not self._is_head:
            answer += self._send(h11.Data(data=text))
        answer += self._send(h11.EndOfMessage())
        self.is_over = self.is_over or self._http.our_state is h11.MUST_CLOSE
        return answer

    def _send(self, event: Any) -> bytes:
        return self._http.send(event) or b""
