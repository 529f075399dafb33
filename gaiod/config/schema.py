"""The keys of a configuration file, their limits, and what to say when they do not fit.

Here are the permitted ranges; the defaults are those of `gaiod.settings`, said once.
"""

import re
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gaiod.config.addresses import parse_bind, parse_control
from gaiod.config.crosschecks import check_together
from gaiod.config.errors import Keys, Refused, Report
from gaiod.config.networks import EXAMPLE as NETWORKS_EXAMPLE
from gaiod.config.networks import check_networks, parse_network
from gaiod.config.references import WANTED as REFERENCE_WANTED
from gaiod.config.units import DAY_S, HOUR_S, SIZE_MAX_BYTES, YEAR_S, parse_duration, parse_size, parse_whole
from gaiod.config.values import (
    none_if_false,
    parse_account,
    parse_choice,
    parse_congestion,
    parse_keepalive,
    parse_log_file,
    parse_mode,
    parse_workers,
)
from gaiod.config.words import NAMES, mismatch, unknown
from gaiod.config.yaml import Document
from gaiod.settings import ListenerSettings, ProxyProtocolSettings, Settings

LISTENER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

CONNECTIONS_MAX = 1_000_000
"""Near what Linux lets one process open: fs.nr_open is 1,048,576."""

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

WANTED = {
    "bool_type": NAMES[bool],
    "string_type": REFERENCE_WANTED,  # the handler is the only text without a validator of its own
    "dict_type": NAMES[dict],
    "model_type": NAMES[dict],
}
"""What to write, for each of pydantic's own errors; all others come from the validators here."""

DEFAULT = Settings(())
LISTENER_DEFAULT = ListenerSettings("", "", "")
PROXY_PROTOCOL_DEFAULT = ProxyProtocolSettings(())


def _listener_name(value: str) -> str:
    if LISTENER_NAME.fullmatch(value):
        return value
    raise Refused("is not a listener name; write a-z, 0-9, _ and -, a letter first, at most 63 characters")


def _some(value: object) -> object:
    if value == {}:
        raise Refused("has no listener; add one, such as echo: {bind: 127.0.0.1:7000, handler: echo}")
    return value


def _something(value: object) -> object:
    if value is None:
        raise Refused(mismatch(value, NAMES[dict]))
    return value


def _whole(minimum: int, maximum: int) -> BeforeValidator:
    return BeforeValidator(partial(parse_whole, minimum=minimum, maximum=maximum))


def _duration(minimum_s: float, maximum_s: float) -> BeforeValidator:
    return BeforeValidator(partial(parse_duration, minimum_s=minimum_s, maximum_s=maximum_s))


def _size(minimum_bytes: int, maximum_bytes: int) -> BeforeValidator:
    return BeforeValidator(partial(parse_size, minimum_bytes=minimum_bytes, maximum_bytes=maximum_bytes))


def _account(kind: str) -> BeforeValidator:
    return BeforeValidator(partial(parse_account, kind=kind))


def _or_false(kind: str, example: str, never: str = "never") -> WrapValidator:
    instead_of_true = f"is no {kind}; write one such as {example}, or false for {never}"
    return WrapValidator(partial(none_if_false, instead_of_true=instead_of_true))


Bind = Annotated[str, BeforeValidator(parse_bind)]
ListenerName = Annotated[str, BeforeValidator(_listener_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProxyProtocol(_Strict):
    """`listeners.NAME.proxy_protocol`."""

    networks: Annotated[list[Annotated[str, BeforeValidator(parse_network)]], BeforeValidator(check_networks)] = Field(
        alias="from", examples=[NETWORKS_EXAMPLE]
    )
    timeout: Annotated[float, _duration(0.1, 60.0)] = PROXY_PROTOCOL_DEFAULT.timeout_s


class Listener(_Strict):
    """`listeners.NAME`. An example says what to add where a key is missing."""

    bind: Bind = Field(examples=["127.0.0.1:7000"])
    handler: str = Field(examples=["echo"])
    options: dict[str, Any] = Field(default={}, alias="with")
    connections_max: Annotated[int, _whole(1, CONNECTIONS_MAX)] = LISTENER_DEFAULT.connections_max
    idle_timeout: Annotated[float, _duration(0.01, DAY_S)] = LISTENER_DEFAULT.idle_timeout_s
    backlog: Annotated[int, _whole(1, BACKLOG_MAX)] = LISTENER_DEFAULT.backlog
    socket_mode: Annotated[int, BeforeValidator(parse_mode)] = LISTENER_DEFAULT.socket_mode
    nodelay: bool = LISTENER_DEFAULT.nodelay
    keepalive: Annotated[float | None, BeforeValidator(parse_keepalive), _or_false("duration", "60s", "no probes")] = (
        LISTENER_DEFAULT.keepalive_s
    )
    user_timeout: Annotated[float | None, _duration(1.0, HOUR_S), _or_false("duration", "2m", "the kernel's own")] = (
        LISTENER_DEFAULT.user_timeout_s
    )
    congestion: Annotated[str | None, BeforeValidator(parse_congestion), _or_false("name", "bbr", "the system's")] = (
        LISTENER_DEFAULT.congestion
    )
    notsent_lowat: Annotated[
        int | None, _size(NOTSENT_LOWAT_MIN_BYTES, NOTSENT_LOWAT_MAX_BYTES), _or_false("size", "128KiB", "no limit")
    ] = LISTENER_DEFAULT.notsent_lowat_bytes
    proxy_protocol: Annotated[
        ProxyProtocol | None,
        BeforeValidator(_something),
        _or_false("mapping", f"{{from: {NETWORKS_EXAMPLE}}}", "no header"),
    ] = None


LISTENER_KEYS = tuple(field.alias or name for name, field in Listener.model_fields.items())
"""What may stand beside a listener's `with:`."""


class Recycle(_Strict):
    """`recycle`."""

    age: Annotated[float | None, _duration(1.0, YEAR_S), _or_false("duration", "7d")] = DEFAULT.recycle.age_s
    memory: Annotated[int | None, _size(RECYCLE_MEMORY_MIN_BYTES, SIZE_MAX_BYTES), _or_false("size", "512MiB")] = (
        DEFAULT.recycle.memory_bytes
    )
    connections: Annotated[int | None, _whole(1, RECYCLE_CONNECTIONS_MAX), _or_false("whole number", "1000000")] = (
        DEFAULT.recycle.connections
    )


class Metrics(_Strict):
    """`metrics`."""

    listen: Bind = DEFAULT.metrics_listen


class Control(_Strict):
    """`control`."""

    listen: Annotated[
        str | None, BeforeValidator(parse_control), _or_false("address", "unix:/run/gaiod/control.sock", "none")
    ] = DEFAULT.control_listen


class ConnectionLog(_Strict):
    """`log.connections`."""

    open: bool = DEFAULT.log.connections.opened
    close: bool = DEFAULT.log.connections.closed
    every: Annotated[float | None, _duration(1.0, DAY_S), _or_false("duration", "1m")] = DEFAULT.log.connections.every_s
    rate: Annotated[int, _whole(1, LOG_RATE_MAX)] = DEFAULT.log.connections.rate


class Log(_Strict):
    """`log`."""

    format: Annotated[str, BeforeValidator(partial(parse_choice, names=LOG_FORMATS))] = DEFAULT.log.format
    file: Annotated[str | None, BeforeValidator(parse_log_file)] = DEFAULT.log.file
    connections: ConnectionLog = ConnectionLog()


class Config(_Strict):
    """The whole file."""

    workers: Annotated[int, BeforeValidator(parse_workers)] = DEFAULT.workers
    pin_workers: bool = DEFAULT.pin_workers
    heartbeat_timeout: Annotated[float, _duration(0.5, HOUR_S)] = DEFAULT.heartbeat_timeout_s
    slow_hook: Annotated[float | None, _duration(SLOW_HOOK_MIN_S, HOUR_S), _or_false("duration", "100ms")] = (
        DEFAULT.slow_hook_s
    )
    drain_timeout: Annotated[float, _duration(0.0, DAY_S)] = DEFAULT.drain_timeout_s
    stop_grace: Annotated[float, _duration(0.0, HOUR_S)] = DEFAULT.stop_grace_s
    recycle: Recycle = Recycle()
    user: Annotated[str | None, _account("user"), _or_false("name", "gaiod", "who starts it")] = DEFAULT.user
    group: Annotated[str | None, _account("group"), _or_false("name", "gaiod", "the user's")] = DEFAULT.group
    metrics: Metrics = Metrics()
    control: Control = Control()
    log: Log = Log()
    listeners: Annotated[dict[ListenerName, Listener], BeforeValidator(_some)] = Field(
        examples=["{echo: {bind: 127.0.0.1:7000, handler: echo}}"]
    )


SECTIONS: dict[Keys, type[_Strict]] = {
    (): Config,
    ("recycle",): Recycle,
    ("metrics",): Metrics,
    ("control",): Control,
    ("log",): Log,
    ("log", "connections"): ConnectionLog,
}
"""What may stand in each mapping of the file; every other one with fixed keys is a listener, or within one."""


def check_schema(document: Document, report: Report) -> Config | None:
    """Return what the document says; None where something does not fit, which goes into `report`."""
    check_together(document, report)
    try:
        return Config.model_validate(document.value)
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False):
            _report(error, document, report)
        return None


def _report(error: ErrorDetails, document: Document, report: Report) -> None:
    keys, kind = error["loc"], error["type"]
    if kind == "missing":
        if keys[:-1] not in document.incomplete:
            example = (_fields_at(keys[:-1])[str(keys[-1])].examples or [""])[0]
            report.add(document.place_of_key(keys[:-1]), keys, f"missing; add {keys[-1]}: {example}")
    elif kind == "extra_forbidden":
        report.add(document.place_of_key(keys), keys, unknown(str(keys[-1]), list(_fields_at(keys[:-1]))))
    elif keys and keys[-1] == "[key]":
        report.add(document.place_of_key(keys[:-1]), keys[:-1], str(error["ctx"]["error"]))
    elif keys not in document.refused and keys not in document.incomplete:
        report.add(document.place_of(keys), keys, _words(error))


def _words(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    wrong = mismatch(error["input"], WANTED[error["type"]])
    return wrong if error["loc"] else f"the file {wrong}"


def _fields_at(keys: Keys) -> dict[str, FieldInfo]:
    """Return the keys that may stand in the mapping at `keys`."""
    model = SECTIONS.get(keys) or (Listener if len(keys) == len(("listeners", "NAME")) else ProxyProtocol)
    return {field.alias or name: field for name, field in model.model_fields.items()}
