"""What there is to say of TLS, as plain data: what both sides show and ask, and what was agreed with a peer."""

import socket
from dataclasses import dataclass, field
from typing import Any

FAILURES = (
    "timeout", "closed", "reset", "http", "not_tls", "version", "no_shared_cipher", "unknown_name", "alpn",
    "client_certificate", "alert", "plaintext", "protocol",
)  # fmt: skip
"""Why TLS with a peer failed. `timeout` is its owner's; `closed`, `reset`: the network's end came before that of the
handshake; `http`: what came first was a request without TLS; `not_tls`: it was something else; `unknown_name`: no
certificate is for the server that it has named; `alpn`: none of its protocols is spoken; `client_certificate`: it shows
none, or one that is not believed; `alert`: the peer refused us, and the message has its alert; `plaintext`: it, or
somebody in its name, has sent more before TLS began than what asks for that; `protocol`: anything else that is against
the rules."""

SERVER_FAILURES = (
    "certificate_expired", "unknown_authority", "wrong_name", "certificate", "certificate_wanted",
    "certificate_refused",
)  # fmt: skip
"""Why TLS with a server failed, beside what `FAILURES` has. `unknown_authority`: nobody that we believe has signed its
certificate; `wrong_name`: that is for others; `certificate`: we do not believe it for another reason;
`certificate_wanted`: it wants one of ours, and has got none; `certificate_refused`: it does not believe ours."""

VERSIONS = ("1.2", "1.3")
"""Others have known weaknesses (RFC 8996)."""

SUITES = (
    "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
)  # fmt: skip
"""Those with forward secrecy and authenticated encryption (RFC 9325, 4.2), as OpenSSL calls them: `TLS_` is TLS 1.3."""

NAME_MAX = 255
"""Characters of a server's name."""

RECORD_BYTES = 16_384
"""Most plain bytes of a record (RFC 8446, 5.1)."""

AHEAD_BYTES = 4 * RECORD_BYTES
"""Most plain bytes that are encrypted before the kernel has taken those before them. Records have numbers: what is
encrypted has to be sent, whatever becomes of the write."""

TICKET_KEY_BYTES = 80
"""Of a key that encrypts tickets: its name, of 16; for AES-256, 32; for HMAC-SHA256, 32."""

TICKET_KEYS_MAX = 3
"""Of a server. The newest encrypts; a ticket that an older one has encrypted is good, and the client gets a new one."""

TICKET_LIFETIME_S = 86_400
"""For how long a ticket is good, if nothing is said."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with those that lead to its authority, and its key, both PEM."""

    chain: str
    key: str = field(repr=False)
    names: tuple[str, ...] = ()
    """Of the servers that it is for, in lower case; `*.` stands for one label (RFC 6125, 6.4.3)."""
    staple: bytes = field(default=b"", repr=False)
    """What its authority says of it, an OCSP response in DER, for clients that ask (RFC 6066, 8); empty: nothing."""
    staple_ends_s: float = 0.0
    """When that is too old to be sent, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What a server asks of its clients' certificates."""

    ca: str
    """The authorities that it believes, PEM. What they send of a chain is used, and not believed."""
    crl: str = ""
    """What those have revoked, PEM: a list of each. Empty: nobody asks."""
    are_required: bool = True
    """A client that shows none is refused; else it may. One that is not believed is refused in both cases."""
    depth: int | None = None
    """Most certificates between a client's and the authority's; None: no limit of ours."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server shows its clients, and what it asks of them."""

    certificates: tuple[Certificate, ...]
    """The first is for clients that name no server, or one that no certificate has."""
    versions: tuple[str, ...] = VERSIONS
    """Of `VERSIONS`."""
    suites: tuple[str, ...] = ()
    """Of `SUITES`, the preferred first; a version of which there is none has those that OpenSSL prefers."""
    groups: tuple[str, ...] = ()
    """For the exchange of keys, as OpenSSL calls them, the preferred first: `X25519`, `P-256`; none: its own choice."""
    refuses_unknown_names: bool = False
    """A client that names no server, or one that no certificate is for, is shown none."""
    alpn: tuple[str, ...] = ()
    """Protocols that are spoken, the preferred first (RFC 7301). A client that offers others only is refused."""
    accepts_truncation: bool = False
    """A stream that ends without a close_notify ended in order."""
    clients: Clients | None = None
    """None: their certificates are not asked for."""

    ticket_lifetime_s: int | None = TICKET_LIFETIME_S
    """For how long a client can resume its session with the ticket that it gets; None: it gets none."""
    ticket_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Of `TICKET_KEY_BYTES` each, the newest first, `TICKET_KEYS_MAX` at most. Servers with the same ones resume each
    other's sessions. None: a key of its own, which nobody else has."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Who the server is that a client speaks to, what it believes of it, and what it shows.

    Raises:
        ValueError: it says nothing that can be verified, or the name is none.
    """

    name: str = ""
    """Of the server: a DNS name, in ASCII, or a numeric address. Its certificate has to be for that; a DNS name is told
    to the server, too (SNI), which may have several certificates."""
    ca: str | None = None
    """The certificates of those who may have signed the server's, PEM; None: whom this machine believes."""
    certificate: Certificate | None = None
    """To show a server that asks for one."""
    verify: bool = True
    """False: whoever answers is believed, and may read and change everything."""
    versions: tuple[str, ...] = VERSIONS
    """Of `VERSIONS`."""
    alpn: tuple[str, ...] = ()
    """Protocols to offer, the preferred first (RFC 7301)."""
    accepts_truncation: bool = False
    """A stream that ends without a close_notify ended in order."""
    ready: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    """What `gaiod.core.engine.prepare_tls` has made, for as long as this lives."""

    def __post_init__(self) -> None:
        if self.verify and not self.name:
            raise ValueError("has no name to verify the server's certificate by; add one")
        if not (
            self.name.isascii() and self.name.isprintable() and len(self.name) <= NAME_MAX and " " not in self.name
        ):
            raise ValueError(f"{self.name!r} is no name of a server; write it as DNS has it, in ASCII (xn--...)")


def is_numeric(name: str) -> bool:
    """Tell a numeric address from a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except OSError:
            continue
        return True
    return False


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
    peer_certificate: bytes | None = None
    """The peer's, in DER; None: it has shown none, or was not asked. A resumed session has that of its first one."""
    is_verified: bool = False
    """It was compared with the authorities that are believed, and is."""

    @property
    def subject(self) -> str | None:
        """Whose the peer's certificate is: `CN=gate 7,O=Example,C=DE` (RFC 4514)."""
        if self.peer_certificate is None:
            return None
        from gaiod.core.certificates import subject_of  # late: few ask, and every process has this module

        return subject_of(self.peer_certificate)

    @property
    def common_name(self) -> str | None:
        """The common name of whose it is."""
        if self.peer_certificate is None:
            return None
        from gaiod.core.certificates import common_name_of  # late, as above

        return common_name_of(self.peer_certificate)
