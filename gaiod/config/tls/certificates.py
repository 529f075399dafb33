"""Certificates and their keys: read from files, and checked before anybody is told that they are in use."""

import base64
import hashlib
from datetime import UTC, datetime

from gaiod.config.errors import Refused
from gaiod.config.tls.ocsp import OcspFile
from gaiod.config.tls.pem import PemFile, blocks_of, read_pem
from gaiod.config.words import mismatch
from gaiod.core.certificates import facts_of, issuer_of, serial_of
from gaiod.core.tls import Certificate
from gaiod.settings import CertificateSettings
from gaiod.wording import shown

PAIR_REASONS = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""What OpenSSL says of a key that is not the certificate's: of the same kind, or of another (RSA, EC)."""

EXAMPLE = "[{chain: /etc/gaiod/app.pem, key: /etc/gaiod/app.key}]"
CHAIN_WANTED = (
    "the absolute path of a PEM file such as /etc/gaiod/app.pem: the certificate, then those that lead to a root"
)
KEY_WANTED = "the absolute path of a PEM file such as /etc/gaiod/app.key"

CERTIFICATES_MAX = 64
"""Each takes 21 KiB of every worker, and 1 ms of its start (OpenSSL 3.0)."""


class Mismatch(Refused):
    """A key that is not the certificate's: perhaps one of the two files is yet to be written."""


def parse_chain(value: object) -> PemFile:
    """Return what is in a file of certificates.

    Raises:
        Refused: it cannot be read, or has none.
    """
    file = read_pem(value, CHAIN_WANTED)
    if "-----BEGIN CERTIFICATE-----" not in file.text:
        raise Refused(f"{shown(file.path)} has no certificate; write {CHAIN_WANTED}")
    return file


def parse_key(value: object) -> PemFile:
    """Return what is in a file with a key.

    Raises:
        Refused: it cannot be read, has none, or one that a passphrase protects.
    """
    file = read_pem(value, KEY_WANTED)
    if "ENCRYPTED" in file.text:
        raise Refused(f"{shown(file.path)} has a passphrase; write it without: openssl pkey -in OLD -out NEW")
    if "PRIVATE KEY-----" not in file.text:
        raise Refused(f"{shown(file.path)} has no private key; write {KEY_WANTED}")
    return file


def certificate_of(chain: PemFile, key: PemFile, ocsp: OcspFile | None = None) -> CertificateSettings:
    """Return a certificate, its key, and what its authority says of it, which belong together.

    Raises:
        Mismatch: they do not.
        Refused: OpenSSL makes nothing of them, or the certificate has ended or not begun.
    """
    import ssl  # late, as it takes 10 ms, which only those who serve TLS should wait for

    from gaiod.core.contexts import load

    try:
        first = blocks_of(chain.text, "CERTIFICATE")[0]
        facts, issuer, serial = facts_of(first), issuer_of(first), serial_of(first)
    except (ValueError, IndexError) as error:
        raise Refused("the chain begins with something that is no certificate; write another") from error
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Certificate(chain.text, key.text))
    except ssl.SSLError as error:
        if error.reason in PAIR_REASONS:
            raise Mismatch("the key is not that of the chain's first certificate; write its own") from error
        why = (error.reason or "unknown").lower().replace("_", " ")
        raise Refused(f"OpenSSL does not take the chain and the key ({why}); write others") from error
    if not facts.names:
        raise Refused("the certificate is for no server; write one with a subjectAltName")
    begins, ends = (datetime.fromtimestamp(s, UTC) for s in (facts.not_before_s, facts.not_after_s))
    if ends < datetime.now(UTC):
        raise Refused(f"the certificate of {facts.names[0]} has ended at {ends:%Y-%m-%d %H:%M} UTC; renew it")
    if begins > datetime.now(UTC):
        raise Refused(
            f"the certificate of {facts.names[0]} begins at {begins:%Y-%m-%d %H:%M} UTC, and no client "
            "takes it before; write one that has begun, and look whether the clock here is right"
        )
    if ocsp is not None and ocsp.facts.serial != serial:
        raise Mismatch(f"the OCSP response is for the certificate {ocsp.facts.serial}, and not for {serial}; renew it")
    return CertificateSettings(
        chain.text,
        key.text,
        facts.names,
        facts.not_after_s,
        issuer=issuer,
        files=(chain.path, key.path) if ocsp is None else (chain.path, key.path, ocsp.path),
        serial=serial,
        fingerprint=hashlib.sha256(first).hexdigest(),
        ocsp="" if ocsp is None else base64.b64encode(ocsp.data).decode(),
        ocsp_not_after_s=0.0 if ocsp is None else ocsp.ends_s,
    )


def check_certificates(value: object) -> object:
    """Return a list of certificates, which are still to be read.

    Raises:
        Refused: it is no list, or empty, or too long.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, f"a list, such as {EXAMPLE}"))
    if not value:
        raise Refused(f"has no certificate; write one, such as {EXAMPLE}")
    if len(value) > CERTIFICATES_MAX:
        raise Refused(f"has {len(value)} certificates; write at most {CERTIFICATES_MAX}")
    return value
