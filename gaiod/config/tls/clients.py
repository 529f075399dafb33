"""What a listener asks of its clients' certificates: whose it believes, which are revoked, and who has to show one."""

import time

from gaiod.config.errors import Refused
from gaiod.config.tls.openssl import check_openssl
from gaiod.config.tls.pem import PemFile, blocks_of, read_pem
from gaiod.config.units import parse_whole
from gaiod.config.values import parse_choice
from gaiod.core.certificates import facts_of, issuer_of, revocation_facts_of, subject_of
from gaiod.settings import ClientCertificateSettings
from gaiod.wording import shown

EXAMPLE = "{ca: /etc/gaiod/clients-ca.pem}"
CA_WANTED = (
    "the absolute path of a PEM file such as /etc/gaiod/clients-ca.pem: the authorities of clients, up to their roots"
)
CRL_WANTED = "the absolute path of a PEM file such as /etc/gaiod/clients.crl: what each authority of ca has revoked"

CRL_MAX_BYTES = 8 << 20
"""100,000 revoked certificates have 4 MiB, in every worker."""

DEPTH_MAX = 100
"""OpenSSL's own limit."""


def parse_ca(value: object) -> PemFile:
    """Return the authorities of clients.

    Raises:
        Refused: the file cannot be read, or no client could be believed by it.
    """
    file = read_pem(value, CA_WANTED)
    name = shown(file.path)
    try:
        found = blocks_of(file.text, "CERTIFICATE")
        ends_s = [facts_of(each).not_after_s for each in found]
        roots = [each for each in found if subject_of(each) == issuer_of(each)]
    except (ValueError, IndexError) as error:
        raise Refused(f"{name} has something that is no certificate; write {CA_WANTED}") from error
    if not found:
        raise Refused(f"{name} has no certificate; write {CA_WANTED}")
    if not roots:
        raise Refused(f"{name} has no root, so no client would be believed; add those that have issued what it has")
    if max(ends_s) < time.time():
        raise Refused(f"{name} has only certificates that have ended, so no client would be believed; renew it")
    return file


def parse_crl(value: object) -> PemFile:
    """Return what the authorities have revoked.

    Raises:
        Refused: the file cannot be read, or has something else.
    """
    file = read_pem(value, CRL_WANTED, CRL_MAX_BYTES)
    try:
        found = [revocation_facts_of(each) for each in blocks_of(file.text, "X509 CRL")]
    except (ValueError, IndexError) as error:
        raise Refused(f"{shown(file.path)} has something that is no revocation list; write {CRL_WANTED}") from error
    if not found:
        raise Refused(f"{shown(file.path)} has no revocation list; write {CRL_WANTED}")
    for each in found:
        if each.not_after_s < time.time():
            raise Refused(
                f"{shown(file.path)}: the list of {shown(each.issuer)} has ended, so all its clients would be "
                "refused; renew it"
            )
    return file


def parse_verify(value: object) -> bool:
    """Return whether every client has to show a certificate.

    Raises:
        Refused: it is no answer.
    """
    return parse_choice(value, ("required", "optional")) == "required"


def parse_depth(value: object) -> int:
    """Return how many certificates there may be between a client's and its root.

    Raises:
        Refused: it is no such number, or the engine cannot count them.
    """
    depth = parse_whole(value, 0, DEPTH_MAX)
    check_openssl("limits the depth of a chain")
    return depth


def clients_of(
    ca: PemFile, crl: PemFile | None = None, are_required: bool = True, depth: int | None = None
) -> ClientCertificateSettings:
    """Return what clients are asked.

    Raises:
        Refused: an authority has no revocation list: OpenSSL would refuse all its clients.
    """
    if crl is not None:
        listed = {revocation_facts_of(each).issuer for each in blocks_of(crl.text, "X509 CRL")}
        for each in blocks_of(ca.text, "CERTIFICATE"):
            if subject_of(each) not in listed:
                raise Refused(
                    f"{shown(crl.path)} has no list of {shown(subject_of(each))}, so all its clients would be "
                    "refused; add it"
                )
    files = (ca.path,) if crl is None else (ca.path, crl.path)
    return ClientCertificateSettings(ca.text, "" if crl is None else crl.text, are_required, depth, files)
