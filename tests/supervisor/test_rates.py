"""What happened lately, from the counters of now and of some seconds ago."""

import pytest

from gaiod.core import counters
from gaiod.stats.cells import CELL
from gaiod.supervisor.operators import rates as module
from gaiod.supervisor.operators.rates import LAG_MAX_S, Samples

KEY = ("front", "echo")
BOUNDS = len(counters.LAG_BOUNDS_S) + 1


class Clock:
    """`time.monotonic()`, as the test wants it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def _row(received: int = 0) -> list[int]:
    row = [0] * len(CELL)
    row[CELL["downstream_received_bytes"]] = received
    return row


def _cells(busy_s: float = 0.0, lags: tuple[int, ...] = ()) -> list[int]:
    """Return the cells of a worker; `lags`: how many rounds are in each bucket."""
    cells = [0] * counters.SIZE
    cells[counters.index("loop_busy_ns")] = int(busy_s * 1e9)
    cells[counters.LAG : counters.LAG + len(lags)] = lags
    return cells


def test_rates_are_over_the_last_ten_seconds(clock: Clock) -> None:
    samples = Samples()
    for second in range(30):
        assert samples.is_due
        samples.take({KEY: _row(100 * second)}, {})
        assert not samples.is_due
        clock.now_s += 1
    rates = samples.of_listener(KEY, _row(2900 + 50))
    assert rates == {"accepted": 0.0, "received_bytes": round((2950 - 1900) / 11, 1), "sent_bytes": 0.0}


def test_rejections_are_told_by_reason_while_there_are_some(clock: Clock) -> None:
    samples = Samples()
    row = _row()
    row[CELL["rejected_rate"]] = 7
    assert samples.rejected(KEY, row) == {}
    samples.take({KEY: _row()}, {})
    clock.now_s += 2
    assert samples.rejected(KEY, row) == {"rate": 3.5}
    samples.take({KEY: row}, {})
    clock.now_s += 10
    assert samples.rejected(("other", "echo"), row) == {}
    for _ in range(12):
        samples.take({KEY: row}, {})
        clock.now_s += 1
    assert samples.rejected(KEY, row) == {}


def test_nothing_is_known_right_after_the_first_sample_nor_of_who_came_since(clock: Clock) -> None:
    samples = Samples()
    assert set(samples.of_listener(KEY, _row()).values()) == {None}
    samples.take({KEY: _row()}, {1: _cells()})
    assert set(samples.of_listener(KEY, _row(5)).values()) == {None}
    assert samples.of_worker(1, _cells(1.0)) == {"busy": None, "loop_lag_s": None}
    clock.now_s += 5
    assert samples.of_worker(2, _cells(1.0)) == {"busy": None, "loop_lag_s": None}


def test_busy_is_the_share_of_the_time_and_never_more_than_all_of_it(clock: Clock) -> None:
    samples = Samples()
    samples.take({}, {1: _cells(2.0)})
    clock.now_s += 4
    assert samples.of_worker(1, _cells(3.0))["busy"] == 0.25
    assert samples.of_worker(1, _cells(9.0))["busy"] == 1.0


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ((100,), 0.0005),
        ((99, 1), 0.0005),
        ((98, 0, 2), 0.005),
        ((0,) * (BOUNDS - 1) + (1,), LAG_MAX_S),
        ((0,), None),
    ],
)
def test_lag_is_the_bound_that_99_of_100_rounds_are_below(
    clock: Clock, lags: tuple[int, ...], expected: float | None
) -> None:
    samples = Samples()
    samples.take({}, {1: _cells(lags=(7,) * BOUNDS)})
    clock.now_s += 4
    after = tuple(7 + many for many in (*lags, *(0,) * (BOUNDS - len(lags))))
    assert samples.of_worker(1, _cells(lags=after))["loop_lag_s"] == expected
