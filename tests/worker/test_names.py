"""The names of connections."""

import socket
from collections.abc import Iterator

import pytest

from gaiod import Conn, Watcher
from gaiod.worker.names import Names

PLACE = {"worker": 1, "generation": 4, "process": 812}


@pytest.fixture
def conn() -> Iterator[Conn]:
    """A connection."""
    near, far = socket.socketpair()
    with Watcher() as watcher, far:
        yield watcher.delegate(near)


def nothing_lives(serial: int) -> bool:
    return False


def test_name_is_made_of_the_workers_number_and_the_connections(conn: Conn) -> None:
    names = Names(3)
    assert names.of(conn) == f"3-{conn.serial}"
    assert names.serial_of(f"3-{conn.serial}") == conn.serial
    assert names.serial_of(f"4-{conn.serial}") is None
    assert names.origin_of(conn) is None
    assert names.told_of(conn) == [3, conn.serial, 1]


def test_name_from_elsewhere_is_the_only_one(conn: Conn) -> None:
    names = Names(3)
    [origin] = names.read([[9, 17, 2]], PLACE, nothing_lives)
    names.keep(conn, origin)
    assert names.of(conn) == "9-17"
    assert names.serial_of("9-17") == conn.serial
    assert names.serial_of(f"3-{conn.serial}") is None
    assert names.told_of(conn) == [9, 17, 3]


def test_connection_has_moved_once_it_is_served(conn: Conn) -> None:
    names = Names(3)
    [origin] = names.read([[9, 17, 2]], PLACE, nothing_lives)
    names.keep(conn, origin)
    assert origin.facts(0.0) is None
    names.came(conn)
    assert origin.moved_s is not None
    facts = {"ago_s": 3.0, "times": 2, "worker": 1, "generation": 4, "process": 812}
    assert origin.facts(origin.moved_s + 3.0) == facts


def test_nothing_is_kept_of_a_connection_that_is_gone(conn: Conn) -> None:
    names = Names(3)
    [origin] = names.read([[9, 17, 2]], PLACE, nothing_lives)
    names.keep(conn, origin)
    names.forget(conn)
    assert names.of(conn) == f"3-{conn.serial}"
    assert names.serial_of("9-17") is None
    names.forget(conn)  # as of one that was never elsewhere


def test_name_of_a_connection_that_is_here_is_refused(conn: Conn) -> None:
    names = Names(3)
    with pytest.raises(ValueError, match=f"a connection 3-{conn.serial} is here already"):
        names.read([[3, conn.serial, 2]], PLACE, lambda serial: serial == conn.serial)
    [origin] = names.read([[9, 17, 2]], PLACE, nothing_lives)
    names.keep(conn, origin)
    for told in ([[9, 17, 3]], [[9, 18, 1], [9, 18, 1]]):
        with pytest.raises(ValueError, match="is here already"):
            names.read(told, PLACE, nothing_lives)


@pytest.mark.parametrize("place", [{}, {**PLACE, "worker": "x"}, {**PLACE, "process": None}])
def test_place_that_makes_no_sense_is_refused(place: dict[str, int]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Names(3).read([[9, 17, 2]], place, nothing_lives)
