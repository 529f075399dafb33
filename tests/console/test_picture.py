"""The picture: what is in it, and that it fits."""

import pytest
from rich.cells import cell_len

from console.support.looks import CONNECTION, FEEDER, LISTENER, SOURCE, STALLED, WORKER, drawn, look
from gaiod.console.top.picture import keys_text

EVERYTHING = look(
    status={
        "workers": [{**WORKER, "worker": number} for number in range(8)],
        "listeners": [{**LISTENER, "listener": f"listener-{number}"} for number in range(6)],
        "feeder": FEEDER,
        "sources": [SOURCE] * 3,
    },
    connections=[{**CONNECTION, "id": f"3-{number}"} for number in range(50)],
    stalled=[STALLED],
    total=50,
)


def test_everything_is_drawn_where_nothing_bounds_it() -> None:
    text = "\n".join(drawn(EVERYTHING))
    assert text.startswith("gaiod 0.2.0  serving, up 3d 4h, generation 3, process 812, compiled engine\n")
    assert "last reload 4m 10s ago" in text
    assert all(f"listener-{number}" in text for number in range(6))
    assert "SERVERS PAUSED" in text
    assert "1234/80000" in text, "the limit of a worker, times eight"
    assert "FEEDER PID" in text
    assert "PUBLISHED" in text
    assert "50 connections, by traffic" in text
    assert text.count("192.0.2.1:50000") == 50
    assert "192.0.2.7:7" in text.partition("stalled: nothing")[2]


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 8, 12, 20, 24, 40, 100])
def test_picture_is_never_larger_than_the_window(width: int, height: int) -> None:
    """Columns are left out, text and rows are cut; nothing goes on in the next line. (Live cuts what is below.)"""
    for seen in (look(), EVERYTHING):
        lines = drawn(seen, width, height, keys=keys_text("traffic", None))
        assert all(len(line) <= width for line in lines)
        smallest = 6 + min(len(seen.status["workers"]), max(2, height // 4))
        assert len(lines) <= max(height, smallest)


def test_connections_are_seen_in_a_small_window() -> None:
    lines = drawn(EVERYTHING, 60, 20, keys="keys")
    assert "50 connections, by traffic" in lines
    assert "... and 3 more" in lines
    assert not [line for line in lines if "PUBLISHED" in line]


def test_narrow_window_keeps_what_matters_most() -> None:
    (titles,) = [line for line in drawn(look(), 50) if line.startswith("LISTENER") and "OPEN" in line]
    assert titles.split() == ["LISTENER", "OPEN/LIMIT", "RECEIVED", "SENT"]
    (row,) = [line for line in drawn(look(), 50) if line.startswith("3-1831")]
    assert row.split()[1:] == ["192.0.2.1:50000", "1.2", "KiB/s", "-"]


def test_names_can_do_nothing_to_the_terminal() -> None:
    """Neither as what the terminal understands nor as what rich does."""
    evil = {"peer": "\x1b]0;owned\x07[bold]x[/bold]", "id": "1-1\n2-2"}
    seen = look(
        connections=[{**CONNECTION, **evil}],
        status={
            "listeners": [{**LISTENER, "listener": "[red]\x1b[2Jfront"}],
            "last_reload": {"ok": False, "at": 0.0, "error": "bad\x1b[2J:smile: [blink]name\nsecond line"},
        },
    )
    text = "\n".join(drawn(seen, 200, trouble="gone\x1b[2J"))
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    assert r"\x1b]0;owned\x07[bold]x[/bold]" in text
    assert r"[red]\x1b[2Jfront" in text
    assert r"bad\x1b[2J:smile: [blink]name" in text


def test_wide_characters_are_counted_as_wide() -> None:
    seen = look(connections=[{**CONNECTION, "listener": "日本語" * 10}])
    lines = drawn(seen, 80)
    assert any("日本" in line for line in lines)
    assert all(cell_len(line) <= 80 for line in lines)


def test_what_is_wrong_is_said_above_all() -> None:
    seen = look(
        silent_workers=[1, 3], status={"last_reload": {"ok": False, "at": 1_749_999_940.0, "error": "a.yaml:1:1: bad"}}
    )
    lines = drawn(seen, trouble="trying again: no gaiod listens")
    assert lines[0] == "trying again: no gaiod listens"
    assert "the last reload, 1m 0s ago, failed: a.yaml:1:1: bad" in lines
    assert "did not answer: worker 1, 3" in lines


def test_daemon_without_workers_listeners_and_connections_is_drawn() -> None:
    seen = look(status={"workers": [], "listeners": [], "last_reload": None}, connections=[], total=0)
    assert drawn(seen)[-1] == "0 connections, by traffic"


def test_keys_are_told_with_what_is_chosen() -> None:
    assert keys_text("stalled", None) == " q quit  t traffic  [s] stalled  b buffered  a age  l listener: all"
    assert keys_text("age", "front\x1b").endswith("[a] age  l listener: front\\x1b")
