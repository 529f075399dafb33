"""The socket that workers connect to: there before anybody takes, and gone with its last descriptor."""

import os
import socket

import pytest

from gaiod.supervisor.sockets.feeder_socket import FeederSocket


def test_who_connects_before_anybody_accepts_waits() -> None:
    feed = FeederSocket()
    with socket.socket(socket.AF_UNIX) as worker, socket.socket(fileno=os.dup(feed.fileno())) as listener:
        worker.connect(feed.address)
        worker.sendall(b"hello")
        with listener.accept()[0] as link:
            assert link.recv(5) == b"hello"
    feed.close()


def test_nobody_else_has_its_address() -> None:
    first, second = FeederSocket(), FeederSocket()
    assert first.address != second.address
    first.close()
    second.close()


def test_address_is_gone_when_it_is_closed() -> None:
    feed = FeederSocket()
    feed.close()
    with socket.socket(socket.AF_UNIX) as worker, pytest.raises(OSError):
        worker.connect(feed.address)
