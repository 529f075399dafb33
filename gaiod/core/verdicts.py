"""Why a server is not believed, or does not believe us: what OpenSSL calls that, as reasons and in words."""

from datetime import UTC, datetime

from gaiod.core.certificates import Facts, facts_of

EXPIRED, NOT_BEGUN, NOT_FOR_NAME, NOT_FOR_ADDRESS = 10, 9, 62, 64
"""Codes of X509_verify_cert_error_string (x509_vfy.h), the same in all versions of OpenSSL."""

AUTHORITY = frozenset({2, 18, 19, 20, 21, 24, 27, 79})
"""No issuer is found, or none that is believed: it signed itself, or may not sign others."""

NAMES_SHOWN = 4

REFUSALS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("certificate_wanted", "it wants a certificate of ours, and has got none"),
    "TLSV1_ALERT_UNKNOWN_CA": ("certificate_refused", "it does not know who has signed our certificate"),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("certificate_refused", "our certificate has ended, it says"),
    "SSLV3_ALERT_CERTIFICATE_REVOKED": ("certificate_refused", "our certificate is revoked, it says"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("certificate_refused", "it does not believe our certificate"),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("certificate_refused", "it does not believe our certificate"),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ("certificate_refused", "it does not take our kind of certificate"),
    "TLSV1_ALERT_ACCESS_DENIED": ("certificate_refused", "it knows our certificate, and denies access"),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "alert",
        "it refuses the handshake: it may want a certificate of ours, or it speaks none of our suites",
    ),
    "TLSV1_ALERT_PROTOCOL_VERSION": ("version", "it speaks none of our versions of TLS"),
    "TLSV1_UNRECOGNIZED_NAME": ("unknown_name", "it does not know the name that it was asked for"),
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": ("alpn", "it speaks none of the protocols of alpn"),
}
"""What a server says or does instead, by the name that OpenSSL has for it."""


def refusal_of(name: str) -> tuple[str, str] | None:
    """Return the reason and the words for what OpenSSL calls so; None: nothing that a server alone does."""
    return REFUSALS.get(name)


def verdict_of(code: int, text: str, wanted: str, certificate: bytes | None) -> tuple[str, str]:
    """Return why a server's certificate is not believed: the reason, one of `tls.SERVER_FAILURES`, and words.

    Args:
        code: OpenSSL's.
        text: its words for it.
        wanted: the name that the certificate was to have.
        certificate: in DER; None: nobody knows it any more.
    """
    facts = _facts_of(certificate)
    if code in (NOT_FOR_NAME, NOT_FOR_ADDRESS):
        return "wrong_name", f"its certificate is {_whose(facts)}not {'' if facts else 'for '}{wanted}"
    if code == EXPIRED:
        return "certificate_expired", f"its certificate has ended{_when(None if facts is None else facts.not_after_s)}"
    if code == NOT_BEGUN:
        return "certificate", f"its certificate has not begun{_when(None if facts is None else facts.not_before_s)}"
    if code in AUTHORITY:
        return "unknown_authority", f"its certificate is signed by nobody that we believe ({text})"
    return "certificate", f"its certificate is not believed ({text})"


def _facts_of(certificate: bytes | None) -> Facts | None:
    if certificate is None:
        return None
    try:
        return facts_of(certificate)
    except (ValueError, IndexError):
        return None


def _whose(facts: Facts | None) -> str:
    if facts is None:
        return ""
    names = [*facts.names[:NAMES_SHOWN], *(["others"] if len(facts.names) > NAMES_SHOWN else [])]
    return f"for {', '.join(names) or 'no server'}, "


def _when(at_s: float | None) -> str:
    return "" if at_s is None else f": {datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M} UTC"
