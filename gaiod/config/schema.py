"""The keys of a configuration file, their limits, and what to say when they do not fit.

Here are the permitted ranges; the defaults are those of `gaiod.runtime.settings`, said once.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from gaiod.config.addresses import UNIX, parse_bind
from gaiod.config.errors import Keys, Refused, Report, dotted
from gaiod.config.references import WANTED as REFERENCE_WANTED
from gaiod.config.units import DAY_S, parse_duration, parse_whole
from gaiod.config.words import NAMES, mismatch, unknown
from gaiod.config.yaml import Document
from gaiod.runtime.settings import ListenerSettings, Settings

LISTENER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

WORKERS_MAX = 1024
"""More than the CPUs of the machines this runs on."""

CONNECTIONS_MAX = 1_000_000
"""Near what Linux lets one process open: fs.nr_open is 1,048,576."""

BACKLOG_MAX = 65_535
"""The kernel caps it at net.core.somaxconn, 4096 by default: listen(2)."""

WANTED = {
    "bool_type": NAMES[bool],
    "string_type": REFERENCE_WANTED,  # the handler is the only text without a validator of its own
    "dict_type": NAMES[dict],
    "model_type": NAMES[dict],
}
"""What to write, for each of pydantic's own errors; all others come from the validators here."""

METRICS_LISTEN: Keys = ("metrics", "listen")

DEFAULTS: dict[str, Any] = {
    field.name: field.default for kind in (Settings, ListenerSettings) for field in fields(kind)
}


def usable_cpus() -> int:
    """Return how many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _workers(value: object) -> int:
    if value == "auto":
        return min(usable_cpus(), WORKERS_MAX)
    return parse_whole(value, 1, WORKERS_MAX, wanted=f"auto, or a whole number from 1 to {WORKERS_MAX}")


def _keepalive(value: object) -> float | None:
    if value is False:
        return None
    if isinstance(value, bool):
        raise Refused("is no duration; write one such as 60s, or false for no probes")
    seconds = parse_duration(value, 1.0, DAY_S)
    if not seconds.is_integer():
        raise Refused(f"{value} is not in whole seconds, as the kernel counts them; write {int(seconds)}s")
    return seconds


def _listener_name(value: str) -> str:
    if LISTENER_NAME.fullmatch(value):
        return value
    raise Refused("is no listener name; write a-z, 0-9, _ and -, a letter first, at most 63 characters")


def _some(value: object) -> object:
    if value == {}:
        raise Refused("has no listener; add one, such as echo: {bind: 127.0.0.1:7000, handler: echo}")
    return value


def _whole(minimum: int, maximum: int) -> BeforeValidator:
    return BeforeValidator(partial(parse_whole, minimum=minimum, maximum=maximum))


def _duration(minimum_s: float, maximum_s: float) -> BeforeValidator:
    return BeforeValidator(partial(parse_duration, minimum_s=minimum_s, maximum_s=maximum_s))


Bind = Annotated[str, BeforeValidator(parse_bind)]
ListenerName = Annotated[str, BeforeValidator(_listener_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Listener(_Strict):
    """`listeners.NAME`. An example says what to add where a key is missing."""

    bind: Bind = Field(examples=["127.0.0.1:7000"])
    handler: str = Field(examples=["echo"])
    options: dict[str, Any] = Field(default={}, alias="with")
    connections_max: Annotated[int, _whole(1, CONNECTIONS_MAX)] = DEFAULTS["connections_max"]
    idle_timeout: Annotated[float, _duration(0.01, DAY_S)] = DEFAULTS["idle_timeout_s"]
    backlog: Annotated[int, _whole(1, BACKLOG_MAX)] = DEFAULTS["backlog"]
    nodelay: bool = DEFAULTS["nodelay"]
    keepalive: Annotated[float | None, BeforeValidator(_keepalive)] = DEFAULTS["keepalive_s"]


class Metrics(_Strict):
    """`metrics`."""

    listen: Bind = DEFAULTS["metrics_listen"]


class Config(_Strict):
    """The whole file."""

    workers: Annotated[int, BeforeValidator(_workers)] = DEFAULTS["workers"]
    metrics: Metrics = Metrics()
    listeners: Annotated[dict[ListenerName, Listener], BeforeValidator(_some)] = Field(
        examples=["{echo: {bind: 127.0.0.1:7000, handler: echo}}"]
    )


def check_schema(document: Document, report: Report) -> Config | None:
    """Return what the document says; None where something does not fit, which goes into `report`."""
    _check_binds(document, report)
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
    models: dict[Keys, type[_Strict]] = {(): Config, ("metrics",): Metrics}
    model = models.get(keys, Listener)
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _check_binds(document: Document, report: Report) -> None:
    given = sorted(_binds(document.value), key=lambda bind: document.place_of(bind[0]))
    taken: dict[str, Keys] = {}
    if METRICS_LISTEN not in dict(given):
        taken[DEFAULTS["metrics_listen"]] = METRICS_LISTEN
    for keys, value in given:
        try:
            bind = parse_bind(value)
        except Refused:
            continue
        if bind.endswith(":0") and not bind.startswith(UNIX):
            continue  # any free port: a different one each time
        first = taken.setdefault(bind, keys)
        if first != keys:
            where = dotted(first) if first in document.values else f"{dotted(first)} (by default)"
            report.add(document.place_of(keys), keys, f"is the address of {where} too; write another")


def _binds(config: object) -> Iterator[tuple[Keys, object]]:
    match config:
        case {"metrics": {"listen": value}}:
            yield METRICS_LISTEN, value
    match config:
        case {"listeners": dict(listeners)}:
            for name, listener in listeners.items():
                match listener:
                    case {"bind": value}:
                        yield ("listeners", name, "bind"), value
