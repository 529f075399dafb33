"""What clients are asked: read, and refused if no client could be believed."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from core.support.pki import Authority, authority, run
from core.support.tls import certificate

from gaiod.config import ConfigErrors, loads
from gaiod.core.engine import shares_tickets
from gaiod.settings import ClientCertificateSettings, listener_settings_from
from gaiod.ticket_scope import scope_of

ENDED = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a certificate, an authority and its list."""
    made, own = certificate(), authority()
    for name, text in (
        ("app.pem", made.chain), ("app.key", made.key), ("ca.pem", own.certificate), ("ca.crl", own.revocations()),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def text(folder: Path, clients: str) -> str:
    pair = f"{{chain: {folder}/app.pem, key: {folder}/app.key}}"
    tls = f"{{certificates: [{pair}], clients: {clients.replace('FOLDER', str(folder))}}}"
    return f"listeners:\n  app:\n    bind: 127.0.0.1:7443\n    handler: echo\n    tls: {tls}\n"


def refusal(folder: Path, clients: str) -> str:
    with pytest.raises(ConfigErrors) as caught:
        loads(text(folder, clients), path="f")
    (error,) = caught.value.errors
    assert (error.line, "; " in error.message) == (5, True)
    return f"{error.key.removeprefix('listeners.app.tls.')}: {error.message}"


def test_clients_are_asked_for_what_the_file_says(files: Path) -> None:
    (listener,) = loads(text(files, "{ca: FOLDER/ca.pem, crl: FOLDER/ca.crl, verify: optional}")).listeners
    assert listener.tls is not None
    assert listener.tls.clients == ClientCertificateSettings(
        (files / "ca.pem").read_text(), (files / "ca.crl").read_text(), are_required=False, depth=None,
        files=(f"{files}/ca.pem", f"{files}/ca.crl"),
    )  # fmt: skip
    assert listener_settings_from(json.loads(json.dumps(asdict(listener)))) == listener
    assert "BEGIN" not in repr(listener)


def test_tickets_are_good_for_one_set_of_demands(files: Path) -> None:
    own = authority()
    (files / "more.crl").write_text(own.revocations() + own.revocations())
    (files / "more.pem").write_text(own.certificate + authority("Other CA").certificate)
    asked = ["false", "{ca: FOLDER/ca.pem}", "{ca: FOLDER/more.pem}", "{ca: FOLDER/ca.pem, crl: FOLDER/ca.crl}"]
    asked += ["{ca: FOLDER/ca.pem, crl: FOLDER/more.crl}", "{ca: FOLDER/ca.pem, verify: optional}"]
    if shares_tickets():
        asked += ["{ca: FOLDER/ca.pem, depth: 2}", "{ca: FOLDER/ca.pem, depth: 3}"]
    scopes = [scope_of(loads(text(files, each)).listeners[0]) for each in asked]
    assert len({*scopes}) == len(asked)
    assert None not in scopes


def test_what_would_refuse_every_client_is_refused(files: Path) -> None:
    root = authority()
    between = Authority("Between CA", root)
    (files / "between.pem").write_text(between.certificate)
    (files / "both.pem").write_text(between.chain)
    run("x509", "-in", files / "ca.pem", "-signkey", root.folder / "ca.key", "-days", "-1", "-out", files / "old.pem")
    (files / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (files / "ended.crl").write_text(root.revocations(*ENDED))
    (files / "half.crl").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    (files / "other.crl").write_text(authority("Other CA").revocations())
    for given, key, why in (
        ("ca: FOLDER/between.pem", "clients.ca", "has no root, so no client would be believed"),
        ("ca: FOLDER/old.pem", "clients.ca", "has only certificates that have ended"),
        ("ca: FOLDER/half.pem", "clients.ca", "has something that is no certificate"),
        ("ca: FOLDER/app.key", "clients.ca", "has no certificate"),
        ("ca: FOLDER/none", "clients.ca", "No such file or directory"),
        ("ca: FOLDER/ca.pem, crl: FOLDER/ended.crl", "clients.crl", "the list of CN=Gate CA,O=Example has ended"),
        ("ca: FOLDER/ca.pem, crl: FOLDER/half.crl", "clients.crl", "has something that is no revocation list"),
        ("ca: FOLDER/ca.pem, crl: FOLDER/ca.pem", "clients.crl", "has no revocation list"),
        ("ca: FOLDER/ca.pem, crl: FOLDER/other.crl", "clients", "has no list of CN=Gate CA,O=Example"),
        ("ca: FOLDER/both.pem, crl: FOLDER/ca.crl", "clients", "has no list of CN=Between CA,O=Example"),
    ):
        said = refusal(files, f"{{{given}}}")
        assert said.startswith(f"{key}: "), said
        assert why in said


def test_depth_needs_openssl_itself(files: Path) -> None:
    given = "{ca: FOLDER/ca.pem, depth: 1}"
    if shares_tickets():
        (listener,) = loads(text(files, given)).listeners
        assert listener.tls is not None
        assert listener.tls.clients is not None
        assert listener.tls.clients.depth == 1
    else:
        said = refusal(files, given)
        assert said.startswith("clients.depth: needs the compiled engine")
        assert "nothing else limits the depth of a chain" in said
