"""How fast connections are, from two looks at them."""

from typing import cast

import pytest

from gaiod import Conn
from gaiod.testing.conn import ScriptedConn
from gaiod.worker.inspect.traffic import APART_MIN_S, KEPT_S, Traffic


def _conn(serial: int, moved: int, opened_s: float = 0.0) -> Conn:
    return cast(Conn, ScriptedConn(serial=serial, bytes_received=moved, opened_s=opened_s))


def test_rate_is_between_the_look_before_and_now() -> None:
    traffic = Traffic()
    assert not traffic.is_watched
    traffic.look([_conn(1, 100)], 10.0)
    assert traffic.is_watched
    assert traffic.rate(_conn(1, 100), 10.0) is None
    traffic.look([_conn(1, 300)], 12.0)
    assert traffic.rate(_conn(1, 300), 12.0) == 100.0
    traffic.look([_conn(1, 300)], 14.0)
    assert traffic.rate(_conn(1, 300), 14.0) == 0.0


def test_connection_that_came_since_has_moved_all_of_it_since() -> None:
    traffic = Traffic()
    traffic.look([], 10.0)
    traffic.look([_conn(2, 50, opened_s=11.0)], 12.0)
    assert traffic.rate(_conn(2, 50, opened_s=11.0), 12.0) == 25.0
    assert traffic.rate(_conn(3, 50, opened_s=9.0), 12.0) is None, "an older one that was not looked at"


def test_questions_at_the_same_time_are_one_look() -> None:
    traffic = Traffic()
    traffic.look([_conn(1, 0)], 10.0)
    traffic.look([_conn(1, 100)], 11.0)
    traffic.look([_conn(1, 100)], 11.0 + APART_MIN_S / 2)
    assert traffic.rate(_conn(1, 100), 11.0 + APART_MIN_S / 2) == pytest.approx(100 / (1 + APART_MIN_S / 2))


def test_everything_is_forgotten_when_nobody_looks_any_more() -> None:
    traffic = Traffic()
    traffic.look([_conn(1, 0)], 10.0)
    traffic.look([_conn(1, 100)], 11.0)
    traffic.forget(11.0 + KEPT_S)
    assert traffic.is_watched
    traffic.forget(11.1 + KEPT_S)
    assert not traffic.is_watched
    assert traffic.rate(_conn(1, 100), 80.0) is None
