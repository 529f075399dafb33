"""What the core is told of a listener that speaks TLS."""

from dataclasses import fields

from gaiod.core.tls import Certificate, Clients, ServerTls
from gaiod.settings import CertificateSettings, ClientCertificateSettings, TicketSettings, TlsSettings
from gaiod.tls_options import made_by, server_tls


def test_everything_that_is_set_arrives() -> None:
    settings = TlsSettings(
        (CertificateSettings("chain", "key", ("example.org",), 4e9, ocsp="QUI=", ocsp_not_after_s=5.0),),
        versions=("1.3",),
        suites=("TLS_AES_128_GCM_SHA256",),
        groups=("X25519",),
        refuses_unknown_names=True,
        alpn=("h2",),
        accepts_truncation=True,
        clients=ClientCertificateSettings("ca", "crl", are_required=False, depth=3),
        tickets=TicketSettings(lifetime_s=60.4),
    )
    made = server_tls(settings, [b"key"])
    assert made == ServerTls(
        (Certificate("chain", "key", ("example.org",), b"AB", 5.0),),
        versions=("1.3",),
        suites=("TLS_AES_128_GCM_SHA256",),
        groups=("X25519",),
        refuses_unknown_names=True,
        alpn=("h2",),
        accepts_truncation=True,
        clients=Clients("ca", "crl", are_required=False, depth=3),
        ticket_lifetime_s=60,
        ticket_keys=(b"key",),
    )
    usual = ServerTls(())
    assert all(getattr(made, each.name) != getattr(usual, each.name) for each in fields(ServerTls))


def test_what_is_not_set_is_not_asked() -> None:
    assert server_tls(TlsSettings((), tickets=None)) == ServerTls((), ticket_lifetime_s=None)


def test_what_makes_tls_is_said_in_words() -> None:
    assert made_by(("OpenSSL 3.0.19 1 Apr 2026", "openssl")) == "OpenSSL 3.0.19"
    assert made_by(("LibreSSL 3.9.0", "python")) == "Python's ssl (LibreSSL 3.9.0)"
