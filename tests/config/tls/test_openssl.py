"""What the engine in use makes of a listener's TLS."""

import pytest
from core.support.pki import authority
from core.support.tls import certificate

from gaiod.config.errors import Refused
from gaiod.config.tls import openssl as module
from gaiod.config.tls.openssl import check_clients, check_openssl, check_tls
from gaiod.settings import CertificateSettings, ClientCertificateSettings, TlsSettings


def test_what_openssl_takes_is_good_and_what_it_does_not_is_refused() -> None:
    made, other = certificate(), certificate("example.org")
    check_tls(TlsSettings((CertificateSettings(made.chain, made.key, ("localhost",), 4e9),)))
    with pytest.raises(Refused, match=r"OpenSSL does not take it \(.+\); see gaiod version"):
        check_tls(TlsSettings((CertificateSettings(made.chain, other.key, ("localhost",), 4e9),)))


def test_what_only_openssl_itself_does_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shares_tickets", lambda: True)
    check_openssl("does it")
    monkeypatch.setattr(module, "shares_tickets", lambda: False)
    with pytest.raises(Refused, match=r"needs the compiled engine, .*: nothing else does it; remove it"):
        check_openssl("does it")


def test_authorities_that_openssl_does_not_take_are_refused() -> None:
    own = authority()
    check_clients(ClientCertificateSettings(own.certificate, own.revocations()))
    for ca, crl in (("", ""), (own.certificate, own.certificate.replace("CERTIFICATE", "X509 CRL"))):
        with pytest.raises(Refused, match=r"OpenSSL does not take it \(.+\); write another"):
            check_clients(ClientCertificateSettings(ca, crl))
