"""What a handler's connections to servers that speak TLS are made from."""

from typing import Any

from gaiod.core.engine import open_client
from gaiod.core.tls import ClientTls

KEPT_MAX = 1024
"""Servers whose newest ticket is kept: some 2 KiB each. A handler may let its clients choose whom it connects to."""


class Prefaced:
    """What one connection is made from that sends something before its handshake."""

    def __init__(self, client: Any, preface: bytes) -> None:
        self._client = client
        self._preface = preface

    def session(self) -> Any:
        """As what `open_tls` returns."""
        return self._client.session(self._preface)


class TlsClients:
    """What the sessions with each server have in common; with its newest ticket, which continues its last one.

    A server is an address with what is asked of it: one that is asked for another name, or shown another certificate,
    is another server. Those that were used last are kept.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ClientTls], Any] = {}

    def client_of(self, address: Any, tls: ClientTls, preface: bytes = b"") -> Any:
        """Return what `Watcher.connect` takes; `preface` is sent before the handshake, unencrypted.

        Raises:
            ValueError: as `gaiod.prepare_tls`.
        """
        key = (tuple(address) if isinstance(address, list) else address, tls)
        client = self._kept.pop(key, None)
        if client is None:
            client = open_client(tls)
            if len(self._kept) >= KEPT_MAX:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = client
        return Prefaced(client, preface) if preface else client
