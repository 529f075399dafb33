"""Somebody who scrapes all the time, and compares each counter with what it was."""

import threading
from http.client import HTTPException

from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, scrape
from e2e.support.waiting import wait_until

ACCUMULATED = ("_total", "_count", "_sum", "_bucket")
START = "gaiod_start_time_seconds"

Key = tuple[str, frozenset[tuple[str, str]]]


class Scraper:
    """Scrapes a daemon until the block is left.

    Attributes:
        starts: of each daemon that answered, when it started; counters of a new one begin anew.
        fallen: every counter that went back while the daemon was the same: name and labels, before, after.
        failures: scrapes that did not work.
        last: the last scrape.
        scrapes: how many there were.
    """

    def __init__(self, address: str) -> None:
        self.starts: list[float] = []
        self.fallen: list[tuple[Key, float, float]] = []
        self.failures: list[Exception] = []
        self.last = scrape(address)
        self.scrapes = 0
        self._address = address
        self._highest: dict[Key, float] = {}
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            try:
                self.look(scrape(self._address))
            except (OSError, HTTPException, AssertionError) as failure:
                self.failures.append(failure)

    def look(self, samples: Samples) -> None:
        """Compare a scrape with those before."""
        start_s = samples.value(START)
        if start_s not in self.starts:
            self.starts.append(start_s)
            self._highest.clear()
        for key, value in samples.items():
            if key[0].endswith(ACCUMULATED):
                if value < self._highest.get(key, 0):
                    self.fallen.append((key, self._highest[key], value))
                self._highest[key] = value
        self.last = samples
        self.scrapes += 1

    def wait_for(self, value: float, name: str, **labels: object) -> None:
        """Wait until a metric has at least a value, summed over its other labels, and for one scrape more."""
        wait_until(lambda: self.last.total(name, **labels) >= value, f"{name}{labels} >= {value:g}")
        seen = self.scrapes
        wait_until(lambda: self.scrapes > seen + 1, "one more scrape")

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(LIMIT_S)
