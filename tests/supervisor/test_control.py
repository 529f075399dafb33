"""The control socket answers in order, one request at a time, whoever else misbehaves."""

import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from core.support.descriptors import descriptors_limited_to
from core.support.waiting import MOMENT_S, TIME_UNIT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaiod import Watcher
from gaiod.supervisor import control as module
from gaiod.supervisor import control_path
from gaiod.supervisor.control import (
    CLIENTS_MAX,
    IDLE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    Reply,
    open_control_socket,
    peer_uid,
)
from gaiod.supervisor.sockets import BindError, bound_address, close_listener
from gaiod.supervisor.verbs import LINE_MAX_BYTES, ControlError, refused, succeeded
from supervisor.support.controls import STATUS, ControlUnderTest
from supervisor.support.users import as_nobody, root_only

STATUS_LINE = b'{"verb": "status"}\n'


@pytest.fixture
def control() -> Iterator[ControlUnderTest]:
    """A control socket in this process, in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder, Watcher() as watcher, ExitStack() as clients:
        os.chmod(folder, 0o755)
        yield ControlUnderTest(watcher, clients, Path(folder) / "control.sock")


def _later(control: ControlUnderTest) -> list[Reply]:
    """Let requests wait; return where their replies come to be."""
    replies: list[Reply] = []
    control.answer = lambda request, reply: replies.append(reply)
    return replies


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
    replies = _later(control)
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
    replies = _later(control)
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


# -- clients that leave, wait, or are too many -----------------------------------------------------------


def test_client_that_left_before_its_answer_is_harmless(
    control: ControlUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    replies = _later(control)
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
    began_s = time.monotonic()

    def drip() -> bool:
        try:
            sock.send(b" ")
        except ConnectionError:
            return True
        return False

    control.step_until(drip, "the end of the connection")
    assert time.monotonic() - began_s < TIME_UNIT


def test_client_that_asks_nothing_is_closed_when_its_time_is_over(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IDLE_TIMEOUT_S == 60.0
    monkeypatch.setattr(module, "IDLE_TIMEOUT_S", 2 * MOMENT_S)
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
    replies = _later(control)
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
    replies = _later(control)
    idle, waiting = control.connect(), control.connect()
    waiting.sendall(STATUS_LINE * 2)
    control.step_until(lambda: replies and control.clients() == 2, "the request")
    control.control.close()
    control.wait_for_end(idle)
    replies[0](succeeded({"n": 1}))
    assert control.receive_line(waiting)["result"] == {"n": 1}
    control.wait_for_end(waiting)
    assert len(replies) == 1
    control.step_until(lambda: control.clients() == 0, "their end")


def test_client_that_was_accepted_with_the_end_is_told_so(control: ControlUnderTest) -> None:
    """Its completion was there already when the socket was closed."""

    def close(request: dict[str, Any], reply: Reply) -> None:
        reply(succeeded({}))
        control.control.close()

    control.answer = close
    first, late = control.connect(), control.connect()
    first.sendall(STATUS_LINE)
    control.step_until(lambda: control.requests, "the request")
    control.receive_line(first)
    control.wait_for_end(first)
    control.step_until(lambda: control.clients() == 0, "the end of the other")
    assert not control.is_open(late)


def test_close_is_for_once_and_for_all(control: ControlUnderTest) -> None:
    control.control.close()
    control.control.close()
    control.step()
    assert control.clients() == 0


# -- who may ---------------------------------------------------------------------------------------------


@root_only
def test_somebody_else_may_look_and_not_touch(control: ControlUnderTest) -> None:
    """Only an operator who opened the socket's mode up gets here."""
    control.path.chmod(0o666)
    with as_nobody():
        sock = control.connect()
    assert control.ask(STATUS, sock)["ok"]
    answer = control.ask({"verb": "reload"}, sock)
    assert answer == refused("reload: not permitted; only root and the daemon's own user may", 77)
    assert [request["verb"] for request in control.requests] == ["status"]


@root_only
def test_somebody_else_cannot_connect(control: ControlUnderTest) -> None:
    with as_nobody(), pytest.raises(PermissionError):
        control.connect()


@root_only
def test_daemons_own_user_may_do_everything_and_so_may_root(control: ControlUnderTest) -> None:
    control.path.chmod(0o666)
    root = control.connect()
    with as_nobody():
        own = control.connect()
        assert control.ask({"verb": "reload"}, own)["ok"]
        assert control.ask({"verb": "reload"}, root)["ok"]


@root_only
def test_user_counts_that_the_daemon_has_now(control: ControlUnderTest) -> None:
    """A daemon that gives its privileges up has bound its sockets before."""
    control.path.chmod(0o666)
    with as_nobody():
        sock = control.connect()
        control.step_until(lambda: control.clients() == 1, "the client")
    assert control.ask({"verb": "reload"}, sock)["status"] == 77
    with as_nobody():
        assert control.ask({"verb": "reload"}, sock)["ok"]


def test_client_that_cannot_be_told_may_look_and_not_touch(
    control: ControlUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "peer_uid", lambda fd: None)
    sock = control.connect()
    assert control.ask(STATUS, sock)["ok"]
    assert control.ask({"verb": "reload"}, sock)["status"] == 77


def test_user_of_a_connection_is_who_connected(control: ControlUnderTest) -> None:
    near, far = socket.socketpair()
    with near, far:
        assert peer_uid(near.fileno()) == os.geteuid()
        assert near.fileno() >= 0


def test_user_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "aix")
    near, far = socket.socketpair()
    with near, far:
        assert peer_uid(near.fileno()) is None


# -- the socket ------------------------------------------------------------------------------------------


def test_socket_is_its_users_alone(control: ControlUnderTest) -> None:
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600


def test_socket_is_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "gaiod"))
    sock = open_control_socket("auto")
    path = tmp_path / "gaiod" / "control.sock"
    assert bound_address(sock) == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    close_listener(sock)


def test_folder_is_not_made_for_a_path_that_was_written_down(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="control: cannot listen on .*; make the folder first"):
        open_control_socket(f"unix:{tmp_path}/no/control.sock")


def test_folder_that_cannot_be_trusted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_path, "SHARED_FOLDER", str(tmp_path))
    folder = tmp_path / f"gaiod-{os.geteuid()}"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(folder))
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BindError, match=r"control: .* is not a folder of user \d+ alone"):
        open_control_socket("auto")


def test_logging_of_the_daemon_is_not_for_clients(control: ControlUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    """Who may connect may still not fill the disk with nonsense."""
    with caplog.at_level(logging.DEBUG):
        for _ in range(10):
            control.ask(b"nonsense\n")
    assert caplog.records == []
