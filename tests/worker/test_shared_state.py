"""What a worker shares: with the supervisor's order as everybody's, and no faster than it can be passed on."""

from collections.abc import Iterator
from typing import Any

import pytest

from gaiod import Handler, Watcher
from gaiod.worker.shared_state import BURST, SharedState
from worker.support.serving import Recorder, Serving
from worker.support.stepping import Stepped


class Sharing(Stepped):
    """The shared state of a listener, what it has sent, and how much it has delayed."""

    def __init__(self, **values: Any) -> None:
        super().__init__(Watcher())
        self.sent: list[tuple[str, Any]] = []
        self.delayed = 0
        self.state = SharedState(self.watcher, values, lambda *said: self.sent.append(said), self._delay)

    def _delay(self, count: int) -> None:
        self.delayed += count


@pytest.fixture
def sharing() -> Iterator[Sharing]:
    sharing = Sharing(known=1)
    yield sharing
    sharing.watcher.close()


def test_value_is_there_at_once_and_sent_once(sharing: Sharing) -> None:
    assert sharing.state.share("a", 1)
    assert not sharing.state.share("a", 1)
    assert not sharing.state.share("known", 1)
    assert sharing.state.values == {"known": 1, "a": 1}
    assert sharing.sent == [("a", 1)]


def test_value_of_another_worker_is_news_unless_it_is_known(sharing: Sharing) -> None:
    assert sharing.state.take("a", 2, is_own=False)
    assert not sharing.state.take("known", 1, is_own=False)
    assert sharing.state.take("a", None, is_own=False)
    assert sharing.state.values == {"known": 1}
    assert not sharing.sent


def test_two_that_share_at_once_agree_on_what_the_supervisor_takes_last(sharing: Sharing) -> None:
    sharing.state.share("a", "mine")
    assert not sharing.state.take("a", "theirs", is_own=False), "it is older than what this one has shared"
    assert not sharing.state.take("a", "mine", is_own=True)
    assert sharing.state.take("a", "later", is_own=False)
    assert sharing.state.values["a"] == "later"


def test_own_value_that_is_older_by_now_does_not_come_back(sharing: Sharing) -> None:
    sharing.state.share("a", 1)
    sharing.state.share("a", 2)
    assert not sharing.state.take("a", 1, is_own=True)
    assert sharing.state.values["a"] == 2
    assert not sharing.state.take("a", 2, is_own=True)


def test_value_that_the_supervisor_has_no_room_for_is_taken_back(sharing: Sharing) -> None:
    sharing.state.share("a", 1)
    assert sharing.state.take("a", None, is_own=True)
    assert "a" not in sharing.state.values


def test_too_many_values_wait_and_only_the_last_of_each_is_sent(sharing: Sharing) -> None:
    last = 3 * BURST
    for number in range(last + 1):
        sharing.state.share("wild", number)
    assert BURST <= len(sharing.sent) < 2 * BURST
    assert sharing.delayed == last + 1 - len(sharing.sent)
    sharing.step_until(lambda: sharing.sent[-1] == ("wild", last), "the last value")
    assert sharing.state.values["wild"] == last


# -- what a handler sees ---------------------------------------------------------------------------------


class Shares(Recorder):
    """Notes what others share, and whether it leads."""

    def on_start(self) -> None:
        self.calls.append(f"on_start {dict(self.shared)}")

    def on_share(self, key: str, value: Any) -> None:
        self.calls.append(f"on_share {key} {value}")

    def on_leader(self, is_leader: bool) -> None:
        self.calls.append(f"on_leader {is_leader} {self.is_leader}")


def test_handler_of_a_single_process_leads_once_it_has_started() -> None:
    handler = Shares()
    serving = Serving(handler)
    assert handler.calls == ["on_start {}", "on_leader True True"]
    handler.share("a", 1)
    assert dict(handler.shared) == {"a": 1}
    assert serving.count("shared_values") == 1
    serving.close()


def test_handler_is_told_of_what_others_share_and_of_its_leading() -> None:
    handler = Shares()
    serving = Serving(handler)
    del handler.calls[:]
    serving.listener.take_shared("a", [1], is_own=False)
    serving.listener.take_shared("a", [1], is_own=False)
    serving.listener.take_shared("a", None, is_own=False)
    serving.listener.lead(True)
    serving.listener.lead(False)
    assert handler.calls == ["on_share a [1]", "on_share a None", "on_leader False False"]
    serving.stop()
    serving.listener.take_shared("b", 1, is_own=False)
    serving.listener.lead(True)
    assert len(handler.calls) == 3, "nobody is there to do anything for"
    serving.close()


def test_wild_handler_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    handler = Shares()
    serving = Serving(handler)
    for number in range(3 * BURST):
        handler.share("wild", number)
    assert serving.count("shared_values") == 3 * BURST
    assert BURST < serving.count("shared_values_delayed") <= 2 * BURST
    assert "listener front: more than 100 values a second are shared" in caplog.text
    serving.close()


def test_sharing_before_a_handler_serves_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="share works once the handler serves a listener"):
        Handler().share("a", 1)
