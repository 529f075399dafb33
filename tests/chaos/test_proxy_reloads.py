"""A proxy that is reloaded, upgraded, stopped and killed under load: who notices, and who does not."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from core.support.sockets import pattern, receive
from core.support.waiting import LIMIT_S, TIME_UNIT
from e2e.support.clients import connect
from e2e.support.procfs import session_of
from e2e.support.starting import Start
from e2e.support.upstreams import address_of, config, pair, until, upstreams
from e2e.support.waiting import wait_until

from chaos.support.daemons import kill, workers_of
from chaos.support.load import Load
from chaos.support.proxies import proxied, proxy_config

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize(
    ("clients", "reloads", "seconds"),
    [pytest.param(50, 4, 3, id="short"), pytest.param(500, 30, 60, marks=pytest.mark.slow, id="long")],
)
def test_reloads_and_an_upgrade_of_the_proxy_cost_nobody_a_byte(
    daemon: Start, tmp_path: Path, clients: int, reloads: int, seconds: int
) -> None:
    """Connections stay with the workers that have them; what is new goes to servers as the file now has them."""
    running, backends = proxied(daemon, tmp_path, servers=2, workers=2, drain_timeout="10m")
    servers = [backend.address("mine") for backend in backends]
    with (
        Load(running.address("front"), clients, pause_s=clients / 2000, message_bytes=512) as load,
        Load(running.address("front"), 5, pause_s=0.01, messages_per_connection=2) as passers,
    ):
        load.wait_until_served()
        for number in range(reloads):
            next_s = time.monotonic() + TIME_UNIT * seconds / reloads
            chosen = servers[number % 2 :] if number % 3 else servers
            (tmp_path / "gaiod.yaml").write_text(proxy_config(chosen, workers=2, drain_timeout="10m"))
            assert running.gaiod("reload").returncode == 0, running.log()
            time.sleep(max(0.0, next_s - time.monotonic()))  # a rhythm, not a wait
        assert running.gaiod("upgrade").returncode == 0, running.log()
        closed = passers.closed
        wait_until(lambda: passers.closed > closed + 20, "clients of the new daemon")
        new = running.ask("status")["pid"]
    assert running.wait() == 0, running.log()
    os.kill(new, signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    for each in (load, passers):
        assert not each.ends and not each.wrong and not each.connect_errors
    assert load.answered > 5 * clients


def test_stop_delivers_what_was_taken(daemon: Start) -> None:
    """A message that is under way when the proxy is told to stop arrives whole."""
    with upstreams(1) as (upstream,):
        running = daemon(config(f"servers: [{address_of(upstream)}]").replace("1s", "30s"))
        client, far = pair(running, upstream)
        data = pattern(20 << 20)

        def send() -> None:
            with client:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""

        sender = threading.Thread(target=send)
        sender.start()
        with far:
            taken = bytearray(receive(far, 1 << 20))
            running.send(signal.SIGTERM)
            running.wait_for("stopping")
            while part := far.recv(1 << 18):
                taken += part
                time.sleep(0.001)  # slower than it is sent
        sender.join(LIMIT_S)
        assert taken == data
        assert running.wait() == 0


def test_killed_worker_costs_its_own_proxied_connections_only(daemon: Start, tmp_path: Path) -> None:
    running, _ = proxied(daemon, tmp_path, workers=2)
    with Load(running.address("front"), 40, pause_s=0.01) as load:
        load.wait_until_served()
        until(running, 40, "upstream_connections_active")
        victim, _ = workers_of(running)
        before = running.scrape()
        mine = [
            before.value("gaiod_connections_active", listener="front", handler="proxy", worker=slot) for slot in (0, 1)
        ]
        (slot,) = (row["worker"] for row in running.ask("status")["workers"] if row["pid"] == victim)
        kill(victim)
        wait_until(lambda: running.log().count("serves again") == 1, "a replacement")
        load.wait_until_served()
        after = until(running, 40, "upstream_connections_active")
    assert not load.wrong and not load.connect_errors
    assert len(load.ends) == mine[slot]
    lost = after.total("gaiod_connections_closed_total", reason="worker_lost")
    assert lost == mine[slot]
    for name in ("gaiod_upstream_connections_total", "gaiod_received_bytes_total", "gaiod_connections_accepted_total"):
        assert after.total(name) > before.total(name)
    assert after.total("gaiod_upstream_connections_total") == 40 + lost


def test_next_client_is_served_after_the_only_worker_of_a_proxy_was_killed(daemon: Start, tmp_path: Path) -> None:
    running, _ = proxied(daemon, tmp_path)
    (victim,) = workers_of(running)
    kill(victim)
    with connect(running.address("front")) as client:
        receive(client, 4)
        client.sendall(b"ping")
        assert receive(client, 4) == b"ping"
