"""Why a server is not believed, in words that an operator understands."""

import ssl

import pytest

from core.support.authority import authority
from gaiod.core.tls import FAILURES, SERVER_FAILURES
from gaiod.core.verdicts import REFUSALS, refusal_of, verdict_of


def der(names: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(authority().sign(names).chain)


@pytest.mark.parametrize(
    ("code", "certificate", "words"),
    [
        (62, der("DNS:a.example"), "its certificate is for a.example, not db.example"),
        (64, der("DNS:a,DNS:b,DNS:c,DNS:d,DNS:e"), "its certificate is for a, b, c, d, others, not db.example"),
        (62, None, "its certificate is not for db.example"),
        (62, b"no certificate", "its certificate is not for db.example"),
        (10, None, "its certificate has ended"),
        (20, None, "its certificate is signed by nobody that we believe (OpenSSL's words)"),
        (26, None, "its certificate is not believed (OpenSSL's words)"),
    ],
)
def test_verdict_says_what_is_wrong_with_a_certificate(code: int, certificate: bytes | None, words: str) -> None:
    reason, said = verdict_of(code, "OpenSSL's words", "db.example", certificate)
    assert said == words
    assert reason in SERVER_FAILURES


def test_time_of_the_end_is_said_where_it_is_known() -> None:
    assert verdict_of(10, "", "", der("DNS:a"))[1].endswith(" UTC")
    assert verdict_of(9, "", "", der("DNS:a"))[1].startswith("its certificate has not begun: 20")


def test_refusals_have_reasons_that_are_counted() -> None:
    assert {reason for reason, _ in REFUSALS.values()} <= {*FAILURES, *SERVER_FAILURES}
    assert refusal_of("SOMETHING_ELSE") is None
