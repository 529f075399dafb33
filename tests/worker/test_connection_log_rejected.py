"""What the connection log says of connections that their handler never saw."""

import logging
import socket
from typing import Any

import pytest

from gaiod.settings import ConnectionLogSettings, ProxyProtocolSettings
from gaiod.worker.connection_log import ConnectionLog
from gaiod.worker.names import Names
from worker.admission.test_proxy_header_wait import LOOPBACK, SHORT, wait_until_rejected
from worker.conftest import Serve
from worker.support.serving import Recorder


def test_connection_over_the_limit_has_a_line(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gaiod.connections")
    log = ConnectionLog(ConnectionLogSettings(closed=True), Names(3), lambda lines: None)
    serving = serve(Recorder(), connections_max=1, connection_log=log)
    serving.connect()
    over = serving.connect()
    (told,) = [vars(record)["gaiod_fields"] for record in caplog.records if record.name == "gaiod.connections"]
    assert told["peer"] == "{}:{}".format(*over.getsockname())
    assert (told["reason"], told["who"], told["how"], told["cause"], told["phase"]) == (
        "limit", "gaiod", "limit", "connections_max", "accept",
    )  # fmt: skip
    assert serving.closes() == {}, "it was never opened"


def _says_nothing(sock: socket.socket) -> None:
    """Wait for the timeout."""


REJECTED = [
    (LOOPBACK, lambda sock: sock.sendall(b"GET / HTTP/1.1\r\n\r\n"), ("client", "error", "header")),
    (SHORT, _says_nothing, ("client", "timeout", "proxy_protocol.timeout")),
    (
        ProxyProtocolSettings(("192.0.2.0/24",)), _says_nothing,
        ("gaiod", "limit", "proxy_protocol.from"),
    ),
    (LOOPBACK, lambda sock: (sock.sendall(b"PROXY"), sock.shutdown(socket.SHUT_WR)), ("client", "fin", None)),
    (LOOPBACK, lambda sock: sock.shutdown(socket.SHUT_WR), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "act", "told"), REJECTED, ids=["wrong", "late", "a stranger", "incomplete", "a look at the port"]
)
def test_connection_that_is_rejected_has_a_line_unless_it_said_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture, settings: ProxyProtocolSettings, act: Any, told: Any
) -> None:
    caplog.set_level(logging.INFO, "gaiod.connections")
    log = ConnectionLog(ConnectionLogSettings(closed=True), Names(3), lambda lines: None)
    serving = serve(Recorder(), proxy_protocol=settings, connection_log=log)
    act(serving.dial())
    wait_until_rejected(serving)
    found = [vars(record)["gaiod_fields"] for record in caplog.records if record.name == "gaiod.connections"]
    ends = [(each["reason"], each["who"], each["how"], each.get("cause"), each["phase"]) for each in found]
    assert ends == ([] if told is None else [("proxy_protocol", *told, "proxy_header")])
