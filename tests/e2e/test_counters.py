"""Counters never go back, whatever becomes of the processes that count: else Prometheus adds everything up again."""

import os
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

from core.support.sockets import pattern
from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, connect, exchange
from e2e.support.daemons import Daemon
from e2e.support.feeding import feeder_of
from e2e.support.procfs import session_of
from e2e.support.scraping import ACCUMULATED, Scraper
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from gaiod.observe.metrics import METRICS

CONFIG = """\
workers: 2
drain_timeout: 1s
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo}}
  server: {{bind: "unix:{folder}/server.sock", handler: echo}}
  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["unix:{folder}/server.sock"]}}}}
  ticks: {{bind: "127.0.0.1:0", handler: push, with: {{source: {{every: 5ms}}}}}}
"""


class Users:
    """Clients that come and go, of every listener; some stay until their worker goes, one of them takes nothing."""

    def __init__(self, running: Daemon) -> None:
        self._addresses = {name: running.address(name) for name in ("echo", "db", "ticks")}
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with ExitStack() as all_of_them:
            stay: list[socket.socket] = []
            while not self._is_over:
                try:
                    for name in ("echo", "db"):
                        with connect(self._addresses[name]) as sock:
                            exchange(sock, pattern(5000))
                    if len(stay) < 100:
                        stay.append(all_of_them.enter_context(connect(self._addresses["ticks"])))
                        stay.append(all_of_them.enter_context(connect(self._addresses["db"])))
                        self._send_and_read_nothing(stay[-1])
                except (OSError, AssertionError):
                    continue  # its worker was killed

    @staticmethod
    def _send_and_read_nothing(sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            sock.send(pattern(1 << 20))
        except BlockingIOError:
            return

    def __enter__(self) -> "Users":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(LIMIT_S)


def _kill_a_worker_of(running: Daemon, scraper: Scraper) -> None:
    before = scraper.last.total("gaiod_worker_restarts_total", reason="signal")
    os.kill(running.workers[0], signal.SIGKILL)
    scraper.wait_for(before + 1, "gaiod_worker_restarts_total", reason="signal")
    scraper.wait_for(2, "gaiod_worker_up")


def test_no_counter_goes_back_when_workers_and_feeder_die_and_at_reloads_and_restarts(
    daemon: Start, tmp_path: Path
) -> None:
    running = daemon(CONFIG.format(folder=tmp_path))
    with Scraper(running.metrics) as scraper, Users(running):
        scraper.wait_for(20, "gaiod_connections_accepted_total", listener="db")
        scraper.wait_for(10, "gaiod_push_deliveries_total")
        _kill_a_worker_of(running, scraper)
        os.kill(feeder_of(running), signal.SIGKILL)
        scraper.wait_for(1, "gaiod_feeder_restarts_total")
        scraper.wait_for(1, "gaiod_feeder_up")
        assert running.gaiod("reload").returncode == 0
        _kill_a_worker_of(running, scraper)  # while its predecessors drain, or have just gone
        assert running.gaiod("workers", "restart").returncode == 0
        scraper.wait_for(2, "gaiod_worker_restarts_total", reason="admin")
        (tmp_path / "gaiod.yaml").write_text(CONFIG.format(folder=tmp_path).replace("5ms", "7ms"))
        assert running.gaiod("reload").returncode == 0
        scraper.wait_for(2, "gaiod_config_reloads_total", result="success")
        wait_until(lambda: len(running.ask("status")["workers"]) == 2, "the end of those that drained")
        seen = scraper.scrapes
        wait_until(lambda: scraper.scrapes > seen + 1, "one more scrape")
    assert (scraper.fallen, scraper.failures, len(scraper.starts)) == ([], [], 1)
    _check_all_were_compared(scraper.last)


def test_counters_begin_anew_once_when_the_daemon_is_upgraded(daemon: Start, tmp_path: Path) -> None:
    """And its start time tells so, while no scrape fails."""
    running = daemon(CONFIG.format(folder=tmp_path))
    with Scraper(running.metrics) as scraper, Users(running):
        scraper.wait_for(20, "gaiod_connections_accepted_total", listener="db")
        new = running.ask("upgrade")["pid"]
        assert running.wait() == 0
        scraper.wait_for(20, "gaiod_connections_accepted_total", listener="db")
        _kill_a_worker_of(running, scraper)
    assert (scraper.fallen, scraper.failures, len(scraper.starts)) == ([], [], 2)
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")


ONLY_WHERE_IT_HAPPENS = (
    "gaiod_accept_errors_total", "gaiod_shared_values_updates_total", "gaiod_shared_values_delayed_total",
    "gaiod_tls_handshakes_total", "gaiod_tls_failures_total", "gaiod_upstream_tls_handshakes_total",
    "gaiod_upstream_routed_total", "gaiod_upstream_tls_failures_total", "gaiod_watched_file_reads_total",
    "gaiod_handler_thread_calls_total", "gaiod_tls_handshake_seconds",
)  # fmt: skip
"""Metrics without a sample until there is one to be told of: no handler of the test shares anything or has threads, and
none of its listeners speaks TLS or names a file."""


def _check_all_were_compared(samples: Samples) -> None:
    names = {name for (name, _), _ in samples.items() if name.endswith(ACCUMULATED)}
    for metric in METRICS:
        if metric.kind != "gauge" and metric.name not in ONLY_WHERE_IT_HAPPENS:
            wanted = (
                {metric.name}
                if metric.kind == "counter"
                else {f"{metric.name}_{each}" for each in ("bucket", "sum", "count")}
            )
            assert wanted <= names, metric.name


def test_scraper_sees_a_counter_that_goes_back(daemon: Start) -> None:
    scraper = Scraper(daemon().metrics)
    start = "gaiod_start_time_seconds 1\n"
    for text in ("a_total 5\nb 3\n", "a_total 6\nb 2\n", "c_total 1\n", 'a_total 5.5\na_total{x="1"} 1\n'):
        scraper.look(Samples(start + text))
    assert scraper.fallen == [(("a_total", frozenset()), 6, 5.5)]
    scraper.look(Samples("gaiod_start_time_seconds 2\na_total 1\n"))
    assert len(scraper.fallen) == 1
    assert scraper.starts == [1, 2]
