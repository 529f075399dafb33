"""What the standard library's `ssl` is told of a server: its certificates, who is shown which, and what may be agreed.

`_contexts.pyx` is the same for the compiled engine.
"""

import hashlib
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gaiod.core.tls import Certificate, Clients, ClientTls, ServerTls

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy and authenticated encryption (RFC 7525). Those of 1.3 all have both."""


class Contexts:
    """What all sessions of a server have in common: its certificates, made ready for use."""

    def __init__(self, options: ServerTls) -> None:
        """Make it.

        Raises:
            ssl.SSLError, ValueError: a certificate or a key is none, or they are no pair.
            OSError: there is no memory for them.
        """
        self.accepts_truncation = options.accepts_truncation
        self._refuses_unknown_names = options.refuses_unknown_names
        self._show(options.certificates, [_context_of(certificate, options) for certificate in options.certificates])

    def renew(self, options: ServerTls) -> None:
        """As `TlsContext.renew`. The first certificate's tickets are good for it alone: they have its context's key."""
        self._show(
            options.certificates,
            [
                context if certificate == before else _context_of(certificate, options)
                for certificate, before, context in zip(
                    options.certificates, self._certificates, self._all, strict=True
                )
            ],
        )

    def _show(self, certificates: tuple[Certificate, ...], contexts: list[ssl.SSLContext]) -> None:
        self._certificates, self._all = certificates, contexts
        self._context = contexts[0]
        self._context.sni_callback = self._choose
        self._contexts: dict[str, ssl.SSLContext] = {}
        for certificate, context in zip(certificates, contexts, strict=True):
            for name in certificate.names:
                self._contexts.setdefault(name, context)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Return what speaks TLS between two memories."""
        return self._context.wrap_bio(incoming, outgoing, server_side=True)

    def _choose(self, session: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        """Show a client the certificate that is for the server it names; if none is, the first, or an alert."""
        if name is not None:
            session.requested_name = name.lower()
            for known in names_for(session.requested_name):
                if known in self._contexts:
                    session.context = self._contexts[known]
                    return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if self._refuses_unknown_names else None


def names_for(name: str) -> tuple[str, str]:
    """Return the names that a certificate for a server can have, the better one first (RFC 6125, 6.4.3)."""
    return name, f"*.{name.partition('.')[2]}"


def new_context(protocol: int, options: ServerTls | ClientTls) -> ssl.SSLContext:
    """Return a context of what servers and clients have in common: versions, suites, protocols, what is never done."""
    context = ssl.SSLContext(protocol)
    versions = [VERSIONS[version] for version in options.versions]
    context.minimum_version = min(versions)
    context.maximum_version = max(versions)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    if options.alpn:
        context.set_alpn_protocols(options.alpn)
    return context


def _context_of(certificate: Certificate, options: ServerTls) -> ssl.SSLContext:
    context = new_context(ssl.PROTOCOL_TLS_SERVER, options)
    if options.ticket_lifetime_s is None:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    else:
        context.num_tickets = 1
    if certificate.staple:
        raise ValueError("Python's ssl cannot send OCSP responses")
    if options.groups or any(suite.startswith("TLS_") for suite in options.suites):
        raise ValueError("Python's ssl cannot choose groups, nor suites of TLS 1.3")
    if options.suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_ciphers(":".join(options.suites))
    if options.clients is not None:
        _ask_clients(context, options.clients)
    load(context, certificate)
    return context


def _ask_clients(context: ssl.SSLContext, clients: Clients) -> None:
    """Let a context ask for clients' certificates. It sends no list of authorities: Python's `ssl` cannot."""
    if clients.depth is not None:
        raise ValueError("Python's ssl cannot limit the depth of a chain")
    context.verify_mode = ssl.CERT_REQUIRED if clients.are_required else ssl.CERT_OPTIONAL
    context.verify_flags &= ~ssl.VERIFY_X509_PARTIAL_CHAIN
    believe(context, clients.ca, clients.crl)


def believe(context: ssl.SSLContext, ca: str, crl: str) -> None:
    """Let a context believe authorities, but for what they have revoked.

    Raises:
        ssl.SSLError, ValueError, OSError: OpenSSL does not take them.
    """
    context.load_verify_locations(cadata=ca)
    if crl:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        with as_file(crl) as path:
            context.load_verify_locations(path)


def session_id_context(clients: Clients) -> bytes:
    """Return what sessions have in common that were begun with the same demands: no other is resumed.

    A session has the verdict on its client's certificate in it. OpenSSL resumes none at all without this.
    """
    return hashlib.sha256(repr(clients).encode()).digest()


def load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Let a context show a certificate."""
    with as_file(f"{certificate.key.strip()}\n{certificate.chain.strip()}\n") as path:
        context.load_cert_chain(path)


@contextmanager
def as_file(text: str) -> Iterator[str]:
    """Give the path of a file with a text that nobody else may see: the standard library loads keys from paths only."""
    if sys.platform == "linux":
        fd = os.memfd_create("gaiod-tls", os.MFD_CLOEXEC)
        try:
            os.write(fd, text.encode())
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
