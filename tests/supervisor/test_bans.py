"""Whom an operator has banned: until when, and how many there may be."""

import pytest

from gaiod.supervisor.processes import bans as module
from gaiod.supervisor.processes.bans import Bans


class Clock:
    """`time.monotonic()`, as the test wants it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_ban_ends_when_its_time_is_over_or_not_by_itself(clock: Clock) -> None:
    bans = Bans()
    bans.add("10.0.0.0/8", 10.0)
    bans.add("192.0.2.7/32", None)
    clock.now_s += 9.5
    assert bans.expired() == []
    assert bans.rows() == [{"network": "10.0.0.0/8", "left_s": 0.5}, {"network": "192.0.2.7/32", "left_s": None}]
    clock.now_s += 0.5
    assert bans.expired() == ["10.0.0.0/8"]
    assert (bans.expired(), bans.networks, len(bans)) == ([], ["192.0.2.7/32"], 1)
    bans.remove("192.0.2.7/32")
    assert "192.0.2.7/32" not in bans


def test_who_is_banned_again_gets_another_end(clock: Clock) -> None:
    bans = Bans()
    bans.add("10.0.0.0/8", 10.0)
    bans.add("10.0.0.0/8", None)
    clock.now_s += 100
    assert (bans.expired(), len(bans)) == ([], 1)


def test_next_daemon_knows_how_much_time_is_left(clock: Clock) -> None:
    bans, successor = Bans(), Bans()
    bans.add("10.0.0.0/8", 10.0)
    clock.now_s += 4
    successor.adopt(bans.handed_over())
    assert successor.rows() == [{"network": "10.0.0.0/8", "left_s": 6.0}]


def test_there_may_be_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BANS_MAX", 1)
    bans = Bans()
    bans.add("10.0.0.0/8", None)
    bans.add("10.0.0.0/8", 3.0)
    with pytest.raises(ValueError, match="1 networks are banned already"):
        bans.add("11.0.0.0/8", None)
