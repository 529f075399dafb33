"""What is asked of the daemon for a picture."""

from typing import Any

import pytest

from console.support.looks import CONNECTION, STALLED, STATUS
from gaiod.console.top.looks import STALLED_MAX, Look, Looker
from gaiod.control.protocol import ControlError, json_of, parse_request


class PlayedConversation:
    """A daemon with these answers; it looks at what it is asked as a real one does."""

    def __init__(self, *answers: dict[str, Any] | ControlError) -> None:
        self._answers = iter(answers)
        self.asked: list[dict[str, Any]] = []

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        line = json_of({"verb": verb, **arguments})
        self.asked.append(parse_request(line, may_administer=False))
        answer = next(self._answers)
        if isinstance(answer, ControlError):
            raise answer
        return answer


def _rows(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"total": 9, "connections": list(rows), "silent_workers": [1]}


def _look(
    sort: str, *answers: dict[str, Any] | ControlError, listener: str | None = None
) -> tuple[Look, list[dict[str, Any]]]:
    """Return a look at a daemon with these answers, and what it was asked."""
    daemon = PlayedConversation(STATUS, *answers)
    return Looker(daemon, listener).look(sort, 25), daemon.asked  # type: ignore[arg-type]


def test_status_the_busiest_and_the_stalled_are_asked_for() -> None:
    seen, asked = _look("traffic", _rows(CONNECTION), _rows(STALLED, CONNECTION), listener="echo")
    assert [request["verb"] for request in asked] == ["status", "connections", "connections"]
    assert [(request["sort"], request["limit"]) for request in asked[1:]] == [("traffic", 25), ("stalled", STALLED_MAX)]
    assert {request["listener"] for request in asked[1:]} == {"echo"}
    assert (seen.connections, seen.stalled) == ([CONNECTION], [STALLED]), "who waits for a moment is not stalled"
    assert (seen.total, seen.silent_workers, seen.status) == (9, [1], STATUS)


def test_stalled_ones_are_not_shown_twice_when_they_are_asked_for() -> None:
    seen, asked = _look("stalled", _rows(CONNECTION), _rows(STALLED))
    assert [(request["sort"], request["limit"]) for request in asked[1:]] == [("traffic", 1), ("stalled", 25)]
    assert (seen.connections, seen.stalled) == ([STALLED], [])


def test_look_is_a_document() -> None:
    seen, _ = _look("age", _rows(CONNECTION), _rows(STALLED), _rows(CONNECTION))
    document = seen.as_json()
    assert document["sort"] == "age"
    assert document["connections"] == [CONNECTION]
    assert document["status"]["version"] == STATUS["version"]


def test_refusal_is_raised() -> None:
    with pytest.raises(ControlError, match="no such listener"):
        _look("traffic", ControlError("no such listener"))
