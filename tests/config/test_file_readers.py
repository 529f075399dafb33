"""Readers of files that are read again: what they return is what the settings of workers are made of."""

import json
from pathlib import Path

import pytest
from core.support.pki import Authority, authority
from core.support.tls import certificate

from gaiod.config import loads
from gaiod.config.admission.access import parse_rule
from gaiod.config.file_readers import READERS, Mismatch, Refused
from gaiod.settings import ListenerSettings
from gaiod.watched_files import KINDS


def test_what_a_reader_returns_is_after_a_journey_what_the_configuration_has(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("unix:\n10.0.0.0/8\n2001:db8::/32\n")
    wanted = ListenerSettings("front", "127.0.0.1:0", "echo", access=(parse_rule(f"deny file:{path}"),))
    value = json.loads(json.dumps(READERS["access"]((str(path),))))
    path.write_text("")
    before = ListenerSettings("front", "127.0.0.1:0", "echo", access=(parse_rule(f"deny file:{path}"),))
    assert KINDS["access"].renewed(before, (str(path),), value) == wanted != before


def test_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("nonsense\n")
    with pytest.raises(Refused, match="line 1"):
        READERS["access"]((str(path),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a certificate, its key, and the authorities of clients."""
    made, own = certificate(), Authority()
    for name, text in (
        ("app.pem", made.chain), ("app.key", made.key), ("ca.pem", own.certificate), ("ca.crl", own.revocations()),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    return tmp_path


def secure(folder: Path) -> ListenerSettings:
    """Return the settings of a configuration that names the files."""
    tls = f"{{certificates: [{{chain: {folder}/app.pem, key: {folder}/app.key}}], clients: {{ca: {folder}/ca.pem, "
    (listener,) = loads(
        f"listeners: {{front: {{bind: 127.0.0.1:7000, handler: echo, tls: {tls}crl: {folder}/ca.crl}}}}}}}}"
    ).listeners
    return listener


@pytest.mark.parametrize(
    ("kind", "first", "second"), [("certificate", "app.pem", "app.key"), ("clients", "ca.pem", "ca.crl")]
)
def test_what_is_read_of_tls_is_after_a_journey_what_the_configuration_has(
    folder: Path, kind: str, first: str, second: str
) -> None:
    before, own = secure(folder), Authority()
    renewed = certificate("localhost", 60)
    texts = (renewed.chain, renewed.key) if kind == "certificate" else (own.certificate, own.revocations())
    for name, text in zip((first, second), texts, strict=True):
        (folder / name).write_text(text)
    files = (f"{folder}/{first}", f"{folder}/{second}")
    value = json.loads(json.dumps(READERS[kind](files)))
    assert KINDS[kind].renewed(before, files, value) == secure(folder) != before


def test_pair_that_is_none_may_be_half_of_a_change_and_everything_else_is_broken(folder: Path) -> None:
    files = (f"{folder}/app.pem", f"{folder}/app.key")
    (folder / "app.key").write_text(certificate("example.org").key)
    with pytest.raises(Mismatch, match=f"^{files[0]}: the key is not that of the chain's first certificate"):
        READERS["certificate"](files)
    (folder / "app.key").write_text("")
    with pytest.raises(Refused, match="has no private key") as refused:
        READERS["certificate"](files)
    assert not isinstance(refused.value, Mismatch)


def test_authorities_that_no_client_could_be_believed_by_are_refused(folder: Path) -> None:
    (folder / "ca.pem").write_text(authority("Other CA").certificate)
    with pytest.raises(Refused, match="has no list of CN=Other CA"):
        READERS["clients"]((f"{folder}/ca.pem", f"{folder}/ca.crl"))
    assert READERS["clients"]((f"{folder}/ca.pem",)) == {"ca": authority("Other CA").certificate, "crl": ""}
