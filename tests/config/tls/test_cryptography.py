"""Suites, and groups for the exchange of keys."""

import pytest
from core.support.tls import certificate

from gaiod.config.errors import Refused
from gaiod.config.tls.cryptography import parse_groups, parse_suites
from gaiod.config.tls.openssl import check_tls
from gaiod.core.engine import shares_tickets
from gaiod.core.tls import SUITES
from gaiod.settings import CertificateSettings, TlsSettings

NEWER, OLDER = "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"


def test_suites_are_in_the_order_of_preference() -> None:
    older = [suite for suite in SUITES if not suite.startswith("TLS_")]
    assert parse_suites([OLDER, *older]) == (OLDER, *(suite for suite in older if suite != OLDER))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (True, "is a boolean; write a list such as"),
        ([], "has no suite; write a list such as"),
        (["RC4-SHA"], '"RC4-SHA" is no suite that is safe; there is TLS_AES_256_GCM_SHA384, '),
        ([1], '"1" is no suite that is safe'),
    ],
)
def test_what_is_no_list_of_safe_suites_is_refused(value: object, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse_suites(value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("X25519", "is text; write a list such as"),
        ([], "has no group; write a list such as"),
        (["X25519:P-256"], '"X25519:P-256" is no name of a group'),
        ([25519], '"25519" is no name of a group'),
        (["X" * 41], "is no name of a group"),
    ],
)
def test_what_is_no_list_of_groups_is_refused(value: object, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse_groups(value)


def test_groups_and_suites_of_tls_1_3_need_openssl_itself() -> None:
    if shares_tickets():
        assert parse_groups(["P-384", "X25519", "P-384"]) == ("P-384", "X25519")
        assert parse_suites([NEWER, OLDER]) == (NEWER, OLDER)
        return
    with pytest.raises(Refused, match=r"needs the compiled engine.*: nothing else chooses groups"):
        parse_groups(["X25519"])
    with pytest.raises(Refused, match=r"nothing else chooses suites of TLS 1.3"):
        parse_suites([NEWER])


def test_group_that_this_openssl_does_not_know_is_refused_by_the_check_of_the_whole() -> None:
    if not shares_tickets():
        pytest.skip("groups cannot be chosen")
    made = certificate()
    shown = (CertificateSettings(made.chain, made.key, ("localhost",), 4e9),)
    check_tls(TlsSettings(shown, suites=SUITES, groups=("X25519", "P-256", "P-384")))
    with pytest.raises(Refused, match=r"OpenSSL does not take it \(it knows some of the groups nothing not\)"):
        check_tls(TlsSettings(shown, groups=("nothing",)))
