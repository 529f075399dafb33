"""What the kernel says of a socket."""

import socket
import sys

import pytest
from core.support.sockets import NewPair

from gaiod.worker.inspect.tcp_info import queues, tcp_info

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as Linux has it")


@linux_only
def test_tcp_socket_is_told_of(tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    near.sendall(b"ping")
    assert far.recv(4) == b"ping"
    info = tcp_info(near.fileno())
    assert info is not None
    assert info["state"] == "established"
    assert 0 < info["rtt_s"] < 1
    assert 0 < info["rttvar_s"] < 1
    assert (info["retransmits"], info["retransmits_total"], info["window_probes"], info["unsent_bytes"]) == (0, 0, 0, 0)
    assert info["user_timeout_s"] is None
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1500)
    assert (tcp_info(near.fileno()) or {})["user_timeout_s"] == 1.5
    assert near.fileno() >= 0, "looking does not close"


@linux_only
def test_end_of_the_peer_is_a_state(tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    far.close()
    near.settimeout(None)
    assert near.recv(1) == b""
    info = tcp_info(near.fileno())
    assert info is not None
    assert info["state"] == "close_wait"


def test_unix_socket_has_no_tcp(unix_pair: NewPair) -> None:
    assert tcp_info(unix_pair()[0].fileno()) is None


def test_queues_are_what_nobody_has_read(tcp_pair: NewPair) -> None:
    near, far = tcp_pair()
    far.sendall(bytes(100))
    near.recv(1)  # all of it came at once, over the loopback
    assert queues(near.fileno())["receive_queue_bytes"] == 99
    near.setblocking(False)
    try:
        while True:
            near.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    assert (queues(near.fileno())["send_queue_bytes"] or 0) > 1000


def test_descriptor_that_is_no_socket_has_no_queues() -> None:
    with open("/dev/null", "rb") as file:
        assert queues(file.fileno()) == {"send_queue_bytes": None, "receive_queue_bytes": None}
