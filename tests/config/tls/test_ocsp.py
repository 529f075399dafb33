"""OCSP responses: read, and refused if no client could make anything of them."""

import json
import time
from pathlib import Path

import pytest
from core.support.pki import Authority
from core.support.tls import certificate

from gaiod.config import ConfigErrors, loads
from gaiod.config.file_readers import READERS, Mismatch
from gaiod.core.engine import shares_tickets
from gaiod.core.tls import Certificate
from gaiod.settings import ListenerSettings
from gaiod.watched_files import KINDS

only_openssl = pytest.mark.skipif(not shares_tickets(), reason="the standard library cannot send them")


@pytest.fixture
def own() -> Authority:
    """The authority of the certificate."""
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, own: Authority) -> Path:
    """A folder with a certificate, its key, and a response."""
    made = own.issue("localhost", names="DNS:localhost")
    (tmp_path / "app.pem").write_text(made.chain)
    (tmp_path / "app.key").write_text(made.key)
    (tmp_path / "app.ocsp").write_bytes(own.ocsp(made))
    return tmp_path


def load(folder: Path) -> ListenerSettings:
    pair = f"{{chain: {folder}/app.pem, key: {folder}/app.key, ocsp: {folder}/app.ocsp}}"
    (listener,) = loads(
        f"listeners: {{app: {{bind: 127.0.0.1:7443, handler: echo, tls: {{certificates: [{pair}]}}}}}}", path="f"
    ).listeners
    return listener


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load(folder)
    (error,) = caught.value.errors
    return f"{error.key}: {error.message}"


@only_openssl
def test_response_is_read_with_its_certificate_and_again_with_it(folder: Path, own: Authority) -> None:
    before = load(folder)
    assert before.tls is not None
    (shown,) = before.tls.certificates
    assert 3500 < shown.ocsp_not_after_s - time.time() <= 3600
    (folder / "app.ocsp").write_bytes(own.ocsp(own_certificate(folder), minutes=120))
    value = json.loads(json.dumps(READERS["certificate"](shown.files)))
    renewed = KINDS["certificate"].renewed(before, shown.files, value)
    assert renewed == load(folder) != before
    assert "MII" not in repr(renewed)


def own_certificate(folder: Path) -> Certificate:
    return Certificate((folder / "app.pem").read_text(), (folder / "app.key").read_text())


@only_openssl
def test_response_for_another_certificate_may_be_half_of_a_change(folder: Path, own: Authority) -> None:
    other = own.issue("localhost", names="DNS:localhost")
    (folder / "app.ocsp").write_bytes(own.ocsp(other))
    assert "the OCSP response is for the certificate" in refusal(folder)
    with pytest.raises(Mismatch, match="the OCSP response is for the certificate"):
        READERS["certificate"]((f"{folder}/app.pem", f"{folder}/app.key", f"{folder}/app.ocsp"))


def test_what_no_client_can_use_is_refused(folder: Path, own: Authority) -> None:
    made = own_certificate(folder)
    for data, why in (
        (b"nonsense", "has no OCSP response; write the absolute path"),
        (bytes.fromhex("30030a0106"), "has no OCSP response"),  # unauthorized
        (own.ocsp(made, good=False), "is not good; write another certificate"),
        (certificate().chain.encode(), "has no OCSP response"),
    ):
        (folder / "app.ocsp").write_bytes(data)
        said = refusal(folder)
        assert said.startswith("listeners.app.tls.certificates[0].ocsp: "), said
        assert why in said


def test_response_that_has_ended_is_refused(folder: Path, own: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr("gaiod.config.tls.ocsp.time.time", lambda: now_s + 7200)
    assert " has ended at 20" in refusal(folder)


@pytest.mark.skipif(shares_tickets(), reason="OpenSSL sends them")
def test_response_needs_openssl_itself(folder: Path) -> None:
    assert "needs the compiled engine" in refusal(folder)
