"""What is logged of slow hooks, and how often."""

import logging

import pytest

from gaiod.worker.slow_hooks.report import LOG_INTERVAL_S, SlowHooks

WHERE = "listener front, handler mine"


@pytest.fixture(autouse=True)
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, by which the test's lines are rationed."""
    times = [1000.0]
    monkeypatch.setattr("gaiod.worker.slow_hooks.report.time.monotonic", lambda: times[0])
    return times


def _over(slow: SlowHooks, hook: str = "on_read", took_ns: int = 2_000_000_000) -> None:
    slow.is_over(WHERE, hook, "; connection 1-2 (a)", took_ns)


def test_hook_is_told_of_while_it_goes_on_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowHooks(0.1)
    for _ in range(3):
        slow.goes_on(-5, WHERE, "on_read", "; connection 1-2 (a)", "Stack")
    _over(slow, took_ns=5)
    assert len(caplog.records) == 2
    assert "on_read blocks its worker for" in caplog.text and "Stack" in caplog.text
    assert caplog.messages[1] == f"{WHERE}: on_read is over after 0.00 s; connection 1-2 (a)"
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_hook_that_could_not_be_seen_is_told_of_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    _over(SlowHooks(0.1))
    assert "on_read blocked its worker for 2.00 s; connection 1-2 (a); no stack" in caplog.text


def test_hook_that_is_always_slow_is_told_of_now_and_then(caplog: pytest.LogCaptureFixture, now_s: list[float]) -> None:
    """Each hook has its ration, and the line says how many there were in between."""
    slow = SlowHooks(0.1)
    for _ in range(10):
        _over(slow)
    _over(slow, hook="on_write")
    assert len(caplog.records) == 2
    now_s[0] += LOG_INTERVAL_S
    _over(slow)
    assert len(caplog.records) == 3
    assert caplog.messages[2].endswith("(9 more like this were not logged)")


def test_nothing_is_timed_without_a_limit() -> None:
    assert SlowHooks(None).watch.limit_ns == 0
