"""The kinds of files that are read again while the daemon runs."""

from dataclasses import asdict

from gaiod.config.file_readers import READERS
from gaiod.settings import (
    AccessRule,
    CertificateSettings,
    ClientCertificateSettings,
    ListenerSettings,
    NetworkTable,
    TlsSettings,
)
from gaiod.watched_files import KINDS, contents_of

OLD, NEW = NetworkTable((1, 2)), {"v4": [3, 4], "v6": [5, 6], "unix": True}
ACCESS = KINDS["access"]


def listener(*rules: AccessRule) -> ListenerSettings:
    return ListenerSettings("front", "127.0.0.1:0", "echo", access=rules or None)


def test_every_kind_has_a_reader() -> None:
    assert KINDS.keys() == READERS.keys()


def test_access_rules_name_their_files() -> None:
    rules = (AccessRule(True, "file:/a", OLD), AccessRule(True, "10.0.0.0/8"), AccessRule(False, "file:/b", OLD))
    had = {"v4": (1, 2), "v6": (), "unix": False}
    assert list(ACCESS.contents_of(listener(*rules))) == [(("/a",), had), (("/b",), had)]
    assert list(ACCESS.contents_of(listener())) == []


def test_every_rule_of_a_file_has_what_it_has_now() -> None:
    rules = (AccessRule(True, "file:/a", OLD), AccessRule(False, "file:/b", OLD), AccessRule(False, "file:/a", OLD))
    table = NetworkTable((3, 4), (5, 6), unix=True)
    renewed = ACCESS.renewed(listener(*rules), ("/a",), NEW)
    assert renewed == listener(AccessRule(True, "file:/a", table), rules[1], AccessRule(False, "file:/a", table))


def test_settings_without_the_file_stay_what_they_are() -> None:
    before = listener(AccessRule(False, "file:/b", OLD))
    assert ACCESS.renewed(before, ("/a",), NEW) is before
    assert ACCESS.renewed(listener(), ("/a",), NEW) == listener()


def certificate(number: int, *, of: int | None = None) -> CertificateSettings:
    return CertificateSettings(
        f"chain {number}",
        f"key {number}",
        (f"{number}.test",),
        4e9,
        files=(f"/{of or number}.pem", f"/{of or number}.key"),
    )


def secure(*certificates: CertificateSettings, clients: ClientCertificateSettings | None = None) -> ListenerSettings:
    return ListenerSettings("front", "127.0.0.1:0", "echo", tls=TlsSettings(certificates, clients=clients))


def test_certificate_is_its_chain_and_its_key() -> None:
    before = secure(certificate(1), certificate(2))
    kind = KINDS["certificate"]
    assert [files for files, _ in kind.contents_of(before)] == [("/1.pem", "/1.key"), ("/2.pem", "/2.key")]
    renewed = kind.renewed(before, ("/2.pem", "/2.key"), asdict(certificate(3, of=2)))
    assert renewed == secure(certificate(1), certificate(3, of=2))
    assert kind.renewed(before, ("/1.pem", "/2.key"), asdict(certificate(3))) is before
    assert kind.renewed(listener(), ("/1.pem", "/1.key"), asdict(certificate(3))) == listener()
    assert list(kind.contents_of(listener())) == []


def test_what_clients_are_asked_stays_but_for_what_the_files_have() -> None:
    asked = ClientCertificateSettings("old", "", are_required=False, depth=3, files=("/ca", "/crl"))
    before, kind = secure(certificate(1), clients=asked), KINDS["clients"]
    assert list(kind.contents_of(before)) == [(("/ca", "/crl"), {"ca": "old", "crl": ""})]
    renewed = kind.renewed(before, ("/ca", "/crl"), {"ca": "new", "crl": "list"})
    now = ClientCertificateSettings("new", "list", are_required=False, depth=3, files=("/ca", "/crl"))
    assert renewed == secure(certificate(1), clients=now)
    for other in (secure(certificate(1)), listener()):
        assert kind.renewed(other, ("/ca", "/crl"), {"ca": "new", "crl": "list"}) == other
        assert list(kind.contents_of(other)) == []
    assert kind.renewed(before, ("/ca",), {"ca": "new", "crl": ""}) is before


def test_settings_have_what_they_had_when_nothing_was_renewed() -> None:
    rules = (AccessRule(False, "file:/a", OLD),)
    before = ListenerSettings("front", "127.0.0.1:0", "echo", access=rules, tls=TlsSettings((certificate(1),)))
    for kind, files, content in contents_of([before]):
        assert kind.renewed(before, files, content) == before
