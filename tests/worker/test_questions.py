"""What a worker answers about its connections."""

import sys
import time
from typing import Any

import pytest

from gaiod import Conn, Handler
from gaiod.worker.inspect.questions import ORDERS, Questions
from gaiod.worker.inspect.traffic import APART_MIN_S
from gaiod.worker.names import Names
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving


def _questions(*listeners: Serving) -> Questions:
    return Questions([serving.listener for serving in listeners], Names(7))


def _ask(*listeners: Serving, verb: str = "connections", **arguments: Any) -> dict[str, Any]:
    inquiries = _questions(*listeners)
    if verb == "connections":
        arguments = {"listener": None, "sort": "age", "limit": 100, **arguments}
    return inquiries.answer({"verb": verb, **arguments})


def test_row_tells_who_how_long_and_how_much(serve: Serve) -> None:
    serving = serve(Recorder())
    sock = serving.connect()
    assert serving.exchange(sock, b"hello") == b"hello"
    answer = _ask(serving)
    (row,) = answer["connections"]
    host, port = sock.getsockname()
    assert answer["total"] == 1
    assert row["id"].startswith("7-")
    assert (row["listener"], row["peer"]) == ("front", f"{host}:{port}")
    assert (row["received_bytes"], row["sent_bytes"], row["pending_bytes"]) == (5, 5, 0)
    assert 0 <= row["idle_s"] <= row["age_s"]
    assert row["stalled_s"] == 0
    assert (row["phase"], row["server"]) == ("data", None)
    kernel = row["kernel"]
    assert (kernel["send_queue_bytes"], kernel["receive_queue_bytes"]) == (0, 0)
    if sys.platform == "linux":
        assert 0 < kernel["tcp"]["rtt_s"] < 1
        assert 0 < kernel["tcp"]["rttvar_s"] < 1
        assert kernel["tcp"]["retransmits_total"] == 0


def test_row_tells_phase_and_server_as_its_handler_says_them(serve: Serve) -> None:
    class Says(Recorder):
        def phase_of(self, conn: Conn) -> str:
            return "login"

        def server_of(self, conn: Conn) -> str | None:
            return "db:5432"

    serving = serve(Says())
    serving.connect()
    (row,) = _ask(serving)["connections"]
    assert (row["phase"], row["server"]) == ("login", "db:5432")


def test_bytes_that_a_client_does_not_take_are_pending_and_stalled(serve: Serve) -> None:
    class Floods(Handler):
        def on_open(self, conn: Conn) -> None:
            conn.write(bytes(64 << 20))

    serving = serve(Floods())
    serving.connect()
    serving.step_until(lambda: _ask(serving)["connections"][0]["stalled_s"] > 0, "the stall")
    (row,) = _ask(serving)["connections"]
    assert 0 < row["pending_bytes"] < 64 << 20


def test_connections_for_which_most_waits_come_first_when_they_are_asked_for(serve: Serve) -> None:
    class Floods(Handler):
        def on_open(self, conn: Conn) -> None:
            conn.write(bytes(next(sizes)))

    sizes = iter((32 << 20, 128 << 20, 64 << 20))
    serving = serve(Floods())
    for _ in range(3):
        serving.connect()
    serving.step_until(
        lambda: all(row["waiting_s"] > 0 for row in _ask(serving)["connections"]), "all of them being stalled"
    )
    rows = _ask(serving, sort="buffered")["connections"]
    assert [row["buffered_bytes"] >> 20 for row in rows] == sorted([row["buffered_bytes"] >> 20 for row in rows])[::-1]
    assert rows[0]["buffered_bytes"] > 64 << 20


def test_what_moves_most_now_comes_first_from_the_second_look_on(serve: Serve) -> None:
    """Not what has moved most so far."""
    serving = serve(Recorder())
    inquiries = _questions(serving)
    question = {"verb": "connections", "listener": None, "sort": "traffic", "limit": 10}
    old, new = serving.connect(), serving.connect()
    assert serving.exchange(old, bytes(60_000)) == bytes(60_000)
    assert {row["bytes_per_s"] for row in inquiries.answer(question)["connections"]} == {None}
    assert serving.exchange(new, bytes(1000)) == bytes(1000)
    until_s = time.monotonic() + APART_MIN_S
    serving.step_until(lambda: time.monotonic() > until_s, "time for a look of its own")
    rows = inquiries.answer(question)["connections"]
    assert [row["sent_bytes"] for row in rows] == [1000, 60_000]
    assert rows[0]["bytes_per_s"] > rows[1]["bytes_per_s"] == 0
    inquiries.tidy()


def test_oldest_come_first(serve: Serve) -> None:
    serving = serve(Recorder())
    socks = [serving.connect() for _ in range(3)]
    peers = ["{}:{}".format(*sock.getsockname()) for sock in socks]
    assert [row["peer"] for row in _ask(serving)["connections"]] == peers


def test_busiest_come_first_when_they_are_asked_for(serve: Serve) -> None:
    serving = serve(Recorder())
    for size in (10, 30, 20):
        assert serving.exchange(serving.connect(), bytes(size)) == bytes(size)
    assert [row["sent_bytes"] for row in _ask(serving, sort="bytes")["connections"]] == [30, 20, 10]


@pytest.mark.parametrize("sort", ORDERS)
def test_no_more_than_the_limit_are_told_and_all_are_counted(serve: Serve, sort: str) -> None:
    serving = serve(Recorder())
    for _ in range(5):
        serving.connect()
    answer = _ask(serving, sort=sort, limit=2)
    assert (answer["total"], len(answer["connections"])) == (5, 2)


def test_connections_are_those_of_the_listener_that_is_asked_for(serve: Serve) -> None:
    one, two = serve(Recorder(), name="one"), serve(Recorder(), name="two")
    one.connect()
    two.connect()
    assert [row["listener"] for row in _ask(one, two, listener="two")["connections"]] == ["two"]
    assert _ask(one, two)["total"] == 2


def test_connections_of_the_handlers_own_are_not_told(serve: Serve) -> None:
    upstream = serve(Recorder())

    class Dials(Recorder):
        def on_open(self, conn: Conn) -> None:
            super().on_open(conn)
            self.connect(upstream.address)

    serving = serve(Dials())
    serving.connect()
    assert _ask(serving)["total"] == 1


def test_connection_is_ended_when_it_is_killed(serve: Serve) -> None:
    serving = serve(Recorder())
    sock, other = serving.connect(), serving.connect()
    name = _ask(serving)["connections"][0]["id"]
    assert _ask(serving, verb="kill", connection=name) == {"found": True}
    assert serving.is_ended(sock)
    serving.step_until(serving.closes, "the close being counted")
    assert serving.closes() == {"admin": 1}
    assert serving.exchange(other, b"still") == b"still"


def test_connection_that_is_gone_is_not_found(serve: Serve) -> None:
    serving = serve(Recorder())
    assert _ask(serving, verb="kill", connection="3-1") == {"found": False}


def test_question_that_nobody_asks_is_refused(serve: Serve) -> None:
    with pytest.raises(ValueError, match="nonsense: no such question"):
        _ask(serve(Recorder()), verb="nonsense")
