"""A proxy that drains: a request without an answer is waited for, however long its server computes."""

import time
from collections.abc import Callable

import pytest
from core.support.waiting import MOMENT_S
from worker.support.proxying import Backend, Proxying

from gaiod.worker import drain
from gaiod.worker.drain import Drain

Start = Callable[..., Proxying]

LONG_S = 1000.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "QUIET_S", MOMENT_S)


def _drain(proxy: Proxying) -> list[str]:
    """Begin an eager drain; it puts something into the list when it is done."""
    done: list[str] = []
    Drain(proxy.watcher, [proxy.listener], LONG_S, eager=True, done=lambda: done.append("done"))
    return done


def _run_for(proxy: Proxying, seconds: float) -> None:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        proxy.step()


def test_drain_waits_for_the_answer_to_a_request_and_then_for_nothing(start: Start, backend: Backend) -> None:
    """A database is silent while it computes."""
    proxy = start(backend)
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"a question before")
    proxy.carry(far, client, b"its answer")
    proxy.carry(client, far, b"a long question")
    done = _drain(proxy)
    _run_for(proxy, 5 * MOMENT_S)
    assert not done
    assert proxy.closes() == {}
    proxy.carry(far, client, b"the answer")
    proxy.step_until(lambda: done, "the end of the drain")
    assert proxy.closes() == {"drain": 1}


@pytest.mark.parametrize("speaks_first", [False, True], ids=["nobody spoke", "the server spoke"])
def test_drain_closes_a_client_that_waits_for_no_answer(start: Start, backend: Backend, speaks_first: bool) -> None:
    proxy = start(backend)
    client, far = proxy.pair(backend)
    if speaks_first:
        proxy.carry(far, client, b"welcome")
    done = _drain(proxy)
    proxy.step_until(lambda: done, "the end of the drain")
    assert proxy.closes() == {"drain": 1}


def test_drain_waits_for_a_client_that_waits_for_a_server(start: Start, black_hole: str) -> None:
    proxy = start(black_hole)
    proxy.connect()
    done = _drain(proxy)
    _run_for(proxy, 5 * MOMENT_S)
    assert not done
    assert proxy.closes() == {}
