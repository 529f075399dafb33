"""What the collector tells of handlers' hooks, summed over the listeners that have the same handler."""

from collections import Counter

from gaiod.observe.push_metrics import Scrape
from gaiod.stats.cells import CALLS, CELL


class HookCounts:
    """The errors and the slow calls of each handler's hooks."""

    def __init__(self) -> None:
        self._errors: Counter[tuple[str, str]] = Counter()
        self._slow: Counter[tuple[str, str]] = Counter()

    def add(self, handler: str, row: list[int]) -> None:
        """Add the cells of one listener."""
        for hook in CALLS:
            self._errors[handler, hook] += row[CELL[f"handler_error_{hook}"]]
            self._slow[handler, hook] += row[CELL[f"slow_hook_{hook}"]]

    def tell(self, scrape: Scrape) -> None:
        """Add everything to a scrape."""
        for labels, count in self._errors.items():
            scrape.add("gaiod_handler_errors_total", count, *labels)
        for labels, count in self._slow.items():
            scrape.add("gaiod_handler_slow_hooks_total", count, *labels)
