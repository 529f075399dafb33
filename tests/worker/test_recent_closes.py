"""What is remembered of connections that have closed."""

import tracemalloc
from typing import cast

import pytest

from gaiod import Conn, ProxyHeader, Termination
from gaiod.core.sockets import name_of_peer
from gaiod.testing.conn import ScriptedConn
from gaiod.worker.inspect import recent_closes as module
from gaiod.worker.inspect.recent_closes import RecentCloses

NAME = name_of_peer(("192.0.2.1", 5000))


IDLE = Termination("idle", "gaiod", "timeout", "idle_timeout", "data")


def _add(
    recent_closes: RecentCloses,
    serial: int,
    termination: Termination = IDLE,
    server: str | None = None,
    header: ProxyHeader | None = None,
) -> None:
    conn = ScriptedConn(serial=serial, bytes_received=7, bytes_sent=9, opened_s=10.0, proxy_header=header)
    recent_closes.add((3, serial), "front", cast(Conn, conn), NAME, termination, server=server, now_s=70.0)


def test_what_is_remembered_is_told() -> None:
    recent_closes = RecentCloses()
    _add(recent_closes, 5, server="192.0.2.9:80")
    assert recent_closes.find("3-5", 75.0) == {
        "listener": "front",
        "peer": "192.0.2.1:5000",
        "server": "192.0.2.9:80",
        "reason": "idle",
        "who": "gaiod",
        "how": "timeout",
        "cause": "idle_timeout",
        "phase": "data",
        "closed_ago_s": 5.0,
        "age_s": 60.0,
        "received_bytes": 7,
        "sent_bytes": 9,
    }
    assert recent_closes.find("3-6", 75.0) is None
    assert recent_closes.find("3-0", 75.0) is None
    assert recent_closes.find("4-5", 75.0) is None


def test_ends_for_the_same_reason_are_told_apart_by_who_how_where_and_with_which_server() -> None:
    recent_closes = RecentCloses()
    ends = [
        (Termination("no_server", "server", "error", "down", "queue"), None),
        (Termination("no_server", "gaiod", "timeout", "queue_timeout", "queue"), "a:1"),
        (Termination("no_server", "server", "error", "connect_refused", "connect"), "b:1"),
    ]
    for serial, (termination, server) in enumerate(ends * 2, 1):
        _add(recent_closes, serial, termination, server)
    for serial, (termination, server) in enumerate(ends * 2, 1):
        found = recent_closes.find(f"3-{serial}", 80.0)
        assert found is not None
        assert (found["who"], found["how"], found["cause"], found["phase"], found["server"]) == (
            termination.who, termination.how, termination.cause, termination.phase, server,
        )  # fmt: skip


def test_oldest_is_forgotten_for_the_newest() -> None:
    recent_closes = RecentCloses(3)
    for serial in range(1, 5):
        _add(recent_closes, serial)
    assert [serial for serial in range(1, 5) if recent_closes.find(f"3-{serial}", 80.0)] == [2, 3, 4]


def test_memory_is_that_of_the_ring_however_many_close() -> None:
    tracemalloc.start()
    try:
        recent_closes = RecentCloses(100)
        ring_bytes = tracemalloc.get_traced_memory()[0]
        assert ring_bytes < 100 * module.ENTRY.size + 4096
        _add(recent_closes, 1)
        before = tracemalloc.get_traced_memory()[0]
        for serial in range(2, 1000):
            _add(recent_closes, serial)
        assert tracemalloc.get_traced_memory()[0] < before + 20_000, "998 more of them take nothing"
    finally:
        tracemalloc.stop()


def test_client_behind_a_balancer_is_who_was_announced() -> None:
    recent_closes = RecentCloses()
    _add(recent_closes, 1, header=ProxyHeader(("2001:db8::9", 443), ("::1", 1)))
    found = recent_closes.find("3-1", 80.0)
    assert found is not None
    assert found["peer"] == "[2001:db8::9]:443"


def test_reason_of_a_handlers_own_is_kept_and_too_many_of_them_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_MAX", 2)
    recent_closes = RecentCloses()
    for serial, reason in enumerate(("bored", "tired"), 1):
        _add(recent_closes, serial, Termination(reason))
    found = [recent_closes.find(f"3-{serial}", 80.0) for serial in (1, 2)]
    assert [each and each["reason"] for each in found] == ["bored", "handler"]


def test_many_servers_do_not_cost_a_listener_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_MAX", 3)
    recent_closes = RecentCloses()
    for serial, server in enumerate(("one", "two"), 1):
        _add(recent_closes, serial, server=server)
    found = [recent_closes.find(f"3-{serial}", 80.0) for serial in (1, 2)]
    assert [each and (each["listener"], each["server"]) for each in found] == [("front", "one"), ("front", "two")]
