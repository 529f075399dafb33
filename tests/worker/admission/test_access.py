"""Access rules: who may connect, and what those see who may not."""

import socket
from dataclasses import asdict
from ipaddress import ip_network
from typing import Any

import pytest
from core.support.sockets import unix_listener
from core.support.waiting import LIMIT_S

from gaiod import ProxyHeader
from gaiod.settings import AccessRule, NetworkTable, ProxyProtocolSettings
from gaiod.watched_files import KINDS
from gaiod.worker.admission.access import Access
from worker.conftest import Serve
from worker.support.serving import Recorder, Serving


def rule(text: str, *networks: str) -> AccessRule:
    """Return the rule that a text writes; `networks` are those of its file."""
    verb, of = text.split(" ")
    table = table_of(*networks) if of.startswith("file:") else None
    return AccessRule(verb == "allow", of, table)


def table_of(*networks: str) -> NetworkTable:
    """Return what a file of networks has that lie apart and in order."""
    bounds: dict[int, list[int]] = {4: [], 6: []}
    for network in (ip_network(text) for text in networks if text != "unix:"):
        bounds[network.version] += (int(network[0]), int(network[-1]) + 1)
    return NetworkTable(tuple(bounds[4]), tuple(bounds[6]), "unix:" in networks)


RULES = (rule("allow 10.1.0.0/16"), rule("deny file:/x", "10.0.0.0/8", "::1/128"), rule("deny unix:"))


@pytest.mark.parametrize(
    ("address", "refused_by"),
    [
        (("10.1.2.3", 7), None),
        (("10.2.2.3", 7), RULES[1]),
        (("::1", 7, 0, 0), RULES[1]),
        (("192.0.2.1", 7), None),
        ("", RULES[2]),
        (("::ffff:10.2.2.3", 7, 0, 0), RULES[1]),
        (("9.255.255.255", 7), None),
        (("11.0.0.0", 7), None),
    ],
)
def test_first_rule_that_matches_decides(address: Any, refused_by: AccessRule | None) -> None:
    assert Access(RULES).refusal_of(address) == refused_by


def dial_from(serving: Serving, host: str) -> socket.socket:
    """Return a client whose address is one of this machine's own."""
    sock = socket.socket()
    sock.settimeout(LIMIT_S)
    sock.bind((host, 0))
    sock.connect(serving.address)
    return sock


def test_client_that_may_not_connect_is_reset_and_counted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    handler = Recorder()
    serving = serve(handler, access=(rule("allow 127.0.0.2/32"), rule("deny all")))
    with dial_from(serving, "127.0.0.1") as refused, dial_from(serving, "127.0.0.2") as allowed:
        serving.step_until(lambda: serving.count("accepted") == 1, "the one who may")
        serving.step_until(lambda: serving.count("rejected_access") == 1, "the one who may not")
        with pytest.raises(ConnectionResetError):
            refused.recv(1)
        allowed.sendall(b"a")
        serving.step_until(lambda: "on_read" in handler.calls, "what the other says")
    assert handler.calls.count("on_open") == 1
    (line,) = [record.getMessage() for record in caplog.records if "access" in record.getMessage()]
    assert line.startswith("listener front: a connection from 127.0.0.1:")
    assert "is rejected by access: deny all" in line


def test_client_that_may_not_connect_takes_nobodys_place(serve: Serve) -> None:
    serving = serve(Recorder(), connections_max=1, access=(rule("deny 127.0.0.1/32"),))
    with dial_from(serving, "127.0.0.2"):
        serving.step_until(lambda: serving.count("accepted") == 1, "the only place is taken")
        with dial_from(serving, "127.0.0.1"):
            serving.step_until(lambda: serving.count("rejected_access") == 1, "it is told why")
    assert serving.count("rejected_limit") == 0


def test_address_that_a_balancer_announces_decides(serve: Serve) -> None:
    """The balancer's own is that of every client, and its own checks announce nobody."""
    balancer = ProxyProtocolSettings(networks=("127.0.0.0/8",))
    rules = (rule("deny 192.0.2.7/32"), rule("deny 127.0.0.1/32"))
    serving = serve(Recorder(), proxy_protocol=balancer, access=rules)
    to = ("192.0.2.1", 80)
    allowed = serving.dial()
    allowed.sendall(ProxyHeader(("192.0.2.8", 1), to).encode_v2())
    check = serving.dial()
    check.sendall(ProxyHeader(None, None).encode_v2())
    serving.step_until(lambda: serving.count("accepted") == 2, "those who may")
    refused = serving.dial()
    refused.sendall(ProxyHeader(("192.0.2.7", 1), to).encode_v2())
    serving.step_until(lambda: serving.count("rejected_access") == 1, "the one who may not")
    with pytest.raises(ConnectionResetError):
        refused.recv(1)
    serving.step_until(lambda: serving.listener.active == 2, "its place being free again")
    assert serving.count("rejected_proxy_protocol") == 0


def test_whoever_connects_to_a_unix_socket_is_unix(serve: Serve) -> None:
    with unix_listener() as sock:
        serving = serve(Recorder(), sock=sock, access=(rule("deny unix:"),))
        serving.dial()
        serving.step_until(lambda: serving.count("rejected_access") == 1, "nobody may")


def test_file_that_is_read_again_is_for_clients_that_come_from_now_on(serve: Serve) -> None:
    handler = Recorder()
    serving = serve(handler, access=(rule("deny file:/x"), rule("allow all")))
    with serving.dial() as established:
        serving.step_until(lambda: serving.count("accepted") == 1, "nobody is refused yet")
        settings = serving.listener.settings
        value = asdict(table_of("127.0.0.0/8"))
        serving.listener.renew(KINDS["access"].renewed(settings, ("/x",), value), {})
        with serving.dial() as refused:
            serving.step_until(lambda: serving.count("rejected_access") == 1, "the next one is")
            with pytest.raises(ConnectionResetError):
                refused.recv(1)
        established.sendall(b"a")
        serving.step_until(lambda: "on_read" in handler.calls, "what the first one says")
    assert serving.count("rejected_access") == 1
