"""A real Prometheus scrapes a daemon with every kind of listener: dashboard and alerts get answers, and true ones."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.support.pki import authority
from core.support.sockets import pattern, receive
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.clients import connect, exchange, request
from e2e.support.daemons import Daemon
from e2e.support.prometheus import SCRAPE_EVERY_MS, Prometheus
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from generate import dashboard
from panels import KNOWN
from prometheus_client.parser import text_string_to_metric_families

from deploy.support.lint import SELECTOR, panels_of, without_thresholds
from deploy.test_rules import FOLDER, RULES

CONFIG = """\
workers: 2
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, access: ["deny file:{folder}/blocked.txt"]}}
  server: {{bind: "unix:{folder}/server.sock", handler: echo}}
  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["unix:{folder}/server.sock"]}}}}
  secret:
    bind: "unix:{folder}/secret.sock"
    handler: echo
    tls: {{certificates: [{{chain: {folder}/app.pem, key: {folder}/app.key, ocsp: {folder}/app.ocsp}}]}}
  ticks: {{bind: "127.0.0.1:0", handler: push, with: {{source: {{every: 20ms}}}}}}
  threads: {{bind: "127.0.0.1:0", handler: {folder}/threads.py}}
  outward:
    bind: "127.0.0.1:0"
    handler: proxy
    with:
      servers: [{{address: "unix:{folder}/secret.sock", tls: {{ca: {folder}/ca.pem, name: localhost}}}}]
  routed:
    bind: "127.0.0.1:0"
    handler: proxy
    with: {{servers: [{{address: "unix:{folder}/secret.sock", pool: app}}], route: {{sni: {{localhost: app}}}}}}
"""

THREADS = """\
from gaiod import CoroutineHandler, Stream


class Threads(CoroutineHandler):
    async def handle(self, conn: Stream) -> None:
        await conn.write(await self.run(bytes.upper, await conn.read()))
"""

VARIABLES = {"$__rate_interval": "1m", "$job": "gaiod", "$instance": ".+"}
MESSAGES = 5
SLOW_BYTES = 32 << 20
"""More than the kernel and the relays hold on the way to the server and back."""


@pytest.fixture
def running(daemon: Start, tmp_path: Path) -> Daemon:
    """A daemon with an echo, a proxy before another, one that speaks TLS and two before it, a push
    listener, and one with threads."""
    made = authority().issue("localhost", names="DNS:localhost")
    (tmp_path / "ca.pem").write_text(authority().chain)
    (tmp_path / "app.ocsp").write_bytes(authority().ocsp(made))
    (tmp_path / "threads.py").write_text(THREADS)
    (tmp_path / "blocked.txt").touch()
    (tmp_path / "app.pem").write_text(made.chain)
    (tmp_path / "app.key").write_text(made.key)
    return daemon(CONFIG.format(folder=tmp_path))


@pytest.fixture
def prometheus(running: Daemon, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus with our configuration, but for the address of the daemon, and how often it looks."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE_EVERY_MS}ms"
    )
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [running.metrics]}]
    folder = tmp_path / "prometheus"
    folder.mkdir()
    prometheus = Prometheus(folder, yaml.safe_dump(config))
    yield prometheus
    prometheus.stop()


def _load(running: Daemon, clients: ExitStack, listener: str, connections: int, size: int) -> None:
    """Have clients of a listener get their bytes back, and leave them connected."""
    for number in range(connections):
        data = pattern(size, number)
        assert exchange(clients.enter_context(connect(running.address(listener))), data) == data


def _subscribe(running: Daemon, clients: ExitStack, n: int) -> None:
    """Have clients get messages, and leave them connected."""
    for _ in range(n):
        lines = clients.enter_context(clients.enter_context(connect(running.address("ticks"))).makefile("rb"))
        assert all(lines.readline().endswith(b"\n") for _ in range(MESSAGES))


def _stall(sock: socket.socket) -> int:
    """Send to an echo and read nothing of it, until nothing goes any more; return the bytes sent."""
    sent, data = 0, pattern(1 << 18)
    sock.settimeout(TIME_UNIT)
    while sent < SLOW_BYTES:
        try:
            sent += sock.send(data[sent % len(data) :])
        except TimeoutError:
            break
    sock.settimeout(LIMIT_S)
    assert sent < SLOW_BYTES, "nobody made it wait"
    return sent


def _drain(sock: socket.socket, sent: int) -> None:
    """Read all of what was sent, and see that it is that."""
    data = pattern(1 << 18)
    received = receive(sock, sent)
    assert all(received[at : at + len(data)] == data[: sent - at] for at in range(0, sent, len(data)))


def _over_tls(running: Daemon, listener: str) -> ssl.SSLSocket:
    """Return a client that asks a listener for localhost, and believes whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connect(running.address(listener)), server_hostname="localhost")


def _silent(prometheus: Prometheus, expressions: list[str]) -> list[str]:
    """Return those of the expressions that have no series."""
    silent = []
    for expression in expressions:
        asked = expression
        for name, value in VARIABLES.items():
            asked = asked.replace(name, value)
        if not prometheus.results(asked):
            silent.append(expression)
    return silent


def _rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    """Return the rules, once each was evaluated."""

    def evaluated() -> list[dict[str, Any]]:
        groups = (prometheus.ask("rules") or {"groups": []})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    return wait_until(evaluated, "the rules being evaluated", limit_s=3 * LIMIT_S)


def test_dashboard_and_alerts_see_what_the_clients_did(running: Daemon, prometheus: Prometheus, tmp_path: Path) -> None:
    running.ask("server", listener="db", server=f"unix:{tmp_path}/server.sock", mode="ready")
    with ExitStack() as clients:
        _load(running, clients, "echo", connections=5, size=10_000)
        _load(running, clients, "db", connections=3, size=20_000)
        _subscribe(running, clients, 2)
        assert exchange(clients.enter_context(connect(running.address("threads"))), b"ABC") == b"ABC"
        assert exchange(clients.enter_context(connect(running.address("outward"))), b"ABC") == b"ABC"
        assert exchange(clients.enter_context(_over_tls(running, "routed")), b"ABC") == b"ABC"
        for listener, connections, received in (("echo", 5, 50_000), ("db", 3, 60_000), ("server", 3, 60_000)):
            prometheus.wait_for(f'sum(gaiod_connections_active{{listener="{listener}"}})', connections)
            prometheus.wait_for(f'sum(gaiod_connections_accepted_total{{listener="{listener}"}})', connections)
            for name in ("gaiod_received_bytes_total", "gaiod_sent_bytes_total"):
                prometheus.wait_for(f'sum({name}{{listener="{listener}",side="downstream"}})', received)
        prometheus.wait_for('sum(gaiod_sent_bytes_total{listener="db",side="upstream"})', 60_000)
        prometheus.wait_for("sum(gaiod_push_subscribers)", 2)
        prometheus.wait_for(f"sum(gaiod_push_deliveries_total) >= bool {2 * MESSAGES}", 1)
        prometheus.wait_for("min(count_over_time(gaiod_scrapes_total[1m])) >= bool 2", 1)  # what a rate is made of
        assert (
            _silent(prometheus, [target["expr"] for panel in panels_of(dashboard()) for target in panel["targets"]])
            == []
        )
        marks = [without_thresholds(each["expr"]) for each in dashboard()["annotations"]["list"]]
        assert _silent(prometheus, marks) == []
        compared = [without_thresholds(rule["expr"]) for rule in RULES]
        selected = [match[0] for rule in RULES for match in SELECTOR.finditer(rule["expr"])]
        assert _silent(prometheus, compared + selected) == []
    prometheus.wait_for('gaiod_connections_closed_total{listener="echo",reason="peer_eof"}', 5)


def test_prometheus_sees_who_is_waited_for_and_every_byte_once_it_goes_on(
    running: Daemon, prometheus: Prometheus
) -> None:
    side = 'listener="db",side="downstream"'
    with connect(running.address("db")) as slow:
        sent = _stall(slow)
        prometheus.wait_for(f"gaiod_backpressure_paused_connections{{{side}}}", 1)
        prometheus.wait_for(f"gaiod_buffered_bytes{{{side}}} > bool 0", 1)
        prometheus.wait_for(f"gaiod_buffered_bytes{{{side}}} <= bool gaiod_buffer_limit_bytes{{{side}}}", 1)
        _drain(slow, sent)
        prometheus.wait_for(f"gaiod_backpressure_paused_connections{{{side}}}", 0)
        prometheus.wait_for(f"gaiod_buffered_bytes{{{side}}}", 0)
        prometheus.wait_for(f"sum(gaiod_received_bytes_total{{{side}}})", sent)
        prometheus.wait_for(f"sum(gaiod_sent_bytes_total{{{side}}})", sent)
        prometheus.wait_for(
            f"gaiod_backpressure_pauses_total{{{side}}} == bool gaiod_backpressure_resumes_total{{{side}}}", 1
        )
        prometheus.wait_for(f"gaiod_backpressure_paused_seconds_total{{{side}}} > bool 0", 1)


def test_everything_that_is_scraped_is_known(running: Daemon) -> None:
    """What the client library exports, too: a panel shows it, or there is a reason why none does."""
    families = text_string_to_metric_families(request(running.metrics, "/metrics").body.decode())
    names = {re.sub("_(bucket|count|sum)$", "", sample.name) for family in families for sample in family.samples}
    assert names <= set(KNOWN)


def test_no_alert_fires_while_all_is_well_and_one_does_when_a_reload_failed(
    running: Daemon, prometheus: Prometheus, tmp_path: Path
) -> None:
    prometheus.wait_for("gaiod_ready", 1)
    rules = _rules(prometheus)
    assert [(rule["name"], rule["health"]) for rule in rules] == [(rule["alert"], "ok") for rule in RULES]
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    (tmp_path / "gaiod.yaml").write_text("listeners: 5\n")
    assert running.gaiod("reload").returncode != 0
    prometheus.wait_for('count(ALERTS{alertstate="firing"})', 1)
    prometheus.wait_for('count(ALERTS{alertname="GaiodConfigReloadFailed",alertstate="firing"})', 1)
