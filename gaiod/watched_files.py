"""Files that the configuration names and that change while the daemon runs: their kinds.

The supervisor looks at them (`gaiod.supervisor.file_watch`), has a child read those that have changed
(`gaiod.config.file_readers`), and sends what they have to all workers, which go on with their connections.

A second kind joins with a `FileKind` here, its reader in `gaiod.config.file_readers`, and what a worker makes of the
new settings in `Listener.renew`. Settings have what a file had when it was read, and its path: that is all there is to
it. A start and a reload read the same files with the configuration, and refuse those that are wrong.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from gaiod.settings import FILE, ListenerSettings, network_table_from

Files = tuple[str, ...]
"""Absolute paths of what is read together, and is good or bad as a whole: one file, or a certificate and its key."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files.

    Attributes:
        name: what metrics and messages call it.
        files_of: returns the files that a listener names.
        renewed: returns the settings of a listener with what was read of some files, as JSON has it; the same settings
            where it does not name them. What has not changed must be equal to what was there.
    """

    name: str
    files_of: Callable[[ListenerSettings], Iterable[Files]]
    renewed: Callable[[ListenerSettings, Files, Any], ListenerSettings]


def _access_files(listener: ListenerSettings) -> list[Files]:
    return [(rule.of.removeprefix(FILE),) for rule in listener.access or () if rule.table is not None]


def _with_access(listener: ListenerSettings, files: Files, value: Any) -> ListenerSettings:
    if files not in _access_files(listener):
        return listener
    table, of = network_table_from(value), FILE + files[0]
    rules = (replace(rule, table=table) if rule.of == of else rule for rule in listener.access or ())
    return replace(listener, access=tuple(rules))


KINDS = {kind.name: kind for kind in (FileKind("access", _access_files, _with_access),)}
