"""Who is banned: what becomes of connections that come, that are there, and that arrive from other workers."""

import socket
from typing import Any

import pytest
from core.support.tls import certificate
from gaiod.handlers.echo import Echo

from gaiod import ProxyHeader
from gaiod.settings import CertificateSettings, ProxyProtocolSettings, TlsSettings
from gaiod.worker.admission.bans import Bans
from gaiod.worker.listener import Common
from worker.admission.test_access import dial_from
from worker.admission.test_per_address import NAMES, wait_for
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving
from worker.test_giver_and_taker import Both


@pytest.mark.parametrize(
    ("address", "is_banned"),
    [
        (("192.0.2.7", 7), True),
        (("192.0.2.8", 7), False),
        (("10.200.0.1", 7), True),
        (("11.0.0.1", 7), False),
        (("::ffff:10.0.0.1", 7, 0, 0), True),
        (("2001:db8:1::1", 7, 0, 0), True),
        (("2001:db9::1", 7, 0, 0), False),
        (("::a00:1", 7, 0, 0), False),
        ("", False),
    ],
)
def test_address_is_banned_if_one_of_the_networks_has_it(address: Any, is_banned: bool) -> None:
    assert Bans(["192.0.2.7/32", "10.0.0.0/8", "2001:db8::/32"]).has(address) == is_banned


def test_networks_of_one_length_are_banned_and_unbanned_apart() -> None:
    bans = Bans()
    assert not bans.are_any
    bans.change(["10.0.0.0/8", "11.0.0.0/8", "2001:db8::/32"], [])
    bans.change([], ["10.0.0.0/8", "192.0.2.0/24"])
    assert [bans.has((host, 1)) for host in ("10.0.0.1", "11.0.0.1", "2001:db8::1")] == [False, True, True]
    bans.change([], ["11.0.0.0/8", "2001:db8::/32"])
    assert not bans.are_any


def ban(serving: Serving, bans: Bans, *networks: str) -> None:
    bans.change(networks, ())
    serving.listener.end_banned()


def test_connections_of_who_is_banned_end_and_none_are_accepted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bans, handler = Bans(), Recorder()
    serving = serve(handler, common=Common(bans=bans))
    with dial_from(serving, "127.0.0.2") as banned, dial_from(serving, "127.0.0.3") as other:
        wait_for(serving, "accepted", 2)
        ban(serving, bans, "127.0.0.2/32")
        wait_for(serving, "closed_ban", 1)
        assert handler.reasons == ["ban"]
        assert serving.ends() == [("ban", "gaiod", "kill", "-", "data", "-")]
        assert serving.is_ended(banned)
        with dial_from(serving, "127.0.0.2") as refused:
            wait_for(serving, "rejected_ban", 1)
            with pytest.raises(ConnectionResetError):
                refused.recv(1)
        assert serving.exchange(other, b"here") == b"here"
        bans.change((), ["127.0.0.2/32"])
        with dial_from(serving, "127.0.0.2") as again:
            wait_for(serving, "accepted", 3)
            assert serving.exchange(again, b"back") == b"back"
    (line,) = [record.getMessage() for record in caplog.records if "banned" in record.getMessage()]
    assert line.startswith("listener front: a connection from 127.0.0.2:")


def test_address_that_a_balancer_announces_is_banned(serve: Serve) -> None:
    bans = Bans()
    balancer = ProxyProtocolSettings(networks=("127.0.0.0/8",))
    serving = serve(Recorder(), proxy_protocol=balancer, common=Common(bans=bans))

    def announce(host: str) -> socket.socket:
        client = serving.dial()
        client.sendall(ProxyHeader((host, 1), ("192.0.2.1", 80)).encode_v2())
        return client

    banned, other = announce("192.0.2.7"), announce("192.0.2.8")
    wait_for(serving, "accepted", 2)
    ban(serving, bans, "192.0.2.7/32", "127.0.0.0/8")  # nothing comes from the balancer itself
    wait_for(serving, "closed_ban", 1)
    assert serving.is_ended(banned)
    announce("192.0.2.7")
    wait_for(serving, "rejected_ban", 1)
    assert serving.exchange(other, b"here") == b"here"
    serving.step_until(lambda: serving.listener.active == 1, "its place being free")


def test_handshake_of_who_is_banned_ends(serve: Serve) -> None:
    made, bans = certificate(), Bans()
    tls = TlsSettings((CertificateSettings(made.chain, made.key, ("localhost",), 2e9),))
    serving = serve(Recorder(), tls=tls, common=Common(bans=bans))
    with dial_from(serving, "127.0.0.2") as banned, dial_from(serving, "127.0.0.3"):
        serving.step_until(lambda: serving.listener.active == 2, "two handshakes")
        ban(serving, bans, "127.0.0.2/32")
        wait_for(serving, "rejected_ban", 1)
        serving.step_until(lambda: serving.listener.active == 1, "the end of one")
        assert serving.is_ended(banned)
    assert serving.count("rejected_tls") == 0


def test_connection_of_who_is_banned_ends_when_it_arrives_from_another_worker(request: pytest.FixtureRequest) -> None:
    bans = Bans(["127.0.0.0/8"])
    taker = Serving(Echo(), names=NAMES[1], common=Common(bans=bans))
    both = Both(Serving(Echo(), names=NAMES[0]), taker)
    request.addfinalizer(both.close)
    client = both.giver.dial()
    wait_for(both.giver, "accepted", 1)
    assert both.hand_over().moved == 1
    both.step_until(lambda: both.taker.count("closed_ban") == 1, "its end")
    assert both.taker.is_ended(client)
