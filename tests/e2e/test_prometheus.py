"""A real Prometheus scrapes a real daemon, and what it stores agrees with what the clients did."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.sockets import pattern

from e2e.support.clients import connect, exchange
from e2e.support.prometheus import SCRAPE_EVERY_MS, Prometheus
from e2e.support.starting import Start

CONFIG = """\
global: {{scrape_interval: {every}ms, scrape_timeout: {every}ms}}
scrape_configs:
  - job_name: gaiod
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for Prometheus."""
    path = tmp_path / "prometheus"
    path.mkdir()
    yield path


def test_prometheus_stores_what_the_clients_did_and_sees_the_daemon_go(daemon: Start, folder: Path) -> None:
    running = daemon()
    prometheus = Prometheus(folder, CONFIG.format(every=SCRAPE_EVERY_MS, target=running.metrics))
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
