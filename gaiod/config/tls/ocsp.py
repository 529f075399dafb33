"""OCSP responses: what an authority says of a certificate of its, sent to clients with it."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gaiod.config.errors import Refused
from gaiod.config.tls.openssl import check_openssl
from gaiod.config.tls.pem import read_bytes
from gaiod.core.certificates import StatusFacts, status_facts_of
from gaiod.wording import shown

OCSP_WANTED = "the absolute path of an OCSP response in DER, such as /etc/gaiod/app.ocsp: openssl ocsp -respout FILE"

FAR_S = 253402300799.0
"""The end of a response that names none: the last second of the year 9999."""


@dataclass(frozen=True, slots=True)
class OcspFile:
    """A response, and what it says."""

    path: str
    data: bytes = field(repr=False)
    facts: StatusFacts

    @property
    def ends_s(self) -> float:
        """When it ends, in seconds since 1970."""
        return min(self.facts.not_after_s, FAR_S)


def parse_ocsp(value: object) -> OcspFile:
    """Return the response that is in a file.

    Raises:
        Refused: it cannot be read, is none, has ended, or says that the certificate is revoked; or nobody can send it.
    """
    data = read_bytes(value, OCSP_WANTED)
    path = str(value)
    try:
        facts = status_facts_of(data)
    except (ValueError, IndexError) as error:
        raise Refused(f"{shown(path)} has no OCSP response; write {OCSP_WANTED}") from error
    if not facts.is_good:
        raise Refused(f"{shown(path)} says that the certificate {facts.serial} is not good; write another certificate")
    if facts.not_after_s < time.time():
        ended = datetime.fromtimestamp(facts.not_after_s, UTC)
        raise Refused(f"{shown(path)} has ended at {ended:%Y-%m-%d %H:%M} UTC; write a new one, or remove the key")
    check_openssl("sends OCSP responses")
    return OcspFile(path, data, facts)
