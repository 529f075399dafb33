"""Lines that others can cause are written now and then, and counted."""

import logging
import time

import pytest

from gaiod.log import rate_limit
from gaiod.log.rate_limit import LIMITED_INTERVAL_S, LimitedLog, RateLimit


def test_rate_limit_says_yes_once_an_interval_and_counts_what_it_refused() -> None:
    limit = RateLimit(1.0)
    assert [limit.allows(now_s) for now_s in (100.0, 100.5, 100.9, 101.0, 101.5)] == [True, False, False, True, False]
    assert limit.take_refused() == 3
    assert limit.take_refused() == 0


def test_what_others_can_cause_is_logged_once_an_interval_with_how_often_it_was(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    limited = LimitedLog(logging.getLogger("gaiod.test"), "listener 100%")
    for uid in range(1000):
        limited.tell(logging.WARNING, "stranger", "user %d connected", uid)
    limited.tell(logging.WARNING, "other", "of another kind")
    now_s += LIMITED_INTERVAL_S
    limited.tell(logging.WARNING, "stranger", "user %d connected", 7)
    assert caplog.messages == [
        "listener 100%: user 0 connected",
        "listener 100%: of another kind",
        "listener 100%: user 7 connected (999 more like this before)",
    ]
    assert LIMITED_INTERVAL_S == 1.0


def test_limited_log_is_bounded_whatever_the_kinds_are(caplog: pytest.LogCaptureFixture) -> None:
    """Code that is made while it runs has any number of lines."""
    log = LimitedLog(logging.getLogger("gaiod.x"), "listener a")
    for number in range(10 * rate_limit.KINDS_MAX):
        log.tell(logging.WARNING, f"kind {number}", "it")
    assert len(caplog.messages) == rate_limit.KINDS_MAX + 1
