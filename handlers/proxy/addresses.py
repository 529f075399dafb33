"""Addresses of servers: `10.0.0.5:5432`, `[::1]:5432`, `db.internal:5432` or `unix:/run/db.sock`."""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

UNIX = "unix:"
UNIX_PATH_MAX_BYTES = 107
"""sun_path holds 108 bytes with its final NUL: unix(7)."""

PORT_MAX = 65535
EXAMPLES = "such as 127.0.0.1:5432, [::1]:5432, db.internal:5432 or unix:/run/db.sock"

HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[0-9]{1,9})")

# RFC 1123, and the underscore that container networks have in the names of their hosts.
NAME = re.compile(r"(?=.{1,253}\.?\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


class Address(NamedTuple):
    """One address, taken apart."""

    host: str
    """Numeric, or a name; empty for a unix socket."""
    port: int
    path: str
    """Of a unix socket; empty for any other."""
    is_name: bool

    @property
    def target(self) -> tuple[str, int] | str:
        """What `connect()` takes; of no use for a name, which has to be looked up."""
        return self.path or (self.host, self.port)


def parse_address(text: str) -> Address:
    """Take an address apart. Two texts for the same one give equal results.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    if text.startswith(UNIX):
        return Address("", 0, _path(text.removeprefix(UNIX)), is_name=False)
    match = HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(_not_host_port(text))
    port = int(match["port"])
    if not 1 <= port <= PORT_MAX or str(port) != match["port"]:
        raise ValueError(f"{match['port']} is not a port to connect to; write 1 to {PORT_MAX}")
    if match["v6"] is not None:
        return Address(_v6(match["v6"]), port, "", is_name=False)
    host = match["host"]
    if _is_v4(host):
        return Address(host, port, "", is_name=False)
    if not host:
        raise ValueError(f"names no host; write 127.0.0.1:{port} for this machine")
    if not host.strip("0123456789."):
        raise ValueError(f"{host} is not an IPv4 address; write one such as 127.0.0.1")
    if NAME.fullmatch(host) is None:
        raise ValueError(f"{_shown(host)} is not the name of a host; write an address {EXAMPLES}")
    return Address(host.lower(), port, "", is_name=True)


def _is_v4(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


def _v6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        raise ValueError(f"{_shown(host)} is not an IPv6 address; write it as in [::1]:5432") from None
    if address.scope_id is not None:
        raise ValueError(f"{_shown(host)} names an interface; write an address that does without %")
    return str(address)


def _path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"{_shown(path)} is not the absolute path of a socket; write one such as unix:/run/db.sock")
    if len(path.encode()) > UNIX_PATH_MAX_BYTES:
        raise ValueError(f"the path has {len(path.encode())} bytes; write one of at most {UNIX_PATH_MAX_BYTES}")
    return path


def _not_host_port(text: str) -> str:
    shown = _shown(text)
    if text.startswith(("/", "./")):
        return f"{shown} is not an address; write unix: and the absolute path of the socket"
    if "://" in text:
        return f"{shown} is a URL; write only its host and port, {EXAMPLES}"
    if text.count(":") > 1 and "[" not in text:
        return f"{shown} is not an address; write an IPv6 address in brackets, as in [::1]:5432"
    if ":" not in text.rpartition("]")[2] and text:
        return f"{shown} has no port; write {shown}:5432"
    return f"{shown} is not an address; write one {EXAMPLES}"


def _shown(text: str) -> str:
    """Make the operator's text fit for a message."""
    return (text if text.isprintable() else ascii(text)[1:-1])[:80] or '""'
