"""A real Prometheus scrapes a real daemon, and what it stores agrees with what the clients did."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from core.support.sockets import pattern
from core.support.waiting import LIMIT_S, TIME_UNIT

from e2e.support.clients import connect, exchange, request
from e2e.support.programs import free_port
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

SCRAPE_EVERY_S = 0.2 * TIME_UNIT

CONFIG = """\
global: {{scrape_interval: {every}ms, scrape_timeout: {every}ms}}
scrape_configs:
  - job_name: gaiod
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A Prometheus that scrapes one target."""

    def __init__(self, folder: Path, target: str) -> None:
        program = tool("prometheus", "prometheus")
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(every=round(SCRAPE_EVERY_S * 1000), target=target))
        self.address = f"127.0.0.1:{free_port()}"
        self._log = folder / "prometheus.log"
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def query(self, expression: str) -> float | None:
        """Return the value of an expression that has one; None if it has no value yet."""
        try:
            reply = request(self.address, f"/api/v1/query?query={quote(expression)}")
        except ConnectionRefusedError:
            assert self._process.poll() is None, self._log.read_text()
            return None
        if reply.status == 503:
            return None  # it is still starting
        answer = json.loads(reply.body)
        assert answer["status"] == "success", answer
        results = answer["data"]["result"]
        return float(results[0]["value"][1]) if results else None

    def wait_for(self, expression: str, value: float) -> None:
        """Wait until an expression has this value."""
        try:
            wait_until(lambda: self.query(expression) == value, f"{expression} == {value}", limit_s=3 * LIMIT_S)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it is {self.query(expression)}\n{self._log.read_text()}") from None

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)  # its data goes with the folder: there is nothing to save
        self._process.wait(LIMIT_S)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for Prometheus."""
    path = tmp_path / "prometheus"
    path.mkdir()
    yield path


def test_prometheus_stores_what_the_clients_did_and_sees_the_daemon_go(daemon: Start, folder: Path) -> None:
    running = daemon()
    prometheus = Prometheus(folder, running.metrics)
    try:
        prometheus.wait_for("up", 1)
        prometheus.wait_for("gaiod_ready", 1)
        with connect(running.address()) as sock:
            for number in range(20):
                assert exchange(sock, pattern(5000, number)) == pattern(5000, number)
            prometheus.wait_for('gaiod_received_bytes_total{listener="echo",side="downstream"}', 100_000)
            prometheus.wait_for('gaiod_sent_bytes_total{listener="echo",side="downstream"}', 100_000)
            prometheus.wait_for("sum(gaiod_connections_active)", 1)
        prometheus.wait_for('gaiod_connections_closed_total{reason="peer_eof"}', 1)
        prometheus.wait_for("sum(gaiod_connections_active)", 0)
        prometheus.wait_for("histogram_quantile(0.5, gaiod_connection_duration_seconds_bucket) > bool 0", 1)
        assert prometheus.query("scrape_samples_scraped") == prometheus.query("scrape_samples_post_metric_relabeling")
        running.stop()
        prometheus.wait_for("up", 0)
    finally:
        prometheus.stop()
