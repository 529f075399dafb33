"""What the core is told of a listener that speaks TLS: for workers, and for who checks that it works."""

import base64
from collections.abc import Sequence

from gaiod.core.tls import Certificate, Clients, ServerTls
from gaiod.settings import CertificateSettings, TlsSettings


def server_tls(settings: TlsSettings, ticket_keys: Sequence[bytes] = ()) -> ServerTls:
    """Return it; `ticket_keys`: as of `ServerTls`."""
    tickets, clients = settings.tickets, settings.clients
    return ServerTls(
        tuple(_certificate(each) for each in settings.certificates),
        versions=settings.versions,
        suites=settings.suites,
        groups=settings.groups,
        refuses_unknown_names=settings.refuses_unknown_names,
        alpn=settings.alpn,
        accepts_truncation=settings.accepts_truncation,
        clients=None if clients is None else Clients(clients.ca, clients.crl, clients.are_required, clients.depth),
        ticket_lifetime_s=None if tickets is None else round(tickets.lifetime_s),
        ticket_keys=tuple(ticket_keys),
    )


def _certificate(settings: CertificateSettings) -> Certificate:
    staple = base64.b64decode(settings.ocsp)
    return Certificate(settings.chain, settings.key, settings.names, staple, settings.ocsp_not_after_s)


def made_by(library: tuple[str, str]) -> str:
    """Return in words what makes sessions, given `engine.tls_library()`: `OpenSSL 3.0.19`, or Python's `ssl` by it."""
    name = " ".join(library[0].split()[:2])
    return name if library[1] == "openssl" else f"Python's ssl ({name})"
