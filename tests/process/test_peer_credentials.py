"""Who is at the other end of a unix socket."""

import os
import socket
import sys

import pytest

from gaiod.process.peer_credentials import peer_uid


def test_user_of_a_connection_is_who_connected() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert peer_uid(near.fileno()) == os.geteuid()
        assert near.fileno() >= 0


def test_user_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "aix")
    near, far = socket.socketpair()
    with near, far:
        assert peer_uid(near.fileno()) is None
