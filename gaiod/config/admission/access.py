"""Access rules: `allow 10.0.0.0/8`, `deny file:/etc/gaiod/blocked.txt`, `deny all`. The first that matches decides."""

import os
import stat
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from gaiod.addresses import ALL, UNIX
from gaiod.config.errors import Refused
from gaiod.config.networks import parse_network
from gaiod.config.words import NAMES, mismatch
from gaiod.settings import FILE, AccessRule, NetworkTable
from gaiod.wording import printable, shown

RULES_MAX = 256
NETWORKS_MAX = 100_000
"""In one file: 10 MiB in each worker."""

FILE_MAX_BYTES = 8 << 20

EXAMPLE = "[allow 10.0.0.0/8, deny all]"
WANTED = "such as allow 10.0.0.0/8, deny file:/etc/gaiod/blocked.txt or deny all"


def parse_rule(value: object) -> AccessRule:
    """Return the rule that `value` writes; a file's networks are read now.

    Raises:
        Refused: it is none, or its file cannot be read, or has a line that is no network.
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, f"a rule {WANTED}"))
    verb, _, what = value.partition(" ")
    what = what.strip()
    if verb not in ("allow", "deny") or not what:
        raise Refused(f"{shown(value)} is not a rule; write one {WANTED}")
    allows = verb == "allow"
    if what == ALL:
        return AccessRule(allows, ALL)
    if what.startswith(FILE):
        return AccessRule(allows, what, read_networks(what.removeprefix(FILE)))
    return AccessRule(allows, parse_network_or_address(what))


def parse_network_or_address(text: str) -> str:
    """Return the one way to write a network; an address is the network that has only it.

    Raises:
        Refused: it is neither.
    """
    if "%" not in text:
        try:
            address = ip_address(text)
        except ValueError:
            pass
        else:
            text = f"{text}/{address.max_prefixlen}"
    return parse_network(text)


def check_rules(value: object) -> object:
    """Return a list of rules, which are still to be parsed.

    Raises:
        Refused: it is no list, or empty, or too long.
    """
    if not isinstance(value, list):
        raise Refused(mismatch(value, f"{NAMES[list]}, such as {EXAMPLE}"))
    if not value:
        raise Refused(f"has no rule, and so refuses nobody; write some, such as {EXAMPLE}, or false")
    if len(value) > RULES_MAX:
        raise Refused(f"has {len(value)} rules; write at most {RULES_MAX}, and longer lists of networks into a file")
    return value


def check_order(rules: Sequence[AccessRule]) -> None:
    """Look whether every rule can decide something.

    Raises:
        Refused: some are never reached, or none of them refuses anybody.
    """
    for number, rule in enumerate(rules[:-1], 1):
        if rule.of == ALL:
            raise Refused(f"has rules behind its rule {number}, {rule}, which are never reached; put that one last")
    if all(rule.allows for rule in rules):
        raise Refused("has no deny rule, and so refuses nobody: whom no rule matches is allowed; end it with deny all")


def read_networks(path: str) -> NetworkTable:
    """Return the networks of a file: one a line, or an address; empty lines, and comments from a # on, are nothing.

    Raises:
        Refused: it cannot be read, is too long, or has a line that is no network.
    """
    if not path.startswith("/"):
        raise Refused(f"{shown(FILE + path)} is not an absolute path; write file:/etc/gaiod/blocked.txt or so")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # who opens a FIFO waits for who writes to it
            raise OSError(None, "it is not a file")
        with open(path, "rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Refused(f"cannot read {shown(path)}: {why}; write the path of a list of networks") from None
    if len(data) > FILE_MAX_BYTES:
        raise Refused(f"{shown(path)} has more than {FILE_MAX_BYTES >> 20} MiB; is it a list of networks?")
    networks: list[str] = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            networks.append(parse_network_or_address(text))
        except Refused as refused:
            raise Refused(f"{printable(path)}, line {number}: {refused}") from None
    if len(networks) > NETWORKS_MAX:
        raise Refused(f"{shown(path)} has {len(networks)} networks; write at most {NETWORKS_MAX}")
    return _table_of(networks)


def _table_of(networks: Sequence[str]) -> NetworkTable:
    """Return the ranges that networks make up: here, so that no worker has to stand still for it."""
    ranges: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
    for text in networks:
        if text != UNIX:
            network = ip_network(text)
            ranges[network.version].append((int(network.network_address), int(network.broadcast_address) + 1))
    return NetworkTable(_bounds_of(sorted(ranges[4])), _bounds_of(sorted(ranges[6])), UNIX in networks)


def _bounds_of(ranges: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    bounds: list[int] = []
    for first, end in ranges:
        if bounds and first <= bounds[-1]:
            bounds[-1] = max(bounds[-1], end)
        else:
            bounds += (first, end)
    return tuple(bounds)
