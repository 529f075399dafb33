"""What a hand-over costs is measured: every connection goes over, and every echo is compared meanwhile."""

import pytest
from harness import moves
from harness.daemons import Daemon
from harness.moves import Moves, moves_table, run_moves
from harness.processes import BenchError
from harness.runs import Bench, Row

pytest_plugins = ("bench_fixtures",)


def test_all_connections_go_over_at_each_replacement(bench: Bench) -> None:
    found = run_moves(bench, Row(2, 64), 20, replacements=2, repeats=1)
    assert found.connections == (44, 44)
    assert len(found.took_ms) == 2
    assert 0 < found.pause_ms[0] <= found.pause_ms[1]
    assert all(len(runs) == 1 and runs[0] > 0 for runs in found.p99_us.values())


def test_worker_that_hands_nothing_over_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moves, "CONFIG", moves.CONFIG + "handover: {{enabled: false}}\ndrain_timeout: 0s\n")
    with pytest.raises(BenchError):
        run_moves(bench, Row(1, 64), 1, replacements=1, repeats=1)


def test_pauses_are_bounds_of_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"0.001": 40, "0.005": 90, "0.01": 99, "0.02": 100, "+Inf": 100}
    text = "".join(
        f'gaiod_handover_pause_seconds_bucket{{le="{bound}",listener="echo"}} {count}.0\n'
        for bound, count in counts.items()
    )
    monkeypatch.setattr(moves, "scrape", lambda port: (200, text.encode()))
    assert moves._pauses(Daemon(0, [], {}, 0, [])) == (5.0, 10.0)


def test_table_has_a_line_for_each_load() -> None:
    found = Moves((1000, 1001), [10, 12, 14], (1.0, 5.0), {False: [30.0, 32.0, 31.0], True: [33.0, 35.0, 34.0]})
    head, row = moves_table({"1 x 64 busy, 1000 idle": found})
    assert "pause p50, p99 within, ms" in head
    assert row == "| 1 x 64 busy, 1000 idle | 1000 of 1001 | 12 (10-14) | 1, 5 | 31 | 34 |"
