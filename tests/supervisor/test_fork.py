"""Forked children: what they have, what they lack, and how they end."""

import os
import socket

from gaiod.supervisor.processes.fork import end, fork, wait


def test_child_has_what_it_is_to_keep_and_nothing_else() -> None:
    kept, other = os.pipe()

    def work(channel: socket.socket) -> None:
        channel.sendall(repr(sorted(int(name) for name in os.listdir("/proc/self/fd"))).encode())

    try:
        child, channel = fork(work, [kept])
        with channel:
            said = channel.makefile().read()
        assert wait(child) == 0
    finally:
        os.close(kept)
        os.close(other)
    had = eval(said)
    assert kept in had
    assert other not in had


def test_child_that_fails_ends_and_says_nothing() -> None:
    def work(channel: socket.socket) -> None:
        raise RuntimeError("it fails")

    child, channel = fork(work)
    with channel:
        assert channel.recv(1) == b""
    assert wait(child) == 0


def test_child_can_be_ended() -> None:
    def work(channel: socket.socket) -> None:
        channel.recv(1)  # which never comes

    child, channel = fork(work)
    with channel:
        end(child)
        assert channel.recv(1) == b""
