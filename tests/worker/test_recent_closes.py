"""What is written down of connections that have closed."""

from typing import Any, cast

from gaiod import Conn, ProxyHeader, Termination
from gaiod.core.sockets import name_of_peer
from gaiod.stats import closes
from gaiod.testing.conn import ScriptedConn
from gaiod.worker.inspect.recent_closes import RecentCloses

NAME = name_of_peer(("192.0.2.1", 5000))
IDLE = Termination("idle", "gaiod", "timeout", "idle_timeout", "data")


def _told(header: ProxyHeader | None = None, name: bytes | None = NAME) -> dict[str, Any]:
    memory = bytearray(closes.FILE_BYTES)
    conn = ScriptedConn(serial=5, bytes_received=7, bytes_sent=9, opened_s=10.0, proxy_header=header)
    recent_closes = RecentCloses(memory, 2)
    recent_closes.add((3, 5), "front", cast(Conn, conn), name, IDLE, server="192.0.2.9:80", now_s=70.0)
    found = closes.find(bytes(memory), "3-5", 75.0)
    assert found is not None
    return found


def test_what_is_written_down_is_told() -> None:
    assert _told() == {
        "worker": 2,
        "listener": "front",
        "peer": "192.0.2.1:5000",
        "server": "192.0.2.9:80",
        "reason": "idle",
        "who": "gaiod",
        "how": "timeout",
        "cause": "idle_timeout",
        "phase": "data",
        "closed_ago_s": 5.0,
        "age_s": 60.0,
        "received_bytes": 7,
        "sent_bytes": 9,
    }


def test_client_behind_a_balancer_is_who_was_announced() -> None:
    assert _told(ProxyHeader(("2001:db8::9", 443), ("::1", 1)))["peer"] == "[2001:db8::9]:443"


def test_peer_that_the_kernel_does_not_name_is_unknown() -> None:
    assert _told(name=None)["peer"] == "-"
