"""Addresses as texts: where to listen, and what to connect to. Everybody reads them with `parse_address`."""

import os
import re
import socket
from dataclasses import dataclass
from typing import Literal

from gaiod.core.sockets import UNIX_PATH_MAX_BYTES
from gaiod.wording import shown

UNIX = "unix:"
ALL = "all"
"""In access rules: every address, and whoever connects to a unix socket."""

SYSTEMD = "systemd:"
PORT_MAX = 65535

Kind = Literal["ipv4", "ipv6", "name", "unix", "systemd"]

LISTEN_EXAMPLES = "such as 127.0.0.1:7000, [::1]:7000 or unix:/run/gaiod/echo.sock"
CONNECT_EXAMPLES = "such as 127.0.0.1:5432, [::1]:5432, db.internal:5432 or unix:/run/db.sock"

# What systemd takes in FileDescriptorName= (systemd.socket(5)), less what needs quotes somewhere in YAML.
SYSTEMD_NAME = re.compile(r"(?:(?![:,\[\]{}])[!-~]){1,255}")
SYSTEMD_WANTED = "that of FileDescriptorName=, 1 to 255 visible ASCII characters without : , [ ] { }"

HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]]*)):(?P<port>[0-9]{1,9})")

# RFC 1123, and the underscore that container networks have in the names of their hosts. One of digits alone is a
# mistyped IPv4 address: no top-level domain is a number.
NAME = re.compile(
    r"(?=.{1,253}\.?\Z)(?![0-9.]*\Z)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """An address, taken apart by `parse_address`. `str()` writes it in the one way that there is.

    Two texts for the same address (`[::1]:80`, `[0:0::1]:80`) give equal ones. They can be the keys of a dict.
    """

    kind: Kind
    """A `name` has to be looked up; a socket of `systemd` is handed over by it."""
    host: str = ""
    """The number, without brackets; or the name, in small letters. Empty for a unix socket and one of systemd."""
    port: int = 0
    path: str = ""
    """What follows `unix:` or `systemd:`: a path, or the name that systemd has for the socket. Else empty."""

    def __str__(self) -> str:
        if self.path:
            return f"{self.kind}:{self.path}"
        return f"[{self.host}]:{self.port}" if self.kind == "ipv6" else f"{self.host}:{self.port}"

    @property
    def target(self) -> tuple[str, int] | str:
        """What `connect()` and `bind()` take. Of no use for a name, and for a socket of systemd."""
        return self.path or (self.host, self.port)

    @property
    def is_any_port(self) -> bool:
        """Whether the kernel chooses the port, another one each time."""
        return not self.path and self.port == 0

    @property
    def is_local(self) -> bool:
        """Whether it is 127.0.0.1, ::1 or a unix socket, which no other machine can reach."""
        return self.kind == "unix" or self.host in ("127.0.0.1", "::1")


def parse_address(text: str, *, listen: bool = False) -> Address:
    """Take an address apart: one to connect to, or one to listen on.

    | text | connect | listen |
    |---|---|---|
    | `127.0.0.1:5432`, `[::1]:5432` | yes; ports from 1 to 65535 | yes; 0.0.0.0 and [::] are every host, 0 any port |
    | `db.internal:5432` | yes; nothing is looked up here | no: a start must not depend on a resolver |
    | `unix:/run/db.sock` | yes; an absolute path of at most 107 bytes | yes, the same |
    | `systemd:echo.socket` | no | yes; the name is that of FileDescriptorName= |

    Ports are digits without a 0 in front. An address that names an interface (`fe80::1%eth0`) is refused. Of a path,
    `//`, `.` and `..` are taken away, without a look at the file system.

    In the options of a handler, `Annotated[str, Check(parse_address)]` refuses with the place in the file whatever this
    refuses, and `self.connect(parse_address(text).target)` connects to what is no name.

    Args:
        text: the address.
        listen: whether it is one to listen on.

    Raises:
        ValueError: it is no such address. The text is `WHAT IS WRONG; WHAT TO DO`, and fits on a line.
    """
    if text.startswith(UNIX):
        return Address("unix", path=_path(text.removeprefix(UNIX), listen))
    if listen and text.startswith(SYSTEMD):
        return Address("systemd", path=_systemd_name(text.removeprefix(SYSTEMD)))
    match = HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(_not_host_port(text, listen))
    port = _port(match["port"], listen)
    if match["v6"] is not None:
        return Address("ipv6", _v6(match["v6"], port, listen), port)
    host = match["host"]
    if _numeric(socket.AF_INET, host):
        return Address("ipv4", host, port)
    if not listen and NAME.fullmatch(host):
        return Address("name", host.lower(), port)
    raise ValueError(_no_host(text, host, port, listen))


def file_path(path: str) -> str | None:
    """Return the one way to write an absolute path, without //, . and .. in it; None where it names no file."""
    if not path.isprintable() or os.path.basename(path) in ("", ".", ".."):
        return None
    return os.path.normpath("/" + path.lstrip("/"))  # normpath() alone keeps two slashes in front, as POSIX may


def _numeric(family: socket.AddressFamily, host: str) -> str:
    """Return the one way to write a numeric host; empty: it is none."""
    # inet_pton() is as strict as ipaddress, and no worker needs a module for it.
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, host))
    except (OSError, ValueError):  # ValueError: a NUL, or half of a surrogate pair
        return ""


def _port(digits: str, listen: bool) -> int:
    port, lowest = int(digits), 0 if listen else 1
    if not lowest <= port <= PORT_MAX:
        what = "a port" if listen else "a port to connect to"
        raise ValueError(f"{digits} is not {what}; write {lowest} to {PORT_MAX}")
    if str(port) != digits:
        raise ValueError(f"{digits} is not a port; write {port}")
    return port


def _v6(host: str, port: int, listen: bool) -> str:
    if "%" in host:
        every = f"[::]:{port} or " if listen else ""
        raise ValueError(f"{shown(host)} names an interface; write {every}an address without %")
    number = _numeric(socket.AF_INET6, host)
    if not number:
        raise ValueError(f"{shown(host)} is not an IPv6 address; write it as in [::1]:{port}")
    return number


def _path(path: str, listen: bool) -> str:
    folder, name = ("/run/gaiod", "echo.sock") if listen else ("/run", "db.sock")
    if not path.startswith("/"):
        meant = os.path.basename(file_path(path.lstrip("@")) or name)
        raise ValueError(f"{shown(path)} is not an absolute path; write unix:{folder}/{shown(meant)}")
    file = file_path(path)
    if file is None:
        raise ValueError(f"{shown(path)} is not the path of a socket; write unix:{folder}/{name}")
    size = len(os.fsencode(file))
    if size > UNIX_PATH_MAX_BYTES:
        raise ValueError(f"the path has {size} bytes; write one of at most {UNIX_PATH_MAX_BYTES}")
    return file


def _systemd_name(name: str) -> str:
    if SYSTEMD_NAME.fullmatch(name):
        return name
    wrong = f"{shown(name)} is no name of a socket" if name else "the name is missing"
    raise ValueError(f"{wrong}; write {SYSTEMD_WANTED}")


def _no_host(text: str, host: str, port: int, listen: bool) -> str:
    """Say what is wrong with what stands before a port, and is neither a number nor a name to connect to."""
    if listen and host in ("", "*"):
        every = f"0.0.0.0:{port} or [::]:{port} for all of them"
        return f"names no address; write {every}, or 127.0.0.1:{port} for this machine alone"
    if not host:
        return f"names no host; write 127.0.0.1:{port} for this machine"
    if _numeric(socket.AF_INET6, host):
        return f"{host} needs brackets; write [{host}]:{port}"
    if not host.strip("0123456789."):
        return f"{shown(host)} is not an IPv4 address; write one such as 127.0.0.1"
    if ":" in host or host.startswith(("/", "./", "@")):
        return _not_host_port(text, listen)
    if not listen:
        return f"{shown(host)} is not the name of a host; write an address {CONNECT_EXAMPLES}"
    if NAME.fullmatch(host):
        return f"{shown(host)} is a host name; write 127.0.0.1:{port} or [::1]:{port}"
    return _not_host_port(text, listen)


def _not_host_port(text: str, listen: bool) -> str:
    """Say what is wrong with a text that is not a host and a port."""
    port, lowest, examples = (7000, 0, LISTEN_EXAMPLES) if listen else (5432, 1, CONNECT_EXAMPLES)
    bare = text.strip("[]")
    if _numeric(socket.AF_INET6, bare):
        return f"{bare} has no port; write [{bare}]:{port}"
    if _numeric(socket.AF_INET, text) or (not listen and NAME.fullmatch(text)):
        return f"{shown(text)} has no port; write {shown(text)}:{port}"
    if re.fullmatch("0|[1-9][0-9]{0,4}", text) and lowest <= int(text) <= PORT_MAX:
        return f"{text} is only a port; write 127.0.0.1:{text} or [::1]:{text}"
    if text.startswith(("/", "./", "@")):
        return f"{shown(text)} is not an address; write unix: and the absolute path of the socket"
    if "://" in text:
        return f"{shown(text)} is a URL; write only its host and port, {examples}"
    return f"{shown(text)} is not an address; write one {examples}"
