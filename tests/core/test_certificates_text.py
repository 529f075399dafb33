"""What certificates say of themselves, compared with what OpenSSL reads in them."""

import ssl
import subprocess
import time
from pathlib import Path

import pytest

from core.support.pki import authority
from core.support.tls import certificate
from gaiod.core.certificates import facts_of, issuer_of, revocation_facts_of, serial_of, status_facts_of, subject_of


def test_names_and_end_are_those_that_openssl_tells() -> None:
    for name in ("localhost", "example.org"):
        chain = certificate(name).chain
        facts = facts_of(ssl.PEM_cert_to_DER_cert(chain))
        told = subprocess.run(
            ["openssl", "x509", "-noout", "-dates", "-serial"],
            input=chain,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        begins, ends, serial = (line.partition("=")[2] for line in told.splitlines())
        assert serial_of(ssl.PEM_cert_to_DER_cert(chain)) == serial
        assert facts.not_before_s == ssl.cert_time_to_seconds(begins)
        assert facts.not_after_s == ssl.cert_time_to_seconds(ends)
        assert facts.names == (name, f"*.{name}")


def test_common_name_counts_where_there_is_no_other_and_addresses_are_names(tmp_path: Path) -> None:
    for more, names in (
        ([], ("Only.Example",)),
        (["-addext", "subjectAltName=IP:192.0.2.1,DNS:B.example"], ("192.0.2.1", "b.example")),
    ):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
             "/O=Some/CN=Only.Example", *more, "-keyout", tmp_path / "k", "-out", tmp_path / "c"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        facts = facts_of(ssl.PEM_cert_to_DER_cert((tmp_path / "c").read_text()))
        assert facts.names == tuple(name.lower() for name in names)


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x82", bytes(100), b"\x30\x05\x30\x03\x30\x01\x00"])
def test_what_is_no_certificate_is_an_error_and_no_other(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        facts_of(data)


def test_list_of_revoked_certificates_says_whose_it_is_and_until_when() -> None:
    own = authority()
    listed = ssl.PEM_cert_to_DER_cert(own.revocations().replace("X509 CRL", "CERTIFICATE"))
    facts = revocation_facts_of(listed)
    assert facts.issuer == "CN=Gate CA,O=Example" == subject_of(ssl.PEM_cert_to_DER_cert(own.certificate))
    assert 29 * 86400 < facts.not_after_s - time.time() <= 30 * 86400
    issued = own.issue("gate 7")
    assert issuer_of(ssl.PEM_cert_to_DER_cert(issued.chain)) == facts.issuer
    with pytest.raises((ValueError, IndexError)):
        revocation_facts_of(b"\x30\x03\x30\x01\x00")


def test_ocsp_response_says_for_which_certificate_it_is_and_until_when() -> None:
    own = authority()
    made = own.issue("gate 7")
    facts = status_facts_of(own.ocsp(made))
    assert facts.serial == serial_of(ssl.PEM_cert_to_DER_cert(made.chain))
    assert facts.is_good
    assert 3500 < facts.not_after_s - time.time() <= 3600
    assert not status_facts_of(own.ocsp(made, good=False)).is_good
    for data in (b"", b"\x30\x03\x0a\x01\x06", ssl.PEM_cert_to_DER_cert(made.chain)):
        with pytest.raises((ValueError, IndexError)):
            status_facts_of(data)
