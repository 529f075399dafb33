"""What the columns of the view show."""

from typing import Any

import pytest

from console.support.looks import CONNECTION, LISTENER, STALLED, WORKER
from gaiod.console.top.fields import BAD, CONNECTIONS, GOOD, LISTENERS, NOTABLE, WORKERS, Field


def _shown(fields: Any, row: dict[str, Any]) -> dict[str, str]:
    return {field.title: field.show(row) for field in fields}


def _style(fields: Any, title: str, row: dict[str, Any]) -> str:
    field: Field = next(field for field in fields if field.title == title)
    return field.style(row)


def test_worker_is_shown_with_how_busy_and_how_late_it_is() -> None:
    shown = _shown(WORKERS, WORKER)
    assert (shown["BUSY"], shown["LAG"], shown["MEMORY"], shown["RESTARTS"]) == ("12%", "<1ms", "52.0 MiB", "2")
    assert _shown(WORKERS, {**WORKER, "loop_lag_s": 11.0})["LAG"] == "<11s"


def test_worker_that_is_not_there_has_nothing_to_show() -> None:
    absent = dict.fromkeys(WORKER) | {"worker": 1, "state": "waiting", "connections": 0, "restarts": 1}
    shown = _shown(WORKERS, absent)
    assert (shown["BUSY"], shown["LAG"], shown["PID"], shown["CONNS"]) == ("-", "-", "-", "0")


def test_listener_is_shown_with_its_limit_and_who_is_waited_for() -> None:
    shown = _shown(LISTENERS, {**LISTENER, "limit": 20_000})
    assert (shown["OPEN/LIMIT"], shown["RECEIVED"]) == ("1234/20000", "12.3 MiB/s")
    assert (shown["CLIENTS PAUSED"], shown["SERVERS PAUSED"]) == ("-", "3: 1.0 MiB")


def test_connection_is_shown_with_its_rate_and_for_how_long_it_has_waited() -> None:
    assert (_shown(CONNECTIONS, CONNECTION)["TRAFFIC"], _shown(CONNECTIONS, CONNECTION)["STALLED"]) == (
        "1.2 KiB/s",
        "-",
    )
    assert (_shown(CONNECTIONS, STALLED)["STALLED"], _shown(CONNECTIONS, STALLED)["BUFFERED"]) == ("1m 10s", "97.7 KiB")


@pytest.mark.parametrize(
    ("fields", "title", "row", "style"),
    [
        (WORKERS, "BUSY", {**WORKER, "busy": 0.9}, BAD),
        (WORKERS, "BUSY", WORKER, ""),
        (WORKERS, "BUSY", {**WORKER, "busy": None}, ""),
        (WORKERS, "STATE", WORKER, GOOD),
        (WORKERS, "STATE", {**WORKER, "state": "draining"}, NOTABLE),
        (LISTENERS, "OPEN/LIMIT", {**LISTENER, "limit": 1300}, BAD),
        (LISTENERS, "OPEN/LIMIT", {**LISTENER, "limit": 0}, ""),
        (LISTENERS, "SERVERS PAUSED", LISTENER, NOTABLE),
        (LISTENERS, "CLIENTS PAUSED", LISTENER, ""),
        (CONNECTIONS, "STALLED", STALLED, BAD),
        (CONNECTIONS, "STALLED", CONNECTION, ""),
    ],
)
def test_what_is_bad_is_coloured(fields: Any, title: str, row: dict[str, Any], style: str) -> None:
    assert _style(fields, title, row) == style
