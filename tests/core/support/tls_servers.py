"""Servers that speak TLS by the standard library, each in a thread, for tests of clients."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

from core.support.authority import authority
from core.support.waiting import LIMIT_S
from gaiod.core.contexts import load
from gaiod.core.tls import Certificate


def echo(sock: Any) -> None:
    """Send back what comes, until its end, and say goodbye."""
    while data := sock.recv(65536):
        sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.unwrap().close()


def context_of(certificate: Certificate, **changes: Any) -> ssl.SSLContext:
    """Return what a server shows; `changes` are attributes of the context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, certificate)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


class TlsServer:
    """Serves clients one after the other.

    Attributes:
        address: its own.
        failures: of handshakes and of `serve`, in words.
        names: that clients have asked for.
        resumed: of each client that was served, whether it has continued a session.
    """

    def __init__(self, context: ssl.SSLContext, serve: Callable[[Any], None] = echo, family: int = socket.AF_INET):
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener = socket.create_server((host, 0), family=socket.AddressFamily(family))
        self.address = self._listener.getsockname()[:2]
        self.failures: list[str] = []
        self.names: list[str | None] = []
        self.resumed: list[bool] = []
        self._context = context
        context.sni_callback = lambda sock, name, of: self.names.append(name)
        self._serve = serve
        self._descriptor = -1  # of whom it serves
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(LIMIT_S)
            self._descriptor = os.dup(sock.fileno())
            try:
                with self._context.wrap_socket(sock, server_side=True) as secured:
                    self.resumed.append(bool(secured.session_reused))
                    self._serve(secured)
            except OSError as error:
                self.failures.append(str(error))
            finally:
                socket.socket(fileno=self._descriptor).close()
                self._descriptor = -1

    def close(self) -> None:
        """Accept no more, and let the client go that is served."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(0.2)
        if self._descriptor >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as served:
                served.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)


@contextlib.contextmanager
def tls_server(certificate: Certificate | None = None, *, serve: Any = echo, **changes: Any) -> Iterator[TlsServer]:
    """Give a server; by default its certificate is for localhost, by the test's authority."""
    shown = authority().sign() if certificate is None else certificate
    server = TlsServer(context_of(shown, **changes), serve)
    try:
        yield server
    finally:
        server.close()
