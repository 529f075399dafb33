"""The control socket answers in order, one request at a time, and refuses what is none."""

import json
import os
import socket
import time
from typing import Any

import pytest
from core.support.waiting import TIME_UNIT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaiod.control.protocol import LINE_MAX_BYTES, ControlError, refused, succeeded
from gaiod.supervisor.operators.server import (
    Reply,
)
from supervisor.support.controls import STATUS, STATUS_LINE, ControlUnderTest, hold

# -- what it answers -----------------------------------------------------------------------------------


def test_request_is_answered_with_its_defaults_filled_in(control: ControlUnderTest) -> None:
    answer = control.ask({"verb": "connections", "limit": 7})
    request = {"verb": "connections", "listener": None, "sort": "age", "limit": 7}
    assert answer == {"ok": True, "result": {"echo": request}}


def test_requests_of_a_connection_are_answered_in_order(control: ControlUnderTest) -> None:
    sock = control.connect()
    verbs = ["status", "connections", "reload", "statu", "restart"]
    sock.sendall(b"".join(json.dumps({"verb": verb}).encode() + b"\n" for verb in verbs))
    answers = [control.receive_line(sock) for _ in verbs]
    assert [answer["ok"] and answer["result"]["echo"]["verb"] for answer in answers] == [
        "status", "connections", "reload", False, "restart",
    ]  # fmt: skip


def test_next_request_waits_for_the_answer_to_the_one_before(control: ControlUnderTest) -> None:
    replies = hold(control)
    sock = control.connect()
    sock.sendall(STATUS_LINE * 2)
    control.step_until(lambda: replies, "the first request")
    for _ in range(20):
        control.step()
    assert len(replies) == 1
    replies[0](succeeded({"n": 1}))
    control.step_until(lambda: len(replies) == 2, "the second request")
    replies[1](succeeded({"n": 2}))
    assert [control.receive_line(sock)["result"]["n"] for _ in range(2)] == [1, 2]


def test_one_waits_for_its_answer_and_others_do_not(control: ControlUnderTest) -> None:
    replies = hold(control)
    waiting = control.connect()
    waiting.sendall(b'{"verb": "restart"}\n')
    control.step_until(lambda: replies, "the request")
    control.answer = lambda request, reply: reply(succeeded({}))
    assert control.ask(STATUS)["ok"]
    replies[0](succeeded({"workers": [0]}))
    assert control.receive_line(waiting) == {"ok": True, "result": {"workers": [0]}}


def test_request_is_answered_however_it_arrives(control: ControlUnderTest) -> None:
    sock = control.connect()
    for byte in STATUS_LINE:
        sock.send(bytes([byte]))
        control.step()
    assert control.receive_line(sock)["ok"]


def test_client_that_ends_its_side_still_gets_its_answers(control: ControlUnderTest) -> None:
    """As `nc -N` and `socat` do."""
    sock = control.connect()
    sock.sendall(STATUS_LINE * 3)
    sock.shutdown(socket.SHUT_WR)
    assert [control.receive_line(sock)["ok"] for _ in range(3)] == [True] * 3
    control.wait_for_end(sock)
    assert control.clients() == 0


def test_large_answer_arrives_whole(control: ControlUnderTest) -> None:
    text = "x" * 3_000_000
    control.answer = lambda request, reply: reply(succeeded({"text": text}))
    sock = control.connect()
    sock.sendall(STATUS_LINE)
    received = bytearray()
    until_s = time.monotonic() + 10 * TIME_UNIT
    while not received.endswith(b"\n") and time.monotonic() < until_s:
        try:
            received += sock.recv(1 << 20)
        except BlockingIOError:
            control.step()
    assert json.loads(received)["result"]["text"] == text


# -- what it does not take -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"[1]\n", b"\xff\xfe\x00\n", b"[" * 60_000 + b"\n", b"9" * 60_000 + b"\n"]
)
def test_nonsense_is_refused_and_the_next_request_is_served(control: ControlUnderTest, line: bytes) -> None:
    sock = control.connect()
    answer = control.ask(line, sock)
    assert (answer["ok"], answer["status"]) == (False, 64)
    assert "a request is a line with a JSON object" in answer["error"]
    assert control.ask(STATUS, sock)["ok"]


def test_refused_requests_are_not_handed_on(control: ControlUnderTest) -> None:
    for request in ({"verb": "statu"}, {"verb": "kill"}, {"verb": "status", "x": 1}, {"verb": "drain", "listener": 1}):
        assert control.ask(request)["status"] == 64
    assert control.requests == []


@pytest.mark.parametrize("part", [1000, 1 << 20], ids=["in parts", "at once"])
@pytest.mark.parametrize("ended", [True, False], ids=["complete", "endless"])
def test_request_that_is_too_long_is_refused_and_its_client_closed(
    control: ControlUnderTest, part: int, ended: bool
) -> None:
    data = b" " * (LINE_MAX_BYTES + 1) + b"\n" * ended
    sock = control.connect()
    for start in range(0, len(data), part):
        sock.sendall(data[start : start + part])
        control.step()
    assert control.receive_line(sock) == refused(f"a request has {LINE_MAX_BYTES} bytes at most", 64)
    control.wait_for_end(sock)


def test_request_that_is_just_short_enough_is_served(control: ControlUnderTest) -> None:
    line = STATUS_LINE.rstrip().ljust(LINE_MAX_BYTES) + b"\n"
    sock = control.connect()
    for start in range(0, len(line), 10_000):
        sock.sendall(line[start : start + 10_000])
        control.step()
    assert control.receive_line(sock)["ok"]


def test_client_that_never_stops_sending_is_closed(control: ControlUnderTest) -> None:
    sock = control.connect()
    sent = 0

    def send() -> bool:
        nonlocal sent
        try:
            sent += sock.send(b"x" * 10_000)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return False

    control.step_until(send, "the end of the connection")
    assert sent < 1_000_000
    assert control.receive_line(sock)["status"] == 64


def test_request_without_an_end_is_answered_so(control: ControlUnderTest) -> None:
    sock = control.connect()
    sock.sendall(STATUS_LINE.rstrip())
    sock.shutdown(socket.SHUT_WR)
    assert control.receive_line(sock) == refused("the request has no end: write a newline behind it", 64)
    control.wait_for_end(sock)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.just(STATUS_LINE) | st.just(b"\n"), max_size=8))
def test_control_answers_on_whatever_bytes_it_got(control: ControlUnderTest, parts: list[bytes]) -> None:
    sock = control.connect()
    for part in parts:
        sock.sendall(part)
        control.step(0)
    sock.close()
    with control.connect() as other:
        assert control.ask(STATUS, other)["ok"]
    control.step_until(lambda: control.clients() == 0, "their end")


# -- answers that go wrong -------------------------------------------------------------------------------


def test_answer_that_raises_is_logged_and_its_client_told(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: dict[str, Any], reply: Reply) -> None:
        raise LookupError("no such thing")

    control.answer = fail
    sock = control.connect()
    answer = control.ask(STATUS, sock)
    assert answer == refused("answering failed: a bug; the daemon's log has the traceback", 70)
    assert "LookupError: no such thing" in caplog.text
    assert control.ask({"verb": "statu"}, sock)["status"] == 64


def test_answer_that_refuses_is_a_refusal(control: ControlUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(request: dict[str, Any], reply: Reply) -> None:
        raise ControlError("no listener is called ehco; did you mean echo?", os.EX_USAGE)

    control.answer = refuse
    answer = control.ask({"verb": "drain", "listener": "ehco"})
    assert answer == refused("no listener is called ehco; did you mean echo?", 64)
    assert caplog.text == ""


def test_answer_that_raises_after_replying_has_replied(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    def reply_and_fail(request: dict[str, Any], reply: Reply) -> None:
        reply(succeeded({}))
        raise LookupError("too late")

    control.answer = reply_and_fail
    sock = control.connect()
    assert control.ask(STATUS, sock)["ok"]
    assert control.ask(STATUS, sock)["ok"]
    assert "too late" in caplog.text


def test_second_answer_is_dropped_and_logged(control: ControlUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    def reply_twice(request: dict[str, Any], reply: Reply) -> None:
        reply(succeeded({"n": 1}))
        reply(succeeded({"n": 2}))

    control.answer = reply_twice
    sock = control.connect()
    assert [control.ask(STATUS, sock)["result"]["n"] for _ in range(2)] == [1, 1]
    assert "answered twice" in caplog.text


@pytest.mark.parametrize("value", [b"bytes", float("inf"), float("nan"), {1, 2}], ids=repr)
def test_answer_that_is_not_json_is_a_bug_of_the_daemons(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture, value: object
) -> None:
    control.answer = lambda request, reply: reply(succeeded({"value": value}))
    assert control.ask(STATUS)["status"] == 70
    assert "an answer is not JSON" in caplog.text
