"""Where to listen: `127.0.0.1:7000`, `[::1]:7000`, `unix:/run/gaiod/echo.sock` or `systemd:echo.socket`.

Addresses are numeric. A name would be looked up at start, may have several answers, and would make the
start depend on a resolver: the one who writes the file knows which address is meant.
"""

import os
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from gaiod.config.errors import Refused
from gaiod.config.words import mismatch, shown

AUTO = "auto"
UNIX = "unix:"
SYSTEMD = "systemd:"
UNIX_PATH_MAX_BYTES = 107
"""sun_path holds 108 bytes with its final NUL: unix(7)."""

PORT_MAX = 65535
EXAMPLES = "such as 127.0.0.1:7000, [::1]:7000 or unix:/run/gaiod/echo.sock"

# What systemd takes in FileDescriptorName= (systemd.socket(5)), less what needs quotes somewhere in YAML.
SYSTEMD_NAME = re.compile(r"(?:(?![:,\[\]{}])[!-~]){1,255}")
SYSTEMD_WANTED = "that of FileDescriptorName=, 1 to 255 visible ASCII characters without : , [ ] { }"

CONTROL_WANTED = "auto, false, or one such as unix:/run/gaiod/control.sock"

HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]]*)):(?P<port>[0-9]{1,9})")


def parse_bind(value: object) -> str:
    """Return the one way to write the address that `value` names.

    Two texts for the same address (`[::1]:80`, `[0:0::1]:80`) give equal results. Port 0 is any free port.

    Raises:
        Refused: it is not an address to listen on.
    """
    if not isinstance(value, str):
        raise Refused(_wrong_kind(value))
    if value.startswith(UNIX):
        return UNIX + _unix_path(value.removeprefix(UNIX))
    if value.startswith(SYSTEMD):
        return SYSTEMD + _systemd_name(value.removeprefix(SYSTEMD))
    match = HOST_PORT.fullmatch(value)
    if match is None:
        raise Refused(_not_host_port(value))
    port = int(match["port"])
    if port > PORT_MAX:
        raise Refused(f"{port} is not a port; write 0 to {PORT_MAX}")
    if str(port) != match["port"]:
        raise Refused(f"{match['port']} is not a port; write {port}")
    host = _v4(match["host"], port) if match["v6"] is None else f"[{_v6(match['v6'], port)}]"
    return f"{host}:{port}"


def parse_control(value: object) -> str:
    """Return where commands are taken: `auto`, or a unix socket.

    Raises:
        Refused: it is neither. Whoever can connect may command, so a TCP port will not do.
    """
    if value == AUTO:
        return AUTO
    if not isinstance(value, str):
        raise Refused(mismatch(value, CONTROL_WANTED))
    if not value.startswith(UNIX):
        text = shown(value) or '""'
        raise Refused(f"{text} is not a unix socket; write {CONTROL_WANTED}")
    return parse_bind(value)


def is_any_port(bind: str) -> bool:
    """Tell whether it names no port: the kernel then chooses a different one each time."""
    return bind.endswith(":0") and not bind.startswith((UNIX, SYSTEMD))


def file_path(path: str) -> str | None:
    """Return the one way to write an absolute path, without //, . and .. in it; None where it names no file."""
    if not path.isprintable() or os.path.basename(path) in ("", ".", ".."):
        return None
    return os.path.normpath("/" + path.lstrip("/"))  # normpath() alone keeps two slashes in front, as POSIX may


def _wrong_kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= PORT_MAX:
        return f"is only a port; write 127.0.0.1:{value} or [::1]:{value}"
    return mismatch(value, f"an address {EXAMPLES}")


def _not_host_port(value: str) -> str:
    text = shown(value) or '""'
    if _is_address(IPv4Address, value):
        return f"{text} has no port; write {text}:7000"
    if _is_address(IPv6Address, value.strip("[]")):
        return f"{text} has no port; write [{text.strip('[]')}]:7000"
    if value.startswith(("/", "./", "@")):
        return f"{text} is not an address; write unix: and the absolute path of the socket"
    return f"{text} is not an address; write one {EXAMPLES}"


def _is_address(kind: type[IPv4Address] | type[IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    return True


def _v4(host: str, port: int) -> str:
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        pass
    if host in ("", "*"):
        raise Refused(f"names no address; write 0.0.0.0:{port} or [::]:{port} for all of them")
    if _is_address(IPv6Address, host):
        raise Refused(f"{host} needs brackets; write [{host}]:{port}")
    if ":" in host:
        raise Refused(_not_host_port(f"{host}:{port}"))
    if not host.strip("0123456789."):
        raise Refused(f"{shown(host)} is not an IPv4 address; write one such as 127.0.0.1")
    raise Refused(f"{shown(host)} is a host name; write 127.0.0.1:{port} or [::1]:{port}")


def _v6(host: str, port: int) -> str:
    if "%" in host:
        raise Refused(f"{shown(host)} names an interface; write [::]:{port} or an address without %")
    try:
        return str(IPv6Address(host))
    except AddressValueError:
        raise Refused(f"{shown(host)} is not an IPv6 address; write it as in [::1]:{port}") from None


def _unix_path(path: str) -> str:
    if not path.startswith("/"):
        example = os.path.basename(path).lstrip("@") or "echo.sock"
        raise Refused(f"{shown(path)} is not an absolute path; write unix:/run/gaiod/{shown(example)}")
    file = file_path(path)
    if file is None:
        raise Refused(f"{shown(path)} is not the path of a socket; write unix:/run/gaiod/echo.sock")
    size = len(os.fsencode(file))
    if size > UNIX_PATH_MAX_BYTES:
        raise Refused(f"the path has {size} bytes; write one of at most {UNIX_PATH_MAX_BYTES}")
    return file


def _systemd_name(name: str) -> str:
    if SYSTEMD_NAME.fullmatch(name):
        return name
    wrong = f"{shown(name)} is no name of a socket" if name else "the name is missing"
    raise Refused(f"{wrong}; write {SYSTEMD_WANTED}")
