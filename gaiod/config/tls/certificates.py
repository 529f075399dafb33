"""Certificates and their keys: read from files, and checked before anybody is told that they are in use."""

import stat
from datetime import UTC, datetime
from pathlib import Path

from gaiod.config.errors import Refused
from gaiod.config.words import mismatch
from gaiod.core.certificates import facts_of
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

FILE_MAX_BYTES = 1 << 20
"""A chain has some KiB."""

CERTIFICATES_MAX = 64
"""Each takes 21 KiB of every worker, and 1 ms of its start (OpenSSL 3.0)."""

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def parse_chain(value: object) -> str:
    """Return the text of a file of certificates.

    Raises:
        Refused: it cannot be read, or has none.
    """
    text = _read(value, CHAIN_WANTED)
    if BEGIN not in text:
        raise Refused(f"{shown(str(value))} has no certificate; write {CHAIN_WANTED}")
    return text


def parse_key(value: object) -> str:
    """Return the text of a file with a key.

    Raises:
        Refused: it cannot be read, has none, or one that a passphrase protects.
    """
    text = _read(value, KEY_WANTED)
    if "ENCRYPTED" in text:
        raise Refused(f"{shown(str(value))} has a passphrase; write it without: openssl pkey -in OLD -out NEW")
    if "PRIVATE KEY-----" not in text:
        raise Refused(f"{shown(str(value))} has no private key; write {KEY_WANTED}")
    return text


def certificate_of(chain: str, key: str) -> CertificateSettings:
    """Return a certificate and its key, which belong together.

    Raises:
        Refused: they do not, OpenSSL makes nothing of them, or the certificate has ended or not begun.
    """
    import ssl  # late, as it takes 10 ms, which only those who serve TLS should wait for

    from gaiod.core.contexts import load

    try:
        facts = facts_of(ssl.PEM_cert_to_DER_cert(BEGIN + chain.partition(BEGIN)[2].partition(END)[0] + END + "\n"))
    except (ValueError, IndexError) as error:
        raise Refused("the chain begins with something that is no certificate; write another") from error
    try:
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Certificate(chain, key))
    except ssl.SSLError as error:
        if error.reason in PAIR_REASONS:
            raise Refused("the key is not that of the chain's first certificate; write its own") from error
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
    return CertificateSettings(chain, key, facts.names, facts.not_after_s)


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


def _read(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise Refused(mismatch(value, wanted))
    if not value.startswith("/"):
        raise Refused(f"{shown(value)} is not an absolute path; write {wanted}")
    try:
        path = Path(value)
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused(f"{shown(value)} is not a file; write {wanted}")
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
        if len(data) > FILE_MAX_BYTES:
            raise Refused(f"{shown(value)} is larger than 1MiB; write {wanted}")
        return data.decode("ascii")
    except OSError as error:
        remedy = "let the user who starts gaiod read it" if isinstance(error, PermissionError) else f"write {wanted}"
        raise Refused(f"{shown(value)}: {error.strerror}; {remedy}") from error
    except UnicodeDecodeError as error:
        raise Refused(f"{shown(value)} is not PEM, but perhaps DER; write {wanted}") from error
