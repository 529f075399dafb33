"""Where a connection stands: what is pending, who is waited for, and since when."""

import socket
import time
from typing import Any

import pytest

from core.support.groups import BIG, Member, message
from core.support.relaying import fill
from core.support.sockets import NewPair, listen
from core.support.waiting import collect, later, spin
from gaiod.core.connection import RELAY_LIMIT, Conn
from gaiod.core.inspect import buffered_bytes, relay_sink, state_of, waiting_s
from gaiod.core.watcher import Watcher


@pytest.fixture
def conn(watcher: Watcher, tcp_pair: NewPair) -> Conn:
    """A connection whose far end does nothing."""
    return watcher.delegate(tcp_pair()[0])


def _look(conn: Conn) -> dict[str, Any]:
    return state_of(conn, time.monotonic())


def test_nothing_is_pending_on_a_new_connection(conn: Conn) -> None:
    assert _look(conn) == {
        "at_eof": False,
        "is_closing": False,
        "blocked_s": None,
        "reading": None,
        "writing": None,
        "group": None,
    }
    assert (waiting_s(conn, time.monotonic()), buffered_bytes(conn), relay_sink(conn)) == (0.0, 0, None)


def test_read_is_told_with_its_deadline(watcher: Watcher, conn: Conn) -> None:
    conn.read(deadline=later())
    reading = _look(conn)["reading"]
    assert reading["operation"] == "read"
    assert reading["deadline_in_s"] > 0
    conn.cancel()
    conn.read()
    assert _look(conn)["reading"] == {"operation": "read", "deadline_in_s": None}


def test_write_that_the_peer_does_not_take_waits_from_then_on(watcher: Watcher, conn: Conn) -> None:
    conn.write(bytes(64 << 20), deadline=later())
    spin(watcher, lambda: _look(conn)["blocked_s"] is not None)
    now_s = time.monotonic()
    stands = state_of(conn, now_s)
    assert stands["writing"]["operation"] == "write"
    assert stands["writing"]["deadline_in_s"] > 0
    assert stands["blocked_s"] == waiting_s(conn, now_s) > 0
    assert buffered_bytes(conn) == conn.pending_write_bytes > 0


def test_waiting_begins_anew_when_the_peer_takes_something(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    conn.write(bytes(64 << 20))
    spin(watcher, lambda: waiting_s(conn, time.monotonic()) > 0.02)
    sent, stalled_s = conn.bytes_sent, conn.stalled_s(time.monotonic())

    def takes() -> bool:
        far.recv(1 << 20)
        return conn.bytes_sent > sent

    spin(watcher, takes)
    assert conn.stalled_s(time.monotonic()) >= stalled_s > waiting_s(conn, time.monotonic())


def test_connect_and_close_are_told(watcher: Watcher, conn: Conn) -> None:
    with listen() as listener:
        new = watcher.connect(listener.getsockname())
        assert _look(new)["writing"]["operation"] == "connect"
        assert waiting_s(new, time.monotonic()) == 0.0
        collect(watcher, 1)
    conn.write(bytes(64 << 20))
    conn.close()
    assert _look(conn)["is_closing"]


def test_relay_that_flows_holds_nothing(watcher: Watcher, tcp_pair: NewPair) -> None:
    source, far = tcp_pair()
    sink = watcher.delegate(tcp_pair()[0])
    conn = watcher.delegate(source)
    conn.relay_to(sink, limit=1000)
    far.sendall(b"hello")
    spin(watcher, lambda: sink.bytes_sent == 5)
    assert relay_sink(conn) is sink
    assert _look(conn)["reading"] == {
        "operation": "relay",
        "deadline_in_s": None,
        "held_bytes": 0,
        "limit_bytes": 1000,
        "paused_s": None,
    }


def test_relay_whose_sink_takes_nothing_waits_with_what_it_holds(watcher: Watcher, tcp_pair: NewPair) -> None:
    source, far = tcp_pair()
    conn, sink = watcher.delegate(source), watcher.delegate(tcp_pair()[0])
    conn.relay_to(sink)
    fill(watcher, far)
    now_s = time.monotonic()
    reading = state_of(conn, now_s)["reading"]
    assert 0 < reading["held_bytes"] <= reading["limit_bytes"] == RELAY_LIMIT
    assert reading["paused_s"] > 0
    assert waiting_s(conn, now_s) == waiting_s(sink, now_s) > 0
    assert buffered_bytes(conn) == buffered_bytes(sink) == reading["held_bytes"]
    assert state_of(sink, now_s)["blocked_s"] is not None


def test_member_of_a_group_is_told_with_its_topics_and_what_waits(watcher: Watcher, tcp_pair: NewPair) -> None:
    group = watcher.group(limit=4 * BIG, policy="drop_oldest")
    member = Member(watcher, tcp_pair)
    group.add(member.conn, "news")
    group.add(member.conn, "sport")
    before = _look(member.conn)["group"]
    assert before == {
        "topics": ["news", "sport"],
        "waiting_messages": 0,
        "waiting_bytes": 0,
        "limit_bytes": 4 * BIG,
        "policy": "drop_oldest",
        "behind_s": None,
    }
    for number in range(2):
        group.publish(message(number, BIG), "news")
    spin(watcher, lambda: not group.pending_bytes)
    after = _look(member.conn)["group"]
    assert (after["waiting_messages"], after["waiting_bytes"]) == (2, member.conn.pending_write_bytes)
    assert after["behind_s"] >= 0


def test_end_of_the_stream_is_told(watcher: Watcher, tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    conn = watcher.delegate(near)
    conn.read()
    far.shutdown(socket.SHUT_WR)
    collect(watcher, 1)
    assert _look(conn)["at_eof"]
