"""Floods of resets through the proxy: nothing of them is left, and nobody else notices."""

import errno
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.sockets import reset
from core.support.waiting import TIME_UNIT
from e2e.support.clients import connect
from e2e.support.daemons import Daemon
from e2e.support.procfs import descriptors_of
from e2e.support.starting import Start
from e2e.support.upstreams import address_of, config, pair, upstreams
from e2e.support.waiting import wait_until

from chaos.support.load import Load
from chaos.support.proxies import proxied

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]


def active(running: Daemon) -> tuple[float, float]:
    """Return how many clients are connected, and how many connections to servers there are."""
    samples = running.scrape()
    return samples.total("gaiod_connections_active"), samples.total("gaiod_upstream_connections_active")


def wait_for_baseline(running: Daemon, connections: int, descriptors: int) -> None:
    """Wait until only so many are left, as soon as they may be: within a second."""
    wait_until(lambda: active(running) == (connections, connections), "the baseline", limit_s=TIME_UNIT)
    wait_until(lambda: len(descriptors_of(running.worker)) <= descriptors, "its descriptors", limit_s=TIME_UNIT)


@pytest.mark.parametrize(
    ("resets", "seconds"),
    [pytest.param(1000, 2.0, id="short"), pytest.param(10_000, 10.0, marks=pytest.mark.slow, id="long")],
)
def test_clients_that_connect_and_reset_leave_nothing_and_disturb_nobody(
    daemon: Start, tmp_path: Path, resets: int, seconds: float
) -> None:
    running, _ = proxied(daemon, tmp_path)
    steady = 20
    with Load(running.address("front"), steady, pause_s=0.01) as load:
        load.wait_until_served()
        wait_until(lambda: active(running) == (steady, steady), "the steady clients")
        descriptors = len(descriptors_of(running.worker))
        began_s = time.monotonic()
        for number in range(resets):
            sock = connect(running.address("front"))
            if number % 3 == 0:
                sock.sendall(b"half a message")
            reset(sock)
            time.sleep(max(0.0, began_s + TIME_UNIT * seconds * number / resets - time.monotonic()))
        p99_s = load.percentile_s(0.99, began_s, time.monotonic())
        wait_for_baseline(running, steady, descriptors)
        samples = running.scrape()
    assert not load.ends and not load.wrong and not load.connect_errors
    assert p99_s < 0.05 * TIME_UNIT
    assert samples.total("gaiod_connections_accepted_total") >= steady + resets * 0.9, (
        "some die before they are accepted"
    )
    assert samples.total("gaiod_conn_gc_found_total") == samples.total("gaiod_conn_gc_closed_total") == 0


@pytest.mark.parametrize("connections", [pytest.param(100, id="short"), pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("who", ["servers", "clients", "the kernel"])
def test_resets_of_established_connections_are_passed_on(daemon: Start, connections: int, who: str) -> None:
    with upstreams(1) as (upstream,), ExitStack() as stack:
        running = daemon(config(f"servers: [{address_of(upstream)}]"))
        descriptors = len(descriptors_of(running.worker))
        clients, servers = [], []
        for _ in range(connections):
            client, far = pair(running, upstream)
            clients.append(stack.enter_context(client))
            servers.append(stack.enter_context(far))
        wait_until(lambda: active(running) == (connections, connections), "all connections")
        if who == "the kernel":
            _kill_sockets(running.address("db"))
        else:
            for sock in clients if who == "clients" else servers:
                reset(sock)
        survivors = servers if who == "clients" else clients
        assert {_how_it_ended(survivor) for survivor in survivors} == {errno.ECONNRESET}
        wait_for_baseline(running, 0, descriptors)
    reason = {"clients": "peer_reset", "servers": "server_reset", "the kernel": "error"}[who]
    assert running.scrape().total("gaiod_connections_closed_total", reason=reason) == connections


def _kill_sockets(address: str) -> None:
    """Have the kernel reset the clients' connections (CONFIG_INET_DIAG_DESTROY)."""
    port = address.rpartition(":")[2]
    if shutil.which("ss") is None:
        pytest.skip("no ss: install iproute2")
    command = ["ss", "-K", "-t", "state", "established", f"( sport = :{port} )"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or port not in done.stdout:
        pytest.skip(f"ss -K is not possible here: {done.stderr.strip() or 'it closed nothing'}")


def _how_it_ended(client: socket.socket) -> int:
    """Return the errno of a connection that was reset; 0 if it ended in order."""
    try:
        while client.recv(65536):
            pass
    except OSError as error:
        return error.errno or 0
    return 0
