"""Readers of the files that are read again while the daemon runs: one for each kind of `gaiod.watched_files`."""

from collections.abc import Callable
from dataclasses import asdict

from gaiod.config.admission.access import read_networks
from gaiod.config.errors import Refused
from gaiod.config.tls.certificates import Mismatch, certificate_of, parse_chain, parse_key
from gaiod.config.tls.clients import clients_of, parse_ca, parse_crl
from gaiod.config.tls.ocsp import parse_ocsp
from gaiod.config.tls.openssl import check_clients, check_tls
from gaiod.settings import TlsSettings
from gaiod.watched_files import Content, Files
from gaiod.wording import printable

__all__ = ["READERS", "Mismatch", "Refused"]


def _read_certificate(files: Files) -> Content:
    chain, key = parse_chain(files[0]), parse_key(files[1])
    ocsp = parse_ocsp(files[2]) if len(files) > 2 else None
    try:
        certificate = certificate_of(chain, key, ocsp)
        check_tls(TlsSettings((certificate,)))
    except Refused as refused:
        raise type(refused)(f"{printable(files[0])}: {refused}") from refused
    return asdict(certificate)


def _read_clients(files: Files) -> Content:
    crl = parse_crl(files[1]) if len(files) > 1 else None
    clients = clients_of(parse_ca(files[0]), crl)
    try:
        check_clients(clients)
    except Refused as refused:
        raise Refused(f"{printable(files[0])}: {refused}") from refused
    return {"ca": clients.ca, "crl": clients.crl}


READERS: dict[str, Callable[[Files], Content]] = {
    "access": lambda files: asdict(read_networks(files[0])),
    "certificate": _read_certificate,
    "clients": _read_clients,
}
"""By the name of the kind. Each returns what `FileKind.renewed` takes, or raises Refused with what is wrong."""
