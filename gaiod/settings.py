"""The settings a daemon runs with: plain frozen data, validated before a worker ever sees them.

`gaiod.config` is where the YAML text, its units and its defaults become these; the worker receives
them from its supervisor and trusts them. Every number carries its unit in its name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

USER_TIMEOUT_MIN_S = 120.0
"""It outlasts a change of networks."""

KERNEL_GIVES_UP_S = 900.0
"""About when Linux does by itself (net.ipv4.tcp_retries2), of a peer that answers nothing."""


def default_user_timeout_s(idle_timeout_s: float) -> float | None:
    """Return the TCP_USER_TIMEOUT of a listener that names none: it must not end what its idle timeout lets live."""
    return None if idle_timeout_s > KERNEL_GIVES_UP_S else max(USER_TIMEOUT_MIN_S, idle_timeout_s)


@dataclass(frozen=True, slots=True)
class ProxyProtocolSettings:
    """Who announces its clients with a PROXY header, and how soon."""

    networks: tuple[str, ...]
    """`10.0.0.0/8`, `::1/128`; `unix:` for whoever connects to a unix socket."""
    timeout_s: float = 5.0
    """From the accept to the last byte of the header."""


@dataclass(frozen=True, slots=True)
class NetworkTable:
    """The networks of a file as ranges of addresses, in order and apart: from a bound up to the next, and so on."""

    v4: tuple[int, ...] = ()
    v6: tuple[int, ...] = ()
    unix: bool = False
    """It has `unix:`."""


FILE = "file:"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Who may connect, or may not. `str()` writes it as the file does."""

    allows: bool
    of: str
    """A network, as in `ProxyProtocolSettings`; `all`; or `file:/absolute/path`."""
    table: NetworkTable | None = None
    """What the file had when it was read last; None: it is of no file."""

    def __str__(self) -> str:
        return f"{'allow' if self.allows else 'deny'} {self.of}"


@dataclass(frozen=True, slots=True)
class PerAddressSettings:
    """What each client address may have, over all workers."""

    connections_max: int | None = None
    """At the same time; None: any number."""
    new_per_s: float | None = None
    """For long; None: any number."""
    burst: int = 1
    """At once, where `new_per_s` is given."""
    ipv6_prefix: int = 64
    """Of what counts as one address of IPv6."""
    exempt: tuple[str, ...] = ()
    """Networks, as in `ProxyProtocolSettings`, whose addresses have no limit."""


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """A certificate of a listener, and its key, both PEM as the files had them."""

    chain: str = field(repr=False)
    key: str = field(repr=False)
    names: tuple[str, ...]
    """Of the servers that it is for."""
    not_after_s: float
    """When it ends, in seconds since 1970."""
    issuer: str = ""
    """Who has issued it: `CN=Example CA,O=Example`."""
    files: tuple[str, ...] = ()
    """Where the chain and the key are."""
    serial: str = ""
    """Its number, among those of its issuer: hexadecimal."""
    fingerprint: str = ""
    """SHA-256 of it, hexadecimal."""
    ocsp: str = field(default="", repr=False)
    """What its issuer says of it, an OCSP response in base64; empty: clients are sent none."""
    ocsp_not_after_s: float = 0.0
    """When that ends, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class ClientCertificateSettings:
    """What a listener asks of its clients' certificates."""

    ca: str = field(repr=False)
    """The authorities that it believes, PEM as the file had them."""
    crl: str = field(default="", repr=False)
    """What those have revoked, PEM; empty: nobody asks."""
    are_required: bool = True
    """A client that shows none is refused."""
    depth: int | None = None
    """Most certificates between a client's and its root; None: OpenSSL's own limit."""
    files: tuple[str, ...] = ()
    """Where the authorities are, and what they have revoked."""


@dataclass(frozen=True, slots=True)
class TicketSettings:
    """The tickets with which clients resume their sessions."""

    lifetime_s: float = 86_400.0
    rotate_s: float = 43_200.0
    """How often there is a new key. A ticket is good as long as its key is one of three: at least twice as long."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """What a listener shows clients that speak TLS, and what it asks of them."""

    certificates: tuple[CertificateSettings, ...]
    """The first is for clients that name no server, or one that no certificate is for."""
    versions: tuple[str, ...] = ("1.2", "1.3")
    refuses_unknown_names: bool = False
    """A client that names no server, or one that no certificate is for, is shown none."""
    alpn: tuple[str, ...] = ()
    """Protocols that are spoken, the preferred first; none: whatever a client offers is left unanswered."""
    handshake_timeout_s: float = 10.0
    """From the accept, or the end of the PROXY header, to the end of the handshake."""
    tickets: TicketSettings | None = TicketSettings()
    """None: a client cannot resume a session."""
    accepts_truncation: bool = False
    """A stream that ends without a close_notify ended in order."""
    suites: tuple[str, ...] = ()
    """The preferred first; a version of which none is here has those that OpenSSL prefers."""
    groups: tuple[str, ...] = ()
    """For the exchange of keys, the preferred first; none: OpenSSL's own choice."""
    starts_by_handler: bool = False
    """Connections begin without TLS, until their handler calls `start_tls`; else with the first byte of the client."""
    clients: ClientCertificateSettings | None = None
    """None: they are not asked for certificates."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One listener: where it binds, which handler answers, and its limits."""

    name: str
    bind: str
    """`HOST:PORT` with a numeric host, `[V6]:PORT`, `unix:/absolute/path`, or `systemd:NAME`: a socket that
    systemd opened (socket activation)."""
    handler: str
    """The name of an entry point, `package.module:Class`, or `/absolute/file.py:Class`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The handler's own options as plain values: durations in seconds, sizes in bytes."""
    servers: tuple[str, ...] = ()
    """What metrics call the servers that the handler connects to: `Handler.servers_of`."""
    sources: tuple[str, ...] = ()
    """What metrics call the sources that feed it, `publish` first; none: its handler takes no messages."""
    inlets: tuple[tuple[str, str], ...] = ()
    """Where its sources listen: the name of a source and an address, as `bind`."""
    takes_admin_state: bool = False
    """Its handler does what an operator wants of a server: `Handler.on_admin_state`."""
    has_state: bool = False
    """Its handler can describe its connections: `Handler.state_version`."""
    buffer_limit_bytes: int | None = None
    """What the handler lets one direction of a connection hold at most: `Handler.buffer_limit_of`; None: unsaid."""
    connections_max: int = 10_000
    """Per worker; connections beyond it are closed as soon as they are accepted."""
    idle_timeout_s: float = 300.0
    backlog: int = 1024
    socket_mode: int = 0o755
    """Permissions of the file of a unix socket: who may write it may connect."""
    nodelay: bool = True
    keepalive_s: float | None = 60.0
    """Idle seconds before the first TCP keep-alive probe; None: no probes."""
    user_timeout_s: float | None = 300.0
    """How long the peer may leave what was sent unacknowledged, or take nothing; None: as long as the kernel tries.
    Where nothing is said: `default_user_timeout_s`."""
    congestion: str | None = None
    """The algorithm of TCP's congestion control; None: the system's."""
    notsent_lowat_bytes: int | None = None
    """Most bytes that the kernel takes ahead of what it has sent; None: its whole send buffer. What the handler wants
    (`Handler.notsent_lowat_of`), unless the file says it."""
    proxy_protocol: ProxyProtocolSettings | None = None
    """None: the first byte is the client's."""
    access: tuple[AccessRule, ...] | None = None
    """Who may connect: the first rule that matches decides, and whom none matches may. None: everybody may."""
    per_address: PerAddressSettings | None = None
    """None: an address may have as many connections as there are."""
    tls: TlsSettings | None = None
    """None: its clients do not speak TLS, or its handler does that."""
    handover: bool = True
    """Whether its connections may go from one worker to another, if its handler can describe them."""


@dataclass(frozen=True, slots=True)
class RecycleSettings:
    """When a worker is replaced by a fresh one, its connections drained; None: never.

    Each worker draws its own limits from 80 to 100 % of these, so that they do not all go at once.
    """

    age_s: float | None = None
    memory_bytes: int | None = None
    """Resident."""
    connections: int | None = None
    """Accepted since its start."""


@dataclass(frozen=True, slots=True)
class HandoverSettings:
    """Whether established connections go to the workers that come after, instead of draining."""

    enabled: bool = True
    timeout_s: float = 10.0
    """How long a worker may take to hand its connections over; what is left then drains."""


@dataclass(frozen=True, slots=True)
class ConnectionLogSettings:
    """Which lines about each connection are written."""

    opened: bool = False
    closed: bool = False
    moved: bool = False
    """One for each connection that another worker has handed over."""
    every_s: float | None = None
    """Also one for each open connection this often; None: not."""
    rate: int = 100
    """Lines a second, per worker; those beyond are dropped, and counted."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How and where the daemon logs."""

    format: str = "text"
    """`text`, `json` (an object a line) or `journald` (text with a priority, man 3 sd-daemon)."""
    file: str | None = None
    """An absolute path; None: standard error. A file that is renamed or removed is opened anew."""
    connections: ConnectionLogSettings = ConnectionLogSettings()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything one configuration file says."""

    listeners: tuple[ListenerSettings, ...]
    workers: int = 1
    pin_workers: bool = False
    """Each worker stays on one CPU."""
    heartbeat_timeout_s: float = 10.0
    """A worker whose loop has not completed a pass for so long is replaced."""
    slow_hook_s: float | None = 0.1
    """A hook that blocks its loop for longer is counted, and logged with its stack; None: it may."""
    connections_max: int | None = None
    """Of all workers and listeners together; None: what each listener may have."""
    drain_timeout_s: float = 30.0
    """How long connections may go on in a worker that is to end."""
    stop_grace_s: float = 0.0
    """How long new connections are still accepted after a stop was asked for, readiness being red."""
    recycle: RecycleSettings = RecycleSettings()
    handover: HandoverSettings = HandoverSettings()
    user: str | None = None
    """Who to become once everything is bound; None: stay."""
    group: str | None = None
    """None: the user's own."""
    metrics_listen: str = "127.0.0.1:9464"
    """As `ListenerSettings.bind`."""
    control_listen: str | None = "auto"
    """`unix:/absolute/path`; `auto`: where the command line looks for it; None: there is none."""
    log: LogSettings = LogSettings()


def files_in(options: Any) -> Iterator[str]:
    """Yield the paths of the files whose text a handler's options have: `gaiod.PemFile`, as plain values."""
    if isinstance(options, Mapping):
        path = options.get("path")
        if options.keys() == {"path", "text"} and isinstance(path, str) and path.startswith("/"):
            yield path
            return
        options = options.values()
    elif not isinstance(options, list | tuple):
        return
    for each in options:
        yield from files_in(each)


def settings_from(plain: Mapping[str, Any]) -> Settings:
    """Return the settings that `dataclasses.asdict` took apart, after a journey as JSON."""
    return Settings(
        **{
            **plain,
            "listeners": tuple(map(listener_settings_from, plain["listeners"])),
            "recycle": RecycleSettings(**plain["recycle"]),
            "handover": HandoverSettings(**plain["handover"]),
            "log": log_settings_from(plain["log"]),
        }
    )


def listener_settings_from(plain: Mapping[str, Any]) -> ListenerSettings:
    """Return one listener's settings, as `settings_from`."""
    announced = plain["proxy_protocol"]
    if announced is not None:
        announced = ProxyProtocolSettings(**{**announced, "networks": tuple(announced["networks"])})
    access = plain["access"]
    if access is not None:
        access = tuple(AccessRule(**{**rule, "table": network_table_from(rule["table"])}) for rule in access)
    per_address = plain["per_address"]
    if per_address is not None:
        per_address = PerAddressSettings(**{**per_address, "exempt": tuple(per_address["exempt"])})
    tls = None if plain["tls"] is None else _tls_settings_from(plain["tls"])
    lists = {
        "servers": tuple(plain["servers"]),
        "sources": tuple(plain["sources"]),
        "inlets": tuple((source, address) for source, address in plain["inlets"]),
    }
    limits = {"proxy_protocol": announced, "access": access, "per_address": per_address, "tls": tls}
    return ListenerSettings(**{**plain, **lists, **limits})


def network_table_from(plain: Mapping[str, Any] | None) -> NetworkTable | None:
    """Return the networks of a file, as `settings_from`."""
    return None if plain is None else NetworkTable(tuple(plain["v4"]), tuple(plain["v6"]), plain["unix"])


def certificate_settings_from(plain: Mapping[str, Any]) -> CertificateSettings:
    """Return a certificate, as `settings_from`."""
    return CertificateSettings(**{**plain, "names": tuple(plain["names"]), "files": tuple(plain["files"])})


def _tls_settings_from(plain: Mapping[str, Any]) -> TlsSettings:
    certificates = tuple(map(certificate_settings_from, plain["certificates"]))
    clients = plain["clients"]
    if clients is not None:
        clients = ClientCertificateSettings(**{**clients, "files": tuple(clients["files"])})
    tickets = None if plain["tickets"] is None else TicketSettings(**plain["tickets"])
    lists = {key: tuple(plain[key]) for key in ("versions", "alpn", "suites", "groups")}
    return TlsSettings(**{**plain, "certificates": certificates, "tickets": tickets, "clients": clients, **lists})


def log_settings_from(plain: Mapping[str, Any]) -> LogSettings:
    """Return the log's settings, as `settings_from`."""
    return LogSettings(**{**plain, "connections": ConnectionLogSettings(**plain["connections"])})
