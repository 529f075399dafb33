"""The connection log: which lines there are, what they say, and how many at most."""

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gaiod.core.connection import Conn
from gaiod.core.sockets import peer_text
from gaiod.core.watcher import Watcher
from gaiod.handler.termination import Termination
from gaiod.settings import ConnectionLogSettings
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.names import Names


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), vars(record)["gaiod_fields"]))


@pytest.fixture
def lines() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What the connection log says: (message, fields)."""
    log, handler = logging.getLogger("gaiod.connections"), Lines()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler.lines
    log.removeHandler(handler)


@pytest.fixture
def conn() -> Iterator[Conn]:
    """A connection."""
    near, far = socket.socketpair()
    with Watcher() as watcher, far:
        yield watcher.delegate(near)


class Clock:
    """A clock that stands still."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_closed_says_who_how_much_how_long_and_why(lines: list[tuple[str, dict[str, Any]]], conn: Conn) -> None:
    log = ConnectionLog(ConnectionLogSettings(closed=True), Names(3), lambda lines: None, Clock(conn.opened_s + 1.5))
    idle = Termination("idle", "gaiod", "timeout", "idle_timeout", "data")
    log.closed("echo", conn, "127.0.0.1:80", idle, "192.0.2.9:80")
    assert lines == [
        (
            "connection closed",
            {
                "conn": f"3-{conn.serial}", "listener": "echo", "peer": "127.0.0.1:80", "server": "192.0.2.9:80",
                "received": 0, "sent": 0, "duration_s": 1.5, "stalled_s": 0.0, "reason": "idle", "who": "gaiod",
                "how": "timeout", "cause": "idle_timeout", "phase": "data",
            },
        )
    ]  # fmt: skip


def test_closed_does_not_say_what_there_is_not(lines: list[tuple[str, dict[str, Any]]], conn: Conn) -> None:
    log = ConnectionLog(ConnectionLogSettings(closed=True), Names(3), lambda lines: None)
    log.closed("echo", conn, "127.0.0.1:80", Termination("peer_eof", "client", "fin", phase="data"), None)
    assert "server" not in lines[0][1]
    assert "cause" not in lines[0][1]


def test_moved_says_from_where_and_for_how_long_nothing_moved(
    lines: list[tuple[str, dict[str, Any]]], conn: Conn
) -> None:
    names = Names(3)
    [origin] = names.read([[9, 17, 2]], {"worker": 1, "generation": 4, "process": 812}, lambda serial: False)
    names.keep(conn, origin)
    log = ConnectionLog(ConnectionLogSettings(moved=True), names, lambda lines: None)
    assert log.wants_any
    log.moved("echo", conn, "127.0.0.1:80", 0.0052)
    assert lines == [
        (
            "connection moved",
            {
                "conn": "9-17", "listener": "echo", "peer": "127.0.0.1:80", "from_worker": 1, "from_generation": 4,
                "from_process": 812, "moves": 2, "paused_s": 0.0052,
            },
        )
    ]  # fmt: skip


def test_opened_and_alive_say_who(lines: list[tuple[str, dict[str, Any]]], conn: Conn) -> None:
    log = ConnectionLog(ConnectionLogSettings(opened=True, every_s=1.0), Names(3), lambda lines: None)
    log.opened("echo", conn, "unix")
    log.alive("echo", conn, "unix")
    assert [message for message, _ in lines] == ["connection opened", "connection open"]
    assert lines[1][1]["pending"] == 0


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (ConnectionLogSettings(), (False, False, False)),
        (ConnectionLogSettings(opened=True), (True, False, True)),
        (ConnectionLogSettings(closed=True), (False, True, True)),
        (ConnectionLogSettings(every_s=5.0), (False, False, True)),
    ],
)
def test_what_is_wanted_can_be_asked(settings: ConnectionLogSettings, wanted: tuple[bool, bool, bool]) -> None:
    log = ConnectionLog(settings, Names(1), lambda lines: None)
    assert (log.wants_opened, log.wants_closed, log.wants_any) == wanted


def test_lines_over_the_rate_are_dropped_counted_and_told(lines: list[tuple[str, dict[str, Any]]], conn: Conn) -> None:
    clock = Clock(100.0)
    dropped: list[int] = []
    log = ConnectionLog(ConnectionLogSettings(opened=True, rate=10), Names(1), dropped.append, clock)
    for _ in range(25):
        log.opened("echo", conn, "-")
    assert len(lines) == 10
    assert sum(dropped) == 15
    clock.now_s += 1.0
    log.opened("echo", conn, "-")
    assert lines[10] == ("the connection log exceeded its rate", {"dropped": 15, "rate": 10})
    assert lines[11][0] == "connection opened"
    for _ in range(25):
        log.opened("echo", conn, "-")
    assert len(lines) == 20, "what tells of dropped lines is a line as well"


def test_telling_of_dropped_lines_leaves_the_rate_to_the_lines(
    lines: list[tuple[str, dict[str, Any]]], conn: Conn
) -> None:
    clock = Clock(100.0)
    dropped: list[int] = []
    log = ConnectionLog(ConnectionLogSettings(opened=True, rate=10), Names(1), dropped.append, clock)
    for _ in range(3000):
        clock.now_s += 0.01
        log.opened("echo", conn, "-")
    told = [values["dropped"] for message, values in lines if message == "the connection log exceeded its rate"]
    assert 2 <= len(told) <= 4, "at most every 10 s"
    assert len(lines) - len(told) + sum(dropped) == 3000
    assert sum(dropped) - 1000 < sum(told) <= sum(dropped)
    assert 300 <= len(lines) <= 310 + len(told)


@pytest.mark.parametrize(
    ("address", "text"),
    [(("127.0.0.1", 80), "127.0.0.1:80"), (("::1", 80, 0, 0), "[::1]:80"), ("", "unix"), (b"", "unix"), (None, "-")],
)
def test_peer_is_written_as_in_the_configuration(address: object, text: str) -> None:
    assert peer_text(address) == text
