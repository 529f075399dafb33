"""Runs: a source is started, again if it raises, and stopped once."""

import time
from collections.abc import Iterator

import pytest

from feeder.support.feeding import Feeding, Played
from gaiod import Source
from gaiod.feeder import source_runner as module
from gaiod.feeder.source_runner import Commands, Retry


@pytest.fixture
def feeding() -> Iterator[Feeding]:
    """A router without listeners."""
    feeding = Feeding()
    yield feeding
    feeding.close()
    Played.failures.clear()


def test_source_that_cannot_be_started_is_down_and_started_again(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSE_FIRST_S", 0.01)
    Played.failures["one"] = 3
    feeding.feeds.run([feeding.wanted("ticks", "one", "two")])
    one, two = Played.made["one"], Played.made["two"]
    assert (one.is_running, two.is_running) == (False, True)
    assert [feeding.count("ticks", name, "up") for name in ("one", "two")] == [0, 1]
    assert "source one of listener ticks cannot be started; next attempt in 0.01 s" in caplog.text
    assert "SystemExit: told to" in caplog.text
    feeding.step_until(lambda: one.is_running, "a start that works")
    assert (one.starts, one.stops) == (4, 0)
    assert feeding.count("ticks", "one", "up") == 1
    one.publish(b"here")
    assert feeding.count("ticks", "one", "published") == 4, "what failed starts have published counts, too"


def test_source_that_is_stopped_before_it_could_be_started_is_not_started_any_more(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_FIRST_S", 0.01)
    Played.failures["one"] = 1
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    feeding.feeds.run([])
    rung: list[object] = []
    feeding.watcher.timer(time.monotonic() + 0.02, context=rung.append)  # after the one that would start it
    feeding.step_until(lambda: rung, "another timer")
    assert (Played.made["one"].starts, Played.made["one"].stops) == (1, 0)


def test_tries_are_less_and_less_often_until_one_works(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSE_FIRST_S", 0.001)
    monkeypatch.setattr(module, "PAUSE_MAX_S", 0.004)
    tries = []

    def attempt() -> None:
        tries.append(1)
        if len(tries) < 6:
            raise OSError("not yet")

    Retry(feeding.watcher, attempt, "it fails")
    feeding.step_until(lambda: len(tries) == 6, "the one that works")
    pauses = [line.rpartition(" in ")[2] for line in caplog.text.splitlines() if "next attempt" in line]
    assert pauses == ["0.001 s", "0.002 s", "0.004 s", "0.004 s", "0.004 s"]


def test_source_that_raises_when_it_is_stopped_does_not_keep_the_others_from_it(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", "two")])

    def fail() -> None:
        raise SystemExit("no thread")

    monkeypatch.setattr(Played.made["one"], "stop", fail)
    feeding.feeds.run([])
    assert Played.made["two"].stops == 1
    assert "source one of listener ticks raised when it was stopped" in caplog.text


def test_operators_source_takes_nothing_before_and_after() -> None:
    source = Commands()
    assert isinstance(source, Source)
    assert not source.takes
    source.publish(b"x", "t")
    source.stop()
