"""What happened lately: the differences between counters of now and of some seconds ago."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gaiod.core import counters
from gaiod.stats.cells import CELL, REJECT_REASONS
from gaiod.supervisor.processes.slots import Key

SAMPLE_INTERVAL_S = 1.0
SAMPLES = 11
"""Rates are over the last ten seconds."""

RATED = {
    "accepted": CELL["accepted"],
    "received_bytes": CELL["downstream_received_bytes"],
    "sent_bytes": CELL["downstream_sent_bytes"],
}
"""What a listener has rates of, and the cells."""

BUSY = counters.index("loop_busy_ns")
LAG_SHARE = 0.99
LAG_MAX_S = SAMPLES * SAMPLE_INTERVAL_S
"""What is said of a lag above the last bound: more than the time that is looked at does not fit in."""

Rows = Mapping[Key, Sequence[int]]
Workers = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """The counters of one moment: of the listeners, and of the workers by their instance."""

    at_s: float
    rows: Rows
    workers: Workers


class Samples:
    """Remembers the counters of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)

    @property
    def is_due(self) -> bool:
        """Whether the last sample is old enough for another one."""
        return not self._samples or time.monotonic() - self._samples[-1].at_s >= SAMPLE_INTERVAL_S

    def take(self, rows: Rows, workers: Workers) -> None:
        """Remember the cells of now: of each listener, and of each worker, by its instance."""
        self._samples.append(Sample(time.monotonic(), rows, {key: _of_loop(cells) for key, cells in workers.items()}))

    def of_listener(self, key: Key, row: Sequence[int]) -> dict[str, float | None]:
        """Return what a listener did a second, since the oldest sample that knows it."""
        known = next((sample for sample in self._samples if key in sample.rows), None)
        past_s = _since(known)
        if known is None or past_s is None:
            return dict.fromkeys(RATED)
        before = known.rows[key]
        return {name: round((row[cell] - before[cell]) / past_s, 1) for name, cell in RATED.items()}

    def rejected(self, key: Key, row: Sequence[int]) -> dict[str, float]:
        """Return how many connections a second a listener has rejected, by reason: those of which there were some."""
        known = next((sample for sample in self._samples if key in sample.rows), None)
        past_s = _since(known)
        if known is None or past_s is None:
            return {}
        cells = {reason: CELL[f"rejected_{reason}"] for reason in REJECT_REASONS}
        counts = {reason: row[cell] - known.rows[key][cell] for reason, cell in cells.items()}
        return {reason: round(count / past_s, 1) for reason, count in counts.items() if count > 0}

    def of_worker(self, instance: int, cells: Sequence[int]) -> dict[str, float | None]:
        """Return how busy a worker's loop was, 0 to 1, and what 99 % of its rounds lagged less than; None: unknown.

        The lag is the upper bound of a bucket of the histogram.
        """
        known = next((sample for sample in self._samples if instance in sample.workers), None)
        past_s = _since(known)
        if known is None or past_s is None:
            return {"busy": None, "loop_lag_s": None}
        busy_ns, *buckets = (
            after - before for after, before in zip(_of_loop(cells), known.workers[instance], strict=True)
        )
        return {"busy": round(min(1.0, busy_ns / 1e9 / past_s), 3), "loop_lag_s": _lag(buckets)}


def _since(sample: Sample | None) -> float | None:
    """Return how long ago a sample was; None: there is none, or not for long enough to tell."""
    past_s = 0.0 if sample is None else time.monotonic() - sample.at_s
    return past_s if sample is not None and past_s > 0 and past_s >= SAMPLE_INTERVAL_S / 2 else None


def _of_loop(cells: Sequence[int]) -> list[int]:
    """Return the cells of a worker that are needed: how long it was busy, and the histogram of its lag."""
    return [cells[BUSY], *cells[counters.LAG : counters.GROUP]]


def _lag(buckets: Sequence[int]) -> float | None:
    total, count = sum(buckets), 0
    if total <= 0:
        return None
    for bound, rounds in zip((*counters.LAG_BOUNDS_S, LAG_MAX_S), buckets, strict=True):
        count += rounds
        if count >= LAG_SHARE * total:
            return bound
    return None
