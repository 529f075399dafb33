"""Certificates of a configuration: read, compared with their keys, and refused with the file and the reason."""

import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from core.support.tls import certificate

from gaiod.config import ConfigErrors, loads
from gaiod.settings import TlsSettings, listener_settings_from


def text(more: str) -> str:
    return f"""
listeners:
  app:
    bind: 127.0.0.1:7443
    handler: echo
    tls: {more}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with certificates and keys."""
    for name in ("localhost", "example.org"):
        made = certificate(name)
        (tmp_path / f"{name}.pem").write_text(made.chain)
        (tmp_path / f"{name}.key").write_text(made.key)
    return tmp_path


def pair(folder: Path, chain: str = "localhost.pem", key: str = "localhost.key") -> str:
    return f"{{chain: {folder}/{chain}, key: {folder}/{key}}}"


def tls_of(more: str) -> TlsSettings:
    (listener,) = loads(text(more)).listeners
    assert listener.tls is not None
    return listener.tls


def refusal(more: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        loads(text(more), path="f")
    (error,) = caught.value.errors
    assert "; " in error.message
    return f"{error.key}: {error.message}"


def test_certificates_are_read_and_what_they_say_is_known(files: Path) -> None:
    tls = tls_of(f"{{certificates: [{pair(files)}, {pair(files, 'example.org.pem', 'example.org.key')}]}}")
    assert [each.names for each in tls.certificates] == [("localhost", "*.localhost"), ("example.org", "*.example.org")]
    assert tls.certificates[0].key == certificate("localhost").key
    ends_in_s = tls.certificates[0].not_after_s - time.time()
    assert 29 * 86400 < ends_in_s <= 30 * 86400
    assert (tls.versions, tls.handshake_timeout_s, tls.accepts_truncation) == (("1.2", "1.3"), 10.0, False)


def test_other_keys_are_what_they_say(files: Path) -> None:
    more = "versions: ['1.3'], unknown_name: refuse, alpn: [h2, http/1.1], handshake_timeout: 5s, truncation: accept"
    tls = tls_of(f"{{certificates: [{pair(files)}], {more}}}")
    assert (tls.versions, tls.handshake_timeout_s, tls.accepts_truncation) == (("1.3",), 5.0, True)
    assert (tls.refuses_unknown_names, tls.alpn) == (True, ("h2", "http/1.1"))


def test_key_is_in_no_text_of_the_settings_and_survives_the_way_to_a_worker(files: Path) -> None:
    (listener,) = loads(text(f"{{certificates: [{pair(files)}]}}")).listeners
    assert "PRIVATE" not in repr(listener)
    assert listener_settings_from(json.loads(json.dumps(asdict(listener)))) == listener


def test_certificate_that_has_ended_is_refused(files: Path) -> None:
    subprocess.run(
        ["openssl", "x509", "-in", files / "localhost.pem", "-signkey", files / "localhost.key", "-days", "-1",
         "-copy_extensions", "copyall", "-out", files / "old.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    said = refusal(f"{{certificates: [{pair(files, 'old.pem')}]}}")
    assert said.startswith("listeners.app.tls.certificates[0]: the certificate of localhost has ended at 20")


def test_certificate_that_has_not_begun_is_refused(files: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-new", "-key", files / "localhost.key", "-subj", "/CN=localhost", "-out", files / "asked"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (files / "index").touch()
    (files / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {files}/index\nnew_certs_dir = {files}\npolicy = any\n"
        f"default_md = sha256\nrand_serial = yes\n[any]\ncommonName = supplied\n"
    )
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", files / "ca.cnf", "-selfsign", "-keyfile", files / "localhost.key",
         "-in", files / "asked", "-startdate", "20490101000000Z", "-enddate", "20491231000000Z", "-notext",
         "-out", files / "early.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    said = refusal(f"{{certificates: [{pair(files, 'early.pem')}]}}")
    assert "the certificate of localhost begins at 2049-01-01 00:00 UTC" in said


def test_key_of_another_kind_is_not_that_of_the_certificate(files: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-keyout", files / "rsa.key", "-out", files / "rsa.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    for chain, key in (("rsa.pem", "localhost.key"), ("localhost.pem", "rsa.key")):
        said = refusal(f"{{certificates: [{pair(files, chain, key)}]}}")
        assert "the key is not that of the chain's first certificate; write its own" in said


def test_what_is_wrong_with_a_file_is_said_with_its_path(files: Path) -> None:
    (files / "empty").write_text("")
    (files / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (files / "der").write_bytes(b"\x30\x82\xff")
    subprocess.run(
        ["openssl", "pkey", "-in", files / "localhost.key", "-aes256", "-passout", "pass:secret", "-out",
         files / "locked.key"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    at = "listeners.app.tls.certificates[0]"
    for given, key, why in (
        (pair(files, key="example.org.key"), "", "the key is not that of the chain's first certificate; write its own"),
        (pair(files, key="locked.key"), ".key", "has a passphrase; write it without: openssl pkey -in OLD -out NEW"),
        (pair(files, key="none"), ".key", "No such file or directory; write the absolute path of a PEM file such as"),
        (pair(files, key="."), ".key", "is not a file"),
        (pair(files, key="localhost.pem"), ".key", "has no private key"),
        (pair(files, chain="empty"), ".chain", "has no certificate"),
        (pair(files, chain="half.pem"), "", "the chain begins with something that is no certificate; write another"),
        (pair(files, chain="der"), ".chain", "is not PEM, but perhaps DER"),
    ):
        said = refusal(f"{{certificates: [{given}]}}")
        assert said.startswith(f"{at}{key}: "), said
        assert why in said
