"""Waiting for what another process does: look, and look again, until a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

from core.support.waiting import LIMIT_S, seen

PAUSE_S = 0.005
"""Between two looks."""

T = TypeVar("T")


def wait_until(look: Callable[[], T | None], what: str, limit_s: float = LIMIT_S) -> T:
    """Return the first true value of `look()`; fail if there is none in `limit_s` seconds."""
    until_s = time.monotonic() + limit_s
    while not (found := seen(look)):
        assert time.monotonic() < until_s, f"{what}: not within {limit_s:g} s"
        time.sleep(PAUSE_S)
    return found
