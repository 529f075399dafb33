"""The keys of a configuration file: the field of the settings that each fills, and what it takes.

Here are the permitted ranges. The defaults are those of `gaiod.settings`: a key that is not given fills nothing.
"""

import re
from functools import partial
from typing import Any, Final

from gaiod.config.addresses import parse_bind, parse_control
from gaiod.config.admission.access import EXAMPLE as ACCESS_EXAMPLE
from gaiod.config.admission.access import check_order, check_rules, parse_rule
from gaiod.config.admission.per_address import BURST_MAX, RATE_MAX, check_exempt, per_address_of
from gaiod.config.admission.per_address import EXAMPLE as PER_ADDRESS_EXAMPLE
from gaiod.config.crosschecks import check_together
from gaiod.config.errors import Refused, Report
from gaiod.config.networks import EXAMPLE as NETWORKS_EXAMPLE
from gaiod.config.networks import check_networks, parse_network
from gaiod.config.reader import Checked, Chosen, Items, Key, Kind, Named, Reader, Section, Value, a_mapping, of_type
from gaiod.config.references import WANTED as REFERENCE_WANTED
from gaiod.config.tls.certificates import EXAMPLE as CERTIFICATES_EXAMPLE
from gaiod.config.tls.certificates import certificate_of, check_certificates, parse_chain, parse_key
from gaiod.config.tls.clients import EXAMPLE as CLIENTS_EXAMPLE
from gaiod.config.tls.clients import clients_of, parse_ca, parse_crl, parse_depth, parse_verify
from gaiod.config.tls.cryptography import parse_groups, parse_suites
from gaiod.config.tls.ocsp import parse_ocsp
from gaiod.config.tls.openssl import check_tls
from gaiod.config.tls.tickets import check_tickets
from gaiod.config.units import (
    DAY_S,
    HOUR_S,
    SIZE_MAX_BYTES,
    YEAR_S,
    parse_duration,
    parse_rate,
    parse_size,
    parse_whole,
)
from gaiod.config.values import (
    parse_account,
    parse_alpn,
    parse_choice,
    parse_congestion,
    parse_keepalive,
    parse_log_file,
    parse_mode,
    parse_tls_start,
    parse_tls_versions,
    parse_truncation,
    parse_unknown_name,
    parse_workers,
)
from gaiod.config.yaml import Document
from gaiod.settings import (
    ConnectionLogSettings,
    HandoverSettings,
    LogSettings,
    ProxyProtocolSettings,
    RecycleSettings,
    TicketSettings,
    TlsSettings,
)

LISTENER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

CONNECTIONS_MAX = 1_000_000
"""Near what Linux lets one process open: fs.nr_open is 1,048,576."""

IPV6_PREFIX_MIN, IPV6_PREFIX_MAX = 32, 128
"""From what a provider has to what an interface has: a client has a /64, or a /56 or /48."""

TOTAL_MAX = 1_000_000_000
"""Of 1024 workers with as many as one can have."""

BACKLOG_MAX = 65_535
"""The kernel caps it at net.core.somaxconn, 4096 by default: listen(2)."""

NOTSENT_LOWAT_MIN_BYTES, NOTSENT_LOWAT_MAX_BYTES = 4096, 1 << 30
"""Below a few packets the line runs dry between two wake-ups; the kernel's own send buffers end far below the other."""

SLOW_HOOK_MIN_S = 0.02
"""Hooks are timed by the kernel's tick, which is 1 to 10 ms."""

RECYCLE_MEMORY_MIN_BYTES = 32 << 20
"""What a worker has before its first connection (15.7 MB, CPython 3.11): less would replace it for ever."""

RECYCLE_CONNECTIONS_MAX = 10**12
"""A year of 30,000 a second: more is a slip of the keyboard."""

LOG_FORMATS = ("text", "json", "journald")

LOG_RATE_MAX = 100_000
"""Beyond it a worker does nothing but log."""

ONLY_NONE: Final = Value(lambda _: None)


def _listener_name(text: str) -> None:
    if not LISTENER_NAME.fullmatch(text):
        raise Refused("is not a listener name; write a-z, 0-9, _ and -, a letter first, at most 63 characters")


def _some_listeners(value: Any) -> Any:
    if value == {}:
        raise Refused("has no listener; add one, such as echo: {bind: 127.0.0.1:7000, handler: echo}")
    return a_mapping(value)


def _whole(minimum: int, maximum: int) -> Value:
    return Value(partial(parse_whole, minimum=minimum, maximum=maximum))


def _rate(maximum_per_s: int) -> Value:
    return Value(partial(parse_rate, maximum_per_s=maximum_per_s))


def _duration(minimum_s: float, maximum_s: float) -> Value:
    return Value(partial(parse_duration, minimum_s=minimum_s, maximum_s=maximum_s))


def _size(minimum_bytes: int, maximum_bytes: int) -> Value:
    return Value(partial(parse_size, minimum_bytes=minimum_bytes, maximum_bytes=maximum_bytes))


def _account(kind: str) -> Value:
    return Value(partial(parse_account, kind=kind))


def _or_false(kind: Kind, noun: str, example: str, never: str = "never") -> Chosen:
    """Return what takes false for None, and does not take true, which is half an answer."""

    def choose(value: Any) -> Kind:
        if value is True:
            raise Refused(f"is no {noun}; write one such as {example}, or false for {never}")
        return ONLY_NONE if value is False else kind

    return Chosen(choose)


BOOL = Value(partial(of_type, kind=bool))
BIND = Value(parse_bind)
HANDLER = Value(partial(of_type, kind=str, wanted=REFERENCE_WANTED))
OPTIONS = Value(a_mapping)
"""The handler says what may be in it: `options`."""
NETWORKS = Items(Value(parse_network), check_networks, tuple)
UNIX_SOCKET = "unix:/run/gaiod/control.sock"

PROXY_PROTOCOL = Section(
    {
        "from": Key("networks", NETWORKS, example=NETWORKS_EXAMPLE),
        "timeout": Key("timeout_s", _duration(0.1, 60.0)),
    },
    ProxyProtocolSettings,
)

ACCESS = Checked(Items(Value(parse_rule), check_rules, tuple), (check_order,))

PER_ADDRESS = Section(
    {
        "connections_max": Key("connections_max", _whole(1, CONNECTIONS_MAX)),
        "new": Key("new_per_s", _rate(RATE_MAX)),
        "burst": Key("burst", _whole(1, BURST_MAX)),
        "ipv6_prefix": Key("ipv6_prefix", _whole(IPV6_PREFIX_MIN, IPV6_PREFIX_MAX)),
        "exempt": Key("exempt", Items(Value(parse_network), check_exempt, tuple)),
    },
    per_address_of,
)

TICKET_TIME = _duration(1.0, 7 * DAY_S)
"""The upper end is TLS 1.3's (RFC 8446, 4.6.1)."""

CERTIFICATE = Section(
    {
        "chain": Key("chain", Value(parse_chain), example="/etc/gaiod/app.pem"),
        "key": Key("key", Value(parse_key), example="/etc/gaiod/app.key"),
        "ocsp": Key("ocsp", Value(parse_ocsp)),
    },
    certificate_of,
)

TICKETS = Checked(
    Section({"lifetime": Key("lifetime_s", TICKET_TIME), "rotate": Key("rotate_s", TICKET_TIME)}, TicketSettings),
    (check_tickets,),
)

CLIENTS = Section(
    {
        "ca": Key("ca", Value(parse_ca), example="/etc/gaiod/clients-ca.pem"),
        "crl": Key("crl", Value(parse_crl)),
        "verify": Key("are_required", Value(parse_verify)),
        "depth": Key("depth", Value(parse_depth)),
    },
    clients_of,
)

TLS = Section(
    {
        "certificates": Key(
            "certificates", Items(CERTIFICATE, check_certificates, tuple), example=CERTIFICATES_EXAMPLE
        ),
        "start": Key("starts_by_handler", Value(parse_tls_start)),
        "versions": Key("versions", Value(parse_tls_versions)),
        "suites": Key("suites", Value(parse_suites)),
        "groups": Key("groups", Value(parse_groups)),
        "unknown_name": Key("refuses_unknown_names", Value(parse_unknown_name)),
        "alpn": Key("alpn", Value(parse_alpn)),
        "handshake_timeout": Key("handshake_timeout_s", _duration(0.1, 60.0)),
        "tickets": Key("tickets", _or_false(TICKETS, "mapping", "{lifetime: 24h, rotate: 12h}", "none")),
        "truncation": Key("accepts_truncation", Value(parse_truncation)),
        "clients": Key("clients", _or_false(CLIENTS, "mapping", CLIENTS_EXAMPLE, "none")),
    },
    TlsSettings,
)

LISTENER = Section(
    {
        "bind": Key("bind", BIND, example="127.0.0.1:7000"),
        "handler": Key("handler", HANDLER, example="echo"),
        "with": Key("options", OPTIONS),
        "connections_max": Key("connections_max", _whole(1, CONNECTIONS_MAX)),
        "idle_timeout": Key("idle_timeout_s", _duration(0.01, DAY_S)),
        "backlog": Key("backlog", _whole(1, BACKLOG_MAX)),
        "socket_mode": Key("socket_mode", Value(parse_mode)),
        "nodelay": Key("nodelay", BOOL),
        "keepalive": Key("keepalive_s", _or_false(Value(parse_keepalive), "duration", "60s", "no probes")),
        "user_timeout": Key("user_timeout_s", _or_false(_duration(1.0, HOUR_S), "duration", "2m", "the kernel's own")),
        "congestion": Key("congestion", _or_false(Value(parse_congestion), "name", "bbr", "the system's")),
        "notsent_lowat": Key(
            "notsent_lowat_bytes",
            _or_false(_size(NOTSENT_LOWAT_MIN_BYTES, NOTSENT_LOWAT_MAX_BYTES), "size", "128KiB", "no limit"),
        ),
        "proxy_protocol": Key(
            "proxy_protocol", _or_false(PROXY_PROTOCOL, "mapping", f"{{from: {NETWORKS_EXAMPLE}}}", "no header")
        ),
        "access": Key("access", _or_false(ACCESS, "list of rules", ACCESS_EXAMPLE, "everybody")),
        "per_address": Key("per_address", _or_false(PER_ADDRESS, "mapping", PER_ADDRESS_EXAMPLE, "no limit")),
        "tls": Key(
            "tls", _or_false(Checked(TLS, (check_tls,)), "mapping", f"{{certificates: {CERTIFICATES_EXAMPLE}}}", "none")
        ),
        "handover": Key("handover", BOOL),
    }
)

RECYCLE = Section(
    {
        "age": Key("age_s", _or_false(_duration(1.0, YEAR_S), "duration", "7d")),
        "memory": Key("memory_bytes", _or_false(_size(RECYCLE_MEMORY_MIN_BYTES, SIZE_MAX_BYTES), "size", "512MiB")),
        "connections": Key("connections", _or_false(_whole(1, RECYCLE_CONNECTIONS_MAX), "whole number", "1000000")),
    },
    RecycleSettings,
)

HANDOVER = Section(
    {"enabled": Key("enabled", BOOL), "timeout": Key("timeout_s", _duration(0.1, HOUR_S))}, HandoverSettings
)

METRICS = Section({"listen": Key("metrics_listen", BIND)})

CONTROL = Section({"listen": Key("control_listen", _or_false(Value(parse_control), "address", UNIX_SOCKET, "none"))})

LOG_CONNECTIONS = Section(
    {
        "open": Key("opened", BOOL),
        "close": Key("closed", BOOL),
        "move": Key("moved", BOOL),
        "every": Key("every_s", _or_false(_duration(1.0, DAY_S), "duration", "1m")),
        "rate": Key("rate", _whole(1, LOG_RATE_MAX)),
    },
    ConnectionLogSettings,
)

LOG = Section(
    {
        "format": Key("format", Value(partial(parse_choice, names=LOG_FORMATS))),
        "file": Key("file", Value(parse_log_file)),
        "connections": Key("connections", LOG_CONNECTIONS),
    },
    LogSettings,
)

CONFIG = Section(
    {
        "workers": Key("workers", Value(parse_workers)),
        "pin_workers": Key("pin_workers", BOOL),
        "heartbeat_timeout": Key("heartbeat_timeout_s", _duration(0.5, HOUR_S)),
        "slow_hook": Key("slow_hook_s", _or_false(_duration(SLOW_HOOK_MIN_S, HOUR_S), "duration", "100ms")),
        "connections_max": Key(
            "connections_max", _or_false(_whole(1, TOTAL_MAX), "whole number", "50000", "what each listener may have")
        ),
        "drain_timeout": Key("drain_timeout_s", _duration(0.0, DAY_S)),
        "stop_grace": Key("stop_grace_s", _duration(0.0, HOUR_S)),
        "recycle": Key("recycle", RECYCLE),
        "handover": Key("handover", HANDOVER),
        "user": Key("user", _or_false(_account("user"), "name", "gaiod", "who starts it")),
        "group": Key("group", _or_false(_account("group"), "name", "gaiod", "the user's")),
        "metrics": Key("", METRICS),
        "control": Key("", CONTROL),
        "log": Key("log", LOG),
        "listeners": Key(
            "listeners",
            Named(LISTENER, _some_listeners, _listener_name),
            example="{echo: {bind: 127.0.0.1:7000, handler: echo}}",
        ),
    }
)
"""The whole file."""


def check_schema(document: Document, report: Report) -> dict[str, Any] | None:
    """Return the fields of Settings that the document gives; those of a listener as a dict, by its name.

    Returns None where something does not fit, which goes into `report`.
    """
    check_together(document, report)
    given: dict[str, Any] | None = Reader(document, report).read(CONFIG, document.value, ())
    return given
