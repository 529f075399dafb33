"""What a scrape tells of sources, and of the feeder that runs them."""

from collections.abc import Mapping
from typing import Protocol

from gaiod.settings import ListenerSettings
from gaiod.stats.cells import CELL
from gaiod.stats.feeder_cells import RESETS, SOURCE_CELL

SourceKey = tuple[str, str]
"""A listener's name, and that of one of its sources."""


class Scrape(Protocol):
    """What samples are added to."""

    def add(self, name: str, value: float, *labels: object) -> None:
        """Add one sample of a counter or a gauge."""


def add_feeder(scrape: Scrape, feeder: tuple[bool, int, int, int] | None) -> None:
    """Add what `Subject.feeder` has returned."""
    if feeder is not None:
        is_up, restarts, code_changed, forgotten = feeder
        scrape.add("gaiod_feeder_up", is_up)
        scrape.add("gaiod_feeder_restarts_total", restarts)
        scrape.add("gaiod_feeder_code_changed", code_changed)
        scrape.add("gaiod_feeder_last_messages_forgotten_total", forgotten)


def add_feed(
    scrape: Scrape, listener: ListenerSettings, row: list[int], source_rows: Mapping[SourceKey, list[int]]
) -> None:
    """Add what feeds a listener.

    Args:
        scrape: what it is added to.
        listener: its settings.
        row: its cells, summed over all workers.
        source_rows: the cells of every source.
    """
    scrape.add("gaiod_push_feed_gaps_total", row[CELL["feed_gaps"]], listener.name)
    scrape.add("gaiod_push_feed_resent_total", row[CELL["feed_resent"]], listener.name)
    for source in listener.sources:
        cells = source_rows.get((listener.name, source), [0] * len(SOURCE_CELL))
        labels = listener.name, source
        scrape.add("gaiod_push_published_total", cells[SOURCE_CELL["published"]], *labels)
        scrape.add("gaiod_push_refused_total", cells[SOURCE_CELL["refused"]], *labels)
        scrape.add("gaiod_push_source_up", cells[SOURCE_CELL["up"]], *labels)
        scrape.add("gaiod_push_source_reconnects_total", cells[SOURCE_CELL["reconnects"]], *labels)
        scrape.add("gaiod_push_source_gaps_total", cells[SOURCE_CELL["gaps"]], *labels)
        for kind in RESETS:
            scrape.add("gaiod_push_source_resets_total", cells[SOURCE_CELL[kind]], *labels, kind)
