"""The source http: what is posted is published; everything else gets an answer that helps."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S
from e2e.support.programs import free_port
from feeder.support.outlets import FakeOutlet
from gaiod.handlers.push import Push
from gaiod.handlers.push.options import HttpOptions
from gaiod.handlers.push.sources import http as module
from gaiod.handlers.push.sources import source_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gaiod.plugins import build_options

LIMIT = 1024


class Web:
    """The source on a port, and its clients."""

    def __init__(self, outlet: FakeOutlet, bind: str, **values: Any) -> None:
        options = build_options(Push, {"source": {"http": bind}, "slow_consumer": {"limit": LIMIT}, **values})
        outlet.encode = lambda topic, data: Push.encode_message(options, topic, data)
        self.outlet = outlet
        feed = options.feeds[0]
        assert isinstance(feed, HttpOptions)
        outlet.start(source_of(feed, options, Push.encode_message))
        self.address = outlet.addresses[-1]
        self._ends = ExitStack()

    def connect(self) -> socket.socket:
        """Return a client."""
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        self._ends.callback(sock.close)
        sock.settimeout(LIMIT_S)
        sock.connect(self.address)
        return sock

    def receive(self, sock: socket.socket, is_enough: Callable[[bytes], object]) -> bytes:
        """Return what comes until it is enough, or the end of the stream."""
        received = bytearray()
        sock.setblocking(False)

        def look() -> bool:
            try:
                part = sock.recv(65536)
            except BlockingIOError:
                return False
            received.extend(part)
            return not part or bool(is_enough(bytes(received)))

        self.outlet.step_until(look, "an answer")
        sock.settimeout(LIMIT_S)
        return bytes(received)

    def ask(self, request: bytes) -> bytes:
        """Send all of a connection's requests, and return all the answers."""
        sock = self.connect()
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        return self.receive(sock, lambda _: False)

    def post(self, target: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
        """Send one request, and return the answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *headers, "", ""]
        return self.ask("\r\n".join(lines).encode() + body)

    def close(self) -> None:
        """Close the clients."""
        self._ends.close()


Start = Callable[..., Web]


@pytest.fixture
def start(outlet: FakeOutlet) -> Iterator[Start]:
    """A starter of sources on a free port, with other options of the listener as plain values."""
    with ExitStack() as stack:

        def start(bind: str = "", **values: Any) -> Web:
            web = Web(outlet, bind or f"127.0.0.1:{free_port()}", **values)
            stack.callback(web.close)
            return web

        yield start


def status(answer: bytes) -> int:
    """Return the status of the first answer."""
    return int(answer.split(b" ", 2)[1])


def text(answer: bytes) -> str:
    """Return the body of the only answer."""
    return answer.partition(b"\r\n\r\n")[2].decode()


# -- publishing ----------------------------------------------------------------------------------------------


def test_body_is_published_under_the_topic_of_the_path(outlet: FakeOutlet, start: Start) -> None:
    answer = start(subscribe={}).post("/news/sport", b"1:0")
    assert status(answer) == 204
    assert text(answer) == ""
    outlet.expect(("news/sport", b"1:0"))


@pytest.mark.parametrize(("target", "topic"), [("/", "ticks"), ("/ticks", "ticks"), ("/%74icks", "ticks")])
def test_path_alone_is_the_listeners_topic(outlet: FakeOutlet, start: Start, target: str, topic: str) -> None:
    assert status(start(topic="ticks").post(target, b"a")) == 204
    outlet.expect((topic, b"a"))


def test_topic_is_percent_decoded(outlet: FakeOutlet, start: Start) -> None:
    assert status(start(subscribe={}).post("/%C3%A4%3F%2F", b"a")) == 204
    outlet.expect(("ä?/", b"a"))


def test_chunked_body_is_one_message(outlet: FakeOutlet, start: Start) -> None:
    head = b"POST /default HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(start().ask(head + b"3\r\none\r\n2\r\n-2\r\n0\r\n\r\n")) == 204
    outlet.expect(("default", b"one-2"))


def test_one_connection_carries_many_requests_one_after_the_other(outlet: FakeOutlet, start: Start) -> None:
    web = start()
    sock = web.connect()
    for number in range(3):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d" % number)
        assert status(web.receive(sock, lambda answer: answer.endswith(b"\r\n\r\n"))) == 204
    outlet.expect_lines("default", b"0", b"1", b"2")


def test_requests_that_do_not_wait_for_answers_are_answered_in_order(outlet: FakeOutlet, start: Start) -> None:
    web = start()
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
    bodies = [b"one", b"two\nlines", b"three"]
    answers = web.ask(b"".join(ask % (len(body), body) for body in bodies))
    assert [int(part[9:12]) for part in answers.split(b"\n") if part.startswith(b"HTTP/1.1")] == [204, 400, 204]
    outlet.expect_lines("default", b"one", b"three")


def test_request_in_single_bytes_is_a_request(outlet: FakeOutlet, start: Start) -> None:
    web = start()
    sock = web.connect()
    for byte in b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none":
        sock.sendall(bytes([byte]))
        outlet.step()
    assert status(web.receive(sock, lambda answer: answer)) == 204
    outlet.expect_lines("default", b"one")


def test_client_that_waits_for_100_continue_gets_it(outlet: FakeOutlet, start: Start) -> None:
    web = start()
    sock = web.connect()
    sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert web.receive(sock, lambda answer: answer) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(b"one")
    assert status(web.receive(sock, lambda answer: answer)) == 204
    outlet.expect_lines("default", b"one")


def test_old_client_is_answered_and_closed(outlet: FakeOutlet, start: Start) -> None:
    answer = start().ask(b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na")
    assert status(answer) == 204
    assert b"connection: close" in answer.lower()
    outlet.expect_lines("default", b"a")


def test_real_client_over_a_unix_socket_is_served(outlet: FakeOutlet, start: Start, tmp_path: Path) -> None:
    web = start(f"unix:{tmp_path / 'publish.sock'}")
    statuses = []

    def post() -> None:
        client = http.client.HTTPConnection("localhost", timeout=LIMIT_S)
        client.sock = web.connect()
        for body in ("one", "two"):
            client.request("POST", "/default", body)
            statuses.append(client.getresponse().read() == b"")
        client.close()

    thread = threading.Thread(target=post)
    thread.start()
    outlet.expect_lines("default", b"one", b"two")
    outlet.step_until(lambda: not thread.is_alive(), "the end of the client")
    thread.join()
    assert statuses == [True, True]


# -- refusing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected", "message"),
    [
        ("/news", 404, "there is no topic news: every subscriber gets default"),
        ("/a%20b", 404, "a b is not a topic; write a name without spaces and special characters"),
        ("/a?b", 400, "the target is not /TOPIC; write a ? in the name of a topic as %3F"),
        ("http://a/b", 400, "the target is not /TOPIC; write a ? in the name of a topic as %3F"),
        ("/%ff", 400, "the topic is not UTF-8"),
    ],
)
def test_target_that_is_no_topic_here_is_refused(
    outlet: FakeOutlet, start: Start, target: str, expected: int, message: str
) -> None:
    answer = start().post(target, b"a")
    assert (status(answer), text(answer)) == (expected, message + "\n")
    assert outlet.messages == []


def test_path_without_a_topic_is_refused_where_clients_choose_topics(start: Start) -> None:
    answer = start(subscribe={}).post("/", b"a")
    assert (status(answer), text(answer)) == (404, "the path names no topic; POST /TOPIC\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "CONNECT", "OPTIONS"])
def test_only_post_is_possible(start: Start, method: str) -> None:
    answer = start().post("/", method=method)
    assert status(answer) == 405
    assert b"allow: POST" in answer


def test_message_without_a_length_is_refused(start: Start) -> None:
    answer = start().ask(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (status(answer), text(answer)) == (411, "the request has no Content-Length; send the message as its body\n")


@pytest.mark.parametrize("kind", ["length", "chunks", "expect"])
def test_message_that_is_too_long_is_refused_and_the_client_gets_to_know(
    outlet: FakeOutlet, start: Start, kind: str
) -> None:
    web = start()
    sock = web.connect()
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    if kind == "chunks":
        sock.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n800\r\n" + bytes(0x800))
    else:
        sock.sendall(head + b"Content-Length: 100000\r\n" + b"Expect: 100-continue\r\n" * (kind == "expect") + b"\r\n")
    answer = web.receive(sock, lambda _: False)
    assert (status(answer), text(answer)) == (413, "a message has at most 1024 bytes\n")
    assert b"connection: close" in answer
    sock.sendall(bytes(50_000))  # it was sending, and is not reset for that before it has read the answer
    sock.shutdown(socket.SHUT_WR)
    outlet.step_until(lambda: outlet.clients() == 0, "the end")
    assert outlet.messages == []


def test_message_that_fits_only_without_its_frame_is_refused(outlet: FakeOutlet, start: Start) -> None:
    answer = start().post("/", bytes(LIMIT))
    assert (status(answer), text(answer)) == (
        400,
        "the message has 1025 bytes with its frame; at most 1024 are possible\n",
    )
    assert outlet.refused == 1


def test_nothing_is_taken_while_workers_are_behind(outlet: FakeOutlet, start: Start) -> None:
    web = start()
    outlet.be_behind(True)
    answer = web.post("/", b"a")
    assert (status(answer), text(answer)) == (503, "the workers are behind; try again in a second\n")
    assert b"retry-after: 1" in answer
    outlet.be_behind(False)
    assert status(web.post("/", b"a")) == 204


def test_page_of_the_web_cannot_publish(outlet: FakeOutlet, start: Start) -> None:
    """A browser on this machine would send it: to 127.0.0.1, without asking anybody."""
    assert status(start().post("/", b"a", "Origin: https://example.org")) == 403
    assert outlet.messages == []


def test_client_that_was_refused_and_goes_on_sending_is_closed_in_the_end(
    outlet: FakeOutlet, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_S", MOMENT_S)
    web = start()
    sock = web.connect()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status(web.receive(sock, lambda _: False)) == 405
    outlet.step_until(lambda: outlet.clients() == 0, "the end")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x00\xff\xfe\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /" + b"x" * 20_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(80), 400),  # TLS
    ],
)
def test_what_is_no_request_is_answered_and_closed(
    outlet: FakeOutlet, start: Start, request_: bytes, expected: int
) -> None:
    answer = start().ask(request_)
    assert status(answer) == expected
    outlet.step_until(lambda: outlet.clients() == 0, "the end")
    assert outlet.messages == []


def test_request_that_ends_in_the_middle_publishes_nothing(outlet: FakeOutlet, start: Start) -> None:
    assert start().ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab") == b""
    outlet.step_until(lambda: outlet.clients() == 0, "the end")
    assert outlet.messages == []


# -- any bytes -----------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [b"POST /default HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"Host: a\r\n", b"Content-Length: 3\r\n", b"\r\n", b"abc",
     b"Transfer-Encoding: chunked\r\n", b"3\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n", b"\n", b"Upgrade: x\r\n",
     b"Connection: close\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"HEAD / HTTP/1.1\r\n"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=20), max_size=20), st.integers(1, 40))
def test_any_bytes_in_any_pieces_get_answers_or_nothing(pieces: list[bytes], size: int) -> None:
    """Never an exception: it would be an error in the log that a client can cause."""
    options = build_options(Push, {"source": {"http": "127.0.0.1:1"}})
    published: list[bytes] = []

    class Outlet:
        is_behind = False

        def publish(self, data: bytes, topic: str) -> None:
            Push.encode_message(options, topic, data)
            published.append(data)

    source = source_of(options.feeds[0], options, Push.encode_message)
    exchange = module.Exchange(source, Outlet())
    data = b"".join(pieces)
    answers = b""
    for start in range(0, len(data), size):
        if not exchange.is_over:
            answers += exchange.feed(data[start : start + size])
    assert answers == b"" or answers.startswith(b"HTTP/1.1 ")
    assert answers.count(b"HTTP/1.1 204") == len(published)
