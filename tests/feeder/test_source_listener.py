"""Inlets: connections that a source answers, at sockets that others have opened."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S
from gaiod.handlers.echo import Echo
from worker.support.stepping import Stepped

from gaiod import Watcher
from gaiod.feeder.source_listener import LAYOUT, SourceListener
from gaiod.settings import ListenerSettings

CONNECTIONS_MAX = 10


class Inlets(Stepped):
    """Inlets on a watcher of their own, each an echo."""

    def __init__(self, folder: Path) -> None:
        self._cells = memoryview(bytearray(8 * LAYOUT.size)).cast("q")
        super().__init__(Watcher(counters=self._cells, report_closes=True))
        self._folder = folder
        self._stack = ExitStack()

    def listening(self, name: str = "in") -> socket.socket:
        """Return a socket that listens at a path of that name; it stays the caller's."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(str(self._folder / name))
        sock.listen(CONNECTIONS_MAX * 2)
        return sock

    def open(self, *sockets: socket.socket, idle_timeout_s: float = 60.0) -> SourceListener:
        """Return another."""
        settings = ListenerSettings(
            "ticks/one", "unix:/in", "", connections_max=CONNECTIONS_MAX, idle_timeout_s=idle_timeout_s
        )
        inlet = SourceListener(self.watcher, self._cells, settings, Echo())
        inlet.serve(sockets)
        return inlet

    def connected(self, name: str = "in") -> socket.socket:
        """Return a client."""
        sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(str(self._folder / name))
        return sock

    def echoes(self, sock: socket.socket) -> bool:
        """Tell whether a client gets back what it says."""
        sock.settimeout(LIMIT_S)
        sock.sendall(b"ping")
        sock.setblocking(False)
        received = bytearray()

        def look() -> bool:
            try:
                received.extend(sock.recv(16))
            except BlockingIOError:
                pass
            return len(received) == 4

        self.step_until(look, "the echo")
        return received == b"ping"

    def is_ended(self, sock: socket.socket) -> bool:
        """Tell whether a client's connection has ended."""
        sock.setblocking(False)
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """End all of it."""
        self.watcher.close()
        self._stack.close()


@pytest.fixture
def inlets(tmp_path: Path) -> Iterator[Inlets]:
    """A maker of inlets, whose sockets are in `tmp_path`."""
    inlets = Inlets(tmp_path)
    yield inlets
    inlets.close()


def test_socket_stays_its_owners_and_clients_wait_there_for_the_next_one(inlets: Inlets) -> None:
    sock = inlets.listening()
    first = inlets.open(sock)
    before = inlets.connected()
    assert inlets.echoes(before)
    first.close()
    inlets.step_until(lambda: inlets.is_ended(before), "the end of its connection")
    waits = inlets.connected()
    inlets.open(sock)
    assert inlets.echoes(waits)


def test_all_sockets_of_an_address_are_served(inlets: Inlets) -> None:
    inlets.open(inlets.listening("a"), inlets.listening("b"))
    assert inlets.echoes(inlets.connected("a"))
    assert inlets.echoes(inlets.connected("b"))


def test_socket_that_was_made_anew_is_served_instead_and_connections_go_on(inlets: Inlets) -> None:
    sock = inlets.listening("before")
    inlet = inlets.open(sock)
    before = inlets.connected("before")
    assert inlets.echoes(before)
    inlet.serve([inlets.listening("after")])
    assert inlets.echoes(inlets.connected("after"))
    assert inlets.echoes(before)
    sock.close()
    with pytest.raises(ConnectionRefusedError):
        inlets.connected("before")


def test_same_socket_is_served_on_though_it_comes_by_another_descriptor(inlets: Inlets) -> None:
    sock = inlets.listening()
    inlet = inlets.open(sock)
    with patch.object(socket.socket, "dup") as copied, socket.socket(fileno=os.dup(sock.fileno())) as again:
        inlet.serve([again])
    assert not copied.called
    assert inlets.echoes(inlets.connected())


def test_socket_that_did_not_come_is_an_error(inlets: Inlets) -> None:
    with pytest.raises(OSError, match="Too many open files: the socket of unix:/in is not here"):
        inlets.open()


def test_connections_are_bounded(inlets: Inlets) -> None:
    inlets.open(inlets.listening())
    for _ in range(CONNECTIONS_MAX):
        inlets.connected()
    inlets.step_until(lambda: inlets.clients() == CONNECTIONS_MAX, "all of them")
    late = inlets.connected()
    inlets.step_until(lambda: inlets.is_ended(late), "the end of the one too many")


def test_connection_that_says_nothing_is_closed_after_the_inlets_own_time(inlets: Inlets) -> None:
    inlets.open(inlets.listening("patient"))
    inlets.open(inlets.listening("not"), idle_timeout_s=MOMENT_S)
    stays, goes = inlets.connected("patient"), inlets.connected("not")
    inlets.step_until(lambda: inlets.is_ended(goes), "the connection being closed")
    assert inlets.echoes(stays)


def test_connections_that_are_quiet_are_closed_and_others_are_not_yet(inlets: Inlets) -> None:
    inlet = inlets.open(inlets.listening())
    quiet, busy = inlets.connected(), inlets.connected()
    assert inlets.echoes(quiet)
    inlet.stop_accepting()

    def look() -> bool:
        assert inlets.echoes(busy)
        assert inlet.close_quiet(MOMENT_S)
        return inlets.is_ended(quiet)

    inlets.step_until(look, "the end of the quiet one")
    inlets.step_until(lambda: not inlet.close_quiet(MOMENT_S), "the other one's")
    assert inlets.is_ended(busy)
