"""Where sources listen, and which Redis they ask. Loopback and unix sockets only: who can connect may publish."""

import re
from urllib.parse import parse_qs, urlsplit

from .topics import shown

UNIX = "unix:"
UNIX_PATH_MAX_BYTES = 107
"""sun_path holds 108 bytes with its final NUL (unix(7))."""

PORT_MAX = 65535
HOSTS = ("127.0.0.1", "[::1]")
HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[0-9.]*):(?P<port>[0-9]{1,5})")
EXAMPLES = "127.0.0.1:7080, [::1]:7080 or unix:/run/gaiod/publish.sock"
REDIS_EXAMPLES = "redis://127.0.0.1:6379/0, rediss://HOST:PORT/DB or unix:///run/redis/redis.sock"

DATABASE = re.compile(r"(?:/[0-9]{0,5})?")
QUERY_KEYS = {
    "redis": frozenset[str](),
    "rediss": frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}),
    "unix": frozenset({"db"}),
}
"""What may stand behind the `?`: redis-py would take every argument of its client there, passwords included."""


def check_bind(text: str) -> None:
    """Refuse what is no address of this machine alone.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    if text.startswith(UNIX):
        check_unix(text)
        return
    match = HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is not an address to listen on; write one such as {EXAMPLES}")
    if not 1 <= int(match["port"]) <= PORT_MAX or match["port"].startswith("0"):
        raise ValueError(f"{match['port']} is not a port; write 1 to {PORT_MAX}")
    if match["host"] not in HOSTS:
        raise ValueError(
            f"{match['host'] or 'every address'} can be reached from other machines, and every client may publish; "
            f"write 127.0.0.1:{match['port']}, and put a server with authentication in front for other machines"
        )


def check_unix(text: str) -> None:
    """Refuse what is not `unix:` and an absolute path.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    path = text.removeprefix(UNIX)
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(
            f"{shown(path)} is not the absolute path of a socket; write one such as unix:/run/gaiod/in.sock"
        )
    if len(path.encode()) > UNIX_PATH_MAX_BYTES:
        raise ValueError(f"the path has {len(path.encode())} bytes; write one of at most {UNIX_PATH_MAX_BYTES}")


def check_redis_url(text: str) -> None:
    """Refuse what is no URL of a Redis. Nothing of it is repeated: there may be a password in it.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise ValueError(f"is not a URL; write one such as {REDIS_EXAMPLES}") from None
    if url.scheme == "unix":
        is_right = not url.netloc.rpartition("@")[2] and url.path.startswith("/")
    else:
        is_right = url.scheme in ("redis", "rediss") and bool(url.hostname) and port != 0
        is_right = is_right and DATABASE.fullmatch(url.path) is not None
    if not is_right or url.fragment or not text.isprintable():
        raise ValueError(f"is not the URL of a Redis; write one such as {REDIS_EXAMPLES}")
    unknown = parse_qs(url.query, keep_blank_values=True).keys() - QUERY_KEYS[url.scheme]
    if unknown:
        possible = ", ".join(sorted(QUERY_KEYS[url.scheme])) or "nothing"
        raise ValueError(f"has {shown(min(unknown))} behind its ?; {possible} is possible there")


def without_password(text: str) -> str:
    """Return what may be said of a Redis's URL: where it is, and which database."""
    url = urlsplit(text)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def has_password(text: str) -> bool:
    """Tell whether a Redis's URL says a password."""
    return urlsplit(text).password is not None
