"""TLS for tests: certificates made here, and peers that speak it by the standard library."""

import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from core.support.waiting import LIMIT_S
from gaiod.core import ENGINE
from gaiod.core.connection import Conn
from gaiod.core.engine import open_tls
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.tls import Certificate, ClientTls, ServerTls
from gaiod.core.watcher import Watcher

LINGER_NONE = struct.pack("ii", 1, 0)


def certificate(name: str = "localhost", days: int = 30) -> Certificate:
    """Return a certificate of its own authority, of an elliptic curve, for some name and `*.` of it.

    It is the same one each time.
    """
    return _certificate(name, days)


@cache
def _certificate(name: str, days: int) -> Certificate:
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:*.{name}",
             "-keyout", str(key), "-out", str(chain)],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        return Certificate(chain.read_text(), key.read_text())


LAYERS: dict[str, Callable[[Any], Any]] = {"usual": open_tls}
"""What makes sessions: what the engine has for that, and on the compiled one also the standard library."""

if ENGINE == "compiled":
    LAYERS["ssl"] = import_module("gaiod.core._sessions").ObjectContext

layer = "usual"
"""Of `LAYERS`, for the sessions of a test: see `use_layer`."""


def use_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a test use one of `LAYERS`."""
    monkeypatch.setattr("core.support.tls.layer", name)


def is_openssl() -> bool:
    """Tell whether sessions are made by OpenSSL itself: what the standard library's cannot, `check` refuses."""
    return layer == "usual" and ENGINE == "compiled"


can_refuse_protocols = is_openssl


def server_of(options: ServerTls) -> Any:
    """Return what `Watcher.start_tls` takes."""
    return LAYERS[layer](options)


def client_of(options: ClientTls) -> Any:
    """Return what `Watcher.connect` takes."""
    return LAYERS[layer](options)


def server(**options: Any) -> Any:
    """Return what `Watcher.start_tls` takes."""
    return _server(layer, **options)


@cache
def _server(layer: str, **options: Any) -> Any:
    return LAYERS[layer](ServerTls((certificate(),), **options))


@cache
def client(version: str = "1.3") -> ssl.SSLContext:
    """Return the settings of a client that believes the server."""
    context = ssl.create_default_context(cadata=certificate().chain)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    return context


class TlsPeer:
    """The other end of a connection that speaks TLS: like a socket, and in charge of every byte of the handshake.

    What is asked of it before the handshake is done then.
    """

    def __init__(self, sock: socket.socket, version: str = "1.3") -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = client(version).wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.is_open = False
        self.backlog = b""  # encrypted, and not taken by the kernel
        self.early: list[Callable[[], object]] = []
        self.is_abrupt = False

    def step(self) -> bool:
        """Go on with the handshake as far as what has come allows; tell whether it is done."""
        self.sock.setblocking(False)
        try:
            self.incoming.write(self.sock.recv(65536))
        except BlockingIOError:
            pass
        try:
            self.object.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        self.sock.settimeout(LIMIT_S)
        self._flush()
        if self.is_open:
            for act in self.early:
                act()
            self.early.clear()
        return self.is_open

    def _flush(self) -> None:
        self.backlog += self.outgoing.read()
        while self.backlog:
            self.backlog = self.backlog[self.sock.send(self.backlog) :]

    def send(self, data: Any) -> int:
        """As a socket's; it takes a record at most."""
        self._flush()
        taken = self.object.write(memoryview(data)[:16384])
        try:
            self._flush()
        except BlockingIOError:
            pass
        return taken

    def sendall(self, data: Any) -> None:
        """As a socket's."""
        if not self.is_open:
            copy = bytes(data)
            self.early.append(lambda: self.sendall(copy))
            return
        view = memoryview(data).cast("B")
        while view:
            view = view[self.send(view) :]
        self._flush()

    def recv(self, size: int) -> bytes:
        """As a socket's; the end of the stream may be one without close_notify."""
        while True:
            try:
                return bytes(self.object.read(size))
            except ssl.SSLWantReadError:
                pass
            data = self.sock.recv(65536)
            if not data:
                return b""
            self.incoming.write(data)

    def say_goodbye(self) -> None:
        """Send a close_notify."""
        try:
            self.object.unwrap()
        except (ssl.SSLError, OSError):
            pass
        self._flush()

    def shutdown(self, how: int) -> None:
        """As a socket's, with a close_notify before it."""
        self.say_goodbye()
        self.sock.shutdown(how)

    def close(self) -> None:
        """As a socket's, with a close_notify before it, unless a reset was asked for."""
        if not self.is_open and not self.is_abrupt and self.sock.fileno() >= 0:
            self.early.append(self.close)
            return
        if self.sock.fileno() >= 0 and not self.is_abrupt:
            try:
                self.sock.setblocking(False)
                self.say_goodbye()
            except OSError:
                pass
        self.sock.close()

    def truncate(self) -> None:
        """End without a close_notify."""
        self.sock.shutdown(socket.SHUT_WR)

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        """As a socket's."""
        self.is_abrupt = self.is_abrupt or (name == socket.SO_LINGER and value == LINGER_NONE)
        self.sock.setsockopt(level, name, value)

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self.sock.setblocking(flag)

    def settimeout(self, seconds: float) -> None:
        """As a socket's."""
        self.sock.settimeout(seconds)

    def fileno(self) -> int:
        """As a socket's."""
        return self.sock.fileno()


class TlsSocket(socket.socket):
    """The end of a connection that is to speak TLS once it is delegated to a `TlsWatcher`."""

    far: TlsPeer
    watcher: Any = None

    def fill(self) -> int:
        """As `sockets.fill`, with records: it is delegated for that."""
        filled: int = self.watcher.fill(self)
        return filled


def tls_socket(sock: socket.socket, far: socket.socket) -> tuple[TlsSocket, TlsPeer]:
    """Return a pair whose first is delegated with TLS."""
    near = TlsSocket(sock.family, sock.type, sock.proto, sock.detach())
    near.far = TlsPeer(far)
    return near, near.far


class TlsWatcher(Watcher):
    """A watcher that has finished the handshake of each `TlsSocket` when it has delegated it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.secured: dict[socket.socket, Conn] = {}
        self.kept: list[OpResult] = []

    def delegate(self, sock: socket.socket, *, context: object = None) -> Conn:
        """As a watcher's."""
        if not isinstance(sock, TlsSocket):
            return super().delegate(sock, context=context)
        if sock in self.secured:
            conn = self.secured.pop(sock)
            conn.context = context
            return conn
        conn = super().delegate(sock, context=context)
        shake_hands(self, conn, sock.far, self.kept)
        return conn

    def fill(self, sock: TlsSocket) -> int:
        """As `sockets.fill`: have a connection whose kernel takes no more; return how many bytes its peer will get."""
        for end in (sock, sock.far):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        conn = self.secured[sock] = self.delegate(sock)
        conn.write(bytes(20_000_000))
        sent = -1
        while sent != conn.bytes_sent:
            sent = conn.bytes_sent
            self.kept += super().wait_io(0.25)
        conn.cancel()
        (result,) = super().wait_io(LIMIT_S)
        assert 0 < result.size < 20_000_000
        return result.size

    def wait_io(self, timeout: float | None = None) -> list[OpResult]:
        """As a watcher's."""
        if self.kept:
            kept, self.kept = self.kept, []
            return kept
        return super().wait_io(timeout)


def shake_hands(watcher: Watcher, conn: Conn, far: TlsPeer, done: list[OpResult], tls: Any = None) -> OpResult:
    """Have a handshake between a connection and a peer, and return its completion; `done` gets all others."""
    conn.start_tls(server() if tls is None else tls)
    while True:
        far.step()
        results = Watcher.wait_io(watcher, 0.001)
        done += [result for result in results if result.operation is not OpType.HANDSHAKE]
        for result in results:
            if result.operation is OpType.HANDSHAKE and result.conn is conn:
                while result.error is None and not far.is_open:
                    far.step()
                return result
