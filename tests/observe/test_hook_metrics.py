"""Errors and slow calls of hooks, summed where two listeners have the same handler."""

from gaiod.observe.hook_metrics import HookCounts
from gaiod.stats.cells import CELL


class Samples(dict[tuple[object, ...], float]):
    """What was added, by name and labels."""

    def add(self, name: str, value: float, *labels: object) -> None:
        assert (name, *labels) not in self, "two samples with the same labels would make the whole scrape invalid"
        self[name, *labels] = value


def test_hooks_are_summed_by_handler() -> None:
    counts, samples = HookCounts(), Samples()
    for errors, slow in ((2, 10), (3, 20)):
        row = [0] * len(CELL)
        row[CELL["handler_error_on_read"]], row[CELL["slow_hook_on_read"]] = errors, slow
        counts.add("echo", row)
    counts.tell(samples)
    assert samples["gaiod_handler_errors_total", "echo", "on_read"] == 5
    assert samples["gaiod_handler_slow_hooks_total", "echo", "on_read"] == 30
    assert samples["gaiod_handler_slow_hooks_total", "echo", "on_tick"] == 0
