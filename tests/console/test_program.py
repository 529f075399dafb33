"""What the command does with what it sees. The whole of it, through a terminal, is in `e2e/test_top_e2e.py`."""

import json
import os
import time
from typing import Any

import pytest

from console.support.looks import LISTENER, look
from gaiod.console.top import program
from gaiod.console.top.looks import Look
from gaiod.console.top.program import View, Wanted, print_json, show_once
from gaiod.control.protocol import ControlError

GONE = ControlError("no gaiod listens on /run/x", os.EX_UNAVAILABLE)


class PlayedLooker:
    """Sees what the test wants."""

    def __init__(self, *seen: Look | ControlError) -> None:
        self._seen = iter(seen)
        self.asked: list[tuple[str, int]] = []
        self.listener: str | None = None

    def look(self, sort: str, limit: int) -> Look:
        self.asked.append((sort, limit))
        seen = next(self._seen)
        if isinstance(seen, ControlError):
            raise seen
        return seen


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def _view(*seen: Look | ControlError, **wanted: Any) -> tuple[View, PlayedLooker]:
    looker = PlayedLooker(*seen)
    return View(looker, Wanted(**{"sort": "traffic", "interval_s": 2.0, **wanted})), looker  # type: ignore[arg-type]


def test_once_is_two_looks_for_there_to_be_rates(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    looker = PlayedLooker(look(), look())
    show_once(looker, Wanted("traffic", 0.5))  # type: ignore[arg-type]
    assert looker.asked == [("traffic", 1), ("traffic", 20)]
    assert pauses == [0.5]
    out = capsys.readouterr().out
    assert "1 connection, by traffic" in out
    assert "\x1b" not in out
    assert "q quit" not in out


def test_json_is_a_document_for_each_look(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    looker = PlayedLooker(look(total=1), look(total=2), GONE)
    with pytest.raises(ControlError):
        print_json(looker, Wanted("age", 3.0, 7), once=False)  # type: ignore[arg-type]
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["total"] for document in documents] == [1, 2]
    assert looker.asked == [("age", 7)] * 3
    assert pauses == [3.0, 3.0]


def test_json_once_is_one_document(pauses: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    print_json(PlayedLooker(look(total=1), look(total=2)), Wanted("age", 3.0), once=True)  # type: ignore[arg-type]
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["total"] == 2
    assert pauses == [1.0]


def test_no_daemon_to_begin_with_is_an_error() -> None:
    view, _ = _view(GONE)
    with pytest.raises(ControlError):
        view.look(24)


def test_daemon_that_goes_is_waited_for_with_the_last_picture() -> None:
    view, _ = _view(look(), GONE, look())
    view.look(24)
    view.look(24)
    assert _lines(view)[1].startswith("trying again: no gaiod listens on /run/x")
    assert any("1 connection" in line for line in _lines(view))
    view.look(24)
    assert "trying again" not in "".join(_lines(view))


def test_as_many_connections_are_asked_for_as_the_window_has_lines() -> None:
    view, looker = _view(look(), look())
    view.look(37)
    assert looker.asked == [("traffic", 37)]
    view, looker = _view(look(), limit=3)
    view.look(37)
    assert looker.asked == [("traffic", 3)]


@pytest.mark.parametrize(("key", "sort"), [("t", "traffic"), ("s", "stalled"), ("b", "buffered"), ("a", "age")])
def test_key_changes_what_comes_first(key: str, sort: str) -> None:
    view, looker = _view(look(), look(), sort="age" if key != "a" else "traffic")
    view.look(10)
    assert view.press(key)
    view.look(10)
    assert looker.asked[-1] == (sort, 10)


def test_key_that_means_nothing_changes_nothing() -> None:
    view, looker = _view(look())
    view.look(10)
    assert not view.press("x")
    assert looker.listener is None


def test_listeners_are_gone_through_and_all_of_them_come_after_the_last() -> None:
    view, looker = _view(look(status={"listeners": [LISTENER, {**LISTENER, "listener": "other"}]}))
    view.look(10)
    seen = []
    for _ in range(4):
        view.press("l")
        seen.append(looker.listener)
    assert seen == ["echo", "other", None, "echo"]
    looker.listener = "gone with a reload"
    view.press("l")
    assert looker.listener is None


def test_next_look_is_due_after_the_interval() -> None:
    view, _ = _view(look(), interval_s=5.0)
    before_s = time.monotonic()
    view.look(10)
    assert before_s + 5 <= view.due_s <= time.monotonic() + 5


def _lines(view: View) -> list[str]:
    console = program.new_console()
    console.width = 200
    with console.capture() as capture:
        console.print(view.draw(200, 40))
    return capture.get().splitlines()
