"""The control socket's clients leave, wait, and are too many, and that is nobody else's trouble."""

import socket
import time

import pytest
from core.support.descriptors import descriptors_limited_to
from core.support.waiting import LIMIT_S, MOMENT_S

from gaiod.control.protocol import refused, succeeded
from gaiod.process.dispatch import dispatch
from gaiod.supervisor.operators import server as module
from gaiod.supervisor.operators.server import (
    CLIENTS_MAX,
    IDLE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
)
from supervisor.support.controls import STATUS, STATUS_LINE, ControlUnderTest, hold

# -- clients that leave, wait, or are too many -----------------------------------------------------------


def test_client_that_left_before_its_answer_is_harmless(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    replies = hold(control)
    sock = control.connect()
    sock.sendall(STATUS_LINE * 2)
    control.step_until(lambda: replies, "the request")
    sock.close()
    replies[0](succeeded({}))
    control.step_until(lambda: control.clients() == 0, "its end")
    assert (len(replies), caplog.text) == (1, "")


def test_half_a_request_is_refused_when_its_time_is_over(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REQUEST_TIMEOUT_S == 10.0
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 2 * MOMENT_S)
    sock = control.connect()
    sock.sendall(b'{"verb"')
    assert "half a request" in control.receive_line(sock)["error"]
    control.wait_for_end(sock)


def test_time_is_for_the_request_and_not_for_each_byte_of_it(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 3 * MOMENT_S)
    sock = control.connect()

    def drip() -> bool:
        try:
            sock.send(b" ")
        except ConnectionError:
            return True
        return False

    control.step_until(drip, "the end of the connection")


def test_client_that_asks_nothing_is_closed_when_its_time_is_over(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IDLE_TIMEOUT_S == 60.0
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 20 * MOMENT_S)
    silent, done = control.connect(), control.connect()
    assert control.ask(STATUS, done)["ok"]
    control.wait_for_end(silent)
    control.wait_for_end(done)
    assert control.clients() == 0


def test_time_does_not_run_while_a_client_waits_for_its_answer(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", MOMENT_S)
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", MOMENT_S)
    replies = hold(control)
    sock = control.connect()
    sock.sendall(b'{"verb": "restart"}\n')
    control.step_until(lambda: replies, "the request")
    until_s = time.monotonic() + 4 * MOMENT_S
    control.step_until(lambda: time.monotonic() > until_s, "a while")
    replies[0](succeeded({"workers": []}))
    assert control.receive_line(sock)["ok"]


def test_client_that_does_not_take_its_answer_is_closed_when_its_time_is_over(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 2 * MOMENT_S)
    text = "x" * 20_000_000
    control.answer = lambda request, reply: reply(succeeded({"text": text}))
    sock = control.connect()
    sock.sendall(STATUS_LINE)
    control.step_until(lambda: control.requests, "the request")
    control.step_until(lambda: control.clients() == 0, "the end of the connection")


def test_client_that_is_one_too_many_is_told_so(control: ControlUnderTest) -> None:
    clients = [control.connect() for _ in range(CLIENTS_MAX)]
    control.step_until(lambda: control.clients() == CLIENTS_MAX, "the clients")
    late = control.connect()
    answer = control.receive_line(late)
    assert answer == refused(f"{CLIENTS_MAX} clients are connected already; try again when one is done", 69)
    control.wait_for_end(late)
    assert all(control.ask(STATUS, sock)["ok"] for sock in clients)
    clients[0].close()
    control.step_until(lambda: control.clients() < CLIENTS_MAX, "room")
    assert control.ask(STATUS)["ok"]


def test_client_that_is_one_too_many_and_leaves_at_once_is_harmless(control: ControlUnderTest) -> None:
    clients = [control.connect() for _ in range(CLIENTS_MAX)]
    control.step_until(lambda: control.clients() == CLIENTS_MAX, "the clients")
    for _ in range(50):
        control.connect().close()
        control.step(0)
    assert control.ask(STATUS, clients[0])["ok"]


def test_control_answers_again_after_a_lack_of_descriptors(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    control.step()
    late = socket.socket(socket.AF_UNIX)
    with late, descriptors_limited_to(0):
        late.connect(str(control.path))
        control.step_until(lambda: "accepting failed" in caplog.text, "accept() failing")
    assert control.ask(STATUS)["ok"]


# -- the end ---------------------------------------------------------------------------------------------


def test_close_takes_no_more_clients_and_answers_those_that_wait(control: ControlUnderTest) -> None:
    replies = hold(control)
    idle, waiting = control.connect(), control.connect()
    waiting.sendall(STATUS_LINE * 2)
    control.step_until(lambda: replies and control.clients() == 2, "the request")
    control.control.close()
    control.wait_for_end(idle)
    assert control.control.has_clients
    replies[0](succeeded({"n": 1}))
    assert control.receive_line(waiting)["result"] == {"n": 1}
    control.wait_for_end(waiting)
    assert len(replies) == 1
    control.step_until(lambda: control.clients() == 0, "their end")
    assert not control.control.has_clients


def test_client_that_was_accepted_with_the_end_gets_an_answer_to_one_request(control: ControlUnderTest) -> None:
    """Its completion was there already when the socket was closed, or its request is on the way."""
    early = control.connect()
    control.step_until(lambda: control.clients() == 1, "the client")
    late = control.connect()
    done = control.watcher.wait_io(LIMIT_S)
    control.control.close()
    dispatch(done)
    for sock in (early, late):
        sock.sendall(STATUS_LINE * 2)
        assert control.receive_line(sock)["ok"]
        control.wait_for_end(sock)


def test_request_that_does_not_come_soon_after_the_end_is_not_waited_for(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_REQUEST_S", MOMENT_S)
    half = control.connect()
    half.sendall(STATUS_LINE[:5])
    control.step_until(lambda: control.clients() == 1, "the client")
    control.control.close()
    control.wait_for_end(half)


def test_close_is_for_once_and_for_all(control: ControlUnderTest) -> None:
    control.control.close()
    control.control.close()
    control.step()
    assert control.clients() == 0
