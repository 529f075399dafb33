"""The HTTP endpoint answers few questions, quickly, to whoever asks properly."""

import gzip
import socket
import threading
import time

import pytest
from core.support.descriptors import descriptors_limited_to
from core.support.sockets import reset
from core.support.waiting import MOMENT_S, TIME_UNIT
from e2e.support.clients import parse_openmetrics
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gaiod.observe import http as endpoint_module
from gaiod.observe.http import CLIENTS_MAX, REQUEST_MAX_BYTES, REQUEST_TIMEOUT_S
from observe.support.endpoints import PAGE, EndpointUnderTest, answer_of
from observe.support.slots import value_of

HALF_A_REQUEST = b"GET /metrics HTTP/1.1\r\nhost: x\r\n"
ANSWER_MAX_S = 0.1


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


# -- what it answers -----------------------------------------------------------------------------------


def test_metrics_are_text_when_nothing_else_is_asked_for(endpoint: EndpointUnderTest) -> None:
    answer = endpoint.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert "gaiod_ready" in {family.name for family in parse_text(answer.body.decode())}


def test_metrics_are_openmetrics_when_prometheus_asks(endpoint: EndpointUnderTest) -> None:
    answer = endpoint.ask("/metrics", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "gaiod_ready" in {family.name for family in parse_openmetrics(answer.body.decode())}
    assert answer.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;version=2.0.0, application/openmetrics-text;version=1.0.0;q=0.5", True),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text; q=0.000", False),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=1.0.0;q=0.9", False),
        ("application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=1.0.0;q=0.1", True),
        ("application/openmetrics-text;q=often", True),
    ],
)
def test_format_is_one_that_the_client_takes_and_is_called_what_it_is(
    endpoint: EndpointUnderTest, accept: str, is_openmetrics: bool
) -> None:
    answer = endpoint.ask("/metrics", accept=accept)
    content_type = answer.headers["content-type"]
    assert content_type.startswith("application/openmetrics-text") == is_openmetrics
    assert answer.body.endswith(b"# EOF\n") == is_openmetrics
    assert "version=2" not in content_type


@pytest.mark.parametrize(
    ("escaping", "name"),
    [("underscores", "gaiod_ready"), ("allow-utf-8", "gaiod_ready"), ("dots", "gaiod__ready")],
)
def test_names_are_escaped_as_they_are_asked_for(endpoint: EndpointUnderTest, escaping: str, name: str) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        answer = endpoint.ask("/metrics", accept=f"{kind};version=1.0.0;escaping={escaping}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-type"].endswith(f"escaping={escaping}")
        assert f"\n{name} 1.0\n" in answer.body.decode()


def test_metrics_are_compressed_when_the_client_takes_gzip(endpoint: EndpointUnderTest) -> None:
    answer = endpoint.ask("/metrics", accept_encoding="deflate, gzip;q=0.8")
    assert answer.headers["content-encoding"] == "gzip"
    text = gzip.decompress(answer.body)
    assert b"\ngaiod_ready 1.0\n" in text
    assert len(answer.body) < len(text) / 3


@pytest.mark.parametrize("accepts", ["", "identity", "deflate, br", "gzip;q=0", "gzip; q=0.0"])
def test_metrics_are_not_compressed_when_the_client_does_not_take_gzip(
    endpoint: EndpointUnderTest, accepts: str
) -> None:
    answer = endpoint.ask("/metrics", accept_encoding=accepts)
    assert "content-encoding" not in answer.headers
    assert b"\ngaiod_ready 1.0\n" in answer.body


def test_status_page_is_at_the_root_whatever_is_asked_of_it(endpoint: EndpointUnderTest) -> None:
    for target in ("/", "/?worker=1"):
        answer = endpoint.ask(target)
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/html", PAGE.body)


def test_livez_is_green_while_the_loop_runs(endpoint: EndpointUnderTest) -> None:
    endpoint.daemon.is_ready = False
    assert (endpoint.ask("/livez").status, endpoint.ask("/livez").body) == (200, b"alive\n")


def test_readyz_follows_the_daemon(endpoint: EndpointUnderTest) -> None:
    assert (endpoint.ask("/readyz").status, endpoint.ask("/readyz").body) == (200, b"ready\n")
    endpoint.daemon.is_ready = False
    assert (endpoint.ask("/readyz").status, endpoint.ask("/readyz").body) == (503, b"not ready\n")


@pytest.mark.parametrize("target", ["/status", "/metric", "/metrics/", "/livez/x", "//metrics", "/../etc/passwd", "*"])
def test_other_targets_are_not_found_and_those_there_are_named(endpoint: EndpointUnderTest, target: str) -> None:
    answer = endpoint.ask(target)
    assert answer.status == 404
    assert b"/metrics" in answer.body


def test_query_is_of_no_matter(endpoint: EndpointUnderTest) -> None:
    assert endpoint.ask("/livez?verbose=1").status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:9464/livez", 200),
        ("HTTP://gaiod.example/livez?verbose=1", 200),
        ("http://gaiod.example", 200),
        ("http://gaiod.example?a/livez", 200),
        ("http://gaiod.example/other", 404),
        ("https://gaiod.example/livez", 404),
    ],
)
def test_target_may_be_absolute_as_proxies_are_asked(endpoint: EndpointUnderTest, target: str, status: int) -> None:
    assert endpoint.ask(target).status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
def test_other_methods_are_not_allowed_and_those_that_are_are_named(endpoint: EndpointUnderTest, method: str) -> None:
    answer = endpoint.ask("/metrics", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("target", ["/metrics", "/livez", "/nothing"])
def test_head_gets_the_headers_alone(endpoint: EndpointUnderTest, target: str) -> None:
    answer = endpoint.ask(target, method="HEAD")
    assert answer.status == endpoint.ask(target).status
    assert answer.body == b""
    assert int(answer.headers["content-length"]) > 0


def test_connection_is_closed_after_each_answer_and_says_so(endpoint: EndpointUnderTest) -> None:
    assert endpoint.ask("/livez").headers["connection"] == "close"


def test_http_1_0_is_answered(endpoint: EndpointUnderTest) -> None:
    assert answer_of(endpoint.exchange(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200


def test_request_in_many_parts_is_answered(endpoint: EndpointUnderTest) -> None:
    data = HALF_A_REQUEST + b"\r\n"
    assert answer_of(endpoint.exchange(*_parts(data, 1))).status == 200


def test_answers_are_counted_by_status(endpoint: EndpointUnderTest) -> None:
    endpoint.ask("/livez")
    endpoint.ask("/nothing")
    endpoint.ask("/nothing")
    text = endpoint.ask("/metrics").body.decode()
    counted = {
        sample.labels["code"]: sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == "gaiod_scrapes_total"
    }
    assert counted == {"200": 1, "404": 2}


# -- what it does not take -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [REQUEST_MAX_BYTES + 1, 3 * REQUEST_MAX_BYTES])
@pytest.mark.parametrize("part", [1000, 1 << 20], ids=["in parts", "at once"])
@pytest.mark.parametrize("ended", [True, False], ids=["complete", "endless"])
def test_request_is_refused_when_it_is_too_large(
    endpoint: EndpointUnderTest, size: int, part: int, ended: bool
) -> None:
    """However it arrives: what a proxy in between makes of it must not decide."""
    data = HALF_A_REQUEST + b"x: " + b"y" * size + b"\r\n\r\n" * ended
    assert answer_of(endpoint.exchange(*_parts(data, part))).status in (400, 431)


def test_request_is_answered_when_it_is_just_small_enough(endpoint: EndpointUnderTest) -> None:
    head = HALF_A_REQUEST + b"x: "
    data = head + b"y" * (REQUEST_MAX_BYTES - len(head) - 4) + b"\r\n\r\n"
    assert len(data) == REQUEST_MAX_BYTES
    assert answer_of(endpoint.exchange(*_parts(data, 1000))).status == 200


def test_answer_arrives_when_the_client_sends_a_body_nobody_wants(endpoint: EndpointUnderTest) -> None:
    """Closing with bytes unread makes the kernel send a RST, which can overtake the answer."""
    head = b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n"
    assert answer_of(endpoint.exchange(head + bytes(300_000))).status == 405


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n\r\n", b"nonsense\r\n\r\n", b"GET /metrics HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n"]
)
def test_nonsense_is_refused(endpoint: EndpointUnderTest, data: bytes) -> None:
    """Nonsense, a request without a host, a TLS handshake."""
    assert answer_of(endpoint.exchange(data)).status == 400


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=1.0.0\xe9",
        "\xff",
        "a" * 4000,
    ],
)
def test_accept_header_without_sense_gets_an_answer(endpoint: EndpointUnderTest, accept: str) -> None:
    assert endpoint.ask("/metrics", accept=accept).status in (200, 400)
    assert endpoint.ask("/livez").status == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=300)
    | st.tuples(st.just(b"GET /metrics HTTP/1.1\r\n"), st.binary(max_size=300)).map(b"".join)
)
@example(data=b"GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text; version=\r\n\r\n")
def test_endpoint_answers_on_whatever_bytes_it_got(endpoint: EndpointUnderTest, data: bytes) -> None:
    sock = endpoint.connect()
    sock.sendall(data)
    endpoint.step()
    sock.shutdown(socket.SHUT_WR)
    endpoint.receive_all(sock)
    sock.close()
    assert endpoint.ask("/livez").status == 200


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["accept", "accept-encoding", "expect", "connection", "upgrade", "transfer-encoding", "host"]),
    value=st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=40)
    | st.sampled_from(["application/openmetrics-text;version=", "text/plain;version=", "gzip;q="]).flatmap(
        lambda start: st.text("0123456789.abc;=,\t", max_size=10).map(start.__add__)
    ),
)
def test_endpoint_answers_on_whatever_header_it_got(endpoint: EndpointUnderTest, name: str, value: str) -> None:
    data = f"GET /metrics HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\n\r\n".encode("latin-1")
    assert answer_of(endpoint.exchange(data)).status in (200, 400, 501)
    assert endpoint.ask("/livez").status == 200


# -- clients that take their time ------------------------------------------------------------------------


def test_half_a_request_is_closed_when_its_time_is_over(
    endpoint: EndpointUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REQUEST_TIMEOUT_S == 5.0
    monkeypatch.setattr(endpoint_module, "REQUEST_TIMEOUT_S", 2 * MOMENT_S)
    sock = endpoint.connect()
    sock.sendall(HALF_A_REQUEST)
    began_s = time.monotonic()
    endpoint.step_until(lambda: not endpoint.is_open(sock), "the end of the connection")
    assert time.monotonic() - began_s > 1.9 * MOMENT_S


def test_time_is_over_for_a_client_that_sends_a_byte_now_and_then(
    endpoint: EndpointUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for the request, not for each byte of it."""
    monkeypatch.setattr(endpoint_module, "REQUEST_TIMEOUT_S", 3 * MOMENT_S)
    sock = endpoint.connect()

    def drip() -> bool:
        try:
            sock.send(b"G")
        except ConnectionError:
            return True
        return not endpoint.is_open(sock)

    endpoint.step_until(drip, "the end of the connection")


def test_client_that_does_not_read_its_answer_is_closed_when_its_time_is_over(
    endpoint: EndpointUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 << 20  # more than the kernel takes for one connection
    monkeypatch.setattr(endpoint_module, "REQUEST_TIMEOUT_S", 2 * MOMENT_S)
    monkeypatch.setattr(endpoint_module, "choose_encoder", lambda accept: (lambda registry: bytes(size), "text/plain"))
    sock = endpoint.connect()
    sock.sendall(HALF_A_REQUEST + b"\r\n")
    endpoint.step_until(endpoint.clients, "the client being seen")
    endpoint.step_until(lambda: not endpoint.clients(), "the end of the connection")
    assert 0 < len(endpoint.receive_all(sock)) < size


def test_no_more_than_so_many_clients_are_kept(endpoint: EndpointUnderTest) -> None:
    """One more, and somebody has to go at once; with them all gone there is room again."""
    clients = [endpoint.connect() for _ in range(CLIENTS_MAX)]
    for _ in range(20):
        endpoint.step()
    assert all(endpoint.is_open(sock) for sock in clients)
    clients.append(endpoint.connect())
    endpoint.step_until(lambda: sum(map(endpoint.is_open, clients)) == CLIENTS_MAX, "one being closed")
    for sock in clients:
        sock.close()
    endpoint.step_until(lambda: endpoint.ask("/livez").status == 200, "room")


@pytest.mark.quiet
def test_metrics_answer_at_once_while_300_clients_take_their_time(endpoint: EndpointUnderTest) -> None:
    """Whoever connects and waits must not shut Prometheus out."""
    threads = threading.active_count()
    for _ in range(300):
        endpoint.connect().sendall(HALF_A_REQUEST)
    for _ in range(20):
        endpoint.step()
    began_s = time.monotonic()
    assert endpoint.ask("/metrics").status == 200
    assert time.monotonic() - began_s < ANSWER_MAX_S * TIME_UNIT
    assert threading.active_count() == threads


def test_clients_that_reset_make_room(endpoint: EndpointUnderTest) -> None:
    for _ in range(3 * CLIENTS_MAX):
        sock = endpoint.connect()
        sock.sendall(HALF_A_REQUEST)
        endpoint.step()
        reset(sock)
    assert endpoint.ask("/livez").status == 200


def test_endpoint_answers_again_after_a_lack_of_descriptors(
    endpoint: EndpointUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    sock = endpoint.connect()
    endpoint.step()
    late = socket.socket()
    with descriptors_limited_to(0):
        late.connect(endpoint.address)
        endpoint.step_until(lambda: "accepting failed" in caplog.text, "accept() failing")
    late.sendall(HALF_A_REQUEST + b"\r\n")
    late.setblocking(False)
    assert answer_of(endpoint.receive_all(late)).status == 200
    late.close()
    assert endpoint.is_open(sock)
    assert value_of(endpoint.daemon.collector, "gaiod_ready") == 1
