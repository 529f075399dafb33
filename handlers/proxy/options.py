"""What `with:` may say: the dataclasses are its schema. config/proxy.yaml says when to change what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gaiod import Check, Unit, parse_address

from .route import DEFAULT, RouteOptions, check_pools
from .tls import ServerTls, TlsOptions

SERVERS_MAX = 256
EXPECT_MAX_BYTES = 4096
"""The most that is read of a server's answer to a check."""

POOL_MAX_CHARACTERS = 64

HEX_SHOWN_BYTES = 32
"""A longer text is not repeated in hexadecimal: who has so much has a tool for it."""

KEEPALIVE_MAX_S = 9 * 3600.0
"""Linux takes no TCP_KEEPIDLE above 32,767 s."""

AddressText = Annotated[str, Check(parse_address)]


def _pool(name: str) -> None:
    if not name.isprintable() or len(name) > POOL_MAX_CHARACTERS:
        raise ValueError(f"names no pool; write up to {POOL_MAX_CHARACTERS} printable characters")


@dataclass(frozen=True)
class ServerOptions:
    """One of `servers:`."""

    address: AddressText
    weight: Annotated[int, Unit("count", 1, 256)] = 1
    backup: bool = False
    connections_max: Literal[False] | Annotated[int, Unit("count", 1, 1_000_000)] = False
    tls: Literal[False] | TlsOptions = False
    pool: Annotated[str, Check(_pool)] = DEFAULT
    asks: ServerTls | None = field(init=False, compare=False)
    """What `tls` makes of a connection; None: it is not encrypted."""

    def __post_init__(self) -> None:
        asks = ServerTls(self.tls, parse_address(self.address)) if self.tls else None
        object.__setattr__(self, "asks", asks)


@dataclass(frozen=True)
class QueueOptions:
    """`queue:`, where clients wait for a server that takes one more."""

    length: Annotated[int, Unit("count", 0, 1_000_000)] = 1024
    timeout: Annotated[float, Unit("duration", 0.01, 3600.0)] = 5.0


ESCAPE = re.compile(r"\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2})")
"""What double quotes would have turned into one character."""


def _ascii(text: str) -> None:
    """Refuse a text of which it is not plain which bytes are meant."""
    if not text.isascii():
        wrong = next(character for character in text if not character.isascii())
        known = all(ord(character) < 256 for character in text)
        data = text.encode("latin-1" if known else "utf-8")
        shown = f"; write {data.hex(' ')}" if len(data) <= HEX_SHOWN_BYTES else ""
        raise ValueError(
            f"holds U+{ord(wrong):04X}, which is a character and not a byte; use send_hex or expect_hex{shown}"
        )
    found = ESCAPE.search(text)
    if found is not None:
        raise ValueError(
            f"holds a backslash and {found[0][1:]}, because {found[0]} means one character only in double quotes; put "
            "the text in double quotes (or use send_hex or expect_hex, if you mean a backslash)"
        )
    _few_bytes(len(text))


def _hex(text: str) -> None:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        raise ValueError("is not hexadecimal; write two digits for each byte, such as 50 49 4e 47 0d 0a") from None
    _few_bytes(len(data))


def _few_bytes(size: int) -> None:
    if size > EXPECT_MAX_BYTES:
        raise ValueError(f"has {size} bytes; write at most {EXPECT_MAX_BYTES}")


@dataclass(frozen=True)
class CheckOptions:
    """`check:`, active health checks."""

    interval: Annotated[float, Unit("duration", 0.05, 3600.0)] = 2.0
    timeout: Annotated[float, Unit("duration", 0.01, 60.0)] = 2.0
    rise: Annotated[int, Unit("count", 1, 100)] = 2
    fall: Annotated[int, Unit("count", 1, 100)] = 3
    send: Annotated[str, Check(_ascii)] = ""
    send_hex: Annotated[str, Check(_hex)] = ""
    expect: Annotated[str, Check(_ascii)] = ""
    expect_hex: Annotated[str, Check(_hex)] = ""
    send_bytes: bytes = field(init=False)
    expect_bytes: bytes = field(init=False)

    def __post_init__(self) -> None:
        for name in ("send", "expect"):
            text, digits = getattr(self, name), getattr(self, f"{name}_hex")
            if text and digits:
                raise ValueError(f"check has {name} and {name}_hex; keep one of them")
            object.__setattr__(self, f"{name}_bytes", text.encode("ascii") or bytes.fromhex(digits))


@dataclass(frozen=True)
class PassiveOptions:
    """`passive:`, what failures to connect lead to."""

    failures: Annotated[int, Unit("count", 1, 1000)] = 3
    eject: Annotated[float, Unit("duration", 0.01, 86_400.0)] = 10.0
    eject_max: Annotated[float, Unit("duration", 0.01, 86_400.0)] = 300.0
    slow_start: Annotated[float, Unit("duration", 0.0, 3600.0)] = 30.0

    def __post_init__(self) -> None:
        if self.eject_max < self.eject:
            raise ValueError("passive.eject_max is below passive.eject; write one that is not")


def _whole_seconds(seconds: float) -> None:
    if not float(seconds).is_integer():
        raise ValueError(f"is not in whole seconds, as the kernel counts them; write {max(1, int(seconds))}s")


@dataclass(frozen=True)
class TcpOptions:
    """`tcp:`, options of the sockets to the servers."""

    nodelay: bool = True
    keepalive: Literal[False] | Annotated[float, Unit("duration", 1.0, KEEPALIVE_MAX_S), Check(_whole_seconds)] = 60.0
    user_timeout: Literal[False] | Annotated[float, Unit("duration", 1.0, 3600.0)] = False
    congestion: Literal[False] | str = False
    notsent_lowat: Literal[False] | Annotated[int, Unit("size", 4096, 1 << 30)] = False


def _servers(values: Sequence[Any]) -> None:
    """Refuse none, too many, and one that is there twice. `values` are texts, or mappings as the file has them."""
    if not 1 <= len(values) <= SERVERS_MAX:
        raise ValueError(f"names {len(values)} servers; write 1 to {SERVERS_MAX}")
    texts = [value if isinstance(value, str) else value["address"] for value in values]
    seen = set()
    for text in texts:
        address = parse_address(text)
        if address in seen:
            raise ValueError(f"names {text} twice; write it once, with a weight if it is to get more")
        seen.add(address)
    if all(not isinstance(value, str) and value.get("backup", False) for value in values):
        raise ValueError("names only backups; write at least one server without backup")


@dataclass(frozen=True)
class ProxyOptions:
    """The keys of `with:`."""

    servers: Annotated[list[AddressText | ServerOptions], Check(_servers)]
    route: Literal[False] | RouteOptions = False
    balance: Literal["round_robin", "least_connections", "random_two", "source_hash"] = "round_robin"
    connect_timeout: Annotated[float, Unit("duration", 0.01, 3600.0)] = 5.0
    retries: Annotated[int, Unit("count", 0, 100)] = 2
    buffer_limit: Annotated[int, Unit("size", 4096, 256 << 10)] = 256 << 10
    half_closed_timeout: Annotated[float, Unit("duration", 0.1, 86_400.0)] = 30.0
    max_age: Annotated[float, Unit("duration", 0.1)] = 86_400.0
    queue: QueueOptions = QueueOptions()
    check: Literal[False] | CheckOptions = False
    passive: PassiveOptions = PassiveOptions()
    on_down: Literal["keep", "close"] = "keep"
    send_proxy: Literal["none", "v1", "v2"] = "none"
    resolve: Literal["optional", "required"] = "optional"
    resolve_interval: Annotated[float, Unit("duration", 1.0, 3600.0)] = 30.0
    tcp: TcpOptions = TcpOptions()
    entries: tuple[ServerOptions, ...] = field(init=False)
    """`servers`, those that are texts written out."""

    def __post_init__(self) -> None:
        entries = (each if isinstance(each, ServerOptions) else ServerOptions(each) for each in self.servers)
        object.__setattr__(self, "entries", tuple(entries))
        check_pools(self.route or None, (each.pool for each in self.entries))
