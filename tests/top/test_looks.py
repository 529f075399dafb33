"""What is asked of the daemon for a picture."""

from pathlib import Path
from typing import Any

import pytest
from supervisor.support.controls import played_daemon

from gaiod.supervisor.client import Conversation
from gaiod.supervisor.verbs import ControlError, parse_request, refused, succeeded
from gaiod.top.looks import STALLED_MAX, Look, Looker
from top.support.looks import CONNECTION, STALLED, STATUS


def _rows(*rows: dict[str, Any], total: int = 9) -> dict[str, Any]:
    return succeeded({"total": total, "connections": list(rows), "silent_workers": [1]})


def _look(
    path: Path, sort: str, *answers: dict[str, Any], listener: str | None = None
) -> tuple[Look, list[dict[str, Any]]]:
    """Return a look at a daemon with these answers, and what it was asked."""
    with played_daemon(path, succeeded(STATUS), *answers) as daemon, Conversation(str(path)) as conversation:
        seen = Looker(conversation, listener).look(sort, 25)
    return seen, [parse_request(line.rstrip(), may_administer=False) for line in daemon.requests]


def test_status_the_busiest_and_the_stalled_are_asked_for(tmp_path: Path) -> None:
    seen, asked = _look(tmp_path / "s", "traffic", _rows(CONNECTION), _rows(STALLED, CONNECTION), listener="echo")
    assert [request["verb"] for request in asked] == ["status", "connections", "connections"]
    assert [(request["sort"], request["limit"]) for request in asked[1:]] == [("traffic", 25), ("stalled", STALLED_MAX)]
    assert {request["listener"] for request in asked[1:]} == {"echo"}
    assert (seen.connections, seen.stalled) == ([CONNECTION], [STALLED]), "who waits for a moment is not stalled"
    assert (seen.total, seen.silent_workers, seen.status) == (9, [1], STATUS)


def test_stalled_ones_are_not_shown_twice_when_they_are_asked_for(tmp_path: Path) -> None:
    seen, asked = _look(tmp_path / "s", "stalled", _rows(CONNECTION), _rows(STALLED))
    assert [(request["sort"], request["limit"]) for request in asked[1:]] == [("traffic", 1), ("stalled", 25)]
    assert (seen.connections, seen.stalled) == ([STALLED], [])


def test_look_is_a_document(tmp_path: Path) -> None:
    seen, _ = _look(tmp_path / "s", "age", _rows(CONNECTION), _rows(STALLED), _rows(CONNECTION))
    document = seen.as_json()
    assert document["sort"] == "age"
    assert document["connections"] == [CONNECTION]
    assert document["status"]["version"] == STATUS["version"]


def test_refusal_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no such listener"):
        _look(tmp_path / "s", "traffic", refused("no such listener", 64))
