"""Groups of a handler: made from its listener, counted in its row, and rid of who takes nothing."""

import socket
from typing import Any

import pytest
from core.support.waiting import MOMENT_S

from gaiod import Conn, Group, OpResult
from worker.conftest import Serve
from worker.support.serving import Recorder

BIG = 4 << 20
"""More than the kernel queues for a client that does not read."""


class Publisher(Recorder):
    """What one client sends, all get."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments
        self.has_rung = False

    def on_start(self) -> None:
        self.everybody: Group = self.group(**self.arguments)

    def on_timer(self, data: Any) -> None:
        self.has_rung = True

    def on_open(self, conn: Conn) -> None:
        self.everybody.add(conn)
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self.everybody.publish(result.buffer)
        conn.read()


def test_handler_publishes_what_a_client_sends_to_all(serve: Serve) -> None:
    serving = serve(Publisher())
    clients = [serving.connect() for _ in range(3)]
    clients[0].sendall(b"hello")
    assert [serving.receive(client, 5) for client in clients] == [b"hello"] * 3
    assert [serving.count(f"push_{cell}") for cell in ("subscribers", "published", "deliveries")] == [3, 1, 3]
    assert serving.count("downstream_sent_bytes") == 15


def test_listener_is_behind_until_what_was_published_is_dealt_out(serve: Serve) -> None:
    handler = Publisher(limit=BIG)
    serving = serve(handler)
    client = serving.connect()
    assert not serving.listener.is_behind
    handler.everybody.publish(bytes(300_000))
    assert serving.listener.is_behind
    serving.receive(client, 300_000)
    assert not serving.listener.is_behind


def test_client_that_is_too_slow_is_closed_and_counted_by_its_reason(serve: Serve) -> None:
    handler = Publisher(limit=BIG)
    serving = serve(handler)
    fast, slow = serving.connect(), serving.connect()
    for _ in range(2):
        handler.everybody.publish(bytes(BIG))
        serving.receive(fast, BIG)
    for _ in range(2):
        if not serving.closes():
            handler.everybody.publish(bytes(BIG))
            serving.receive(fast, BIG)
    serving.step_until(serving.closes, "the close being counted")
    assert (serving.closes(), handler.reasons) == ({"slow_consumer": 1}, ["slow_consumer"])
    assert serving.count("push_subscribers") == serving.listener.active == 1
    assert serving.count("push_dropped_disconnect") > 0
    assert serving.count("push_queued_bytes") == serving.count("push_held_bytes") == 0
    while slow.recv(1 << 20):
        pass


def test_client_that_takes_nothing_is_closed_after_the_grace(serve: Serve) -> None:
    handler = Publisher(limit=2 * BIG, grace_s=MOMENT_S)
    serving = serve(handler)
    serving.connect().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    handler.everybody.publish(bytes(2 * BIG))
    serving.step_until(serving.closes, "the client being closed")
    assert serving.closes() == {"slow_consumer": 1}


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest_only"])
def test_client_is_left_alone_by_the_other_policies(serve: Serve, policy: str) -> None:
    handler = Publisher(limit=2 * BIG, grace_s=MOMENT_S, policy=policy)
    serving = serve(handler)
    client, other = serving.connect(), serving.connect()
    handler.everybody.publish(bytes(2 * BIG))
    serving.receive(other, 2 * BIG)
    other.sendall(b"x")
    assert serving.receive(other, 1) == b"x"
    handler.timer(4 * MOMENT_S, None)
    serving.step_until(lambda: handler.has_rung, "more than the grace")
    assert serving.closes() == {}
    assert serving.receive(client, 2 * BIG + 1) == bytes(2 * BIG) + b"x"
