"""The source every: on time, without drifting, and without making up for what it missed."""

from collections.abc import Callable
from typing import Any

import pytest
from feeder.support.outlets import FakeOutlet
from gaiod.handlers.push.options import EveryOptions
from gaiod.handlers.push.sources import every
from gaiod.handlers.push.sources.every import EverySource


class Clock:
    """Time that the test passes, and an outlet whose timers ring in it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.lateness_s = 0.0
        self.is_behind = False
        self.messages: list[tuple[float, bytes, str]] = []
        self.positions: dict[str, str] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1_700_000_000.0 + self.now_s

    def timer(self, delay_s: float, action: Callable[[], None]) -> None:
        assert delay_s > 0, "a timer that rings at once would spin"
        self._due.append((self.now_s + delay_s, action))

    def publish(self, data: bytes, topic: str, position: tuple[str, str]) -> None:
        self.messages.append((self.now_s, data, topic))
        self.positions.update([position])

    def position(self, origin: str) -> str | None:
        return self.positions.get(origin)

    def ring(self) -> None:
        """Pass time until the timer rings, and a bit more."""
        ((due_s, action),) = self._due
        self._due.clear()
        self.now_s = due_s + self.lateness_s
        action()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as the source sees it."""
    clock = Clock()
    monkeypatch.setattr(every, "time", clock)
    return clock


def start(clock: Any, **values: Any) -> None:
    """Start a source with a topic."""
    EverySource(EveryOptions(**values), "t").start(clock)


def test_number_goes_on_when_the_source_is_started_anew(clock: Clock) -> None:
    start(clock, every=1.0, message="{sequence}")
    clock.ring()
    clock._due.clear()
    start(clock, every=2.0, message="now {sequence}")
    clock.ring()
    start(clock, every=1.0, message="{sequence}", name="another")
    clock._due.pop(0)
    clock.ring()
    assert [data for _, data, _ in clock.messages] == [b"1", b"now 2", b"1"]


def test_message_has_the_time_and_a_number(clock: Clock) -> None:
    start(clock, every=1.0, message="{{{sequence}}} at {time}")
    clock.ring()
    clock.ring()
    assert clock.messages == [
        (1001.0, b"{1} at 1700001001.000", "t"),
        (1002.0, b"{2} at 1700001002.000", "t"),
    ]


def test_lateness_does_not_add_up(clock: Clock) -> None:
    start(clock, every=0.5)
    clock.lateness_s = 0.2
    for _ in range(1000):
        clock.ring()
    assert clock.messages[-1][0] == pytest.approx(1500.2)


def test_what_a_pause_made_it_miss_is_not_made_up_for(clock: Clock) -> None:
    start(clock, every=1.0, message="{sequence}")
    clock.lateness_s = 60.5
    clock.ring()
    clock.lateness_s = 0.0
    clock.ring()
    clock.ring()
    assert [(when_s, data) for when_s, data, _ in clock.messages] == [(1061.5, b"1"), (1062.0, b"2"), (1063.0, b"3")]


def test_nothing_is_published_while_workers_are_behind(clock: Clock) -> None:
    start(clock, every=1.0, message="{sequence}")
    clock.is_behind = True
    clock.ring()
    clock.is_behind = False
    clock.ring()
    assert [data for _, data, _ in clock.messages] == [b"1"]


@pytest.mark.parametrize("interval_s", [0.001, 0.1, 1 / 3])
def test_interval_that_is_no_round_number_never_rings_twice(clock: Clock, interval_s: float) -> None:
    start(clock, every=interval_s)
    for _ in range(1000):
        clock.ring()
    assert clock.now_s == pytest.approx(1000 + 1000 * interval_s, abs=interval_s / 100)


def test_real_timers_ring(outlet: FakeOutlet) -> None:
    outlet.start(EverySource(EveryOptions(every=0.001, message="{sequence}"), "t"))
    outlet.step_until(lambda: len(outlet.messages) >= 5, "five messages")
    assert [data for _, data in outlet.messages[:5]] == [b"1", b"2", b"3", b"4", b"5"]
    assert outlet.up
