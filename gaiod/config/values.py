"""Values that one key or two take: a choice, an account, a log file.

Each parser returns the value as the settings hold it, or raises Refused with what to write.
"""

import re

from gaiod.addresses import file_path
from gaiod.config.cpus import usable_cpus
from gaiod.config.errors import Refused
from gaiod.config.units import parse_duration, parse_whole
from gaiod.config.words import mismatch, one_of, unknown
from gaiod.core.tls import VERSIONS
from gaiod.wording import quoted, shown

WORKERS_MAX = 1024
"""More than the CPUs of the machines this runs on."""

NOT_IN_ACCOUNT = frozenset(":/")
"""Ends a field of passwd(5), and names no file: in no account, wherever accounts come from."""

LOG_FILE_WANTED = "stderr or an absolute path such as /var/log/gaiod/gaiod.log"


KEEPALIVE_MAX_S = 9 * 3600.0
"""Linux takes no TCP_KEEPIDLE above 32,767 s (MAX_TCP_KEEPIDLE)."""

CONGESTION = re.compile(r"[a-z0-9_-]{1,15}")
"""TCP_CA_NAME_MAX is 16, with the final NUL."""

CONGESTION_WANTED = "the name of an algorithm such as bbr or cubic"


def parse_workers(value: object) -> int:
    """Return how many workers `auto` or a number is.

    Raises:
        Refused: it is neither, or too many.
    """
    if value == "auto":
        return min(usable_cpus(), WORKERS_MAX)
    return parse_whole(value, 1, WORKERS_MAX, wanted=f"auto, or a whole number from 1 to {WORKERS_MAX}")


def parse_keepalive(value: object) -> float:
    """Return the seconds of a duration that the kernel can count.

    Raises:
        Refused: it is none, or out of range, or no whole number of seconds.
    """
    seconds = parse_duration(value, 1.0, KEEPALIVE_MAX_S)
    if not seconds.is_integer():
        raise Refused(f"{value} is not in whole seconds, as the kernel counts them; write {int(seconds)}s")
    return seconds


MODE = re.compile(r"0?[0-7]{3}")
MODE_WANTED = 'one in octal and quotes, such as "0660"'


def parse_congestion(value: object) -> str:
    """Return the name of an algorithm. Whether there is such a one is for the machine that serves to say.

    Raises:
        Refused: it is no name.
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, CONGESTION_WANTED))
    if not CONGESTION.fullmatch(value):
        raise Refused(f"{quoted(value)} is not a name; write {CONGESTION_WANTED}")
    return value


def parse_mode(value: object) -> int:
    """Return the permissions of a file, which are written as everywhere: in octal, and in quotes, for YAML's sake.

    Raises:
        Refused: they are none.
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, MODE_WANTED))
    if not MODE.fullmatch(value):
        raise Refused(f"{quoted(value)} is not a mode; write {MODE_WANTED}")
    return int(value, 8)


def parse_choice(value: object, names: tuple[str, ...]) -> str:
    """Return the one of `names` that `value` is.

    Raises:
        Refused: it is none of them.
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, one_of(names)))
    if value not in names:
        raise Refused(unknown(value, names, what="not one of the choices"))
    return value


def parse_account(value: object, kind: str) -> str:
    """Return the name of a user or group (`kind`). Whether it exists is for the machine that serves to say.

    Raises:
        Refused: it is no name, or a number: 0 and 1000 are somebody else on every machine.
    """
    wanted = f"the name of a {kind} such as gaiod, or false"
    if not isinstance(value, str):
        raise Refused(mismatch(value, wanted))
    if value.isdecimal():
        raise Refused(f"{shown(value)} is a number; write {wanted}")
    odd = not value or value != value.strip() or value.startswith("-") or not value.isprintable()
    if odd or NOT_IN_ACCOUNT & set(value):
        raise Refused(f"{quoted(value)} is not a name; write {wanted}")
    return value


def parse_log_file(value: object) -> str | None:
    """Return the path of a log; None for `stderr`.

    Raises:
        Refused: it is neither.
    """
    if value == "stderr":
        return None
    if not isinstance(value, str):
        raise Refused(mismatch(value, LOG_FILE_WANTED))
    if not value.startswith("/"):
        raise Refused(f"{shown(value)} is not an absolute path; write {LOG_FILE_WANTED}")
    file = file_path(value)
    if file is None:
        raise Refused(f"{shown(value)} is not the path of a file; write {LOG_FILE_WANTED}")
    return file


TLS_VERSIONS_WANTED = 'a list such as ["1.2", "1.3"]'


def parse_tls_versions(value: object) -> tuple[str, ...]:
    """Return the versions of TLS that are spoken.

    Raises:
        Refused: it is no list, is empty, or has something else in it.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, TLS_VERSIONS_WANTED))
    if not value:
        raise Refused(f"has no version; write {TLS_VERSIONS_WANTED}")
    for version in value:
        if isinstance(version, float):
            raise Refused(f"has {version} without quotes, which is a number; write {TLS_VERSIONS_WANTED}")
        if version not in VERSIONS:
            raise Refused(f"{shown(str(version))} is no version that is safe; write {TLS_VERSIONS_WANTED}")
    return tuple(sorted(set(value)))


def parse_truncation(value: object) -> bool:
    """Return whether a stream may end without a close_notify.

    Raises:
        Refused: it is no answer.
    """
    return parse_choice(value, ("refuse", "accept")) == "accept"


ALPN_WANTED = "a list of protocols such as [h2, http/1.1]"
ALPN_BYTES_MAX = 255
"""Of a name (RFC 7301, 3.1)."""


def parse_unknown_name(value: object) -> bool:
    """Return whether a client that names no server which is known is refused.

    Raises:
        Refused: it is no answer.
    """
    return parse_choice(value, ("first", "refuse")) == "refuse"


def parse_tls_start(value: object) -> bool:
    """Return whether TLS begins when the handler says so.

    Raises:
        Refused: it is no answer.
    """
    return parse_choice(value, ("immediate", "handler")) == "handler"


def parse_alpn(value: object) -> tuple[str, ...]:
    """Return the protocols that are spoken, the preferred first.

    Raises:
        Refused: it is no list, is empty, or has something else in it.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, ALPN_WANTED))
    if not value:
        raise Refused(f"has no protocol; write {ALPN_WANTED}, or remove the key")
    for name in value:
        if not (isinstance(name, str) and name.isascii() and name.isprintable() and 0 < len(name) <= ALPN_BYTES_MAX):
            raise Refused(f"{quoted(str(name))} is no name of a protocol; write {ALPN_WANTED}")
    return tuple(dict.fromkeys(value))
