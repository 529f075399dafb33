"""A Prometheus that scrapes one daemon, and what it has stored."""

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from harness.processes import BenchError, running
from harness.proxies import free_port
from harness.servers import START_TIMEOUT_S

CONFIG = """\
global: {{scrape_interval: {every}ms, scrape_timeout: {every}ms}}
scrape_configs:
  - job_name: gaiod
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{instance: gaiod}}}}]
"""

Series = list[tuple[float, float]]
"""Moments, in Unix time, and the values then."""


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query_range"

    def series(self, expression: str, since_s: float, until_s: float, step_s: float) -> Series:
        """Return the values of an expression in a period, added up where it has several.

        Raises:
            BenchError: it has none, or Prometheus does not answer.
        """
        found = self.labelled(f"sum({expression})", since_s, until_s, step_s)
        if not found:
            raise BenchError(f"Prometheus: {expression} has no value")
        return found[0][1]

    def labelled(
        self, expression: str, since_s: float, until_s: float, step_s: float
    ) -> list[tuple[dict[str, str], Series]]:
        """Return the labels and the values of each series of an expression in a period; none while it starts.

        Raises:
            BenchError: Prometheus does not answer.
        """
        asked = urlencode({"query": expression, "start": since_s, "end": until_s, "step": step_s})
        try:
            with urllib.request.urlopen(f"{self._url}?{asked}", timeout=START_TIMEOUT_S) as reply:
                found = json.load(reply)["data"]["result"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it is still starting
                    return []
                raise BenchError(f"Prometheus: {expression}: {error.read().decode()}") from None
        return [(each["metric"], [(float(at_s), float(value)) for at_s, value in each["values"]]) for each in found]

    def wait_until_scraping(self) -> None:
        """Wait for the first scrape that worked.

        Raises:
            BenchError: there was none for long.
        """
        until_s = time.monotonic() + START_TIMEOUT_S
        while True:
            now_s = time.time()
            seen = self.labelled("up", now_s - 1, now_s, 1.0)
            if any(value == 1 for _, values in seen for _, value in values):
                return
            if time.monotonic() > until_s:
                raise BenchError(f"Prometheus: no scrape worked for {START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)


@contextmanager
def prometheus(folder: Path, metrics_port: int, every_s: float, cpu: int) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a daemon that often; begin after the first scrape.

    Raises:
        BenchError: it is not installed, or did not start.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise BenchError("prometheus: not found: install it")
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(every=round(every_s * 1000), port=metrics_port))
    port = free_port()
    command = (
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    with running("prometheus", command, cpu) as child:
        child.expect_connection(port, START_TIMEOUT_S)
        made = Prometheus(port)
        made.wait_until_scraping()
        yield made
