"""What columns show, in text, in the live view and on the status page, and what is marked in all of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.support.looks import CONNECTION, LISTENER, STALLED, WORKER
from gaiod.console.columns import (
    BAD,
    CONNECTIONS,
    GOOD,
    LISTENERS,
    NOTABLE,
    WORKERS,
    Column,
    duration,
    number,
    rate,
    shown,
    size,
    size_rate,
)


def _shown(columns: Any, row: dict[str, Any]) -> dict[str, str]:
    return {column.title: column.show(row) for column in columns}


def _mark(columns: Any, title: str, row: dict[str, Any]) -> str:
    column: Column = next(column for column in columns if column.title == title)
    return column.mark(row)


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
    ("columns", "title", "row", "mark"),
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
def test_what_is_bad_is_marked(columns: Any, title: str, row: dict[str, Any], mark: str) -> None:
    assert _mark(columns, title, row) == mark


# -- units -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (size, 0, "0 B"),
        (size, 1023, "1023 B"),
        (size, 1023.9, "1.0 KiB"),
        (size, 1024, "1.0 KiB"),
        (size, 12.3 * 2**20, "12.3 MiB"),
        (size, 1023.94 * 2**20, "1023.9 MiB"),
        (size, 1023.96 * 2**20, "1.0 GiB"),
        (size, 2**70, "1048576.0 PiB"),
        (size_rate, 1536, "1.5 KiB/s"),
        (rate, 0, "0/s"),
        (rate, 0.04, "0.0/s"),
        (rate, 0.3, "0.3/s"),
        (rate, 9.96, "10/s"),
        (rate, 999.4, "999/s"),
        (rate, 999.6, "1.0 k/s"),
        (rate, 3210, "3.2 k/s"),
        (rate, 999_960, "1.0 M/s"),
        (duration, -1, "0.0s"),
        (duration, 0, "0.0s"),
        (duration, 0.44, "0.4s"),
        (duration, 9.96, "10s"),
        (duration, 59.4, "59s"),
        (duration, 59.6, "1m 0s"),
        (duration, 250, "4m 10s"),
        (duration, 3599.7, "1h 0m"),
        (duration, 86_399, "23h 59m"),
        (duration, 273_600, "3d 4h"),
        (number, 7, "7"),
    ],
)
def test_number_is_shown_with_its_unit(show: Callable[[float], str], value: float, text: str) -> None:
    assert show(value) == text


@pytest.mark.parametrize("show", [size, size_rate, rate, duration, number, shown])
def test_what_is_unknown_is_a_dash(show: Callable[[None], str]) -> None:
    assert show(None) == "-"


@given(st.floats(min_value=0, max_value=2**59))
def test_any_size_is_short_and_near(value: float) -> None:
    figure, unit = size(value).split()
    factor = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit)
    assert float(figure) < 1024
    assert float(figure) * factor == pytest.approx(value, abs=0.06 * factor + 0.5 * (factor == 1))


@given(st.text())
def test_any_text_is_on_one_line_and_printable(text: str) -> None:
    assert shown(text).isprintable()
