"""Files that the configuration names and that change while the daemon runs: their kinds.

The supervisor looks at them (`gaiod.supervisor.file_watch`), has a child read those that have changed
(`gaiod.config.file_readers`), and sends what they have to all workers, which go on with their connections.

Another kind joins with a `FileKind` here, its reader in `gaiod.config.file_readers`, and what a worker makes of the
new settings in `Listener.renew`. Settings have what a file had when it was read, and its path: that is all there is to
it. A start and a reload read the same files with the configuration, and refuse those that are wrong.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from gaiod.settings import FILE, CertificateSettings, ListenerSettings, certificate_settings_from, network_table_from

Files = tuple[str, ...]
"""Absolute paths of what is read together, and is good or bad as a whole: one file, or a certificate and its key."""

Content = dict[str, Any]
"""What files have, as plain data: what their reader returns, but for the journey as JSON."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files.

    Attributes:
        name: what metrics and messages call it.
        contents_of: returns the files that a listener names, and what its settings have of them.
        renewed: returns the settings of a listener with what was read of some files, as JSON has it; the same settings
            where it does not name them. What has not changed must be equal to what was there.
    """

    name: str
    contents_of: Callable[[ListenerSettings], Iterable[tuple[Files, Content]]]
    renewed: Callable[[ListenerSettings, Files, Content], ListenerSettings]


def _plain(settings: Any) -> Content:
    return {each.name: getattr(settings, each.name) for each in fields(settings)}


def _access(listener: ListenerSettings) -> list[tuple[Files, Content]]:
    rules = listener.access or ()
    return [((rule.of.removeprefix(FILE),), _plain(rule.table)) for rule in rules if rule.table is not None]


def _with_access(listener: ListenerSettings, files: Files, content: Content) -> ListenerSettings:
    of, rules = FILE + files[0], listener.access or ()
    if len(files) > 1 or not any(rule.of == of for rule in rules):
        return listener
    table = network_table_from(content)
    return replace(listener, access=tuple(replace(rule, table=table) if rule.of == of else rule for rule in rules))


def _certificates(listener: ListenerSettings) -> list[tuple[Files, Content]]:
    certificates = () if listener.tls is None else listener.tls.certificates
    return [(each.files, _plain(each)) for each in certificates if each.files]


def _with_certificate(listener: ListenerSettings, files: Files, content: Content) -> ListenerSettings:
    if listener.tls is None or not any(each.files == files for each in listener.tls.certificates):
        return listener

    def renewed(before: CertificateSettings) -> CertificateSettings:
        return certificate_settings_from(content) if before.files == files else before

    return replace(listener, tls=replace(listener.tls, certificates=tuple(map(renewed, listener.tls.certificates))))


def _clients(listener: ListenerSettings) -> list[tuple[Files, Content]]:
    clients = listener.tls and listener.tls.clients
    return [(clients.files, {"ca": clients.ca, "crl": clients.crl})] if clients and clients.files else []


def _with_clients(listener: ListenerSettings, files: Files, content: Content) -> ListenerSettings:
    clients = listener.tls and listener.tls.clients
    if listener.tls is None or not clients or clients.files != files:
        return listener
    return replace(listener, tls=replace(listener.tls, clients=replace(clients, **content)))


KINDS = {
    kind.name: kind
    for kind in (
        FileKind("access", _access, _with_access),
        FileKind("certificate", _certificates, _with_certificate),
        FileKind("clients", _clients, _with_clients),
    )
}


TLS_KINDS = frozenset({"certificate", "clients"})
"""Those of TLS."""


def contents_of(listeners: Iterable[ListenerSettings]) -> Iterator[tuple[FileKind, Files, Content]]:
    """Yield the files that listeners name, in the order of the configuration, and what their settings have of them."""
    for listener in listeners:
        for kind in KINDS.values():
            for files, content in kind.contents_of(listener):
                yield kind, files, content
