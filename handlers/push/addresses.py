"""Where sources listen, and which Redis they ask. Loopback and unix sockets only: who can connect may publish."""

import re
from urllib.parse import parse_qs, urlsplit

from gaiod import parse_address, shown

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
    address = parse_address(text, listen=True)
    if address.kind == "systemd":
        raise ValueError(
            f"{shown(text)} is for listeners; write one such as 127.0.0.1:7080, [::1]:7080 or "
            "unix:/run/gaiod/publish.sock"
        )
    if address.is_any_port:
        raise ValueError("0 is not a port; write 1 to 65535")
    if not address.is_local:
        raise ValueError(
            f"{address} can be reached from other machines, and every client may publish; write "
            f"127.0.0.1:{address.port}, and put a server with authentication in front for other machines"
        )


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
    databases = parse_qs(url.query).get("db", [])
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}" + "".join(f"?db={each}" for each in databases)


def has_password(text: str) -> bool:
    """Tell whether a Redis's URL says a password."""
    return urlsplit(text).password is not None
