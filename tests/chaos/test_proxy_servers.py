"""Servers that die and come back: clients get to those that live, and no byte goes to two of them."""

import errno
import signal
import time
from pathlib import Path

import pytest
from core.support.waiting import TIME_UNIT
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.daemons import many
from chaos.support.load import Load
from chaos.support.proxies import proxied

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

CHECKED = "check: {interval: 100ms, timeout: 1s, rise: 2, fall: 1}, passive: {eject: 100ms, eject_max: 200ms}"


@pytest.mark.parametrize(
    ("clients", "deaths"),
    [pytest.param(20, 4, id="short"), pytest.param(200, 60, marks=pytest.mark.slow, id="long")],
)
def test_server_that_dies_each_second_costs_its_own_connections_only(
    daemon: Start, tmp_path: Path, clients: int, deaths: int
) -> None:
    """Had a byte been replayed, the other server's name would come amid the answers: that is `load.wrong`."""
    running, (lasting, mortal) = proxied(daemon, tmp_path, servers=2, options=CHECKED)
    address = mortal.address("mine")
    same_place = many(tmp_path, workers=1).replace('"127.0.0.1:0", handler', f'"{address}", handler')
    (survivor,) = lasting.workers
    with Load(running.address("front"), clients, pause_s=0.01, messages_per_connection=5) as load:
        load.wait_until_served()
        for _ in range(deaths):
            mortal.send_to_all(signal.SIGKILL)
            mortal.wait()
            began_s = time.monotonic()
            time.sleep(0.5 * TIME_UNIT)  # a rhythm, not a wait
            assert load.percentile_s(1.0, began_s, time.monotonic(), worker=survivor) < TIME_UNIT
            mortal = daemon(same_place, name="server-1.yaml")
            time.sleep(0.5 * TIME_UNIT)
        served = len(load.workers)
        samples = running.scrape()
    assert not load.wrong
    # Nobody is refused. Who is sent to a server in the moment of its death is reset, perhaps before it has looked.
    assert set(load.connect_errors) <= {errno.ECONNRESET}
    assert [end for end in load.ends if end.worker == survivor] == []
    assert load.answered > 20 * clients
    assert served == 2, "who came back gets clients again"
    server = {"upstream": "front", "server": address}
    assert samples.value("gaiod_upstream_connect_failures_total", **server, reason="refused") > 0
    assert samples.value("gaiod_upstream_health_checks_total", **server, result="failed") >= deaths
    assert samples.value("gaiod_upstream_up", **server) == 1
    assert samples.total("gaiod_upstream_unavailable_total") == 0
    assert samples.total("gaiod_upstream_connect_failures_total", server=lasting.address("mine")) == 0


def test_server_that_is_back_is_used_again_by_its_checks_whatever_its_ejection_says(
    daemon: Start, tmp_path: Path
) -> None:
    """Three deaths in a row are ejections of 10, 20 and 40 s."""
    running, (_, mortal) = proxied(daemon, tmp_path, servers=2, options="check: {interval: 300ms, timeout: 1s}")
    address = mortal.address("mine")
    server = {"upstream": "front", "server": address}
    same_place = many(tmp_path, workers=1).replace('"127.0.0.1:0", handler', f'"{address}", handler')
    with Load(running.address("front"), 20, pause_s=0.01, messages_per_connection=5) as load:
        load.wait_until_served()
        for _ in range(3):
            mortal.send_to_all(signal.SIGKILL)
            mortal.wait()
            wait_until(lambda: running.scrape().value("gaiod_upstream_up", **server) == 0, "its being missed")
            mortal = daemon(same_place, name="server-1.yaml")
            back_s = time.monotonic()
            wait_until(lambda: running.scrape().value("gaiod_upstream_up", **server) == 1, "its return")
            assert time.monotonic() - back_s < 2 * TIME_UNIT
        samples = running.scrape()
    assert not load.wrong
    assert samples.total("gaiod_upstream_unavailable_total") == 0
