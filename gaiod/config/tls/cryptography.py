"""What a listener's TLS encrypts by: suites, and groups for the exchange of keys."""

from gaiod.config.errors import Refused
from gaiod.config.tls.openssl import check_openssl
from gaiod.config.words import mismatch
from gaiod.core.tls import SUITES
from gaiod.wording import quoted

SUITES_WANTED = "a list such as [TLS_AES_128_GCM_SHA256, ECDHE-ECDSA-AES128-GCM-SHA256], the preferred first"
GROUPS_WANTED = "a list such as [X25519, P-256], the preferred first"

GROUP_CHARACTERS_MAX = 40


def parse_suites(value: object) -> tuple[str, ...]:
    """Return the suites that may be agreed.

    Raises:
        Refused: it is no list, or empty, has one that is not known to be safe, or that the engine cannot choose.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, SUITES_WANTED))
    if not value:
        raise Refused(f"has no suite; write {SUITES_WANTED}, or remove the key")
    for suite in value:
        if suite not in SUITES:
            raise Refused(f"{quoted(str(suite))} is no suite that is safe; there is {', '.join(SUITES)}")
    if any(suite.startswith("TLS_") for suite in value):
        check_openssl("chooses suites of TLS 1.3")
    return tuple(dict.fromkeys(value))


def parse_groups(value: object) -> tuple[str, ...]:
    """Return the groups that keys may be exchanged in. Whether OpenSSL knows them is asked when contexts are made.

    Raises:
        Refused: it is no list, or empty, has something that is no name, or the engine cannot choose.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, GROUPS_WANTED))
    if not value:
        raise Refused(f"has no group; write {GROUPS_WANTED}, or remove the key")
    for group in value:
        is_name = isinstance(group, str) and 0 < len(group) <= GROUP_CHARACTERS_MAX
        if not is_name or not group.isascii() or not group.replace("-", "").replace("_", "").isalnum():
            raise Refused(f"{quoted(str(group))} is no name of a group; write {GROUPS_WANTED}")
    check_openssl("chooses groups")
    return tuple(dict.fromkeys(value))
