"""What there is to say of TLS, as plain data: what a server shows and asks, and what was agreed with a peer."""

from dataclasses import dataclass, field

FAILURES = (
    "timeout", "closed", "reset", "http", "not_tls", "version", "no_shared_cipher", "unknown_name", "alpn", "alert",
    "protocol",
)  # fmt: skip
"""Why TLS with a peer failed. `timeout` is its owner's; `closed`, `reset`: the network's end came before that of the
handshake; `http`: what came first was a request without TLS; `not_tls`: it was something else; `unknown_name`: no
certificate is for the server that it has named; `alpn`: none of its protocols is spoken; `alert`: the peer refused us,
and the message has its alert; `protocol`: anything else that is against the rules."""

VERSIONS = ("1.2", "1.3")
"""Others have known weaknesses (RFC 8996)."""

RECORD_BYTES = 16_384
"""Most plain bytes of a record (RFC 8446, 5.1)."""

AHEAD_BYTES = 4 * RECORD_BYTES
"""Most plain bytes that are encrypted before the kernel has taken those before them. Records have numbers: what is
encrypted has to be sent, whatever becomes of the write."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with those that lead to its authority, and its key, both PEM."""

    chain: str
    key: str = field(repr=False)
    names: tuple[str, ...] = ()
    """Of the servers that it is for, in lower case; `*.` stands for one label (RFC 6125, 6.4.3)."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server shows its clients, and what it asks of them."""

    certificates: tuple[Certificate, ...]
    """The first is for clients that name no server, or one that no certificate has."""
    versions: tuple[str, ...] = VERSIONS
    """Of `VERSIONS`."""
    refuses_unknown_names: bool = False
    """A client that names no server, or one that no certificate is for, is shown none."""
    alpn: tuple[str, ...] = ()
    """Protocols that are spoken, the preferred first (RFC 7301). A client that offers others only is refused."""
    accepts_truncation: bool = False
    """A stream that ends without a close_notify ended in order."""


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What was agreed with a peer."""

    version: str
    """`1.2` or `1.3`."""
    suite: str
    """As OpenSSL calls it: `TLS_AES_256_GCM_SHA384`."""
    alpn: str | None
    """The protocol that both speak; None: the client offered none, or none was asked for."""
    server_name: str | None
    """The server that the client has asked for, in lower case; None: it has named none."""
    resumed: bool
    """It has continued an earlier session: no certificate was shown."""
