"""What there is to say of TLS: keys are never shown, and the words that others count by are these."""

from core.support.tls import certificate
from gaiod.core.tls import FAILURES, VERSIONS, ServerTls
from gaiod.stats.cells import CELL


def test_key_is_in_no_text_of_what_has_it() -> None:
    settings = ServerTls((certificate(),))
    assert "PRIVATE" not in repr(settings)
    assert "BEGIN CERTIFICATE" in repr(settings)


def test_every_failure_and_every_version_has_a_cell() -> None:
    assert {f"tls_failed_{reason}" for reason in FAILURES} <= CELL.keys()
    assert {f"tls_full_{version}" for version in VERSIONS} <= CELL.keys()
